"""Sparse flow, as DragNUWA has it (arXiv 2308.08089): where each track goes from frame to frame, smeared out.

Kept: the step of each track from one frame to the next, at the place where it starts, under a Gaussian of DragNUWA's
width (20 px at 576x320) that is not normalised. Left out: its several scales inside the network; the flow goes as a
video (red and green: to the right and down) through the VAE. A track that rests is no track at all here; DragNUWA has
the same fault, and moves resting points by a pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ardrag.controls.control import Look, PixelControl, Rows, size_of, spreads
from ardrag.controls.heat import rasterize
from ardrag.tracks.sampling import TrackArrays


@dataclass(frozen=True)
class Flow(PixelControl):
    """See the module.

    ``spread`` is the Gaussian's width and ``full`` the step that saturates the picture, relative to ``sqrt(H W)``.
    """

    name: ClassVar[str] = "flow"
    about: ClassVar[str] = "Tracks are shown as sparse smoothed flow (`control: flow`)."
    spread: float = 0.0466
    full: float = 0.055

    def __post_init__(self) -> None:
        for field, value in (("spread", self.spread), ("full", self.full)):
            if not 0 < value <= 1:
                raise ValueError(f"control.{field}: {value} must be above 0 and at most 1, the size of the picture")

    def paint(self, rows: Rows, look: Look, memory: Any = None) -> tuple[Tensor, Any]:
        """See `PixelControl`; the last places of the tracks are remembered."""
        return self.coloured(self.smeared(rows, *size_of(look), memory)), last_row(rows.arrays)

    def coloured(self, field: Tensor) -> Tensor:
        """A flow field ``[T, 2, H, W]``, 1 at `full`, as a video ``[3, T, H, W]``."""
        return torch.cat([field, torch.zeros_like(field[:, :1])], dim=1).clamp(-1, 1).transpose(0, 1)

    def smeared(self, rows: Rows, height: int, width: int, memory: TrackArrays | None) -> Tensor:
        """Steps of all tracks smeared out and summed, ``[T, 2, H, W]`` in units of `full`."""
        xy, visible, force = rows.arrays
        count = xy.shape[1]
        before = last_row(TrackArrays(xy[:1] * 0, visible[:1] & False, force[:1] * 0)) if memory is None else memory
        known = len(before.force)
        came, was = xy.copy(), np.zeros_like(visible)
        came[1:], was[1:] = xy[:-1], visible[:-1]
        came[0, :known], was[0, :known] = before.xy, before.visible
        both = visible & was
        side = math.sqrt(height * width) * self.full
        steps = np.where(both[..., None], xy - came, 0) * np.array([width, height], np.float32) / side
        field = torch.zeros(len(rows), 2, height, width)
        widths = spreads(rows.brushes, self.spread)
        for track in range(count):
            one = slice(track, track + 1)
            bell = rasterize(came[:, one], both[:, one], force[:, one], height, width, widths[one])
            field += torch.from_numpy(steps[:, track]).float()[:, :, None, None] * bell[:, None]
        return field


def last_row(arrays: TrackArrays) -> TrackArrays:
    """The last row of sampled tracks, ``[P]``."""
    return TrackArrays(arrays.xy[-1], arrays.visible[-1], arrays.force[-1])
