"""One clip to generate: what a system is given, and what is known about the right answer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from ardrag.tracks.crop import Crop
from ardrag.tracks.tracks import Tracks
from ardrag.worlds.clip_tracks import clip_tracks
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


def clip_case(
    index: int, clip: SpriteClip | PhotoClip, num_frames: int, categories: tuple[str, ...], **record: Any
) -> Case:
    """The case of a world's clip; ``record`` names the clip as `Case` does."""
    return Case(
        index=index,
        name=f"{index:03d}",
        picture=clip.frames[0],
        prompt=clip.caption,
        tracks=clip_tracks(clip),
        num_frames=num_frames,
        categories=categories,
        truth=clip.frames,
        **record,
    )


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


def tracks_of(document: Mapping[str, Any], num_frames: int) -> tuple[Tracks, int, str]:
    """Tracks of what a reader of `ardrag.tracks.formats` found, the clip's length, and a note on what was left out."""
    tracks = Tracks.from_json(document)
    length = clip_length(tracks.num_frames, num_frames)
    return first_frames(tracks, length), length, str(tracks.source.get("note", ""))


def first_frames(tracks: Tracks, length: int) -> Tracks:
    """Tracks of the first ``length`` frames."""
    if tracks.num_frames <= length:
        return tracks
    return Tracks.from_array(*tracks.to_array(length), fps=tracks.fps)


@contextmanager
def naming(where: str | Path) -> Iterator[None]:
    """What is wrong in a file is told with its name."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise ValueError(f"{where}: {error}") from error


def first_readable(suite: Suite, indices: Sequence[int], num_frames: int) -> Case:
    """The first case that can be read.

    Raises:
        ValueError: if none can.
    """
    problems = []
    for index in indices:
        try:
            return suite.case(index, num_frames)
        except ValueError as error:
            problems.append(str(error))
    raise ValueError(f"suite: none of {len(problems)} cases can be read; the first: {problems[0]}")


def fit_case(case: Case, height: int, width: int) -> Case:
    """The case on another canvas: picture, true video and tracks cut around the centre and scaled, as pipelines do.

    What a track shows outside of the cut is off the picture then. A case of that size already stays as it is.
    """
    own = case.picture.shape[:2]
    if own == (height, width):
        return case
    tracks = first_frames(case.tracks, case.num_frames).cropped(Crop.covering(own[1], own[0], width, height))

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


def list_digest(paths: Sequence[Path]) -> str:
    """Digest of the names, sizes and times of files; one that is missing has neither."""
    digest = hashlib.sha256()
    for path in paths:
        state = path.stat() if path.exists() else None
        digest.update(f"{path.name} {state and (state.st_size, state.st_mtime_ns)}".encode())
    return digest.hexdigest()
