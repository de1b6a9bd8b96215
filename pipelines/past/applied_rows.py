"""What was applied to each frame of a session, in buffers that grow as a whole.

Three small arrays a frame, kept between the large ones that every step makes and frees, would break up the heap: a
session's resident memory grew by a megabyte a latent, though nothing was lost.
"""

from __future__ import annotations

import numpy as np

from ardrag.tracks.sampling import TrackArrays


LEAST = 64
"""Frames for which there is room at first."""


class AppliedRows:
    """Rows ``[P]`` of `TrackArrays`, one a frame; a track that comes later is invisible before."""

    def __init__(self) -> None:
        self._room = _room(LEAST, 0)
        self._widths = np.zeros(LEAST, np.int32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def arrays(self) -> TrackArrays:
        """All rows ``[T, P]``, with a column for each track there was; a view until the next change."""
        tracks = int(self._widths[: self._count].max(initial=0))
        return _part(self._room, slice(self._count), slice(tracks))

    @property
    def last(self) -> TrackArrays | None:
        """The row of the last frame with the tracks it had, or None where there is none."""
        if not self._count:
            return None
        here = self._count - 1
        return _part(self._room, here, slice(self._widths[here]))

    def extend(self, rows: TrackArrays) -> None:
        """Add ``rows`` ``[T, P]``."""
        start, stop, tracks = self._count, self._count + len(rows.force), rows.force.shape[1]
        self._make_room(stop, tracks)
        for column, part in zip(self._room, rows, strict=True):
            column[start:stop] = 0
            column[start:stop, :tracks] = part
        self._widths[start:stop] = tracks
        self._count = stop

    def truncate(self, count: int) -> None:
        """Keep the first ``count`` rows."""
        assert 0 <= count <= self._count
        self._count = count

    def copy(self) -> AppliedRows:
        """An independent copy."""
        twin = AppliedRows()
        twin._room = TrackArrays(*(column.copy() for column in self._room))
        twin._widths, twin._count = self._widths.copy(), self._count
        return twin

    def _make_room(self, count: int, tracks: int) -> None:
        frames, columns = self._room.force.shape
        if count <= frames and tracks <= columns:
            return
        frames = frames if count <= frames else max(count, 2 * frames)
        old, self._room = self._room, _room(frames, max(tracks, columns))
        for new, column in zip(self._room, old, strict=True):
            new[: self._count, :columns] = column[: self._count]
        self._widths = np.concatenate([self._widths, np.zeros(frames - len(self._widths), np.int32)])


def _room(frames: int, tracks: int) -> TrackArrays:
    xy = np.zeros((frames, tracks, 2), np.float32)
    return TrackArrays(xy, np.zeros((frames, tracks), bool), np.zeros((frames, tracks), np.float32))


def _part(rows: TrackArrays, frames: int | slice, tracks: slice) -> TrackArrays:
    return TrackArrays(rows.xy[frames, tracks], rows.visible[frames, tracks], rows.force[frames, tracks])
