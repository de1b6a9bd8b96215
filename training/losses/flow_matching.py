"""Stage 1's loss: flow matching with control signals (AR-Drag Eq. 7), bidirectional or block-causal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ardrag.conditioning import Conditions, transformer_input
from ardrag.flow import add_noise, shift_sigmas, velocity_target
from ardrag.transformer import CausalWanTransformer


def sample_sigmas(
    batch: int,
    num_latents: int,
    shift: float,
    per_latent: bool,
    generator: torch.Generator,
    levels: Sequence[float] = (),
) -> Tensor:
    """Noise levels ``[B, F]``, equal over a clip's latents unless ``per_latent``.

    They are shifted uniform, or drawn from ``levels``, the few that a student will meet (appendix B.2).
    """
    shape = (batch, num_latents if per_latent else 1)
    if levels:
        drawn = torch.tensor(list(levels))[torch.randint(len(levels), shape, generator=generator)]
    else:
        drawn = shift_sigmas(torch.rand(shape, generator=generator), shift)
    return drawn.expand(batch, num_latents).clone()


def clamp_first_latent(sigmas: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Set sigma to 0 at latent 0 for a random ``share`` of the clips: the reference is given there, not generated."""
    given = torch.rand((len(sigmas),), generator=generator) < share
    clamped = sigmas.clone()
    clamped[given, 0] = 0
    return clamped


def motion_weights(clean: Tensor, emphasis: float, threshold: float = 0.5) -> Tensor:
    """Loss weights ``[B, 1, F, H, W]`` of mean one in a clip: ``1 + emphasis`` where a latent is not as its first.

    With ``emphasis = 0`` the loss is Eq. 7 as it stands. Most of a clip is background, which is copied early in
    training; the moving parts decide whether the control is followed.
    """
    change = (clean - clean[:, :, :1]).square().mean(1, keepdim=True)
    weights = 1 + emphasis * (change > threshold).float()
    return weights / weights.mean((2, 3, 4), keepdim=True)


def flow_matching_loss(
    transformer: CausalWanTransformer,
    clean: Tensor,
    noise: Tensor,
    sigmas: Tensor,
    conditions: Conditions,
    causal: bool,
    emphasis: float,
    history: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Squared error of the predicted velocity (Eq. 7), mean over the clips; returns ``(loss, metrics)``.

    Each clip counts alike, however many of its latents are given: batches may be split and add up to the same.

    Args:
        clean, noise: latents ``[B, C, F, H, W]``.
        sigmas: ``[B, F]``; latents with sigma 0 are given and leave the loss.
        causal: block-causal with clean history (packed ``[clean | noisy]``), else bidirectional.
        history: what a causal model looks back at, like ``clean``; default is ``clean`` itself (teacher forcing).
    """
    level = sigmas[:, None, :, None, None]
    noisy = add_noise(clean, noise, level)
    layout = transformer.config.input_layout
    past = clean if history is None else history
    context = transformer_input(past, conditions, layout) if causal else None
    (velocity,) = transformer(
        transformer_input(noisy, conditions, layout),
        1000 * sigmas,
        conditions.text,
        conditions.image_tokens,
        causal=causal,
        clean_context=context,
        return_dict=False,
    )
    learned = (sigmas > 0).float()[:, None, :, None, None]
    weights = learned * motion_weights(clean, emphasis)
    squared = (velocity - velocity_target(clean, noise)).square()
    clips = (weights * squared).flatten(1).sum(1) / (weights.flatten(1).sum(1) * clean.shape[1])
    loss = clips.mean()
    plain = (learned * squared).sum() / (learned.expand_as(squared).sum())
    return loss, {"loss/weighted": loss.item(), "loss/flow_matching": plain.item()}
