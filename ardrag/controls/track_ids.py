"""Identities of tracks on the latent grid, as MotionStream (arXiv 2511.01266) and FastVideo's Track-v0 have them.

Kept: each track has a random number, a sinusoid of it (64 channels) is added to the cell where the track is in each
pixel frame, hidden tracks leave nothing; a small head, a convolution over the four frames of a latent and a pointwise
one, makes 16 channels of it, which join the input. Cells and sums are Track-v0's, and so are the head's parameters,
name by name and shape by shape (`temporal_conv`, `proj`). Left out: their dense grids of 2,500 tracks.

The control writes the four frames of a latent side by side, ``[4 * id_dim, h, w]``, three of them empty at latent 0;
`attach_head` puts the head in front of a transformer's patch embedding, which is what turns these into channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ardrag.controls.control import Rows, Scene
from ardrag.controls.latent import LatentControl


@dataclass(frozen=True)
class TrackIds(LatentControl):
    """See the module.

    Args:
        id_dim: channels of a sinusoid.
        channels: channels of the motion slot that the head makes.
        frames: pixel frames of a latent.
        max_id: identities are drawn below this, by the scene's seed and the number of the track.
        bias: the head has biases; without them empty cells stay empty.
    """

    name: ClassVar[str] = "track_ids"
    about: ClassVar[str] = "Tracks are shown as identities on the latent grid (`control: track_ids`)."
    id_dim: int = 64
    channels: int = 16
    frames: int = 4
    max_id: int = 100_000
    bias: bool = False

    def __post_init__(self) -> None:
        for field in ("id_dim", "channels", "frames", "max_id"):
            if vars(self)[field] < 1:
                raise ValueError(f"control.{field}: {vars(self)[field]} must be a positive whole number")

    def width(self, latent_channels: int) -> int:
        """See `Control`."""
        return self.frames * self.id_dim

    def module(self) -> dict[str, Any]:
        """See `Control`."""
        settings = {"id_dim": self.id_dim, "channels": self.channels, "frames": self.frames, "bias": self.bias}
        return {"name": self.name, **settings}

    def mark(self, rows: Rows, scene: Scene, memory: Any = None) -> tuple[Tensor, Any]:
        """See `LatentControl`; nothing is remembered."""
        xy, visible, force = rows.arrays
        height, width = scene.reference.shape[-2:]
        count = xy.shape[1]
        waves = sinusoids(track_numbers(scene.seed, count, self.max_id), self.id_dim).to(scene.reference.device)
        places = torch.from_numpy(np.where(visible[..., None], xy, 0)).clamp(0, 1).to(waves)
        cells = (places * torch.tensor([width - 1, height - 1]).to(waves)).round().long()
        shown = torch.from_numpy(visible * force).to(waves)[..., None] * waves
        index = (cells[..., 1] * width + cells[..., 0])[..., None].expand(-1, -1, self.id_dim)
        grid = waves.new_zeros(len(rows), height * width, self.id_dim).scatter_add_(1, index, shown)
        slot = waves.new_zeros(self.frames, self.id_dim, height, width)
        slot[self.frames - len(rows) :] = grid.transpose(1, 2).unflatten(2, (height, width))
        return slot.flatten(0, 1), None


def track_numbers(seed: int, count: int, max_id: int) -> Tensor:
    """Identities ``[P]``, each a function of ``seed`` and the track's place alone."""
    numbers = [int(np.random.default_rng((seed, track)).integers(max_id)) for track in range(count)]
    return torch.tensor(numbers, dtype=torch.long)


def sinusoids(numbers: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """``[P]`` whole numbers as ``[P, dim]``: cosines, then sines, of falling frequency."""
    half = dim // 2
    rates = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32) / max(half, 1))
    angles = numbers.float()[:, None] * rates
    waves = torch.cat([angles.cos(), angles.sin()], dim=1)
    return torch.nn.functional.pad(waves, (0, dim % 2))


class TrackHead(nn.Module):
    """``[B, frames * id_dim, F, h, w]`` -> ``[B, channels, F, h, w]``; parameters as those of Track-v0's."""

    def __init__(self, id_dim: int, channels: int, frames: int, bias: bool) -> None:
        super().__init__()
        self.temporal_conv = nn.Conv3d(id_dim, channels, (frames, 1, 1), (frames, 1, 1), bias=bias)
        self.proj = nn.Conv3d(channels, channels, 1, bias=bias)

    def forward(self, slot: Tensor) -> Tensor:
        """Frames back in line, then the two convolutions."""
        frames = self.temporal_conv.kernel_size[0]
        line: Tensor = slot.unflatten(1, (frames, -1)).permute(0, 2, 3, 1, 4, 5).flatten(2, 3)
        mixed: Tensor = self.proj(self.temporal_conv(line))
        return mixed


class HeadedPatchEmbedding(nn.Conv3d):
    """A patch embedding whose motion slot goes through a `TrackHead` first."""

    def __init__(self, layout: Mapping[str, int], dim: int, patch_size: tuple[int, int, int], head: TrackHead) -> None:
        channels = head.proj.out_channels
        super().__init__(sum(layout.values()) - layout["motion"] + channels, dim, patch_size, patch_size)
        self.head = head
        self._widths, self._place = list(layout.values()), list(layout).index("motion")

    def forward(self, hidden_states: Tensor) -> Tensor:
        """``hidden_states [B, C, F, H, W]`` with all slots."""
        parts = list(hidden_states.split(self._widths, dim=1))
        parts[self._place] = self.head(parts[self._place])
        return super().forward(torch.cat(parts, dim=1))


def attach_head(transformer: Any, id_dim: int, channels: int, frames: int, bias: bool) -> None:
    """Put a head in front of the patch embedding of a transformer whose motion slot takes `TrackIds`, in place."""
    config = transformer.config
    dim = config.num_attention_heads * config.attention_head_dim
    head = TrackHead(id_dim, channels, frames, bias)
    transformer.patch_embedding = HeadedPatchEmbedding(config.input_layout, dim, tuple(config.patch_size), head)
