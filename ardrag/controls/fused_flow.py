"""Flow fused into every block, as Tora has it (arXiv 2407.21705): adaptive norms from motion patches.

Kept: the tracks' flow under a narrow Gaussian, coloured as flow pictures are, encoded by a 3-D VAE to motion patches;
in front of every block ``x + scale * x + shift``, both from the patch at the same place, from layers that begin at
zero. Left out: Tora's own motion VAE (the video VAE encodes the coloured flow here) and its two training stages.

`attach_fuser` changes a transformer so: its motion slot no longer joins the input, but has an embedding of its own,
whose tokens travel beside the hidden states. With the fresh, zero layers the transformer ignores its control.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ardrag.block import CausalWanTransformerBlock
from ardrag.controls.flow import Flow


HUES = (0.0, 2 * math.pi / 3, 4 * math.pi / 3)
"""Directions in which red, green and blue are full."""


@dataclass(frozen=True)
class FusedFlow(Flow):
    """See the module. The Gaussian is Tora's, 10 px at 720x480."""

    name: ClassVar[str] = "fused_flow"
    about: ClassVar[str] = "Tracks are shown as flow, fused into every block (`control: fused_flow`)."
    spread: float = 0.017

    def coloured(self, field: Tensor) -> Tensor:
        """White where nothing moves; elsewhere the direction's colour, the stronger the faster."""
        length = field.square().sum(1).sqrt()
        angle = torch.atan2(field[:, 1], field[:, 0])
        channels = [1 - length.clamp(max=1) * (1 - torch.cos(angle - hue)) for hue in HUES]
        return torch.stack(channels)

    def module(self) -> dict[str, Any]:
        """See `Control`."""
        return {"name": self.name}


class FusedPatchEmbedding(nn.Conv3d):
    """Tokens of all slots but motion, and those of motion beside them: ``[B, 2 D, F, h, w]``."""

    def __init__(self, layout: Mapping[str, int], dim: int, patch_size: tuple[int, int, int]) -> None:
        super().__init__(sum(layout.values()) - layout["motion"], dim, patch_size, patch_size)
        self.motion = nn.Conv3d(layout["motion"], dim, patch_size, patch_size)
        self._widths, self._place = list(layout.values()), list(layout).index("motion")

    def forward(self, hidden_states: Tensor) -> Tensor:
        """``hidden_states [B, C, F, H, W]`` with all slots."""
        parts = list(hidden_states.split(self._widths, dim=1))
        motion = self.motion(parts.pop(self._place))
        return torch.cat([super().forward(torch.cat(parts, dim=1)), motion], dim=1)


class FusedBlock(CausalWanTransformerBlock):
    """A block in front of which motion tokens scale and shift the hidden states."""

    fuse: nn.Linear
    passes_on: bool

    def forward(self, hidden_states: Tensor, *rest: Any) -> Tensor:
        """``hidden_states [B, tokens, 2 D]``, the second half motion; the last block keeps that for itself."""
        states, motion = hidden_states.chunk(2, dim=2)
        scale, shift = self.fuse(motion).chunk(2, dim=2)
        states = super().forward(states + states * scale + shift, *rest)
        return torch.cat([states, motion], dim=2) if self.passes_on else states


def attach_fuser(transformer: Any) -> None:
    """Change a transformer with a slot ``motion`` into one that fuses it into every block, in place."""
    config = transformer.config
    dim = config.num_attention_heads * config.attention_head_dim
    transformer.patch_embedding = FusedPatchEmbedding(config.input_layout, dim, tuple(config.patch_size))
    for block in transformer.blocks:
        block.__class__ = FusedBlock
        block.fuse = nn.Linear(dim, 2 * dim)
        nn.init.zeros_(block.fuse.weight)
        nn.init.zeros_(block.fuse.bias)
        block.passes_on = block is not transformer.blocks[-1]
