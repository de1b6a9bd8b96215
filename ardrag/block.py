"""One block of the transformer: attention and feed-forward, modulated by the noise level of each latent frame.

The parameters are those of a block of diffusers' `WanTransformer3DModel`, name by name.

Shapes: `B` batch, `M` noise levels of a pass (1, or one for each latent frame), `n` tokens of a level, `D` here the
width of the model.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from diffusers.models.normalization import FP32LayerNorm
from torch import nn

from ardrag.attention import AttentionPlan, CausalWanAttention, WanCrossAttention


class Modulation(NamedTuple):
    """What a noise level does to one half of a block: `norm(x) * scale + shift`, then `x + update * gate`.

    Each `[B, M, 1, D]`; M = 1 for all latent frames, or M one for each.
    """

    shift: torch.Tensor
    scale: torch.Tensor
    gate: torch.Tensor


def modulate(
    hidden_states: torch.Tensor, norm: FP32LayerNorm, scale: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    """`norm(x) * scale + shift` for `x [B, M*n, D]`, `scale` and `shift [B, M, 1, D]`; one operation if B = M = 1."""
    if scale.shape[:2] == (1, 1):
        size, weight, bias = norm.normalized_shape, scale.flatten().float(), shift.flatten().float()
        return F.layer_norm(hidden_states.float(), size, weight, bias, norm.eps).type_as(hidden_states)
    normed = norm(hidden_states.float()).unflatten(1, (scale.shape[1], -1))
    return torch.addcmul(shift, normed, scale).flatten(1, 2).type_as(hidden_states)


def _add_gated(hidden_states: torch.Tensor, update: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """`x + update * gate` for `x` and `update [B, M*n, D]`, `gate [B, M, 1, D]`."""
    if gate.shape[1] == 1:
        return torch.addcmul(hidden_states.float(), update.float(), gate[:, 0]).type_as(hidden_states)
    frames, updates = (x.float().unflatten(1, (gate.shape[1], -1)) for x in (hidden_states, update))
    return torch.addcmul(frames, updates, gate).flatten(1, 2).type_as(hidden_states)


class CausalWanTransformerBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward, modulated by the timestep of each latent frame."""

    def __init__(
        self,
        dim: int,
        ffn_dim: int,
        num_heads: int,
        layer: int,
        cross_attn_norm: bool,
        eps: float,
        added_kv_proj_dim: int | None,
        activation_fn: str,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.norm1 = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.attn1 = CausalWanAttention(dim, num_heads, eps)
        self.attn2 = WanCrossAttention(dim, num_heads, eps, added_kv_proj_dim)
        self.norm2 = FP32LayerNorm(dim, eps, elementwise_affine=True) if cross_attn_norm else nn.Identity()
        self.ffn = FeedForward(dim, inner_dim=ffn_dim, activation_fn=activation_fn)
        self.norm3 = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def forward(
        self,
        hidden_states: torch.Tensor,
        text: torch.Tensor | None,
        image: torch.Tensor | None,
        modulation: torch.Tensor,
        rotary: torch.Tensor,
        plan: AttentionPlan,
    ) -> torch.Tensor:
        """`hidden_states [B, tokens, D]`; `modulation [B, M, 6, D]`, M = 1 for all latent frames or M one for each."""
        if plan.kv_cache is None:
            attention, feed_forward = self._modulations(modulation)
        else:
            attention, feed_forward = plan.kv_cache.kept(modulation, self.layer, self._modulations)

        normed = modulate(hidden_states, self.norm1, attention.scale, attention.shift)
        hidden_states = _add_gated(hidden_states, self.attn1(normed, rotary, plan, self.layer), attention.gate)

        normed = self.norm2(hidden_states.float()).type_as(hidden_states)
        hidden_states = hidden_states + self.attn2(normed, text, image, plan, self.layer)

        normed = modulate(hidden_states, self.norm3, feed_forward.scale, feed_forward.shift)
        return _add_gated(hidden_states, self.ffn(normed), feed_forward.gate)

    def _modulations(self, modulation: torch.Tensor) -> tuple[Modulation, Modulation]:
        """Of self-attention and of the feed-forward, from `modulation [B, M, 6, D]`."""
        parts = (self.scale_shift_table + modulation.float()).chunk(6, dim=2)
        return Modulation(parts[0], 1 + parts[1], parts[2]), Modulation(parts[3], 1 + parts[4], parts[5])
