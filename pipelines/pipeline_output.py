"""What `ARDragPipeline.__call__` returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image

from ardrag.tracks.tracks import Tracks


@dataclass
class ARDragPipelineOutput(BaseOutput):
    """A generated clip per input image.

    Args:
        frames: one video per image, in the form that ``output_type`` asked for: lists of pictures (``"pil"``), arrays
            ``[B, T, H, W, 3]`` in 0..1 (``"np"``), tensors ``[B, T, 3, H, W]`` in 0..1 (``"pt"``) or latents
            ``[B, C, F, H, W]`` (``"latent"``).
        tracks: the control that was really applied, one per image.
    """

    frames: Any
    tracks: list[Tracks]


def convert_frames(clips: Sequence[Any], output_type: str) -> Any:
    """uint8 clips ``[T, H, W, 3]``, or latents ``[1, C, F, H, W]``, in the form that ``output_type`` names.

    Where a call was interrupted, stacked clips are cut to the shortest.
    """
    if output_type == "pil":
        return [[Image.fromarray(frame) for frame in clip] for clip in clips]
    if output_type == "latent":
        return torch.cat([clip[:, :, : min(clip.shape[2] for clip in clips)] for clip in clips])
    stacked = np.stack([clip[: min(map(len, clips))] for clip in clips]).astype(np.float32) / 255
    return stacked if output_type == "np" else torch.from_numpy(stacked).permute(0, 1, 4, 2, 3)
