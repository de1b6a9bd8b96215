"""Distribution matching distillation: pure losses of stage 2 (AR-Drag section 3.2 and B.2; DMD as in Self-Forcing).

The generator's clips should be as likely under the teacher (the real score) as under the critic (the fake score),
which is trained all the while to know the generator's own distribution. Where the two disagree about the clean clip
behind a noised one, the difference is the direction in which the generator has to move.

Shapes: clips ``[B, C, F, H, W]``, noise levels ``[B, F]`` (0 where a latent is given and nobody generates it).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ardrag.conditioning import Conditions, transformer_input
from ardrag.flow import clean_from_velocity, shift_sigmas, velocity_target
from ardrag.guidance import Guidance, extrapolate, without
from ardrag.transformer import CausalWanTransformer


SIGMA_RANGE = (0.02, 0.98)
"""Where scores are compared: at the ends of the schedule they say nothing (Self-Forcing clamps to 20..980 of 1000)."""


def sample_score_sigmas(batch: int, shift: float, generator: torch.Generator) -> Tensor:
    """One shifted uniform noise level per clip ``[B]``, alike for all its latents: the scores are bidirectional."""
    return shift_sigmas(torch.rand(batch, generator=generator), shift).clamp(*SIGMA_RANGE)


def clip_sigmas(levels: Tensor, num_latents: int, first_given: bool) -> Tensor:
    """Levels ``[B]`` spread over the latents ``[B, F]``, 0 at a given latent 0."""
    sigmas = levels[:, None].expand(-1, num_latents).clone()
    if first_given:
        sigmas[:, 0] = 0
    return sigmas


@torch.no_grad()
def teacher_clean(
    teacher: CausalWanTransformer,
    noisy: Tensor,
    sigmas: Tensor,
    conditions: Conditions,
    null_text: Tensor,
    null_motion: Tensor,
    guidance: Guidance,
) -> Tensor:
    """The frozen teacher's guided prediction of the clean clip behind ``noisy``."""
    layout = teacher.config.input_layout
    velocities = [
        teacher(transformer_input(noisy, c, layout), 1000 * sigmas, c.text, c.image_tokens, return_dict=False)[0]
        for c in without(conditions, null_text, null_motion, guidance)
    ]
    return clean_from_velocity(noisy, extrapolate(velocities, guidance), sigmas[:, None, :, None, None])


def dmd_gradient(generated: Tensor, teacher: Tensor, critic: Tensor, learned: Tensor) -> Tensor:
    """``(critic - teacher) / mean |generated - teacher|`` for each clip: by how much, and whither, a clip is off.

    Args:
        generated: the generator's clean clips.
        teacher, critic: what the two scores take for the clean clip behind a noised one.
        learned: ``[B, F]``, 1 where a latent is generated; given ones count neither in the mean nor in the gradient.
    """
    mask = learned[:, None, :, None, None].to(generated).expand_as(generated)
    away, entries = ((generated - teacher).abs() * mask).flatten(1).sum(1), mask.flatten(1).sum(1)
    distance = (away / entries).clamp_min(torch.finfo(generated.dtype).tiny)[:, None, None, None, None]
    return mask * (critic - teacher) / distance


def dmd_loss(generated: Tensor, gradient: Tensor, learned: Tensor) -> tuple[Tensor, dict[str, float]]:
    """A loss whose gradient with respect to ``generated`` is ``gradient`` over the number of learned entries."""
    target = (generated - gradient).detach()
    count = learned.sum() * generated.shape[1] * generated.shape[3] * generated.shape[4]
    loss = 0.5 * (generated - target).square().sum() / count
    return loss, {"dmd/gradient": (gradient.abs().sum() / count).item()}


def mean_square(difference: Tensor, learned: Tensor) -> Tensor:
    """Mean of ``difference`` ``[B, C, F, H, W]`` squared over the latents where ``learned`` ``[B, F]`` is 1."""
    mask = learned[:, None, :, None, None].to(difference).expand_as(difference)
    return (mask * difference.square()).sum() / mask.sum()


def critic_loss(
    velocity: Tensor, generated: Tensor, noise: Tensor, learned: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """Flow matching (Eq. 7) on the generator's clips: the critic learns the score of what the student really makes."""
    loss = mean_square(velocity - velocity_target(generated, noise), learned)
    return loss, {"critic/flow_matching": loss.item()}
