"""What `ARDragPipeline.__call__` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffusers.utils import BaseOutput

from ardrag.tracks import Tracks


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
