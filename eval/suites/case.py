"""One clip to generate: what a system is given, and what is known about the right answer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from ardrag.tracks.crop import Crop
from ardrag.tracks.schema import MAX_TRACKS
from ardrag.tracks.tracks import Tracks
from ardrag.worlds.photos import PhotoClip
from ardrag.worlds.sprites import SpriteClip
from pipelines.image_input import fit_image


Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """One clip of a suite.

    Args:
        index: number in the suite.
        name: name of its files, unique in the suite.
        picture: uint8 ``[H, W, 3]``, the first frame.
        prompt: text.
        tracks: what is drawn.
        num_frames: pixel frames, 4k + 1.
        categories: names for the breakdown.
        truth: uint8 ``[T, H, W, 3]``, the true video of at least ``num_frames``, where there is one.
        sprites: the full record of a Sprite World clip, where it is one.
        photos: the full record of a Photo World clip, where it is one.
        note: what the reader had to leave out.
    """

    index: int
    name: str
    picture: Pixels
    prompt: str
    tracks: Tracks
    num_frames: int
    categories: tuple[str, ...] = ()
    truth: Pixels | None = None
    sprites: SpriteClip | None = None
    photos: PhotoClip | None = None
    note: str = ""


class Suite(Protocol):
    """A numbered set of cases that are read one at a time."""

    name: str

    def __len__(self) -> int:
        return len(self.names())

    def names(self) -> Sequence[str]:
        """Names of all cases in order, without reading them."""
        ...

    def case(self, index: int, num_frames: int) -> Case:
        """Read one case, of at most ``num_frames`` pixel frames.

        Raises:
            ValueError: naming the file and what is wrong with it.
        """
        ...

    def digest(self) -> str:
        """Changes when the cases do."""
        ...


def clip_length(available: int, wanted: int) -> int:
    """The longest length ``4k + 1`` within both.

    Raises:
        ValueError: if there are fewer than 5 frames.
    """
    length = (min(available, wanted) - 1) // 4 * 4 + 1
    if length < 5:
        raise ValueError(f"frames: {available} are there and {wanted} wanted; a clip needs at least 5")
    return length


def tracks_within_limits(
    xy: npt.NDArray[np.floating], visible: npt.NDArray[np.bool_], fps: float = 16.0
) -> tuple[Tracks, str]:
    """Tracks of points ``xy [T, P, 2]`` in 0..1 and ``visible [T, P]``, and a note if some were left out.

    A track file has limits; of more points than it holds, evenly chosen ones are kept. Tracks that are never visible
    are dropped.
    """
    shown = np.flatnonzero(visible.any(0))
    chosen = np.linspace(0, len(shown) - 1, min(len(shown), MAX_TRACKS)).round().astype(int)
    kept = shown[chosen]
    note = "" if len(kept) == len(shown) else f"{len(kept)} of {len(shown)} tracks, the most that a track file holds"
    return Tracks.from_array(xy[:, kept], visible[:, kept], fps=fps), note


def fit_case(case: Case, height: int, width: int) -> Case:
    """The case on another canvas: picture, true video and tracks cut around the centre and scaled, as pipelines do.

    What a track shows outside of the cut is off the picture then. A case of that size already stays as it is.
    """
    own = case.picture.shape[:2]
    if own == (height, width):
        return case
    arrays = case.tracks.to_array(case.num_frames)
    xy = Crop.covering(own[1], own[0], width, height).places(arrays.xy)
    tracks = Tracks.from_array(xy, arrays.visible, arrays.force, fps=case.tracks.fps)

    def fitted(picture: Pixels) -> Pixels:
        return np.asarray(fit_image(Image.fromarray(picture), height, width))

    truth = None if case.truth is None else np.stack([fitted(frame) for frame in case.truth])
    return replace(case, picture=fitted(case.picture), tracks=tracks, truth=truth, sprites=None, photos=None)


class OnCanvas(Suite):
    """A suite with all its cases brought to one canvas, so that every system is measured in the same pixels."""

    def __init__(self, suite: Suite, height: int, width: int) -> None:
        self.suite, self.height, self.width = suite, height, width
        self.name = suite.name

    def names(self) -> Sequence[str]:
        """See `Suite`."""
        return self.suite.names()

    def case(self, index: int, num_frames: int) -> Case:
        """See `Suite`."""
        return fit_case(self.suite.case(index, num_frames), self.height, self.width)

    def digest(self) -> str:
        """See `Suite`."""
        return f"{self.suite.digest()} {self.height} {self.width}"


def are_paths(paths: Sequence[npt.NDArray[np.floating]]) -> bool:
    """Whether there is at least one path, and each is ``[N, 2]`` of finite numbers."""
    return bool(paths) and all(path.ndim == 2 and path.shape[1] == 2 and np.isfinite(path).all() for path in paths)


def list_digest(paths: Sequence[Path]) -> str:
    """Digest of the names, sizes and times of files."""
    digest = hashlib.sha256()
    for path in paths:
        state = path.stat()
        digest.update(f"{path.name} {state.st_size} {state.st_mtime_ns}".encode())
    return digest.hexdigest()
