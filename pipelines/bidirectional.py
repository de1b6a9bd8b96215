"""A whole clip at once, every latent looking at every other: the teacher of stage 2, and the rival in every table.

A pipeline is causal; its weights may still be those of a bidirectional model (stage 1). This runs them as such: no
first frame before the last step, the control of the whole clip needed at the start.
"""

from __future__ import annotations

import numpy as np
import torch

from ardrag.flow import FewStepScheduler
from ardrag.rollout import GeneratorNoise, generate_clip, seeded_generator
from ardrag.streaming_vae import StreamingVAE
from ardrag.tracks.crop import Crop
from ardrag.tracks.tracks import Tracks
from pipelines.image_input import Picture, check_image, fit_image
from pipelines.inputs.clip_inputs import clip_inputs
from pipelines.pipeline_ardrag import ARDragPipeline
from pipelines.video import to_frames


@torch.no_grad()
def generate_bidirectional(
    pipeline: ARDragPipeline,
    image: Picture,
    prompt: str = "",
    tracks: Tracks | None = None,
    num_frames: int | None = None,
    num_inference_steps: int | None = None,
    seed: int = 0,
    masks: torch.Tensor | None = None,
) -> np.ndarray:
    """Generate a clip with all latents at once by the flow ODE; uint8 ``[T, H, W, 3]``.

    Args are those of `ARDragPipeline.stream`, and ``masks`` those of `start_session`; ``num_inference_steps`` counts
    steps of the whole clip.

    Raises:
        ValueError: naming the argument and the remedy.
    """
    length = pipeline.clip_length(tracks, num_frames)
    image = check_image(image)
    height, width = pipeline.size_for(image, None, None)
    pipeline.check_inputs(tracks, length, height, width, num_inference_steps, picture=image.size)
    scheduler: FewStepScheduler = pipeline.scheduler
    steps = scheduler.config.num_inference_steps if num_inference_steps is None else num_inference_steps
    fitted = fit_image(image, height, width)
    control = tracks if tracks is not None else Tracks.empty(length)
    shown = control.cropped(control.crop_on(*image.size).inverse).cropped(Crop.covering(*image.size, width, height))
    noise = GeneratorNoise([seeded_generator(seed)], pipeline._execution_device, pipeline.transformer.dtype)
    conditions, reference = clip_inputs(pipeline, fitted, prompt, shown, length, noise, masks, seed)
    given = reference if scheduler.config.first_frame == "encode" else None
    latents = generate_clip(pipeline.transformer, conditions, scheduler.schedule(steps), 0.0, noise, given)
    frames = to_frames(StreamingVAE(pipeline.vae).decode(latents)[0])
    pipeline.maybe_free_model_hooks()
    return frames
