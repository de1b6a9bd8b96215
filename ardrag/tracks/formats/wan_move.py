"""Wan-Move and MoveBench: numpy arrays of tracks and of their visibility.

name_tracks.npy         float32 [1, T, P, 2] or [T, P, 2], pixels of the picture (832 x 480 where it is Wan-Move's own)
name_visibility.npy     bool [1, T, P] or [T, P], beside it; without it everything is visible

One file may hold both arrays, the visibility after the tracks, as it is where files are sent one at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ardrag.tracks.formats.paths import Given, framewise, pixels_of
from ardrag.tracks.sampling import TrackArrays


KIND = "wan_move"
MAGIC = b"\x93NUMPY"


def read(file: BinaryIO, given: Given, path: Path | None) -> dict[str, Any]:
    """The track file; the visibility is what follows in ``file``, or else looked for beside ``path``."""
    beside = visibility_path(path) if path is not None else None
    xy = load_array(file)
    if file.read(1):
        file.seek(-1, 1)
        return convert(xy, load_array(file), given)
    if beside is None or not beside.is_file():
        return convert(xy, None, given)
    with beside.open("rb") as other:
        return convert(xy, load_array(other), given)


def convert(xy: npt.NDArray[Any], visible: npt.NDArray[Any] | None, given: Given) -> dict[str, Any]:
    """The track file of the two arrays.

    Raises:
        ValueError: if their shapes or numbers are others.
    """
    seen = np.ones(xy.shape[:-1], bool) if visible is None else visible
    fits = xy.ndim in (3, 4) and xy.shape[-1] == 2 and (xy.ndim == 3 or len(xy) == 1)
    if not fits or seen.shape != xy.shape[:-1] or xy.dtype.kind not in "fiu" or seen.dtype.kind not in "bfiu":
        shown = "no" if visible is None else f"{list(seen.shape)} {seen.dtype}"
        raise ValueError(
            f"tracks {list(xy.shape)} {xy.dtype} and {shown} visibility must be [1, T, P, 2] and [1, T, P] of numbers"
        )
    places, there = xy.reshape(*xy.shape[-3:]), seen.reshape(*seen.shape[-2:])
    return framewise(KIND, places, there > 0.5, given.size(KIND), given)


def write(arrays: TrackArrays, path: Path, size: tuple[int, int]) -> list[Path]:
    """Both arrays, the second beside ``path``, which is the name of the first; gives the names."""
    beside = visibility_path(path)
    if beside is None:
        raise ValueError(f"path: {path.name} must end in tracks.npy, so that visibility.npy can lie beside it")
    with path.open("wb") as file:
        np.save(file, pixels_of(arrays.xy, size)[None].astype(np.float32))
    with beside.open("wb") as file:
        np.save(file, arrays.visible[None])
    return [path, beside]


def visibility_path(path: Path) -> Path | None:
    """Where the visibility of ``..._tracks.npy`` is, None for another name."""
    if not path.name.endswith("tracks.npy"):
        return None
    return path.with_name(path.name.removesuffix("tracks.npy") + "visibility.npy")


def load_array(file: BinaryIO) -> npt.NDArray[Any]:
    """A ``.npy`` file, never an object in it.

    Raises:
        ValueError: if it is none.
    """
    try:
        found = np.load(file, allow_pickle=False)
    except Exception as error:  # numpy reads the header as Python text, and raises whatever that brings
        raise ValueError(f"it holds no array of numbers ({str(error)[:80]})") from error
    if not isinstance(found, np.ndarray):
        raise ValueError("it holds several arrays, not one")
    return found
