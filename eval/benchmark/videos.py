"""Reading other people's videos: what a file claims to hold, and its frames."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import imageio
import numpy as np
import numpy.typing as npt


Pixels = npt.NDArray[np.uint8]


class Probe(NamedTuple):
    """What a video file says about itself."""

    frames: int
    height: int
    width: int


def probe(path: Path) -> Probe:
    """Number and size of a video's frames from its header, without decoding.

    Raises:
        ValueError: if the file is missing or no video.
    """
    import cv2

    if not path.is_file():
        raise ValueError(f"{path} is missing")
    capture = cv2.VideoCapture(str(path))
    try:
        fields = (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)
        found = Probe(*(int(capture.get(field)) for field in fields)) if capture.isOpened() else Probe(0, 0, 0)
    finally:
        capture.release()
    if min(found) <= 0:
        raise ValueError(f"{path} is no video that can be read; it may be cut off")
    return found


def read_video(path: Path) -> Pixels:
    """All frames of a video, uint8 ``[T, H, W, 3]``.

    Raises:
        ValueError: if it cannot be decoded to the end that its header promises.
    """
    promised = probe(path)
    try:
        with imageio.get_reader(path) as reader:
            frames = [np.asarray(frame)[..., :3] for frame in reader]
    except (OSError, RuntimeError, IndexError) as error:
        raise ValueError(f"{path} cannot be decoded ({error})") from error
    if len(frames) < promised.frames:
        raise ValueError(f"{path} breaks off: {len(frames)} frames can be decoded of {promised.frames}")
    return np.stack(frames)


def read_true_video(path: Path, length: int) -> Pixels | None:
    """The first ``length`` frames of a suite's true video, None if there is no such file.

    Raises:
        ValueError: if it is shorter, or cannot be decoded.
    """
    if not path.is_file():
        return None
    if probe(path).frames < length:
        raise ValueError(f"{path}: {probe(path).frames} frames; its tracks have {length}")
    return read_video(path)[:length]


def read_picture(path: Path) -> Pixels:
    """A picture as uint8 ``[H, W, 3]``.

    Raises:
        ValueError: if the file is missing or no picture.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise ValueError(f"{path} is missing or no picture ({error})") from error
