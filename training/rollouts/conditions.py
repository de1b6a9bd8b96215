"""Control signals of precomputed clips (AR-Drag Eq. 6), as every stage trains with them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ardrag.conditioning import Conditions, encode_image_tokens, encode_text, image_slot
from ardrag.controls.control import Rows, Scene
from ardrag.known.still_video import grey_after
from ardrag.streaming_vae import StreamingVAE
from ardrag.tracks.tracks import Tracks
from pipelines import ARDragPipeline
from training.rollouts.tokens import stored_tokens
from training.run import tiny
from training.run.data import LatentBatch


def clip_conditions(
    pipeline: ARDragPipeline, batch: LatentBatch, motion: Tensor, image_noise: Tensor, captions: Sequence[str]
) -> Conditions:
    """Conditions of whole clips by the encoders of ``pipeline``; gradients reach them where they are trained.

    Args:
        motion: heat-map latents ``[B, C, F, H, W]``, the batch's own or blank ones.
        image_noise: noise in the place of the image beyond latent 0, like ``motion``.
        captions: one for each clip, empty where text was dropped.
    """
    fill = pipeline.transformer.config.image_fill
    grey = grey_latents(pipeline, batch) if fill == "grey" else None
    return Conditions(
        motion=motion,
        image=image_slot(batch.latents[:, :, :1], image_noise, fill=fill, grey=grey),
        **{name: tokens.to(batch.latents) for name, tokens in clip_tokens(pipeline, batch, captions).items()},
    )


def clip_tokens(pipeline: ARDragPipeline, batch: LatentBatch, captions: Sequence[str]) -> dict[str, Tensor]:
    """Text and image tokens by the encoders of ``pipeline``, or those that are stored where it has none."""
    if pipeline.text_encoder is None:
        return dict(zip(("text", "image_tokens"), stored_tokens(batch.rows, captions), strict=True))
    encoder = next(pipeline.image_encoder.parameters())  # frozen ones may be in half precision
    pictures = tiny.pixel_values(pipeline.image_processor, list(batch.reference))
    return {
        "text": encode_text(pipeline.tokenizer, pipeline.text_encoder, captions),
        "image_tokens": encode_image_tokens(pipeline.image_encoder, pictures.to(encoder)),
    }


def grey_latents(pipeline: ARDragPipeline, batch: LatentBatch) -> Tensor:
    """Latents ``[B, C, F, H, W]`` of each picture with grey after it, which clips do not hold: they are encoded here.

    In the VAE's own precision also under autocast, as clips are precomputed.
    """
    vae, count = pipeline.vae, batch.latents.shape[2]
    pictures = batch.reference.to(vae.device).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.autocast(vae.device.type, enabled=False):
        return torch.cat([grey_after(vae, picture)(0, count) for picture in pictures])


def halve_encoders(pipeline: ARDragPipeline, mixed_precision: str) -> None:
    """Hold frozen encoders that are not ours in bfloat16 where all else is: UMT5-XXL takes 21 GiB otherwise."""
    for part in (pipeline.text_encoder, pipeline.image_encoder):
        if mixed_precision == "bf16" and part is not None and not tiny.began_here(pipeline):
            part.to(torch.bfloat16)


@torch.no_grad()
def blank_motion(pipeline: ARDragPipeline, height: int, width: int, num_latents: int) -> Tensor:
    """Motion slot of a clip without any track, ``[1, C, F, H, W]``; ``height`` and ``width`` in pixels.

    In the VAE's own precision also under autocast, as clips are precomputed.
    """
    vae = pipeline.vae
    frames = 1 + vae.config.scale_factor_temporal * (num_latents - 1)
    picture = torch.zeros(3, height, width, device=vae.device)
    with torch.autocast(vae.device.type, enabled=False):
        scene = Scene(picture, StreamingVAE(vae).encode(picture[None, :, None]), outline=pipeline.outline)
        return pipeline.control.clip(vae, scene, Rows.of(Tracks.empty(frames))).cpu()


class BlankMotion:
    """Motion slots of clips without any track, for batches of any shape; each shape is encoded once."""

    def __init__(self, pipeline: ARDragPipeline) -> None:
        self._pipeline = pipeline
        self._known: dict[tuple[int, int, int], Tensor] = {}

    def __call__(self, batch: LatentBatch) -> Tensor:
        """``[1, C, F, H, W]`` in the shape of ``batch``, on the CPU."""
        height, width = batch.reference.shape[1:3]
        shape = height, width, batch.latents.shape[2]
        if shape not in self._known:
            self._known[shape] = blank_motion(self._pipeline, *shape)
        return self._known[shape]
