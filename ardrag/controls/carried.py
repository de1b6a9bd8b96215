"""The carried piece: on neutral grey, what was grabbed moves along its path. It says what moves, not only where.

Round each visible point lies the piece of the picture that was round the point when it was grabbed, with the soft edge
``force * exp(-(d^2 / 2 s^2)^2)``; later tracks lie on top. ``s`` is the track's own ``sigma`` (its brush), or
``radius``, each times ``sqrt(H W)``. A track that begins while the clip goes on carries what is there *then*: it takes
its piece from the last finished frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ardrag.controls.control import Look, Piece, PixelControl, Rows, Stretch, grabs, spreads


REACH = 2.5
"""Where a piece ends, in units of ``s``: its edge has 6e-5 there."""


@dataclass(frozen=True)
class Carried(PixelControl):
    """See the module. ``radius`` is the brush of a track that has none, relative to ``sqrt(H W)``."""

    name: ClassVar[str] = "carried"
    about: ClassVar[str] = "Tracks are shown as the piece of the picture that each one carries (`control: carried`)."
    takes_later: ClassVar[bool] = True
    radius: float = 0.11

    def __post_init__(self) -> None:
        if not 0 < self.radius <= 1:
            raise ValueError(f"control.radius: {self.radius} must be above 0 and at most 1, the picture; use 0.11")

    @property
    def brush(self) -> float:
        """See `Control`."""
        return self.radius

    def paint(self, rows: Rows, look: Look, memory: Any = None) -> tuple[Tensor, Any]:
        """See `PixelControl`; what each track holds is remembered."""
        frame = look()
        stretches, held = grabs(rows, torch.cat([frame, torch.ones_like(frame[:1])]), memory or ())
        video = frame.new_zeros(3, len(rows), *frame.shape[1:])
        for stretch in stretches:
            self._carry(video, stretch, rows)
        return video, held

    def _carry(self, video: Tensor, stretch: Stretch, rows: Rows) -> None:
        """Lay one piece over the frames of its stretch."""
        height, width = video.shape[2:]
        visible = rows.arrays.visible[stretch.start : stretch.stop, stretch.track]
        seen = np.arange(stretch.start, stretch.stop)[visible]
        places = rows.arrays.xy[seen, stretch.track].astype(np.float64) * (width, height)
        spread = spreads(rows.brushes, self.radius)[stretch.track] * math.sqrt(height * width)
        reach = min(math.ceil(REACH * spread), max(height, width))
        corners = np.floor(places).astype(int) - reach
        force = torch.from_numpy(rows.arrays.force[seen, stretch.track]).to(video)
        layer = cut(stretch.piece, torch.from_numpy(places - corners).to(video), reach, spread)
        layer = layer * force[:, None, None, None]
        for t, (x, y), piece in zip(seen.tolist(), corners.tolist(), layer, strict=True):
            under = video[:, t, max(y, 0) : max(y + 2 * reach + 1, 0), max(x, 0) : max(x + 2 * reach + 1, 0)]
            left, top = max(-x, 0), max(-y, 0)
            over = piece[:, top : top + under.shape[1], left : left + under.shape[2]]
            under.mul_(1 - over[3]).add_(over[:3])


def cut(piece: Piece, points: Tensor, reach: int, spread: float) -> Tensor:
    """A piece with its soft edge in windows of ``2 reach + 1`` pixels: ``[n, 4, K, K]``, colours times edge, and edge.

    The source is a picture and a channel of ones, so that what lies beyond the picture has no edge either.
    ``points`` ``[n, 2]`` is where in each window the grabbed point lies, in pixels (pixel ``i`` spans ``i .. i + 1``).
    """
    height, width = piece.source.shape[1:]
    pixels = torch.arange(2 * reach + 1, device=points.device) + 0.5
    x, y = (pixels - points[:, axis, None] for axis in (0, 1))  # [n, K], from the grabbed point
    squared = x[:, None, :] ** 2 + y[:, :, None] ** 2
    edge = torch.exp(-((squared / (2 * spread**2)) ** 2))
    columns = 2 * (piece.xy[0] + x / width) - 1
    lines = 2 * (piece.xy[1] + y / height) - 1
    grid = torch.stack(torch.broadcast_tensors(columns[:, None, :], lines[:, :, None]), dim=3)
    source = piece.source.expand(len(points), -1, -1, -1)
    return F.grid_sample(source, grid, padding_mode="zeros", align_corners=False) * edge[:, None]
