"""The sampler: one chunk of latents from noise to clean against the cache (AR-Drag section 3.2, Algorithm 1).

`generate_chunk` is the only sampler of the project. The pipeline runs it to make video, Self-Rollout runs it to train
the student on its own histories, and GRPO runs it with one stochastic step. What a student is trained on is therefore,
literally, what it does at inference.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ardrag.conditioning import Conditions, transformer_input
from ardrag.flow import Kernel, clean_from_velocity, transition
from ardrag.guidance import Guidance, extrapolate
from ardrag.kv_cache import KVCache
from ardrag.transformer import CausalWanTransformer


StepCallback = Callable[[int, float, Tensor], Tensor]
"""Called after each step with (step, its sigma, latents); returns the latents to go on with."""


class Noise(Protocol):
    """Source of standard normal noise of a given shape, one generator per sample."""

    def __call__(self, shape: Sequence[int]) -> Tensor: ...


def seeded_generator(*keys: int) -> torch.Generator:
    """A CPU generator that depends on ``keys`` alone: (seed, latent frame), or (seed, step, rank) in training."""
    entropy = np.random.SeedSequence(keys).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(entropy) & (2**63 - 1))


@dataclass(frozen=True)
class GeneratorNoise:
    """Noise drawn sample by sample from each sample's own generator, so that no result depends on its batch.

    Draws happen on the generators' device in float32 and are then moved.
    """

    generators: Sequence[torch.Generator]
    device: torch.device
    dtype: torch.dtype

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """Draw ``shape``, whose first entry must be the number of generators."""
        assert shape[0] == len(self.generators), "one generator per sample"
        draws = [torch.randn(tuple(shape[1:]), generator=g, device=g.device) for g in self.generators]
        return torch.stack([draw.to(self.device) for draw in draws]).to(self.dtype)


@dataclass
class GivenFirst:
    """`Noise` that gives ``start`` at its first draw, if it has that shape, and draws from ``noise`` after it."""

    start: Tensor
    noise: Noise

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """Draw ``shape``."""
        given, self.start = self.start, self.start[:0]
        return given if given.shape == tuple(shape) else self.noise(shape)


@dataclass(frozen=True)
class ChunkRollout:
    """What one chunk went through.

    ``latents`` is the clean chunk ``[B, C, F, H, W]``. ``exit_noisy``, ``exit_clean`` and ``exit_next`` are what the
    step asked for (``grad_step``) was given, the clean prediction that it made, and what it went on with, else None.
    """

    latents: Tensor
    exit_noisy: Tensor | None
    exit_clean: Tensor | None
    exit_next: Tensor | None


UNGUIDED = Guidance()


def velocity_of(
    transformer: CausalWanTransformer, latents: Tensor, timestep: Tensor, conditions: Conditions, **options: Any
) -> Tensor:
    """The transformer's answer in the number format of ``latents``, whatever that of its weights is.

    Latents stay in float32 between steps where the weights are in half precision; ``options`` go to the transformer.
    """
    inputs = transformer_input(latents, conditions, transformer.config.input_layout)
    if conditions.attention_kwargs is not None:
        options["attention_kwargs"] = conditions.attention_kwargs
    (velocity,) = transformer(inputs, timestep, conditions.text, conditions.image_tokens, return_dict=False, **options)
    answer: Tensor = velocity.to(latents.dtype)
    return answer


@lru_cache(maxsize=64)
def timesteps(rows: int, sigma: float, device: torch.device) -> Tensor:
    """Timesteps ``[rows]`` at one ``sigma``, always the same tensor: the cache knows by it what is made already."""
    with torch.inference_mode(False):
        return torch.full((rows,), 1000.0 * sigma, dtype=torch.float32, device=device)


def predict_velocity(
    transformer: CausalWanTransformer,
    latents: Tensor,
    sigma: float,
    conditions: Conditions,
    cache: KVCache,
    update_cache: bool = False,
    guidance: Guidance = UNGUIDED,
) -> Tensor:
    """Velocity of one chunk ``[B, C, F, H, W]`` at one ``sigma`` against the cache.

    With ``guidance``, conditions and cache hold ``guidance.rows * B`` rows: the wanted conditions first, after them
    those without text and those without motion, as far as the guidance asks for them (`ardrag.guidance.without`).
    """
    inputs = torch.cat([latents] * guidance.rows)
    timestep = timesteps(inputs.shape[0], sigma, inputs.device)
    options = {"kv_cache": cache, "frame_offset": conditions.first_latent, "update_cache": update_cache}
    velocity = velocity_of(transformer, inputs, timestep, conditions, **options)
    return extrapolate(list(velocity.chunk(guidance.rows)), guidance)


def write_cache(
    transformer: CausalWanTransformer,
    clean: Tensor,
    conditions: Conditions,
    cache: KVCache,
    guidance: Guidance = UNGUIDED,
) -> None:
    """Append a finished chunk to the cache by one pass at sigma 0 (Algorithm 1, line 22)."""
    with torch.no_grad():
        predict_velocity(transformer, clean.detach(), 0.0, conditions, cache, True, guidance)


def generate_chunk(
    transformer: CausalWanTransformer,
    conditions: Conditions,
    cache: KVCache,
    sigmas: Sequence[float],
    eta: float,
    noise: Noise,
    grad_step: int | None = None,
    stochastic_step: int | None = None,
    callback: StepCallback | None = None,
    guidance: Guidance = UNGUIDED,
    kernel: Kernel = transition,
) -> ChunkRollout:
    """Denoise the chunk that ``conditions`` describe from pure noise, step by step (Algorithm 1).

    The cache is read, never written: the caller decides with `write_cache` which latents become history.

    Args:
        sigmas: schedule of ``K + 1`` values from 1 to 0.
        eta: the kernel's stochasticity at every step (at ``stochastic_step`` only, if that is given; the others are
            then ODE steps, AR-Drag section 3.3).
        noise: source of initial and transition noise.
        grad_step: the exit step, whose input and clean prediction are returned (Self-Rollout); it alone runs with
            gradient, unless gradients are off altogether. None for none.
        stochastic_step: the one stochastic step of selective stochasticity; None for ``eta`` everywhere.
        callback: called after every step.
        guidance: strength of classifier-free guidance; see `predict_velocity`.
        kernel: the transition kernel; the last step, to sigma 0, is always deterministic.

    Raises:
        ValueError: if ``stochastic_step`` is the last step, which must stay deterministic, or a step is out of range.
    """
    steps = len(sigmas) - 1
    if stochastic_step is not None and not 0 <= stochastic_step < steps - 1:
        raise ValueError(
            f"stochastic_step: {stochastic_step} must be in 0 .. {steps - 2}; the last step is always ODE"
        )
    if grad_step is not None and not 0 <= grad_step < steps:
        raise ValueError(f"grad_step: {grad_step} must be in 0 .. {steps - 1}")
    rows, _, frames, height, width = conditions.motion.shape
    latents = noise((rows // guidance.rows, transformer.config.out_channels, frames, height, width))
    exit_noisy = exit_clean = exit_next = None
    grad_allowed = torch.is_grad_enabled()
    for step, (sigma, next_sigma) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
        with torch.set_grad_enabled(step == grad_step and grad_allowed):
            velocity = predict_velocity(transformer, latents, sigma, conditions, cache, guidance=guidance)
            if step == grad_step:
                exit_noisy = latents
                exit_clean = clean_from_velocity(latents, velocity, sigma)
        stochastic = stochastic_step in (None, step)
        mean, std = kernel(latents, velocity.detach(), sigma, next_sigma, eta if stochastic and next_sigma else 0.0)
        latents = mean + std * noise(mean.shape) if std > 0 else mean
        if callback is not None:
            latents = callback(step, sigma, latents)
        if step == grad_step:
            exit_next = latents
    return ChunkRollout(latents, exit_noisy, exit_clean, exit_next)


def clip_steps(
    transformer: CausalWanTransformer,
    conditions: Conditions | list[Conditions],
    sigmas: Sequence[float],
    eta: float,
    noise: Noise,
    reference: Tensor | None = None,
    guidance: Guidance = UNGUIDED,
    solver: Any = None,
) -> Generator[tuple[float, Tensor], Tensor | None, None]:
    """Denoise a whole clip ``[B, C, F, H, W]`` at once, every latent looking at all others: the bidirectional model.

    Yields (its sigma, latents) after each step, at the end those of the clean clip. What is sent back are the latents
    to go on with; None leaves them.

    Args:
        conditions: of the clip; with ``guidance`` the list of them that `ardrag.guidance.without` makes, which are
            asked one after the other: the memory is that of one.
        sigmas: schedule of ``K + 1`` values from 1 to 0.
        eta: the kernel's stochasticity; 0 is the ODE.
        noise: source of initial and transition noise.
        reference: latent 0 ``[B, C, 1, H, W]`` where it is given; it keeps sigma 0 from the start.
        guidance: strength of classifier-free guidance.
        solver: a multistep solver of diffusers with its timesteps set, which then has its own sigmas; None is `eta`'s
            kernel.
    """
    parts = conditions if isinstance(conditions, list) else [conditions]
    batch, _, frames, height, width = parts[0].motion.shape

    def begun(latents: Tensor) -> Tensor:
        return latents if reference is None else torch.cat([reference.to(latents), latents[:, :, 1:]], dim=2)

    latents = begun(noise((batch, transformer.config.out_channels, frames, height, width)))
    times = [1000 * sigma for sigma in sigmas[:-1]] if solver is None else [float(t) for t in solver.timesteps]
    for step, time in enumerate(times):
        told = latents.new_full((batch, frames), time, dtype=torch.float32)
        told[:, :1] *= reference is None
        timestep = told[:, 0] if reference is None else told
        velocity = extrapolate([velocity_of(transformer, latents, timestep, part) for part in parts], guidance)
        if solver is None:
            mean, std = transition(latents, velocity, sigmas[step], sigmas[step + 1], eta)
            latents = mean + std * noise(mean.shape) if std > 0 else mean
        else:
            latents = solver.step(velocity, solver.timesteps[step], latents, return_dict=False)[0]
        latents = begun(latents)
        given = yield time / 1000, latents
        latents = latents if given is None else begun(given)
