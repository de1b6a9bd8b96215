"""The pure mathematics of stage 3: advantages, ratio, clipped objective, divergence (AR-Drag section 3.3, Eq. 12-14).

Shapes: `G` members of a group that share prompt, picture, tracks and (by default) initial noise; `F` latent frames. A
rollout has one stochastic step in each latent frame; everything here is about that step, and a latent frame without
one (given, or masked) counts nowhere.

Log-probabilities are means over the dimensions of a latent, as everywhere in flow GRPO: the ratio of Eq. 14 is then
the D-th root of the true one, which is why clip ranges are 1e-4 rather than 0.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ardrag.flow import Kernel


def transition_moments(
    noisy: Tensor, velocity: Tensor, steps: Sequence[int], sigmas: Sequence[float], amount: float, kernel: Kernel
) -> tuple[Tensor, Tensor]:
    """Mean ``[B, C, F, H, W]`` and spread ``[B, F]`` of each latent's stochastic step.

    Args:
        noisy, velocity: what the step of each latent was given, and its velocity, ``[B, C, F, H, W]``.
        steps: the step of each latent ``[F]``; -1 where there is none (spread 0).
        sigmas: schedule from 1 to 0.
        amount: stochasticity of the step.
        kernel: the transition kernel.

    Raises:
        ValueError: if a step is the last one, which must stay deterministic.
    """
    means, spreads = [], []
    for m, step in enumerate(steps):
        if step >= len(sigmas) - 2:
            raise ValueError(f"steps[{m}]: {step} is the last step, which must stay deterministic")
        here = slice(m, m + 1)
        if step < 0:
            means.append(noisy[:, :, here])
            spreads.append(0.0)
            continue
        gaussian = kernel(noisy[:, :, here], velocity[:, :, here], sigmas[step], sigmas[step + 1], amount)
        means.append(gaussian.mean)
        spreads.append(gaussian.std)
    return torch.cat(means, dim=2), noisy.new_tensor(spreads).expand(len(noisy), -1)


class Advantages(NamedTuple):
    """``values`` ``[G, F]``, zero where ``informative`` ``[F]`` is False: there, the whole group did equally well."""

    values: Tensor
    informative: Tensor


def group_advantages(
    rewards: Tensor, credit: float = 0.0, clamp: float = 5.0, eps: float = 1e-4, min_std: float = 1e-6
) -> Advantages:
    """Advantage of each member at each latent frame over its group (Eq. 13).

    Args:
        rewards: ``[G, F]``, NaN where nothing could be measured (such a latent frame is not informative).
        credit: discount of later rewards: 0 pays a latent frame for itself alone (the paper), above 0 it is also paid
            ``credit^k`` times what comes ``k`` latent frames later, which it changed through the cache.
        clamp: largest absolute advantage.
        eps: added to the standard deviation (population).
        min_std: below this spread a group says nothing.

    Raises:
        ValueError: if there are fewer than two members, or ``credit`` is outside 0..1.
    """
    if rewards.ndim != 2 or len(rewards) < 2:
        raise ValueError(f"rewards: shape {list(rewards.shape)} must be [G, F] with at least two members")
    if not 0 <= credit <= 1:
        raise ValueError(f"credit: {credit} is outside 0..1; 0 is the paper")
    known = rewards.isfinite().all(0)
    returns = reward_to_go(torch.where(known, rewards, 0), credit)
    spread = returns.std(0, correction=0)
    informative = known & (spread > min_std)
    values = ((returns - returns.mean(0)) / (spread + eps)).clamp(-clamp, clamp)
    return Advantages(values * informative, informative)


def reward_to_go(rewards: Tensor, credit: float) -> Tensor:
    """``R_m + credit R_(m+1) + credit^2 R_(m+2) ...`` along the last dimension."""
    returns = rewards.clone()
    for m in range(rewards.shape[-1] - 2, -1, -1):
        returns[..., m] += credit * returns[..., m + 1]
    return returns


def latent_log_prob(
    sample: Tensor, mean: Tensor, std: Tensor, region: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Log-density ``[B, F]`` of each latent ``[B, C, F, H, W]`` under a Gaussian, mean over its dimensions, float32.

    Args:
        sample, mean: ``[B, C, F, H, W]``.
        std: ``[B, F]``; 0 where a latent has no stochastic step, whose log-density is then 0 and counts nowhere.
        region: ``[F, H, W]`` (bool), restricts the mean to places whose noise can have earned the reward. Noise
            elsewhere is as good as independent of it, and would add little but variance to the gradient.
        smoothing: spread in latent pixels of a Gaussian filter ``P``: ``n`` being the residual over ``std``, the
            exponent is ``-n P n / 2`` instead of ``-n n / 2``. The gradient towards the mean is then ``P n``: as
            before on what is smooth, nearly nothing on what changes from place to place, where there is most noise
            and, a reward being blind to it, least signal. ``P`` being symmetric and positive, it still goes uphill.
    """
    stochastic = std > 0
    spread = torch.where(stochastic, std.float(), 1.0)
    residual = (sample.float() - mean.float()) / spread[:, None, :, None, None]
    if region is not None:
        residual = residual * region
    weighted = low_pass(residual, smoothing) if smoothing else residual
    energy = (residual * weighted).mean(1).sum((2, 3))
    count = sample.shape[-2] * sample.shape[-1] if region is None else region.sum((1, 2)).clamp_min(1)
    density = -0.5 * energy / count - spread.log() - 0.5 * math.log(2 * math.pi)
    return torch.where(stochastic, density, 0.0)


def low_pass(values: Tensor, spread: float) -> Tensor:
    """Gaussian filter in height and width of ``[B, C, F, H, W]``; symmetric, with nothing beyond the edges."""
    reach = math.ceil(3 * spread)
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=values.device) / spread) ** 2)
    taps = taps / taps.sum()
    planes = values.reshape(-1, 1, *values.shape[-2:])
    planes = F.conv2d(planes, taps.view(1, 1, 1, -1), padding=(0, reach))
    return F.conv2d(planes, taps.view(1, 1, -1, 1), padding=(reach, 0)).view_as(values)


def gaussian_divergence(mean: Tensor, reference: Tensor, std: Tensor, region: Tensor | None = None) -> Tensor:
    """KL ``[B, F]`` between Gaussians of equal spread, ``(mean - reference)^2 / (2 std^2)``, mean over dimensions.

    ``region`` ``[F, H, W]`` (bool) restricts the sum to its places; it is divided by all of them all the same.
    """
    stochastic = std > 0
    squared = (mean.float() - reference.float()).square()
    squared = (squared if region is None else squared * region).mean((1, 3, 4))
    return torch.where(stochastic, squared / (2 * torch.where(stochastic, std.float(), 1.0).square()), 0.0)


def policy_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip: float = 1e-4,
    divergence: Tensor | None = None,
    beta: float = 0.0,
) -> tuple[Tensor, dict[str, float]]:
    """Clipped objective of Eq. 14, negated, mean over the transitions that were really stochastic.

    Args:
        log_prob: ``[B, F]`` under the present weights, with gradient.
        old_log_prob: ``[B, F]`` under the weights that rolled out, by the same code.
        advantages: ``[B, F]``.
        mask: ``[B, F]``, 1 where a transition counts.
        clip: the ratio is clipped to ``1 - clip .. 1 + clip``.
        divergence: ``[B, F]`` from the reference; weighted by ``beta``.
    """
    counted = mask.float()
    total = counted.sum().clamp_min(1)
    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    gain = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    loss = -(gain * counted).sum() / total
    metrics = {
        "policy/ratio_mean": ((ratio * counted).sum() / total).item(),
        "policy/ratio_spread": ((log_ratio.square() * counted).sum() / total).sqrt().item(),
        "policy/clip_fraction": (((ratio - 1).abs() > clip).float() * counted).sum().item() / total.item(),
        "policy/transitions": counted.sum().item(),
    }
    if divergence is not None:
        kl = (divergence * counted).sum() / total
        loss = loss + beta * kl
        metrics["policy/kl"] = kl.item()
    return loss, metrics
