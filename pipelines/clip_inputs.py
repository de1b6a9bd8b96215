"""What a whole clip is steered by, all at once: for the bidirectional teacher and for rollouts of stage 3."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from ardrag.conditioning import Conditions, image_slot
from ardrag.rollout import Noise
from ardrag.streaming_vae import StreamingVAE
from ardrag.tracks.tracks import Tracks
from pipelines.pipeline_ardrag import ARDragPipeline


@torch.no_grad()
def clip_inputs(
    pipeline: ARDragPipeline, image: Image.Image, prompt: str, tracks: Tracks, num_frames: int, noise: Noise
) -> tuple[Conditions, Tensor]:
    """Conditions (one row, Eq. 6) and reference latent ``[1, C, 1, H, W]`` of a clip of ``num_frames`` pixel frames.

    ``image`` has the size that is generated; ``noise`` fills the image slot beyond latent 0.
    """
    reference = pipeline.encode_reference(image)
    coloured = pipeline.config.coloured_tracks
    video = tracks.control_video(image.height, image.width, range(num_frames), coloured)
    motion = StreamingVAE(pipeline.vae).encode(video[None].to(reference.device)).to(reference.dtype)
    slot = image_slot(reference, noise(motion.shape))
    return Conditions(motion, slot, pipeline.encode_prompt([prompt]), pipeline.encode_image(image)), reference
