"""Self-Rollout: clips that the student makes step by step from its own histories (AR-Drag section 3.2, Algorithm 1).

The sampler is `ardrag.rollout.generate_chunk`, the one that the pipeline runs, against the same cache: what a student
sees in training is, literally, what it will see at inference. The rollout has no gradient. It keeps what the exit step
of every latent was given, and `replay` runs that step again with a gradient, all latents in one causal pass over the
recorded history: the same numbers as through the cache (a test holds them together), at a fraction of the calls, and
activations may be recomputed, because nothing is overwritten in place.

``cache_update`` says what becomes history: ``"rollout"`` the latent at the end of the schedule (Self-Rollout,
Algorithm 1), ``"collapse"`` the clean prediction of the exit step (Self-Forcing, Algorithm 2, which skips the steps
between), ``"truth"`` the latent of the clip that was filmed (teacher forcing, the contrast of section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ardrag.conditioning import Conditions, transformer_input
from ardrag.flow import Kernel, clean_from_velocity, transition
from ardrag.kv_cache import ClipHistory
from ardrag.rollout import Noise, generate_chunk, write_cache
from ardrag.transformer import CausalWanTransformer


CacheUpdate = Literal["rollout", "collapse", "truth"]


@dataclass(frozen=True)
class SelfRollout:
    """A clip ``[B, C, F, H, W]`` that the student made.

    Attributes:
        latents: the history, what the cache was written from. Latent 0 is the reference where that was given.
        finished: what each row made of each latent; other than the history where that is shared or true.
        exit_noisy: what the exit step of each latent was given; the reference at a given latent 0.
        exit_clean: the clean prediction that the exit step made of it, likewise.
        exit_next: what the exit step went on with, likewise.
        exit_steps: the exit step of each latent ``[F]``; -1 at a given latent 0, which nobody generated.
        exit_sigmas: noise level of what it was given ``[B, F]``; 0 at a given latent 0.
    """

    latents: Tensor
    finished: Tensor
    exit_noisy: Tensor
    exit_clean: Tensor
    exit_next: Tensor
    exit_steps: tuple[int, ...]
    exit_sigmas: Tensor

    @property
    def first_given(self) -> bool:
        """Latent 0 was given, not made."""
        return self.exit_steps[0] < 0


def chunk_edges(num_latents: int, chunk_frames: int, first_given: bool) -> list[tuple[int, int]]:
    """Latent frames ``(start, stop)`` of each chunk that is generated.

    Raises:
        ValueError: if the clip is no whole number of chunks.
    """
    first = 1 if first_given else 0
    if num_latents <= first or (num_latents - first) % chunk_frames:
        raise ValueError(
            f"num_latents: {num_latents} is not {first} given and whole chunks of {chunk_frames}; "
            f"use {first + chunk_frames} or {first + 2 * chunk_frames}"
        )
    return [(start, start + chunk_frames) for start in range(first, num_latents, chunk_frames)]


def compute_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype of keys under autocast, None where it is the model's own."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None


@torch.no_grad()
def self_rollout(
    transformer: CausalWanTransformer,
    conditions: Conditions,
    sigmas: Sequence[float],
    eta: float,
    noise: Noise,
    reference: Tensor | None,
    exit_step: int | Sequence[int] | None = None,
    cache_update: CacheUpdate = "rollout",
    selective: bool = False,
    kernel: Kernel = transition,
    share_history: bool = False,
    truth: Tensor | None = None,
) -> SelfRollout:
    """Generate a clip as a session would (Algorithm 1; Algorithm 2 with ``cache_update="collapse"``).

    Only Algorithm 1 goes on after the exit step: nobody looks at what would come of it otherwise.

    Args:
        conditions: of the whole clip, ``F`` latent frames.
        sigmas: schedule of ``K + 1`` values from 1 to 0.
        eta: stochasticity of every step, or of the exit step alone (``selective``).
        noise: source of all noise, drawn in the order of the chunks.
        reference: latent 0 ``[B, C, 1, H, W]`` where it is given (``first_frame="encode"``), else None.
        exit_step: the step to record, one for the whole clip or one for each chunk; default is the last.
        kernel: the transition kernel.
        selective: only the exit step is stochastic, the others follow the ODE (selective stochasticity, section 3.3).
        share_history: what row 0 made becomes the history of all rows, so that they differ in the present latent only.
        truth: the filmed latents ``[B, C, F, H, W]``, the history of ``cache_update="truth"`` and of nothing else.
    """
    assert (truth is None) == (cache_update != "truth"), "the filmed latents are the history of truth alone"
    batch, _, num_latents, height, width = conditions.motion.shape
    given = reference is not None
    chunks = chunk_edges(num_latents, transformer.config.chunk_frames, given)
    last = len(sigmas) - 2 if exit_step is None else exit_step
    exits = [last] * len(chunks) if isinstance(last, int) else list(last)
    assert len(exits) == len(chunks), "one exit step for each chunk"
    cache = transformer.new_cache(batch, height, width, dtype=compute_dtype(conditions.motion.device))
    made, finished, noisy, clean, following = ([] if reference is None else [reference] for _ in range(5))
    if reference is not None:
        write_cache(transformer, reference, conditions.chunk(0, 1), cache)
    for (start, stop), step in zip(chunks, exits, strict=True):
        schedule = sigmas if cache_update == "rollout" else (*sigmas[: step + 1], 0.0)
        chunk, chosen = conditions.chunk(start, stop), step if selective else None
        rollout = generate_chunk(transformer, chunk, cache, schedule, eta, noise, step, chosen, kernel=kernel)
        assert rollout.exit_noisy is not None and rollout.exit_clean is not None and rollout.exit_next is not None
        history = rollout.latents if truth is None else truth[:, :, start:stop]
        if share_history:
            history = history[:1].expand_as(history)
        made.append(history)
        finished.append(rollout.latents)
        noisy.append(rollout.exit_noisy)
        clean.append(rollout.exit_clean)
        following.append(rollout.exit_next)
        if stop < num_latents:
            write_cache(transformer, history, chunk, cache)
    steps = [-1] * given + [step for step in exits for _ in range(transformer.config.chunk_frames)]
    levels = conditions.motion.new_tensor([0.0 if step < 0 else sigmas[step] for step in steps]).expand(batch, -1)
    joined = (torch.cat(parts, dim=2) for parts in (made, finished, noisy, clean, following))
    return SelfRollout(*joined, exit_steps=tuple(steps), exit_sigmas=levels)


def replay_velocity(
    model: Callable[..., Any],
    transformer: CausalWanTransformer,
    rollout: SelfRollout,
    conditions: Conditions,
    history_gradient: bool = False,
) -> Tensor:
    """Velocities ``[B, C, F, H, W]`` of the exit steps under the present weights.

    ``model`` is ``transformer``, or what it was wrapped in for several processes. The gradient stops at the history,
    as it does at the cache; with ``history_gradient`` it goes on into the weights that read it (the packed pass).
    """
    layout, chunk = transformer.config.input_layout, transformer.config.chunk_frames
    options: dict[str, Any] = {"causal": True, "first_chunk_frames": 1 if rollout.first_given else chunk}
    context = conditions.text, conditions.image_tokens
    past = transformer_input(rollout.latents, conditions, layout)
    if history_gradient:
        options["clean_context"] = past
    else:
        options["history"] = ClipHistory()
        with torch.no_grad():
            transformer(past, torch.zeros_like(rollout.exit_sigmas), *context, record_history=True, **options)
    noisy = transformer_input(rollout.exit_noisy, conditions, layout)
    velocity: Tensor = model(noisy, 1000 * rollout.exit_sigmas, *context, **options, return_dict=False)[0]
    return velocity


def replay(
    model: Callable[..., Any], transformer: CausalWanTransformer, rollout: SelfRollout, conditions: Conditions
) -> Tensor:
    """Clean predictions ``[B, C, F, H, W]`` of the exit steps, with a gradient that stops at the history.

    See `replay_velocity`. A given latent 0 comes back as is.
    """
    velocity = replay_velocity(model, transformer, rollout, conditions)
    return clean_from_velocity(rollout.exit_noisy, velocity, rollout.exit_sigmas[:, None, :, None, None])
