"""From other people's numbers to a track file: what all formats share.

A format's reader finds paths in pixels; here they become places in 0..1 with frames. Of more paths than a track file
holds, evenly chosen ones are kept, and the file's `source` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ardrag.tracks.sampling import Bools, Floats, held_places, shortest
from ardrag.tracks.schema import FAR, MAX_TRACKS, SCHEMA, check_num_frames


Size = tuple[int, int]
"""(width, height) in pixels."""
SHORTEST = 5
"""Frames of the shortest clip."""


@dataclass(frozen=True)
class Given:
    """What the user knows and a file may not say.

    Attributes:
        image_size: (width, height) of the picture whose pixels the places are.
        num_frames: the paths take so many frames, whatever number of points they have.
        item: which of the clips in one file.
        most: of a place a frame, only so many first ones are taken.
        clip_frames: frames of the clip that the paths are for, taken only where neither the user nor the file says.
    """

    image_size: Size | None = None
    num_frames: int | None = None
    item: str | None = None
    most: int | None = None
    clip_frames: int | None = None

    def size(self, kind: str) -> Size:
        """The picture's size, for a format that does not say it.

        Raises:
            ValueError: if it is not given, or is no size.
        """
        if self.image_size is None:
            raise ValueError(
                f"image_size: {kind} files have pixels and do not say of what; give that picture's (width, height)"
            )
        return check_image_size(self.image_size)


def check_image_size(size: Any) -> Size:
    """Two whole numbers of pixels, or ValueError."""
    good = isinstance(size, list | tuple) and len(size) == 2
    if not good or not all(isinstance(n, int) and not isinstance(n, bool) and 0 < n <= 1 << 16 for n in size):
        raise ValueError(f"image_size: {str(size)[:40]} must be (width, height) in whole pixels")
    return size[0], size[1]


def clip_frames(available: int) -> int:
    """The longest clip, 4k + 1 frames, within the available ones.

    Raises:
        ValueError: if there are fewer than 5.
    """
    if available < SHORTEST:
        raise ValueError(
            f"num_frames: the paths have {available}, and a clip needs {SHORTEST}; say how many they take"
        )
    return (available - 1) // 4 * 4 + 1


def points_of(value: Any, where: str) -> Floats:
    """A list of (x, y) as an array ``[n, 2]``, n > 0, of finite numbers; ValueError says where it is none."""
    try:
        points = np.asarray(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{where} is not a list of [x, y]") from error
    if points.ndim != 2 or points.shape[1] != 2 or not len(points) or not np.isfinite(points).all():
        raise ValueError(f"{where} is not a list of [x, y], finite numbers")
    return points


def side_by_side(paths: Sequence[Floats]) -> tuple[Floats, Bools]:
    """Paths of several lengths, a point a frame, as places ``[T, P, 2]`` and what is there, ``[T, P]``."""
    longest = max((len(path) for path in paths), default=0)
    xy, visible = np.zeros((longest, len(paths), 2)), np.zeros((longest, len(paths)), bool)
    for p, path in enumerate(paths):
        xy[: len(path), p], visible[: len(path), p] = path, True
    return xy, visible


def framewise(
    kind: str,
    xy: npt.NDArray[Any],
    visible: npt.NDArray[Any],
    size: Size | None,
    given: Given,
    length: int | None = None,
) -> dict[str, Any]:
    """A track file of paths that have a place in every frame.

    Where a path is not visible its place is a guess (`held_places`); far outside of the picture it is not visible.

    Args:
        kind: name of the format.
        xy: places ``[T, P, 2]`` in pixels of ``size``, or in 0..1 where that is None.
        visible: ``[T, P]``.
        size: of the picture.
        given: its ``num_frames`` spreads the places over so many frames.
        length: frames of the clip where the user does not say; default is one a place, cut to 4k + 1.

    Raises:
        ValueError: naming the track, if a visible place is no number, or if nothing is ever within the picture.
    """
    places = np.asarray(xy[: given.most], np.float64) / (size or (1, 1))
    seen = np.asarray(visible[: given.most], bool)
    lost = seen & ~np.isfinite(places).all(axis=2)
    if lost.any():
        t, p = (int(i) for i in np.argwhere(lost)[0])
        raise ValueError(f"track {p} is visible in frame {t}, but its place is {xy[t, p].tolist()}")
    seen = seen & ((places >= FAR[0]) & (places <= FAR[1])).all(axis=2)
    if not (seen & ((places >= 0) & (places <= 1)).all(axis=2)).any():
        of = f" of {size[0]} x {size[1]} pixels; check image_size" if size else ""
        raise ValueError(f"no track is ever visible within the picture{of}")
    wanted = given.num_frames or length
    if wanted is None:
        wanted = clip_frames(len(places))
        places, seen = places[:wanted], seen[:wanted]
    frames = np.linspace(0, check_num_frames(wanted) - 1, len(places))
    shown = np.flatnonzero(seen.any(axis=0))
    kept = shown[np.linspace(0, len(shown) - 1, min(len(shown), MAX_TRACKS)).round().astype(int)]
    held = held_places(places[:, kept].astype(np.float32), seen[:, kept])
    tracks = [_points(frames, held[:, p], seen[:, k]) for p, k in enumerate(kept)]
    note = "" if len(kept) == len(shown) else f"{len(kept)} of {len(shown)} tracks, the most that a track file holds"
    return document(kind, tracks, wanted, size, note)


def spread(kind: str, paths: Sequence[Floats], size: Size, given: Given) -> dict[str, Any]:
    """A track file of key points without time, spread evenly over the clip; a path of one point stays there.

    Raises:
        ValueError: if neither ``num_frames`` nor ``clip_frames`` is given.
    """
    wanted = given.num_frames or given.clip_frames
    if wanted is None:
        raise ValueError(f"num_frames: {kind} files do not say how many frames their paths take; give it, 4k + 1")
    last = check_num_frames(wanted) - 1
    tracks = []
    for path in paths:
        frames = np.linspace(0, last, len(path)) if len(path) > 1 else np.zeros(1)
        tracks.append(_points(frames, (path / size).astype(np.float32), np.ones(len(path), bool)))
    return document(kind, tracks, wanted, size)


def document(
    kind: str, tracks: Iterable[list[dict[str, float]]], num_frames: int, size: Size | None, note: str = ""
) -> dict[str, Any]:
    """The decoded track file (`ardrag.tracks/v1`) of these points."""
    source = {"imported_from": kind, **({"note": note} if note else {})}
    return {
        "schema": SCHEMA,
        "num_frames": num_frames,
        "canvas": {"width": size[0], "height": size[1]} if size else {},
        "tracks": [{"interp": "linear", "points": points} for points in tracks],
        "source": source,
    }


def _points(frames: Floats, places: npt.NDArray[np.float32], seen: Bools) -> list[dict[str, float]]:
    return [
        {"f": shortest(np.float32(f)), "x": shortest(x), "y": shortest(y), "v": float(v)}
        for f, (x, y), v in zip(frames, places, seen, strict=True)
    ]


def pixels_of(places: npt.NDArray[np.floating], size: Size) -> Floats:
    """Places in 0..1 as pixels of a picture of that size, to a hundredth."""
    return np.round(places.astype(np.float64) * size, 2)


def even_frames(num_frames: int, count: int) -> list[float]:
    """``count`` moments, evenly from the first to the last frame of a clip."""
    return [j * (num_frames - 1) / max(1, count - 1) for j in range(count)]
