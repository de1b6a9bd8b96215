"""A whole clip at once, every latent looking at every other: public checkpoints, the teacher of stage 2, the rival.

    video = pipe(image, prompt="...", tracks=tracks).frames[0]       # where the checkpoint's mode is "bidirectional"
    clip = pipe.start_clip(image, "...", tracks=tracks)              # the same step by step
    while not clip.done:
        clip.step()
    frames = clip.frames()

No first frame before the last step, and the control of the whole clip is needed at the start. The weights of a causal
pipeline may be run so too (``mode="bidirectional"``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from ardrag.conditioning import Conditions
from ardrag.guidance import Guidance, without
from ardrag.rollout import GeneratorNoise, GivenFirst, Noise, clip_steps, seeded_generator
from ardrag.streaming_vae import StreamingVAE
from ardrag.tracks.crop import Crop
from ardrag.tracks.schema import Canvas
from ardrag.tracks.tracks import Tracks
from ardrag.transformer import CausalWanTransformer
from pipelines.image_input import Picture, check_image, fit_image
from pipelines.inputs.arguments import check_attention_kwargs, whole_number
from pipelines.inputs.clip_inputs import clip_inputs
from pipelines.streaming import StreamingMixin
from pipelines.video import to_frames


@dataclass(frozen=True)
class WholeInputs:
    """All that a clip is made of: the conditions of each answer of the model (`ardrag.guidance`), settings, noise.

    ``reference`` is latent 0 where it is given; ``solver`` one of diffusers', or None for Euler on ``sigmas``.
    """

    conditions: list[Conditions]
    reference: Tensor | None
    noise: Noise
    sigmas: list[float]
    guidance: Guidance
    solver: Any
    tracks: Tracks
    fps: float


class WholeClip:
    """One clip in the making, all its latents at once. Get one from `ARDragPipeline.start_clip`.

    Attributes:
        position: denoising steps that are made.
        steps: how many there will be.
        latents: normalised latents ``[1, C, F, H, W]`` after the last step; noisy until `done`.
        tracks: the control, on the picture as it was given.
        fps: playback rate of the video.
    """

    def __init__(self, transformer: CausalWanTransformer, vae: AutoencoderKLWan, inputs: WholeInputs) -> None:
        self._vae, self.tracks, self.fps = vae, inputs.tracks, inputs.fps
        self.steps = len(inputs.sigmas) - 1 if inputs.solver is None else len(inputs.solver.timesteps)
        self.position = 0
        self.latents = inputs.conditions[0].image[:, :, :0]
        self._given: Tensor | None = None
        self._generator = clip_steps(
            transformer,
            inputs.conditions,
            inputs.sigmas,
            0.0,
            inputs.noise,
            inputs.reference,
            inputs.guidance,
            inputs.solver,
        )

    @property
    def done(self) -> bool:
        """Whether all steps are made."""
        return self.position == self.steps

    @torch.no_grad()
    def step(self) -> float:
        """Make the next denoising step; returns its sigma."""
        sigma, self.latents = self._generator.send(self._given)
        self._given = None
        self.position += 1
        return sigma

    def replace(self, latents: Tensor) -> None:
        """Go on with other latents."""
        self.latents = self._given = latents

    @torch.no_grad()
    def frames(self) -> np.ndarray:
        """The pixel frames as they are now, uint8 ``[T, H, W, 3]``; decoded latent by latent."""
        vae = StreamingVAE(self._vae)
        return np.concatenate([to_frames(vae.decode_next(latent)[0]) for latent in self.latents.split(1, dim=2)])


class WholeClipMixin(StreamingMixin):
    """`start_clip` of a diffusers pipeline."""

    @torch.no_grad()
    def start_clip(
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
        guidance_scale: float | None = None,
        motion_guidance_scale: float | None = None,
        seed: int = 0,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        image_embeds: Tensor | None = None,
        latents: Tensor | None = None,
        attention_kwargs: Mapping[str, Any] | None = None,
        max_sequence_length: int | None = None,
        masks: Tensor | None = None,
    ) -> WholeClip:
        """Start a clip whose latents are made all at once, by the flow ODE, step by step.

        Args are those of `start_session`, with the whole control in ``tracks`` and ``num_frames`` as in `stream`;
        ``num_inference_steps`` counts steps of the whole clip.

        Raises:
            ValueError: naming the argument and the remedy.
        """
        length = self.clip_length(tracks, num_frames)
        image = check_image(image)
        size = self.size_for(image, height, width)
        self.check_inputs(tracks, length, *size, num_inference_steps, picture=image.size)
        seed = whole_number(seed, "seed", 0)
        guidance = self.guidance_of(guidance_scale, motion_guidance_scale)
        self._check_tensors(size, latents, self._num_latents(length), image_embeds)
        check_attention_kwargs(attention_kwargs)
        texts = (prompt, negative_prompt, prompt_embeds, negative_prompt_embeds)
        text = self._encode_texts(*texts, bool(guidance.text), max_sequence_length)
        noise = GeneratorNoise([seeded_generator(seed)], self._execution_device, torch.float32)
        control = tracks if tracks is not None else Tracks.empty(length)
        control = control.cropped(control.crop_on(*image.size).inverse)
        shown = control.cropped(Crop.covering(*image.size, size[1], size[0]))
        inputs = (shown, length, noise, masks, seed, attention_kwargs)
        parts, reference = self._clip_conditions(fit_image(image, *size), text, image_embeds, guidance, *inputs)
        config = self.scheduler.config
        whole = WholeInputs(
            conditions=parts,
            reference=reference if config.first_frame == "encode" else None,
            noise=noise if latents is None else GivenFirst(latents.to(self._execution_device, torch.float32), noise),
            sigmas=self.scheduler.schedule(num_inference_steps),
            guidance=guidance,
            solver=self.scheduler.multistep(num_inference_steps),
            tracks=replace(control.extended(length), canvas=Canvas(*image.size)),
            fps=self.config.fps,
        )
        return WholeClip(self.transformer, self.vae, whole)

    def _clip_conditions(
        self,
        fitted: Any,
        text: Tensor,
        image_embeds: Tensor | None,
        guidance: Guidance,
        tracks: Tracks,
        num_frames: int,
        noise: Noise,
        masks: Tensor | None,
        seed: int,
        attention_kwargs: Mapping[str, Any] | None,
    ) -> tuple[list[Conditions], Tensor]:
        """Conditions of each answer that guidance takes, and the latent of the picture."""
        options: dict[str, Any] = {
            "text": text[:1],
            "image_tokens": image_embeds,
            "attention_kwargs": attention_kwargs,
        }
        wanted, reference = clip_inputs(self, fitted, "", tracks, num_frames, noise, masks, seed, **options)
        blank = torch.zeros_like(wanted.motion)
        if guidance.motion and self.scheduler.config.motion_null == "blank":
            blank = self.control.blank(self.vae, self.scene(fitted, masks, seed))(0, wanted.motion.shape[2])
        return without(wanted, text[-1:], blank, guidance), reference


def generate_bidirectional(
    pipeline: WholeClipMixin,
    image: Picture,
    prompt: str = "",
    tracks: Tracks | None = None,
    num_frames: int | None = None,
    num_inference_steps: int | None = None,
    seed: int = 0,
    masks: Tensor | None = None,
) -> np.ndarray:
    """Generate a clip with all latents at once; uint8 ``[T, H, W, 3]``.

    Args are those of `WholeClipMixin.start_clip`.

    Raises:
        ValueError: naming the argument and the remedy.
    """
    options: dict[str, Any] = {"num_inference_steps": num_inference_steps, "seed": seed, "masks": masks}
    clip = pipeline.start_clip(image, prompt, tracks=tracks, num_frames=num_frames, **options)
    while not clip.done:
        clip.step()
    frames = clip.frames()
    pipeline.maybe_free_model_hooks()
    return frames
