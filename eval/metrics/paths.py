"""Does the video follow the tracks? Distances in pixels of the measured video, and what is made of them.

Definitions, because the field's names are loose:

- *error*: Euclidean distance between where a point is found and where its track says it is, in one frame.
- *EPE* (MoveBench): mean error over all points and frames in which the track shows the point, all pairs alike.
- *ObjMC* (DragAnything): mean over tracks of each track's own mean: a short track weighs as much as a long one.
- *percent*: EPE over the diagonal of the picture.

Frames of a clip before which a track is not visible do not count, and neither does pixel frame 0, which is given. A
point that the tracker lost counts at the place where it was lost.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ardrag.judges.tracking import Trajectories


Float = npt.NDArray[np.float64]


def track_errors(found: Trajectories, wanted: Trajectories) -> Float:
    """Errors ``[T, P]`` in pixels; NaN where the track does not show its point.

    Raises:
        ValueError: if the two differ in frames or points.
    """
    if found.xy.shape != wanted.xy.shape:
        raise ValueError(f"found and wanted: shapes {found.xy.shape} and {wanted.xy.shape} must agree")
    distance = np.linalg.norm(found.xy.astype(np.float64) - wanted.xy, axis=-1)
    return np.where(wanted.visible, distance, np.nan)


def epe(errors: Float) -> float | None:
    """End-point error in pixels of errors ``[T, P]``; None where nothing was shown."""
    return mean_of(errors[1:])


def objmc(errors: Float) -> float | None:
    """Object motion control in pixels of errors ``[T, P]``; None where nothing was shown."""
    per_track = [mean_of(column) for column in errors[1:].T]
    known = [value for value in per_track if value is not None]
    return float(np.mean(known)) if known else None


def percent_of_diagonal(pixels: float | None, height: int, width: int) -> float | None:
    """A distance in pixels as percent of the picture's diagonal."""
    return None if pixels is None else 100 * pixels / math.hypot(height, width)


def lost_share(found: Trajectories, wanted: Trajectories) -> float | None:
    """Share of the shown points and frames in which the tracker had lost the point."""
    shown = wanted.visible[1:]
    return float((~found.visible[1:])[shown].mean()) if shown.any() else None


def jitter(found: Trajectories, wanted: Trajectories) -> float | None:
    """Trembling in pixels: mean length of the second difference in time of ``found - wanted``.

    A point that lags behind its track steadily does not tremble, and neither does one that follows a curved track.
    """
    offset = found.xy.astype(np.float64) - wanted.xy
    shown = wanted.visible[:-2] & wanted.visible[1:-1] & wanted.visible[2:]
    second = np.linalg.norm(offset[:-2] - 2 * offset[1:-1] + offset[2:], axis=-1)
    return mean_of(np.where(shown, second, np.nan)[1:])


def mean_of(values: npt.NDArray[np.floating]) -> float | None:
    """Mean of what could be measured, None where nothing could."""
    known = values[np.isfinite(values)]
    return float(known.mean(dtype=np.float64)) if known.size else None
