"""ARDragPipeline: a picture, a prompt and drawn tracks in; a video that follows them out, frame by frame.

pipe = ARDragPipeline.from_pretrained("checkpoints/ardrag-tiny")
video = pipe(image, prompt="a red star moves right", tracks=tracks, num_frames=33).frames[0]
for frames in pipe.stream(image, tracks=tracks): ...
session = pipe.start_session(image, seed=0); frames = session.step([(0.4, 0.5)])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from diffusers import AutoencoderKLWan, DiffusionPipeline
from torch import Tensor

from ardrag.controls.build import build_control
from ardrag.flow import FewStepScheduler
from ardrag.home import ROOT
from ardrag.outlines.network import Outline
from ardrag.streaming_vae import fold_causal_convs
from ardrag.tracks.tracks import Tracks
from ardrag.transformer import CausalWanTransformer
from pipelines.bidirectional import WholeClipMixin
from pipelines.hub.mixin import HubMixin
from pipelines.image_input import Picture, check_images
from pipelines.inputs.arguments import check_attention_kwargs, check_fps, check_scheduler, chosen_mode, draw_seed
from pipelines.inputs.call import CallState, Clip, Generators, Texts, plan_clips
from pipelines.inputs.session_inputs import LatentCallback
from pipelines.pipeline_output import ARDragPipelineOutput, convert_frames
from pipelines.session import Session


PAPER_BUCKETS = [[480, 368], [400, 400], [368, 480], [640, 368], [368, 640]]
DEFAULTS: dict[str, Any] = {
    "buckets": PAPER_BUCKETS,
    "fps": 16.0,
    "control": build_control(None).config(),
    "negative_prompt": "",
}
_settings: WeakKeyDictionary[torch.nn.Module, dict[str, Any]] = WeakKeyDictionary()
"""What the pipelines of a transformer were set to: it was trained so."""
StepEndCallback = Callable[[Any, int, int, dict[str, Tensor]], dict[str, Tensor]]
BUNDLED_CHECKPOINT = ROOT / "checkpoints" / "ardrag-tiny-photos"
"""The checkpoint that comes with the repository: the default of every front end."""


class ARDragPipeline(HubMixin, WholeClipMixin, CallState, DiffusionPipeline):
    """Motion-controlled image-to-video generation, one latent frame at a time (AR-Drag section 3).

    Args:
        transformer: causal, cached denoiser.
        vae: causal video VAE.
        text_encoder, tokenizer: UMT5 encoder and its tokenizer.
        scheduler: schedule and sampler settings the checkpoint was trained with.
        image_encoder, image_processor: CLIP vision tower and its processor, or None for models without image tokens.
        outline: what tells where a grabbed thing ends, for the control ``cutout``, or None.
        buckets: ``[height, width]`` pairs that the checkpoint was trained on.
        fps: frames per second of the generated video.
        control: what the model is shown of the tracks, by name or as ``{"name": ..., settings}`` (`ardrag.controls`).
        coloured_tracks: what checkpoints before ``control`` say for ``control="coloured"``.
        negative_prompt: what guidance leads away from where a call does not say.

    Settings that are left out are those of the last pipeline with the same transformer, so that
    ``ARDragPipeline(**pipe.components)`` keeps them; otherwise the paper's: buckets of appendix B.1, heat maps, 16,
    and an empty negative prompt.
    """

    model_cpu_offload_seq = "text_encoder->image_encoder->transformer->vae"
    _optional_components = ["image_encoder", "image_processor", "outline"]
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
        outline: Outline | None = None,
        buckets: list[list[int]] | None = None,
        fps: float | None = None,
        control: str | dict[str, Any] | None = None,
        coloured_tracks: bool = False,
        negative_prompt: str | None = None,
    ) -> None:
        super().__init__()
        check_scheduler(scheduler)
        shown = build_control(control, coloured_tracks).config() if control or coloured_tracks else None
        if vae is not None:
            fold_causal_convs(vae)  # the same numbers, on a CPU several times faster
        self.register_modules(
            transformer=transformer,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            image_encoder=image_encoder,
            image_processor=image_processor,
            outline=outline,
            scheduler=scheduler,
        )
        rate = None if fps is None else check_fps(fps)
        given = {"buckets": buckets, "fps": rate, "control": shown, "negative_prompt": negative_prompt}
        known = {**DEFAULTS, **_settings.get(transformer, {})} if transformer is not None else DEFAULTS
        self.register_to_config(**{name: known[name] if value is None else value for name, value in given.items()})

    def register_to_config(self, **kwargs: Any) -> None:
        """As diffusers' own; settings are also kept for other pipelines of the same transformer."""
        super().register_to_config(**kwargs)
        settings = {name: self.config[name] for name in DEFAULTS if name in self.config}
        if settings and self.transformer is not None:
            _settings[self.transformer] = settings

    @torch.no_grad()
    def __call__(
        self,
        image: Picture | Sequence[Picture],
        prompt: Texts = "",
        negative_prompt: Texts = None,
        tracks: Tracks | Sequence[Tracks] | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        motion_guidance_scale: float | None = None,
        num_videos_per_prompt: int = 1,
        generator: Generators = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        image_embeds: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        attention_kwargs: Mapping[str, Any] | None = None,
        callback_on_step_end: StepEndCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        max_sequence_length: int | None = None,
        masks: Tensor | None = None,
        mode: str | None = None,
    ) -> ARDragPipelineOutput | tuple[Any, list[Tracks]]:
        """Generate whole clips: one for each picture, or for each prompt of one picture.

        Args:
            image: picture (PIL, path, array, tensor) or a list of them; prompts, tracks and generators are then one
                for all or one each.
            prompt, negative_prompt: texts; a prompt of None is an empty one, a negative one of None the checkpoint's.
            tracks: what the user drew on the picture; None or empty tracks mean no control.
            num_frames: pixel frames, ``4k + 1``; default as long as the tracks, or 33.
            height, width: size in pixels; default is the nearest bucket.
            num_inference_steps: denoising steps per latent, or of the whole clip; default is the checkpoint's own.
            guidance_scale, motion_guidance_scale: classifier-free guidance over the text and over the motion, 1 is
                off; default is the checkpoint's own.
            num_videos_per_prompt: how many clips are made of each.
            generator: source of each clip's seed; a clip does not depend on the others in its list.
            latents: noise ``[clips, C, F, H, W]`` to start from.
            prompt_embeds, negative_prompt_embeds: tokens ``[B, Lt, Dt]`` of `encode_prompt` instead of texts.
            image_embeds: tokens ``[B, Li, Di]`` of `encode_image` instead of those of the pictures.
            output_type: ``"pil"``, ``"np"`` (0..1), ``"pt"`` (0..1), or ``"latent"`` (normalised ``[B, C, F, H, W]``).
            return_dict: return an `ARDragPipelineOutput` or a plain tuple.
            attention_kwargs: for the transformer; ``{"scale": 0.5}`` weakens adapters.
            callback_on_step_end: called as ``(pipeline, step, timestep, {"latents": ...})`` after each denoising step,
                where step counts over all latents; may return replaced latents, change ``_guidance_scale`` from the
                next latent on, or set ``_interrupt``: the call then ends with the latent that is being made.
            callback_on_step_end_tensor_inputs: only ``"latents"`` exists.
            max_sequence_length: text tokens; default is the tokenizer's own number.
            masks: ``[P, H, W]`` in 0..1 of the size that is generated, what each track is on, alike for all clips; for
                checkpoints that are shown masks.
            mode: ``"causal"``, latent after latent, or ``"bidirectional"``, all at once; default is the checkpoint's.

        Raises:
            ValueError: naming the argument and the remedy.
        """
        unknown = set(callback_on_step_end_tensor_inputs) - set(self._callback_tensor_inputs)
        if unknown:
            raise ValueError(f"callback_on_step_end_tensor_inputs: unknown {sorted(unknown)}; only 'latents' exists")
        mode = chosen_mode(mode, self.scheduler)
        check_attention_kwargs(attention_kwargs)
        texts = (prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, image_embeds)
        clips = plan_clips(check_images(image), tracks, *texts, num_videos_per_prompt, generator, latents)
        jobs = self._jobs(clips, num_frames, height, width, num_inference_steps, output_type)
        self._interrupt, self._attention_kwargs = False, attention_kwargs
        made: list[Tensor | np.ndarray] = []
        applied = []
        for clip, (length, size) in zip(clips, jobs, strict=True):
            self._guidance_scale = 1 + self.guidance_of(guidance_scale, motion_guidance_scale).text
            options: dict[str, Any] = {
                "height": size[0],
                "width": size[1],
                "num_inference_steps": num_inference_steps,
                "guidance_scale": guidance_scale,
                "motion_guidance_scale": motion_guidance_scale,
                "seed": draw_seed(clip.generator),
                "prompt_embeds": clip.prompt_embeds,
                "negative_prompt_embeds": clip.negative_prompt_embeds,
                "image_embeds": clip.image_embeds,
                "latents": clip.latents,
                "attention_kwargs": attention_kwargs,
                "max_sequence_length": max_sequence_length,
                "masks": masks,
            }
            if mode == "causal":
                told = self._step_callback(callback_on_step_end, num_inference_steps, length)
                frames, clean, used = self._by_latent(clip, length, callback=told, **options)
            else:
                frames, clean, used = self._at_once(clip, length, callback_on_step_end, output_type, **options)
            made.append(clean if output_type == "latent" else frames)
            applied.append(used)
            if self.interrupt:
                break
        self._current_timestep = None
        self.maybe_free_model_hooks()
        output = convert_frames(made, output_type)
        return ARDragPipelineOutput(frames=output, tracks=applied) if return_dict else (output, applied)

    def _jobs(
        self,
        clips: Sequence[Clip],
        num_frames: int | None,
        height: int | None,
        width: int | None,
        num_inference_steps: int | None,
        output_type: str,
    ) -> list[tuple[int, tuple[int, int]]]:
        """Length and size of each clip, all of them checked before the first is begun."""
        jobs = []
        for clip in clips:
            length = self.clip_length(clip.tracks, num_frames)
            size = self.size_for(clip.image, height, width)
            self.check_inputs(clip.tracks, length, *size, num_inference_steps, output_type, clip.image.size)
            self._check_tensors(size, clip.latents, self._num_latents(length), clip.image_embeds)
            jobs.append((length, size))
        if output_type != "pil" and len(set(jobs)) > 1:
            raise ValueError(f"output_type: {output_type!r} stacks clips of one length and size; use 'pil'")
        return jobs

    def _by_latent(self, clip: Clip, length: int, **options: Any) -> tuple[np.ndarray, Tensor, Tracks]:
        """Frames, latents and tracks of a clip that is made latent after latent."""
        session = self.start_session(clip.image, clip.prompt, clip.negative_prompt, history_latents=0, **options)
        frames, clean = self._collect(session, clip.tracks, length)
        session.close()
        return frames, clean, session.tracks

    def _at_once(
        self, clip: Clip, length: int, callback: StepEndCallback | None, output_type: str, **options: Any
    ) -> tuple[np.ndarray, Tensor, Tracks]:
        """Frames, latents and tracks of a clip that is made all at once; interrupted, as noisy as it is then."""
        texts = (clip.prompt, clip.negative_prompt)
        whole = self.start_clip(clip.image, *texts, clip.tracks, length, **options)
        self._num_timesteps = whole.steps
        with self.progress_bar(total=whole.steps) as bar:
            while not whole.done and not self.interrupt:
                self._current_timestep = 1000 * whole.step()
                bar.update()
                if callback is None:
                    continue
                told = int(self._current_timestep)
                changed = callback(self, whole.position - 1, told, {"latents": whole.latents}) or {}
                if "latents" in changed:
                    whole.replace(changed["latents"])
        frames = np.empty(0, np.uint8) if output_type == "latent" else whole.frames()
        return frames, whole.latents, whole.tracks

    def _collect(self, session: Session, tracks: Tracks | None, num_frames: int) -> tuple[np.ndarray, Tensor]:
        """Run a session behind the progress bar; uint8 ``[T, H, W, 3]`` and latents ``[1, C, F, H, W]``."""
        frames: list[np.ndarray] = []
        latents: list[Tensor] = []
        with self.progress_bar(total=num_frames) as bar:
            for part in self._run(session, tracks, num_frames):
                frames.extend(part)
                latents.append(session.latents)
                bar.update(len(part))
                if self.interrupt:
                    break
                session.guidance_scale = self.guidance_scale
        return np.stack(frames), torch.cat(latents, dim=2)[:, :, : self._num_latents(num_frames)]

    def _step_callback(
        self, callback: StepEndCallback | None, num_inference_steps: int | None, num_frames: int
    ) -> LatentCallback | None:
        """What a session tells after each step, in diffusers' terms, if anybody listens; counts the clip's steps."""
        config = self.scheduler.config
        sigmas = self.scheduler.schedule(num_inference_steps)
        steps = len(sigmas) - 1
        given, chunk = config.first_frame == "encode", self.transformer.config.chunk_frames
        first = 1 if given else self.transformer.config.first_chunk_frames or chunk
        rest = max(0, self._num_latents(num_frames) - first)
        self._num_timesteps = (-(-rest // chunk) + (not given)) * steps
        if callback is None:
            return None

        def tell(latent: int, step: int, latents: Tensor) -> Tensor:
            self._current_timestep = 1000 * sigmas[step]
            before = (latent - first) // chunk + (not given) if latent else 0
            total = before * steps + step
            changed = callback(self, total, int(self._current_timestep), {"latents": latents})
            return changed.get("latents", latents) if changed else latents

        return tell
