"""Places of tracks as a session takes them, and the `Tracks` that a session has really applied."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ardrag.controls.control import Brushes
from ardrag.tracks.sampling import TrackArrays, held_places
from ardrag.tracks.schema import GROUND, MAX_POINTS, SMALLEST
from ardrag.tracks.tracks import Tracks


Place = Sequence[float] | None
"""Where one track is now: ``(x, y)`` or ``(x, y, force)`` in 0..1 of the picture, or None when it is let go."""


def glide(points: Sequence[Place], last: TrackArrays | None, num_frames: int) -> TrackArrays:
    """Tracks that move in a straight line from where they were to ``points`` in ``num_frames`` pixel frames.

    A track that was not there before appears at its place. ``last`` is the frame before, rows ``[P]``.

    Raises:
        ValueError: if a place is malformed; names the track.
    """
    count = max(len(points), 0 if last is None else len(last.force))
    xy = np.zeros((num_frames, count, 2), np.float32)
    visible = np.zeros((num_frames, count), bool)
    force = np.zeros((num_frames, count), np.float32)
    share = (np.arange(1, num_frames + 1, dtype=np.float32) / num_frames)[:, None]
    for p, place in enumerate(points):
        if place is None:
            continue
        target, pressed = _checked_place(place, p)
        seen_before = last is not None and p < len(last.visible) and bool(last.visible[p])
        origin = last.xy[p] if last is not None and seen_before else target
        xy[:, p] = origin + share * (target - origin)
        visible[:, p] = ((xy[:, p] >= 0) & (xy[:, p] <= 1)).all(1)
        force[:, p] = pressed
    return TrackArrays(xy, visible, force)


def checked_rows(rows: TrackArrays, last: TrackArrays | None, num_frames: int) -> TrackArrays:
    """``rows`` as control of ``num_frames`` pixel frames: tracks may be added after ``last``, none may vanish.

    Raises:
        ValueError: if a shape or a number is wrong.
    """
    xy, visible, force = np.asarray(rows.xy), np.asarray(rows.visible), np.asarray(rows.force, np.float32)
    least = 0 if last is None else len(last.force)
    count = xy.shape[1] if xy.ndim == 3 else -1
    if xy.shape != (num_frames, count, 2) or visible.shape != xy.shape[:2] or force.shape != xy.shape[:2]:
        shapes = [list(column.shape) for column in (xy, visible, force)]
        raise ValueError(f"points: shapes {shapes} must be [T, P, 2], [T, P], [T, P] with T = {num_frames} new frames")
    if count < least:
        raise ValueError(f"points: {count} tracks where there were {least}; make a track invisible, do not drop it")
    if not (np.isfinite(xy[visible.astype(bool)]).all() and ((force >= 0) & (force <= 1)).all()):
        raise ValueError("points: xy must be finite where a track is visible, and force within 0..1")
    inside = ((xy >= 0) & (xy <= 1)).all(2)
    return TrackArrays(xy.astype(np.float32), visible.astype(bool) & inside, force.astype(np.float32))


def checked_brushes(brushes: Sequence[float | None], count: int) -> Brushes:
    """One brush for each of ``count`` tracks, None for those that are missing.

    Raises:
        ValueError: if a brush is nothing, or larger than the picture.
    """
    for track, brush in enumerate(brushes):
        if brush not in (None, GROUND) and not SMALLEST <= brush <= 1:
            raise ValueError(
                f"brushes[{track}]: {brush} is outside {SMALLEST:g}..1; 1 is as wide as the picture, None the usual "
                f"and {GROUND:g} pins the ground"
            )
    return (*brushes, *[None] * count)[:count]


def _checked_place(place: Sequence[float], track: int) -> tuple[np.ndarray, np.float32]:
    values = np.asarray(place, dtype=np.float32)
    if values.shape not in ((2,), (3,)) or not np.isfinite(values).all():
        raise ValueError(f"points[{track}]: {place!r} must be (x, y) or (x, y, force), all finite numbers")
    if np.abs(values[:2] - 0.5).max() > 1.5:
        raise ValueError(
            f"points[{track}]: {place!r} is far off the picture; x and y are in 0..1, divide pixels by size"
        )
    pressed = values[2] if len(values) == 3 else np.float32(1)
    if not 0 <= pressed <= 1:
        raise ValueError(f"points[{track}].force: {pressed} is outside 0..1")
    return values[:2], pressed


def applied_tracks(applied: TrackArrays, brushes: Sequence[float | None], fps: float) -> Tracks:
    """`Tracks` from what was applied in each frame, ``[T, P]``.

    Clips longer than a track may have points go on as edits, which replay to the same numbers.
    """
    xy, visible, force = applied
    length, count = force.shape
    if not length:
        return Tracks.empty(1)
    xy = held_places(xy, visible)
    part = 1 + (MAX_POINTS - 1) // 4 * 4
    tracks = Tracks.from_array(xy[:part], visible[:part], force[:part], fps=fps, num_frames=length)
    tracks = tracks.with_brushes([*brushes, *[None] * count][:count])
    for start in range(part, length, part - 1):
        for p, track in enumerate(tracks.tracks):
            frames = range(start, min(start + part - 1, length))
            tail = [(f, *map(float, (*xy[f, p], force[f, p], visible[f, p]))) for f in frames]
            tracks = tracks.with_edit("replace_tail", track.id, start, tail)
    return tracks
