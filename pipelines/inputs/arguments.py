"""Arguments of a call: whole numbers and sizes checked, and values that may be one for all clips or one for each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from ardrag.flow import CHOICES, FewStepScheduler
from ardrag.tracks.tracks import Tracks


OUTPUT_TYPES = ("pil", "np", "pt", "latent")


def whole_number(value: Any, name: str, least: int, remedy: str = "") -> int:
    """``value`` as an int, also where it is numpy's; else ValueError naming the argument. ``True`` is no number."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name}: {value!r} must be a whole number of at least {least}{remedy}")
    return int(value)


def check_frame_count(num_frames: Any, factor: int) -> int:
    """Pixel frames of a clip, ``factor * k + 1``, or ValueError."""
    count = whole_number(num_frames, "num_frames", 1 + factor)
    if count % factor != 1:
        low = count - (count - 1) % factor
        raise ValueError(f"num_frames: {count} is not {factor}k + 1; use {low} or {low + factor}")
    return count


def check_size(height: Any, width: Any, step: int) -> tuple[int, int]:
    """``(height, width)`` in pixels, positive multiples of ``step``, or ValueError."""
    sizes = []
    for name, value in (("height", height), ("width", width)):
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise ValueError(f"{name}: {value!r} must be a whole number of pixels, a multiple of {step}")
        size = int(value)
        if size < step or size % step:
            near = max(step, round(size / step) * step)
            raise ValueError(f"{name}: {size} is not a positive multiple of {step}; use {near}")
        sizes.append(size)
    return sizes[0], sizes[1]


def check_steps(num_inference_steps: Any) -> None:
    """Raise ValueError unless the number of steps is left to the checkpoint or is a positive whole number."""
    if num_inference_steps is not None:
        whole_number(num_inference_steps, "num_inference_steps", 1, "; use 3")


def check_guidance(guidance_scale: Any, name: str = "guidance_scale") -> float:
    """Strength of guidance as a float, or ValueError."""
    number = not isinstance(guidance_scale, bool) and isinstance(guidance_scale, Real)
    if not number or not math.isfinite(guidance_scale):
        raise ValueError(f"{name}: {guidance_scale} must be a finite number; 1 is off")
    return float(guidance_scale)


def check_fps(fps: Any) -> float:
    """Pixel frames per second as a float, or ValueError."""
    if isinstance(fps, bool) or not isinstance(fps, Real) or not 0 < float(fps) < math.inf:
        raise ValueError(f"fps: {fps!r} must be a positive number of frames per second; use 16")
    return float(fps)


def check_attention_kwargs(attention_kwargs: Any) -> None:
    """Raise ValueError unless what goes to the attention layers is left out or has names."""
    if attention_kwargs is not None and not isinstance(attention_kwargs, Mapping):
        given = type(attention_kwargs).__name__
        raise ValueError(f"attention_kwargs: {given} is no dict; {{'scale': 0.5}} weakens adapters")


def check_tracks(tracks: Any, num_frames: int, picture: tuple[int, int] | None = None) -> None:
    """Raise ValueError unless ``tracks`` are None or `Tracks` that fit into ``num_frames`` pixel frames.

    And into a picture of (width, height), if there is one.
    """
    if tracks is None:
        return
    if not isinstance(tracks, Tracks):
        raise ValueError(f"tracks: got {type(tracks).__name__}; use Tracks.from_points or Tracks.from_json")
    if tracks.num_frames > num_frames:
        raise ValueError(
            f"tracks: they last {tracks.num_frames} frames, the clip only {num_frames}; "
            f"use tracks.retimed({num_frames})"
        )
    if picture is not None:
        tracks.crop_on(*picture)


def check_output_type(output_type: Any) -> None:
    """Raise ValueError unless frames can be given back in that form."""
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type: {output_type!r} is unknown; use one of {', '.join(OUTPUT_TYPES)}")


def one_each(value: Any, count: int, name: str, kind: Any) -> list[Any]:
    """Repeat one value ``count`` times, or check that a list has as many (else ValueError)."""
    values = list(value) if isinstance(value, list | tuple) else [value] * count
    if len(values) != count:
        raise ValueError(f"{name}: {len(values)} given for {count} clip(s); give one, or one for each clip")
    for entry in values:
        if not isinstance(entry, kind):
            raise ValueError(f"{name}: {type(entry).__name__} is not what is expected; see the docstring")
    return values


def row_each(value: Tensor | None, count: int, name: str) -> list[Tensor | None]:
    """Rows ``[1, ...]`` of a tensor that has one for all or one for each of ``count`` clips (else ValueError)."""
    if value is None:
        return [None] * count
    if not isinstance(value, Tensor) or len(value) not in (1, count):
        given = f"{len(value)} rows" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name}: {given} given for {count} clip(s); give a tensor with one row, or one for each")
    return list(value.split(1)) * (count if len(value) == 1 else 1)


def check_scheduler(scheduler: Any) -> None:
    """Raise ValueError unless the scheduler is ours or left out: others know neither the schedule nor the sampler."""
    if scheduler is not None and not isinstance(scheduler, FewStepScheduler):
        raise ValueError(
            f"scheduler: {type(scheduler).__name__} cannot run here, since a few-step checkpoint is trained on its "
            "own sampler; use FewStepScheduler.from_pretrained(folder, subfolder='scheduler')"
        )


def check_streams(scheduler: Any) -> None:
    """Raise ValueError unless the scheduler is ours and its checkpoint makes latent after latent."""
    check_scheduler(scheduler)
    if scheduler.config.mode != "causal":
        raise ValueError(
            f"mode: this checkpoint is {scheduler.config.mode} and makes a clip at once: call the pipeline, or "
            "start_clip, instead of streaming; or train a causal student from it (python -m training.finetune "
            "--causal true --init_from FOLDER)"
        )


def chosen_mode(mode: str | None, scheduler: FewStepScheduler) -> str:
    """``"causal"`` or ``"bidirectional"``, the checkpoint's own where it is left out, or ValueError."""
    check_scheduler(scheduler)
    known = CHOICES["mode"]
    if mode is not None and mode not in known:
        raise ValueError(f"mode: {mode!r} is unknown; use {' or '.join(map(repr, known))}, or leave it out")
    chosen: str = mode or scheduler.config.mode
    if chosen == "causal":
        check_streams(scheduler)
    return chosen


def check_image_embeds(embeds: Tensor | None, width: int | None) -> None:
    """Raise ValueError unless image tokens are left out or are ``[1, any, width]`` of a model that reads them."""
    if embeds is None:
        return
    if width is None:
        raise ValueError("image_embeds: this model reads no image tokens; leave them out")
    if embeds.ndim != 3 or embeds.shape[2] != width or not embeds.is_floating_point():
        raise ValueError(f"image_embeds: shape {list(embeds.shape)} must be [B, any, {width}]; use encode_image")


def check_texts(prompt: str | None, embeds: Tensor | None, name: str, width: int) -> None:
    """Raise ValueError unless a text is given as words or as tokens ``[1, any, width]``, not both."""
    if embeds is None:
        return
    if prompt:
        raise ValueError(f"{name} and {name}_embeds: both are given; leave one of them out")
    if embeds.ndim != 3 or embeds.shape[2] != width or not embeds.is_floating_point():
        raise ValueError(f"{name}_embeds: shape {list(embeds.shape)} must be [B, any, {width}]; use encode_prompt")


def check_latents(latents: Tensor | None, channels: int, num_latents: int | None, height: int, width: int) -> None:
    """Raise ValueError unless ``latents`` are None or noise for a clip of that size (``num_latents`` None: any)."""
    if latents is None:
        return
    shape = list(latents.shape)
    frames = shape[2:3] if num_latents is None else [num_latents]
    if shape[1:] != [channels, *frames, height, width]:
        wanted = f"[B, {channels}, {'F' if num_latents is None else num_latents}, {height}, {width}]"
        raise ValueError(f"latents: shape {shape} must be {wanted}; it is the noise to start from")


def draw_seed(generator: torch.Generator | None) -> int:
    """A clip's seed: the next number of ``generator``, or a random one."""
    return int(torch.randint(2**62, (), generator=generator, device=generator.device if generator else None))
