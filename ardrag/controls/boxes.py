"""Boxes that move along the tracks, as MagicMotion's second and third stage have them (arXiv 2503.16421).

Kept: a video of filled boxes, one colour for each object, on black, through the VAE; a model is trained on masks first
(`ardrag.controls.masks`), then goes on with boxes. Left out: its ControlNet branch (the video goes into the motion
slot), key boxes in a few frames only, and its latent segmentation loss. A box is a square as wide as the brush.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ardrag.controls.control import Look, PixelControl, Rows, size_of, spreads
from ardrag.controls.heat import SPOT_COLOURS


@dataclass(frozen=True)
class Boxes(PixelControl):
    """See the module. ``radius``, half a side where the track has no brush, is relative to ``sqrt(H W)``."""

    name: ClassVar[str] = "boxes"
    about: ClassVar[str] = "Tracks are shown as coloured boxes (`control: boxes`)."
    radius: float = 0.11

    def __post_init__(self) -> None:
        if not 0 < self.radius <= 1:
            raise ValueError(f"control.radius: {self.radius} must be above 0 and at most 1, the picture; use 0.11")

    @property
    def brush(self) -> float:
        """See `Control`."""
        return self.radius

    def paint(self, rows: Rows, look: Look, memory: Any = None) -> tuple[Tensor, Any]:
        """See `PixelControl`; nothing is remembered."""
        height, width = size_of(look)
        xy, visible, force = rows.arrays
        halves = [half * math.sqrt(height * width) for half in spreads(rows.brushes, self.radius)]
        video = torch.zeros(3, len(rows), height, width)
        for track, half in enumerate(halves):
            place = np.where(visible[:, track, None], xy[:, track], 0)
            across, down = (side(place[:, axis], size, half) for axis, size in ((0, width), (1, height)))
            strength = torch.from_numpy(visible[:, track] * force[:, track]).float()
            video = lay(video, strength[:, None, None] * down[:, :, None] * across[:, None, :], track)
        return video * 2 - 1, None


def side(center: Any, size: int, half: float) -> Tensor:
    """How much of each of ``size`` pixels lies within ``half`` of ``center`` ``[T]`` (0..1): ``[T, size]``."""
    distance = (torch.arange(size) + 0.5 - torch.from_numpy(center).float()[:, None] * size).abs()
    return (half + 0.5 - distance).clamp(0, 1)


def lay(video: Tensor, cover: Tensor, track: int) -> Tensor:
    """The colour of ``track`` over ``video`` ``[3, T, H, W]`` (0..1) where ``cover`` ``[T, H, W]`` is."""
    colour = torch.tensor(SPOT_COLOURS[track % len(SPOT_COLOURS)])[:, None, None, None]
    return video + cover * (colour - video)
