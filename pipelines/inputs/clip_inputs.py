"""What a whole clip is steered by, all at once: for the bidirectional teacher and for rollouts of stage 3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ardrag.conditioning import Conditions, image_slot
from ardrag.controls.control import Rows
from ardrag.known.still_video import grey_after
from ardrag.rollout import Noise
from ardrag.tracks.tracks import Tracks
from pipelines.streaming import StreamingMixin


@torch.no_grad()
def clip_inputs(
    pipeline: StreamingMixin,
    image: Image.Image,
    prompt: str,
    tracks: Tracks,
    num_frames: int,
    noise: Noise,
    masks: Tensor | None = None,
    seed: int = 0,
    text: Tensor | None = None,
    image_tokens: Tensor | None = None,
    attention_kwargs: Mapping[str, Any] | None = None,
) -> tuple[Conditions, Tensor]:
    """Conditions (one row, Eq. 6) and reference latent ``[1, C, 1, H, W]`` of a clip of ``num_frames`` pixel frames.

    ``image`` has the size that is generated; a track that begins late is shown what is in ``image`` at its place: no
    later frame is known yet. ``noise`` fills the image slot beyond latent 0. ``masks`` and ``seed`` are those of
    `Scene`; ``text`` ``[1, Lt, Dt]`` and ``image_tokens`` ``[1, Li, Di]`` are taken in the place of what prompt and
    picture encode to.
    """
    scene = pipeline.scene(image, masks, seed)
    motion = pipeline.control.clip(pipeline.vae, scene, Rows.of(tracks, range(num_frames)))
    drawn = noise((1, scene.reference.shape[1], *motion.shape[2:]))
    fill = pipeline.transformer.config.image_fill
    grey = grey_after(pipeline.vae, scene.picture)(0, motion.shape[2]) if fill == "grey" else None
    slot = image_slot(scene.reference, drawn, fill=fill, grey=grey)
    if text is None:
        text, _ = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
    tokens = pipeline.image_tokens(image, image_tokens)
    return Conditions(motion, slot, text, tokens, attention_kwargs=attention_kwargs), scene.reference
