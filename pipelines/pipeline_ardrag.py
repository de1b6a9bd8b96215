"""ARDragPipeline: a picture, a prompt and drawn tracks in; a video that follows them out, frame by frame.

pipe = ARDragPipeline.from_pretrained("checkpoints/ardrag-tiny")
video = pipe(image, prompt="a red star moves right", tracks=tracks, num_frames=33).frames[0]
for frames in pipe.stream(image, tracks=tracks): ...
session = pipe.start_session(image, seed=0); frames = session.step([(0.4, 0.5)])
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, DiffusionPipeline
from diffusers.loaders import WanLoraLoaderMixin
from PIL import Image
from torch import Tensor

from ardrag.controls.build import build_control
from ardrag.controls.control import Control
from ardrag.flow import FewStepScheduler
from ardrag.home import ROOT
from ardrag.streaming_vae import fold_causal_convs
from ardrag.tracks.tracks import Tracks
from ardrag.transformer import CausalWanTransformer
from pipelines.hub.mixin import HubMixin
from pipelines.image_input import Picture, check_image, check_images, fit_image, nearest_bucket
from pipelines.inputs.arguments import (
    check_frame_count,
    check_guidance,
    check_output_type,
    check_size,
    check_steps,
    check_tracks,
    draw_seed,
    one_each,
    whole_number,
)
from pipelines.inputs.encoding import EncodingMixin
from pipelines.pipeline_output import ARDragPipelineOutput, convert_frames
from pipelines.session import LatentCallback, Session, SessionInputs


logger = logging.getLogger(__name__)
PAPER_BUCKETS = ((480, 368), (400, 400), (368, 480), (640, 368), (368, 640))
StepEndCallback = Callable[[Any, int, int, dict[str, Tensor]], dict[str, Tensor]]
BUNDLED_CHECKPOINT = ROOT / "checkpoints" / "ardrag-tiny"
"""The checkpoint that comes with the repository: the default of every front end."""


class ARDragPipeline(HubMixin, EncodingMixin, DiffusionPipeline, WanLoraLoaderMixin):
    """Motion-controlled image-to-video generation, one latent frame at a time (AR-Drag section 3).

    Args:
        transformer: causal, cached denoiser.
        vae: causal video VAE.
        text_encoder, tokenizer: UMT5 encoder and its tokenizer.
        scheduler: schedule and sampler settings the checkpoint was trained with.
        image_encoder, image_processor: CLIP vision tower and its processor, or None for models without image tokens.
        buckets: ``[height, width]`` pairs that the checkpoint was trained on; None means the paper's (appendix B.1).
        fps: frames per second of the generated video.
        control: what the model is shown of the tracks, by name or as ``{"name": ..., settings}`` (`ardrag.controls`);
            default is the paper's heat maps.
        coloured_tracks: what checkpoints before ``control`` say for ``control="coloured"``.
    """

    model_cpu_offload_seq = "text_encoder->image_encoder->transformer->vae"
    _optional_components = ["image_encoder", "image_processor"]
    _callback_tensor_inputs = ["latents"]
    tracks_class = Tracks
    """What a call takes as ``tracks``, at hand also where this class came from the Hub without its package."""

    def __init__(
        self,
        transformer: CausalWanTransformer,
        vae: AutoencoderKLWan,
        text_encoder: Any,
        tokenizer: Any,
        scheduler: FewStepScheduler,
        image_encoder: Any = None,
        image_processor: Any = None,
        buckets: list[list[int]] | None = None,
        fps: float = 16.0,
        control: str | dict[str, Any] | None = None,
        coloured_tracks: bool = False,
    ) -> None:
        super().__init__()
        shown = build_control(control, coloured_tracks)
        fold_causal_convs(vae)  # the same numbers, on a CPU several times faster
        self.register_modules(
            transformer=transformer,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            image_encoder=image_encoder,
            image_processor=image_processor,
            scheduler=scheduler,
        )
        self.register_to_config(
            buckets=[list(bucket) for bucket in buckets or PAPER_BUCKETS], fps=fps, control=shown.config()
        )

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
            ValueError: if only one of the two is given.
        """
        if (height is None) != (width is None):
            raise ValueError("height and width: give both or neither")
        if height is None or width is None:
            return nearest_bucket(image.width, image.height, self.config.buckets)
        return height, width

    @torch.no_grad()
    def start_session(
        self,
        image: Picture,
        prompt: str = "",
        negative_prompt: str = "",
        *,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float = 1.0,
        seed: int = 0,
        history_latents: int = 20,
        masks: Tensor | None = None,
        callback: LatentCallback | None = None,
    ) -> Session:
        """Start a video that is made and steered step by step.

        Args:
            image: picture as `pipelines.image_input.check_image` takes it: PIL, path, array or tensor. It is cropped
                and scaled to the size that is generated; tracks are of the whole picture and go along.
            prompt, negative_prompt: texts; the negative one counts when ``guidance_scale`` is not 1.
            height, width: size in pixels; default is the checkpoint's nearest bucket.
            num_inference_steps: denoising steps per latent; default is what the checkpoint was trained for.
            guidance_scale: classifier-free guidance; 1 is off, and other values double the work.
            seed: same seed and same control give the same pixels.
            history_latents: how many latents `Session.rewind` can go back.
            masks: ``[P, H, W]`` in 0..1 of the size that is generated, what each track is on; for checkpoints that are
                shown masks.
            callback: called after each denoising step with (latent frame, step, latents).

        Raises:
            ValueError: naming the argument and the remedy.
        """
        image = check_image(image)
        height, width = check_size(*self.size_for(image, height, width), self._size_step)
        check_steps(num_inference_steps)
        history_latents = whole_number(history_latents, "history_latents", 0, "; use 0 for no rewinding")
        seed = whole_number(seed, "seed", 0)
        guidance_scale = check_guidance(guidance_scale)
        if negative_prompt and guidance_scale == 1:
            logger.warning("negative_prompt has no effect while guidance_scale is 1")
        fitted = fit_image(image, height, width)
        guided = guidance_scale != 1
        text = self.encode_prompt([prompt, negative_prompt] if guided else [prompt])
        scheduler: FewStepScheduler = self.scheduler
        steps = scheduler.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        inputs = SessionInputs(
            scene=self.scene(fitted, masks, seed),
            control=self.control,
            text=text,
            image_tokens=self.encode_image(fitted, len(text)),
            picture=image.size,
            height=height,
            width=width,
            fps=self.config.fps,
            sigmas=tuple(scheduler.schedule(steps)),
            eta=scheduler.config.eta,
            first_frame=scheduler.config.first_frame,
            guidance_scale=guidance_scale,
            seed=seed,
            history_latents=history_latents,
        )
        return Session(self.transformer, self.vae, inputs, callback)

    def stream(
        self,
        image: Picture,
        prompt: str = "",
        negative_prompt: str = "",
        tracks: Tracks | None = None,
        num_frames: int | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float = 1.0,
        seed: int = 0,
    ) -> Iterator[list[np.ndarray]]:
        """Yield the pixel frames of each latent (uint8 ``[H, W, 3]``; 1, then 4 at a time) as soon as they exist.

        The clip is as long as ``num_frames``, or as the tracks, or 33 frames. Arguments are checked at once, not when
        the first frames are asked for.

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
            guidance_scale=guidance_scale,
            seed=seed,
            history_latents=0,
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
        while len(session.frames) < num_frames:
            frames = session.step(tracks)
            yield frames[: num_frames - len(session.frames) + len(frames)]

    @staticmethod
    def clip_length(tracks: Tracks | None, num_frames: int | None) -> int:
        """Pixel frames of a clip where the user says ``num_frames``, or leaves it to the tracks, or to 33."""
        if num_frames is not None:
            return num_frames
        return tracks.num_frames if isinstance(tracks, Tracks) and tracks.num_frames > 1 else 33

    @torch.no_grad()
    def __call__(
        self,
        image: Picture | Sequence[Picture],
        prompt: str | Sequence[str] = "",
        negative_prompt: str | Sequence[str] = "",
        tracks: Tracks | Sequence[Tracks] | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float = 1.0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepEndCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ARDragPipelineOutput | tuple[Any, list[Tracks]]:
        """Generate whole clips, one per image.

        Args:
            image: picture (PIL, path, array, tensor) or a list of them; prompts, tracks and generators are then one
                for all or one each.
            prompt, negative_prompt: texts.
            tracks: what the user drew on the picture; None or empty tracks mean no control.
            num_frames: pixel frames, ``4k + 1``; default as long as the tracks, or 33.
            height, width: size in pixels; default is the nearest bucket.
            num_inference_steps: denoising steps per latent.
            guidance_scale: classifier-free guidance, 1 is off.
            generator: source of each clip's seed; a clip does not depend on the others in its list.
            output_type: ``"pil"``, ``"np"`` (0..1) or ``"pt"`` (0..1).
            return_dict: return an `ARDragPipelineOutput` or a plain tuple.
            callback_on_step_end: called as ``(pipeline, step, timestep, {"latents": ...})`` after each denoising step,
                where step counts over all latents; may return replaced latents.
            callback_on_step_end_tensor_inputs: only ``"latents"`` exists.

        Raises:
            ValueError: naming the argument and the remedy.
        """
        images = check_images(image)
        count = len(images)
        prompts = one_each(prompt, count, "prompt", str)
        negatives = one_each(negative_prompt, count, "negative_prompt", str)
        controls = one_each(tracks, count, "tracks", (Tracks, type(None)))
        generators = one_each(generator, count, "generator", (torch.Generator, type(None)))
        unknown = set(callback_on_step_end_tensor_inputs) - set(self._callback_tensor_inputs)
        if unknown:
            raise ValueError(f"callback_on_step_end_tensor_inputs: unknown {sorted(unknown)}; only 'latents' exists")
        jobs = []
        for picture, control in zip(images, controls, strict=True):
            length = self.clip_length(control, num_frames)
            size = self.size_for(picture, height, width)
            self.check_inputs(control, length, *size, num_inference_steps, output_type, picture.size)
            jobs.append((length, size))
        if output_type != "pil" and len(set(jobs)) > 1:
            raise ValueError(f"output_type: {output_type!r} stacks clips of one length and size; use 'pil'")
        clips, applied = [], []
        for i, (length, size) in enumerate(jobs):
            session = self.start_session(
                images[i],
                prompts[i],
                negatives[i],
                height=size[0],
                width=size[1],
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                seed=draw_seed(generators[i]),
                history_latents=0,
                callback=self._step_callback(callback_on_step_end, num_inference_steps),
            )
            clips.append(self._collect(session, controls[i], length))
            applied.append(session.tracks)
            session.close()
        self.maybe_free_model_hooks()
        frames = convert_frames(clips, output_type)
        return ARDragPipelineOutput(frames=frames, tracks=applied) if return_dict else (frames, applied)

    def _collect(self, session: Session, tracks: Tracks | None, num_frames: int) -> np.ndarray:
        """Run a session behind the progress bar; uint8 ``[T, H, W, 3]``."""
        frames: list[np.ndarray] = []
        with self.progress_bar(total=num_frames) as bar:
            for part in self._run(session, tracks, num_frames):
                frames.extend(part)
                bar.update(len(part))
        return np.stack(frames)

    def _step_callback(
        self, callback: StepEndCallback | None, num_inference_steps: int | None
    ) -> LatentCallback | None:
        if callback is None:
            return None
        config = self.scheduler.config
        steps = config.num_inference_steps if num_inference_steps is None else num_inference_steps
        sigmas = self.scheduler.schedule(steps)
        offset = 1 if config.first_frame == "encode" else 0
        chunk = self.transformer.config.chunk_frames

        def tell(latent: int, step: int, latents: Tensor) -> Tensor:
            total = (latent - offset) // chunk * steps + step
            changed = callback(self, total, int(1000 * sigmas[step]), {"latents": latents})
            return changed.get("latents", latents) if changed else latents

        return tell
