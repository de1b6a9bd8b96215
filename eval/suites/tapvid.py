"""TAP-Vid DAVIS (annotations CC-BY 4.0): 30 videos with tracked points, in one pickle.

    {name: {"video": uint8 [T, H, W, 3], "points": float32 [N, T, 2] (x, y in 0..1), "occluded": bool [N, T]}}

A pickle can run any code when it is read; this one is read by an unpickler that builds numpy arrays and nothing else.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.suites.case import Case, Suite, clip_length, list_digest, tracks_within_limits


FIELDS = ("video", "points", "occluded")
ARRAY_MAKERS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}


class ArrayUnpickler(pickle.Unpickler):
    """Builds containers, numbers, text and numpy arrays; refuses every other name a pickle may ask for."""

    def find_class(self, module: str, name: str) -> Any:
        """The makers of arrays, taken from where this numpy keeps them."""
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        if (module, name) not in ARRAY_MAKERS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no numpy array")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _latin1(text: str, encoding: str) -> bytes:
    """How old protocols write the bytes of an array."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding}")
    return text.encode("latin1")


def load_arrays(path: Path) -> dict[str, Any]:
    """The dictionary of a pickle that holds nothing but arrays.

    Raises:
        ValueError: if it holds anything else, or no dictionary.
    """
    broken: tuple[type[Exception], ...] = (pickle.UnpicklingError, EOFError, AttributeError, ValueError, TypeError)
    try:
        with path.open("rb") as file:
            found = ArrayUnpickler(file).load()
    except broken as error:
        raise ValueError(f"suite: {path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"suite: {path} holds a {type(found).__name__}, not the videos by name")
    return found


class TapVidSuite(Suite):
    """The videos of the pickle, in the order of their names; the points that are seen drive the clip.

    Raises:
        ValueError: if the file is missing, holds anything but arrays, or an entry is not as described above.
    """

    name = "tapvid"

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"suite: {self.path} is no file; give tapvid_davis.pkl")
        self._videos = load_arrays(self.path)
        self._names = sorted(self._videos)
        for name in self._names:
            _check(name, self._videos[name])

    def names(self) -> Sequence[str]:
        """See `Suite`."""
        return self._names

    def case(self, index: int, num_frames: int) -> Case:
        """See `Suite`."""
        name = self._names[index]
        video, points, occluded = (self._videos[name][field] for field in FIELDS)
        length = clip_length(len(video), num_frames)
        xy, visible = points.swapaxes(0, 1)[:length], ~occluded.swapaxes(0, 1)[:length]
        tracks, note = tracks_within_limits(xy, visible)
        return Case(index, name, video[0], "", tracks, length, truth=video[:length], note=note)

    def digest(self) -> str:
        """See `Suite`."""
        return list_digest([self.path])


def _check(name: str, entry: Any) -> None:
    arrays = [entry.get(field) for field in FIELDS] if isinstance(entry, dict) else [None]
    if not all(isinstance(array, np.ndarray) and array.dtype != object for array in arrays):
        raise ValueError(f"suite: {name} must have the arrays {', '.join(FIELDS)}")
    video, points, occluded = arrays
    fits = video.ndim == 4 and video.shape[-1] == 3 and video.dtype == np.uint8
    fits = fits and points.shape == (*occluded.shape, 2) and occluded.shape[1:] == video.shape[:1]
    if not fits or occluded.dtype != bool:
        raise ValueError(
            f"suite: {name}: video {video.shape} {video.dtype}, points {points.shape}, occluded {occluded.shape} must "
            "be uint8 [T, H, W, 3], [N, T, 2] and bool [N, T]"
        )
