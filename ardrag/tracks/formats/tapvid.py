"""TAP-Vid, RoboTAP: a pickle of videos with tracked points, by name (DAVIS) or as a list (RGB-Stacking, Kinetics).

Each is {"video": uint8 [T, H, W, 3], or T JPEG files as bytes; "points": float [P, T, 2], (x, y) in 0..1; "occluded":
bool [P, T]}.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from ardrag.tracks.formats.paths import Given, framewise
from ardrag.tracks.formats.pickles import StoredArray, load_pickle
from ardrag.tracks.sampling import Bools


KIND = "tapvid"
FIELDS = ("video", "points", "occluded")
MAX_PIXELS = 1 << 24


class Clip(NamedTuple):
    """A video, uint8 ``[T, H, W, 3]`` or JPEG files; places ``[T, P, 2]`` in 0..1, and where they are visible."""

    video: npt.NDArray[np.uint8] | Sequence[bytes]
    xy: npt.NDArray[Any]
    visible: Bools

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        first = self.video[0]
        height, width = (_decoded(first) if isinstance(first, bytes) else first).shape[:2]
        return int(width), int(height)

    def frames(self, length: int) -> npt.NDArray[np.uint8]:
        """The first ``length`` frames, uint8 ``[T, H, W, 3]``."""
        if isinstance(self.video, np.ndarray):
            return self.video[:length]
        return np.stack([_decoded(frame) for frame in self.video[:length]])


def load_clips(file: BinaryIO) -> dict[str, Any]:
    """What a file holds, by name (or number), none of it looked into.

    Raises:
        ValueError: if it is no pickle of arrays in a list or by name.
    """
    found = load_pickle(file)
    if isinstance(found, list | tuple):
        return {str(i): entry for i, entry in enumerate(found)}
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"it holds a {type(found).__name__}, not the videos by name")
    return found


def clip_of(name: str, entry: Any) -> Clip:
    """One entry, checked; ValueError names it."""
    if not isinstance(entry, dict) or not set(FIELDS) <= entry.keys():
        raise ValueError(f"{name[:40]} must have the arrays {', '.join(FIELDS)}")
    try:
        points, occluded = (_array(entry[field]) for field in ("points", "occluded"))
        video = _video(entry["video"])
    except ValueError as error:
        raise ValueError(f"{name[:40]}: {error}") from error
    shown = (
        f"video of {len(video)} frames, points {list(points.shape)}, occluded {list(occluded.shape)} {occluded.dtype}"
    )
    if points.shape != (*occluded.shape, 2) or occluded.ndim != 2 or occluded.dtype != bool:
        raise ValueError(f"{name[:40]}: {shown} must be [P, T, 2] and bool [P, T]")
    if not len(video) or occluded.shape[1] != len(video) or points.dtype.kind != "f":
        raise ValueError(f"{name[:40]}: {shown} must have the same length, and points be floats")
    return Clip(video, points.swapaxes(0, 1), ~occluded.swapaxes(0, 1))


def read(file: BinaryIO, given: Given, path: Path | None) -> dict[str, Any]:
    """The track file of one video, the only one or the one called ``item``."""
    clips = load_clips(file)
    name = next(iter(clips)) if len(clips) == 1 and given.item is None else given.item
    if name not in clips:
        some = ", ".join(list(clips)[:5]) or "none"
        names = f"{some}{', ...' * (len(clips) > 5)}"
        raise ValueError(f"item: it holds {len(clips)} clips ({names}); name one, or bring a file of one alone")
    clip = clip_of(name, clips[name])
    made = framewise(KIND, clip.xy, clip.visible, None, given)
    width, height = clip.size
    return {**made, "canvas": {"width": width, "height": height}}


def _array(value: Any) -> npt.NDArray[Any]:
    if not isinstance(value, StoredArray):
        raise ValueError(f"it has a {type(value).__name__} where an array should be")
    return value.array()


def _video(value: Any) -> npt.NDArray[np.uint8] | Sequence[bytes]:
    if isinstance(value, list | tuple) and value and all(isinstance(frame, bytes) for frame in value):
        return value
    video = _array(value)
    if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8:
        raise ValueError(f"video {list(video.shape)} {video.dtype} must be uint8 [T, H, W, 3], or JPEG files")
    return video


def _decoded(content: bytes) -> npt.NDArray[np.uint8]:
    """One JPEG file as uint8 ``[H, W, 3]``."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # decoders raise whatever they stumble over in a damaged file
        raise ValueError(f"a frame of the video is no readable JPEG ({str(error)[:80]})") from error
