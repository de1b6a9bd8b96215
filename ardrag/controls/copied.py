"""Copied features, as Wan-Move has them (arXiv 2512.08765): the first frame's latent feature moves along the track.

Kept: a hard copy of the latent vector at the track's first place into the cell where the track is now, the mean place
of a latent's four frames, hidden tracks leave nothing, later tracks overwrite, no new parameters. Left out: the copy
goes into the motion slot here, not over the image latent, so that all controls have one interface.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from ardrag.controls.control import Rows, Scene, Stretch, grabs
from ardrag.controls.latent import LatentControl


@dataclass(frozen=True)
class Copied(LatentControl):
    """See the module. Force multiplies the copied vector."""

    name: ClassVar[str] = "copied"
    about: ClassVar[str] = "Tracks are shown as copied latent features of the picture (`control: copied`)."

    def mark(self, rows: Rows, scene: Scene, memory: Any = None) -> tuple[Tensor, Any]:
        """See `LatentControl`."""
        reference = scene.reference[0, :, 0].float()
        stretches, held = grabs(rows, lambda track, xy: reference, memory or ())
        slot = reference.new_zeros(reference.shape)
        for stretch, (x, y), force in placed(rows, stretches):
            column, line = cell(stretch.piece.xy, reference)
            to_column, to_line = cell((x, y), reference)
            slot[:, to_line, to_column] = force * stretch.piece.source[:, line, column]
        return slot, held


def placed(rows: Rows, stretches: list[Stretch]) -> list[tuple[Stretch, tuple[float, float], float]]:
    """Each stretch in which its track is seen, with its mean place in 0..1 and its mean force there."""
    xy, visible, force = rows.arrays
    found = []
    for stretch in stretches:
        frames = np.arange(stretch.start, stretch.stop)
        seen = frames[visible[frames, stretch.track]]
        if len(seen):
            x, y = xy[seen, stretch.track].mean(0).tolist()
            found.append((stretch, (x, y), float(force[seen, stretch.track].mean())))
    return found


def cell(xy: tuple[float, float], grid: Tensor) -> tuple[int, int]:
    """Column and line of the cell of ``grid`` ``[..., h, w]`` in which a place in 0..1 lies."""
    height, width = grid.shape[-2:]
    return min(int(xy[0] * width), width - 1), min(int(xy[1] * height), height - 1)
