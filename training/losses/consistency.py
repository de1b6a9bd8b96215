"""Causal consistency distillation: pure losses of stage 2's start (Causal-Forcing++, Consistency Models).

An autoregressive teacher's flow leads from every noisy clip to one clean one, given the clean past. The student learns
to jump there at once: what it predicts at a noise level must be what its own average predicts one solver step of the
teacher further down. At sigma 0 a prediction is its input (``x - 0 v``), which anchors the chain to data. No pairs are
stored, and no trajectory is solved.

Shapes: clips ``[B, C, F, H, W]``, noise levels ``[B, F]``, one for each latent (0 where it is given).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ardrag.flow import add_noise, clean_from_velocity, shift_sigmas


Velocity = Callable[[Tensor, Tensor], Tensor]
"""A model with its conditions: the velocity of noisy clips at their noise levels."""


def solver_schedule(steps: int, shift: float) -> Tensor:
    """Noise levels ``[steps + 1]`` of the teacher's solver, from 1 to 0, shifted."""
    return shift_sigmas(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift).float()


def draw_levels(schedule: Tensor, num_latents: int, given: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Neighbours of the schedule ``[1, F]``: the upper level of each latent and the next one down.

    All intervals come alike, the last one to sigma 0 among them. The first ``given`` latents stay at 0.
    """
    index = torch.randint(len(schedule) - 1, (1, num_latents), generator=generator)
    upper, lower = schedule[index], schedule[index + 1]
    upper[:, :given] = lower[:, :given] = 0
    return upper, lower


def spread(sigmas: Tensor) -> Tensor:
    """Noise levels ``[B, F]`` as ``[B, 1, F, 1, 1]``."""
    return sigmas[:, None, :, None, None]


def consistency_loss(
    student: Velocity,
    average: Velocity,
    teacher: Velocity,
    clean: Tensor,
    noise: Tensor,
    upper: Tensor,
    lower: Tensor,
) -> tuple[Tensor, dict[str, float]]:
    """Squared distance of the student's clean prediction from its average's, one teacher step down; mean over clips.

    Args:
        student: with gradient; the others are asked without.
        average: the student with averaged weights.
        teacher: one Euler step of it leads from ``upper`` to ``lower``, on the ODE.
        clean, noise: latents of the data, and standard normal.
        upper, lower: neighbouring noise levels; latents that are 0 in both are given, and leave the loss.
    """
    noisy = add_noise(clean, noise, spread(upper))
    with torch.no_grad():
        below = noisy + spread(lower - upper) * teacher(noisy, upper)
        target = clean_from_velocity(below, average(below, lower), spread(lower))
    predicted = clean_from_velocity(noisy, student(noisy, upper), spread(upper))
    learned = spread((upper > 0).to(clean)).expand_as(clean)
    squared = (learned * (predicted - target).square()).flatten(1).sum(1) / learned.flatten(1).sum(1)
    loss = squared.mean()
    return loss, {"consistency/distance": loss.item(), "consistency/step": (below - noisy).square().mean().item()}
