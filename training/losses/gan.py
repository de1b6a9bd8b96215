"""The adversarial part of stage 2: a discriminator on the critic's trunk and its pure losses (AR-Drag B.2).

The critic already looks at noised clips of the generator; heads on some of its blocks tell them from noised clips of
the data. Weights 0.1 (generator) and 0.05 (discriminator) are the paper's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ardrag.conditioning import Conditions, transformer_input
from ardrag.transformer import CausalWanTransformer


def head_layers(num_layers: int, count: int = 3) -> tuple[int, ...]:
    """Blocks that carry a head: ``count`` of them, evenly spaced, the last one among them."""
    heads = min(count, num_layers)
    return tuple(round((i + 1) * num_layers / heads) - 1 for i in range(heads))


class DiscriminatorHead(nn.Module):
    """One learned query that looks over all tokens of a clip, and a small network on what it saw."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, width) / width**0.5)
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.score = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``[B]`` from tokens ``[B, n, D]``."""
        normed = self.norm(tokens.to(self.norm.weight.dtype))
        seen, _ = self.attention(self.query.expand(len(tokens), -1, -1), normed, normed, need_weights=False)
        return self.score(seen).flatten()


class Critic(nn.Module):
    """The fake score, with discriminator heads on its trunk: one pass gives both answers."""

    def __init__(self, transformer: CausalWanTransformer, layers: Sequence[int]) -> None:
        super().__init__()
        self.transformer = transformer
        config = transformer.config
        width = config.num_attention_heads * config.attention_head_dim
        self.heads = nn.ModuleDict({str(i): DiscriminatorHead(width, config.num_attention_heads) for i in layers})

    def forward(self, noisy: Tensor, sigmas: Tensor, conditions: Conditions) -> tuple[Tensor, Tensor]:
        """Velocity ``[B, C, F, H, W]`` and logits ``[B]`` (mean of the heads) of noised clips; ``sigmas [B, F]``."""
        with self._watched() as seen:
            (velocity,) = self.transformer(
                transformer_input(noisy, conditions, self.transformer.config.input_layout),
                1000 * sigmas,
                conditions.text,
                conditions.image_tokens,
                return_dict=False,
            )
        logits = [head(seen[int(layer)].float()) for layer, head in self.heads.items()]
        return velocity, torch.stack(logits).mean(0)

    @contextmanager
    def _watched(self) -> Iterator[dict[int, Tensor]]:
        """Collects the outputs of the blocks that carry heads."""
        seen: dict[int, Tensor] = {}

        def keep(block: nn.Module, inputs: object, output: Tensor) -> None:
            seen[block.layer] = output

        handles = [self.transformer.blocks[int(layer)].register_forward_hook(keep) for layer in self.heads]
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()


def generator_loss(fake_logits: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Non-saturating loss ``softplus(-D(fake))``: the generator's clips should pass for real ones."""
    loss = F.softplus(-fake_logits).mean()
    return loss, {"gan/generator": loss.item()}


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, dict[str, float]]:
    """``softplus(-D(real)) + softplus(D(fake))``; 2 log 2 where nothing is told apart."""
    loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
    right = torch.cat([real_logits > 0, fake_logits < 0]).float().mean()
    return loss, {"gan/discriminator": loss.item(), "gan/accuracy": right.item()}
