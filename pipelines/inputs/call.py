"""One call of the pipeline: the clips that it asks for, and what it tells and can be told while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ardrag.tracks.tracks import Tracks
from pipelines.inputs.arguments import one_each, row_each, whole_number


Text = str | None
Texts = str | Sequence[str] | None
Generators = torch.Generator | Sequence[torch.Generator] | None


@dataclass(frozen=True)
class Clip:
    """What one clip of a call is made of; the tensors have one row."""

    image: Image.Image
    tracks: Tracks | None
    prompt: Text
    negative_prompt: Text
    prompt_embeds: Tensor | None
    negative_prompt_embeds: Tensor | None
    image_embeds: Tensor | None
    generator: torch.Generator | None
    latents: Tensor | None


def plan_clips(
    images: Sequence[Image.Image],
    tracks: Tracks | Sequence[Tracks] | None,
    prompt: Texts,
    negative_prompt: Texts,
    prompt_embeds: Tensor | None,
    negative_prompt_embeds: Tensor | None,
    image_embeds: Tensor | None,
    num_videos_per_prompt: int,
    generator: Generators,
    latents: Tensor | None,
) -> list[Clip]:
    """The clips of a call: one for each picture, or each prompt of one picture, ``num_videos_per_prompt`` times.

    Raises:
        ValueError: if numbers of pictures, prompts, tracks, generators or rows do not fit, or one is of a wrong type.
    """
    repeats = whole_number(num_videos_per_prompt, "num_videos_per_prompt", 1)
    count = len(images)
    if count == 1 and isinstance(prompt, list | tuple):
        count = len(prompt)
        if not prompt:
            raise ValueError("prompt: the list is empty; give a text, or leave it out")
    elif count == 1 and prompt_embeds is not None:
        count = len(prompt_embeds)
    each = zip(
        list(images) * (count if len(images) == 1 else 1),
        one_each(tracks, count, "tracks", (Tracks, type(None))),
        one_each(prompt, count, "prompt", (str, type(None))),
        one_each(negative_prompt, count, "negative_prompt", (str, type(None))),
        row_each(prompt_embeds, count, "prompt_embeds"),
        row_each(negative_prompt_embeds, count, "negative_prompt_embeds"),
        row_each(image_embeds, count, "image_embeds"),
        strict=True,
    )
    repeated = [parts for parts in each for _ in range(repeats)]
    generators = one_each(generator, len(repeated), "generator", (torch.Generator, type(None)))
    given = row_each(latents, len(repeated), "latents")
    return [Clip(*parts, *last) for parts, *last in zip(repeated, generators, given, strict=True)]


class CallState:
    """What diffusers' pipelines tell about the call that runs, and how a callback stops it."""

    _guidance_scale = 1.0
    _num_timesteps = 0
    _current_timestep: float | None = None
    _attention_kwargs: Mapping[str, Any] | None = None
    _interrupt = False

    @property
    def guidance_scale(self) -> float:
        """Strength of guidance; a callback that changes ``_guidance_scale`` changes it from the next latent on."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the call is guided at all."""
        return self._guidance_scale != 1

    @property
    def num_timesteps(self) -> int:
        """Denoising steps of the clip, over all its latents."""
        return self._num_timesteps

    @property
    def current_timestep(self) -> float | None:
        """Timestep of the last denoising step, or None between calls."""
        return self._current_timestep

    @property
    def attention_kwargs(self) -> Mapping[str, Any] | None:
        """What the call was given for attention layers."""
        return self._attention_kwargs

    @property
    def interrupt(self) -> bool:
        """Whether a callback has set ``_interrupt``: the call ends after the latent that is being made."""
        return self._interrupt
