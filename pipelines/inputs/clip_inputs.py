"""What a whole clip is steered by, all at once: for the bidirectional teacher and for rollouts of stage 3."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from ardrag.conditioning import Conditions, image_slot
from ardrag.controls.control import Rows
from ardrag.rollout import Noise
from ardrag.tracks.tracks import Tracks
from pipelines.pipeline_ardrag import ARDragPipeline


@torch.no_grad()
def clip_inputs(
    pipeline: ARDragPipeline,
    image: Image.Image,
    prompt: str,
    tracks: Tracks,
    num_frames: int,
    noise: Noise,
    masks: Tensor | None = None,
    seed: int = 0,
) -> tuple[Conditions, Tensor]:
    """Conditions (one row, Eq. 6) and reference latent ``[1, C, 1, H, W]`` of a clip of ``num_frames`` pixel frames.

    ``image`` has the size that is generated; a track that begins late is shown what is in ``image`` at its place: no
    later frame is known yet. ``noise`` fills the image slot beyond latent 0. ``masks`` and ``seed`` are those of
    `Scene`.
    """
    scene = pipeline.scene(image, masks, seed)
    motion = pipeline.control.clip(pipeline.vae, scene, Rows.of(tracks, range(num_frames)))
    drawn = noise((1, scene.reference.shape[1], *motion.shape[2:]))
    slot = image_slot(scene.reference, drawn, fill=pipeline.transformer.config.image_fill)
    text, _ = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
    return Conditions(motion, slot, text, pipeline.encode_image(image)), scene.reference
