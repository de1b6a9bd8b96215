"""Starting what is made latent by latent: sessions that are steered, and streams that follow tracks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ardrag.controls.build import build_control
from ardrag.controls.control import Control
from ardrag.flow import FewStepScheduler
from ardrag.guidance import Guidance
from ardrag.tracks.tracks import Tracks
from pipelines.image_input import Picture, check_image, fit_image, nearest_bucket
from pipelines.inputs.arguments import (
    check_attention_kwargs,
    check_frame_count,
    check_guidance,
    check_image_embeds,
    check_latents,
    check_output_type,
    check_scheduler,
    check_size,
    check_steps,
    check_streams,
    check_texts,
    check_tracks,
    whole_number,
)
from pipelines.inputs.encoding import EncodingMixin
from pipelines.inputs.session_inputs import LatentCallback, SessionInputs
from pipelines.overlap.second_core import on_two_cores, pays_off
from pipelines.session import Session


logger = logging.getLogger(__name__)


class StreamingMixin(EncodingMixin):
    """`start_session` and `stream` of a diffusers pipeline, with what they check and choose."""

    config: Any
    scheduler: FewStepScheduler
    maybe_free_model_hooks: Any

    @property
    def control(self) -> Control:
        """What the model is shown of the tracks."""
        return build_control(self.config.control)

    def check_inputs(
        self,
        tracks: Tracks | None,
        num_frames: int,
        height: int,
        width: int,
        num_inference_steps: int | None,
        output_type: str = "pil",
        picture: tuple[int, int] | None = None,
    ) -> None:
        """Check what a user can get wrong, before anything is computed; ``picture`` is the (width, height) given.

        Raises:
            ValueError: naming the argument and the remedy.
        """
        check_scheduler(self.scheduler)
        check_frame_count(num_frames, self.vae.config.scale_factor_temporal)
        check_size(height, width, self._size_step)
        check_steps(num_inference_steps)
        check_output_type(output_type)
        check_tracks(tracks, num_frames, picture)

    @property
    def _size_step(self) -> int:
        return int(self.vae.config.scale_factor_spatial * self.transformer.config.patch_size[1])

    def size_for(self, image: Image.Image, height: int | None, width: int | None) -> tuple[int, int]:
        """Picture size ``(height, width)`` to generate: the one asked for, or the nearest bucket (appendix B.1).

        Raises:
            ValueError: if only one of the two is given, or they are no sizes that this model makes.
        """
        if (height is None) != (width is None):
            raise ValueError("height and width: give both or neither")
        if height is None or width is None:
            return nearest_bucket(image.width, image.height, self.config.buckets)
        return check_size(height, width, self._size_step)

    @torch.no_grad()
    def start_session(
        self,
        image: Picture,
        prompt: str | None = "",
        negative_prompt: str | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        motion_guidance_scale: float | None = None,
        seed: int = 0,
        history_latents: int = 20,
        callback: LatentCallback | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        image_embeds: Tensor | None = None,
        latents: Tensor | None = None,
        attention_kwargs: Mapping[str, Any] | None = None,
        max_sequence_length: int | None = None,
        masks: Tensor | None = None,
        overlap: bool | None = None,
    ) -> Session:
        """Start a video that is made and steered step by step.

        Args:
            image: picture as `pipelines.image_input.check_image` takes it: PIL, path, array or tensor. It is cropped
                and scaled to the size that is generated; tracks are of the whole picture and go along.
            prompt, negative_prompt: texts; the negative one counts when ``guidance_scale`` is not 1, and is the
                checkpoint's own where it is None.
            height, width: size in pixels; default is the checkpoint's nearest bucket.
            num_inference_steps: denoising steps per latent; default is what the checkpoint was trained for.
            guidance_scale: guidance over the text; 1 is off, other values take another pass; default is the
                checkpoint's own.
            motion_guidance_scale: likewise over the motion (`ardrag.guidance`).
            seed: same seed and same control give the same pixels.
            history_latents: how many latents `Session.rewind` can go back.
            callback: called after each denoising step with (latent frame, step, latents).
            prompt_embeds, negative_prompt_embeds: tokens ``[1, Lt, Dt]`` of `encode_prompt` instead of texts.
            image_embeds: tokens ``[1, Li, Di]`` of `encode_image` instead of the picture's.
            latents: noise ``[1, C, F, H, W]`` that the first ``F`` latents start from, instead of the seed's.
            attention_kwargs: for the transformer; ``{"scale": 0.5}`` weakens adapters.
            max_sequence_length: text tokens; default is the tokenizer's own number.
            masks: ``[P, H, W]`` in 0..1 of the size that is generated, what each track is on; for checkpoints that are
                shown masks.
            overlap: run independent parts side by side on two cores; the pixels are the same. Default is where the
                pipeline runs on a CPU with two threads of torch or more.

        Raises:
            ValueError: naming the argument and the remedy.
        """
        image = check_image(image)
        height, width = self.size_for(image, height, width)
        check_streams(self.scheduler)
        check_steps(num_inference_steps)
        history_latents = whole_number(history_latents, "history_latents", 0, "; use 0 for no rewinding")
        seed = whole_number(seed, "seed", 0)
        guidance = self.guidance_of(guidance_scale, motion_guidance_scale)
        self._check_tensors((height, width), latents, None, image_embeds)
        check_attention_kwargs(attention_kwargs)
        texts = (prompt, negative_prompt, prompt_embeds, negative_prompt_embeds)
        fitted, scheduler, place = fit_image(image, height, width), self.scheduler, self._execution_device

        def encode() -> tuple[Tensor, Tensor | None]:
            text = self._encode_texts(*texts, bool(guidance.text), max_sequence_length, place)
            text = torch.cat([text, text[:1]]) if guidance.motion else text
            return text, self.image_tokens(fitted, image_embeds, len(text), place)

        overlap = pays_off(place) if overlap is None else overlap
        (text, image_tokens), scene = on_two_cores(encode, lambda: self.scene(fitted, masks, seed, place), overlap)
        inputs = SessionInputs(
            scene=scene,
            control=self.control,
            text=text,
            image_tokens=image_tokens,
            picture=image.size,
            height=height,
            width=width,
            fps=self.config.fps,
            sigmas=tuple(scheduler.schedule(num_inference_steps)),
            eta=scheduler.config.eta,
            first_frame=scheduler.config.first_frame,
            guidance_scale=1 + guidance.text,
            motion_guidance_scale=1 + guidance.motion,
            motion_null=scheduler.config.motion_null,
            seed=seed,
            history_latents=history_latents,
            latents=None if latents is None else latents.to(scene.reference),
            attention_kwargs=attention_kwargs,
            overlap=overlap,
        )
        return Session(self.transformer, self.vae, inputs, callback)

    def _check_tensors(
        self, size: tuple[int, int], latents: Tensor | None, num_latents: int | None, image_embeds: Tensor | None
    ) -> None:
        """Raise ValueError unless noise and image tokens are left out, or fit (height, width) and this model."""
        grid = [side // self.vae.config.scale_factor_spatial for side in size]
        check_latents(latents, self.transformer.config.out_channels, num_latents, *grid)
        check_image_embeds(image_embeds, self.transformer.config.image_dim)

    def _num_latents(self, num_frames: int) -> int:
        return 1 + (num_frames - 1) // int(self.vae.config.scale_factor_temporal)

    def guidance_of(self, guidance_scale: float | None, motion_guidance_scale: float | None) -> Guidance:
        """Guidance over text and motion, by the checkpoint's own scales where one is left out; or ValueError."""
        config = self.scheduler.config
        text = config.guidance_scale if guidance_scale is None else guidance_scale
        motion = config.motion_guidance_scale if motion_guidance_scale is None else motion_guidance_scale
        return Guidance(check_guidance(text) - 1, check_guidance(motion, "motion_guidance_scale") - 1)

    def _encode_texts(
        self,
        prompt: str | None,
        negative_prompt: str | None,
        prompt_embeds: Tensor | None,
        negative_prompt_embeds: Tensor | None,
        guided: bool,
        max_sequence_length: int | None,
        device: torch.device | None = None,
    ) -> Tensor:
        """Checked text tokens of a session: one row, or two (wanted, negative) where it is guided."""
        width = self.transformer.config.text_dim
        check_texts(prompt, prompt_embeds, "prompt", width)
        check_texts(negative_prompt, negative_prompt_embeds, "negative_prompt", width)
        if max_sequence_length is not None:
            whole_number(max_sequence_length, "max_sequence_length", 1)
        if negative_prompt and not guided:
            logger.warning("negative_prompt has no effect while guidance_scale is 1")
        negative_prompt = self.config.negative_prompt if negative_prompt is None else negative_prompt
        wanted, negative = self.encode_prompt(
            prompt,
            negative_prompt,
            guided,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            max_sequence_length=max_sequence_length,
            device=device,
        )
        if negative is not None and negative.shape != wanted.shape:
            shapes = f"{list(negative.shape)} must be that of the wanted ones, {list(wanted.shape)}"
            raise ValueError(f"negative_prompt_embeds: shape {shapes}; encode both with one max_sequence_length")
        return wanted if negative is None else torch.cat([wanted, negative])

    def stream(
        self,
        image: Picture,
        prompt: str | None = "",
        negative_prompt: str | None = None,
        tracks: Tracks | None = None,
        num_frames: int | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        **options: Any,
    ) -> Iterator[list[np.ndarray]]:
        """Yield the pixel frames of each latent (uint8 ``[H, W, 3]``; 1, then 4 at a time) as soon as they exist.

        The clip is as long as ``num_frames``, or as the tracks, or 33 frames. Arguments are checked at once, not when
        the first frames are asked for. ``options`` are those of `start_session`: ``seed``, ``guidance_scale``, ...

        Raises:
            ValueError: naming the argument and the remedy.
        """
        length = self.clip_length(tracks, num_frames)
        image = check_image(image)
        size = self.size_for(image, height, width)
        self.check_inputs(tracks, length, *size, num_inference_steps, picture=image.size)
        session = self.start_session(
            image,
            prompt,
            negative_prompt,
            height=size[0],
            width=size[1],
            num_inference_steps=num_inference_steps,
            **{"history_latents": 0, **options},
        )
        return self._streamed(session, tracks, length)

    def _streamed(self, session: Session, tracks: Tracks | None, num_frames: int) -> Iterator[list[np.ndarray]]:
        """`_run`, after which the session is closed and offloaded models are off the device."""
        try:
            yield from self._run(session, tracks, num_frames)
        finally:
            session.close()
            self.maybe_free_model_hooks()

    def _run(self, session: Session, tracks: Tracks | None, num_frames: int) -> Iterator[list[np.ndarray]]:
        """Step ``session`` until it has ``num_frames`` frames."""
        for frames in session.follow(tracks, num_frames):
            yield frames[: num_frames - len(session.frames) + len(frames)]

    def clip_length(self, tracks: Tracks | None, num_frames: int | None) -> int:
        """Pixel frames of a clip where the user says ``num_frames``, or leaves it to the tracks, or to 33.

        Raises:
            ValueError: if what the user says is no length of a clip.
        """
        if num_frames is not None:
            return check_frame_count(num_frames, self.vae.config.scale_factor_temporal)
        return tracks.num_frames if isinstance(tracks, Tracks) and tracks.num_frames > 1 else 33
