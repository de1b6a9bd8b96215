"""Which size and which frames: the pipeline's nearest bucket (appendix B.1), and one frame rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.image_input import fit_image, nearest_bucket
from pipelines.video import Frame
from training.curate.cut import Floats


LARGEST_ENLARGEMENT = 1.5
"""Pictures that would have to grow by more than this are too small for their bucket."""


class Window(NamedTuple):
    """A clip of a video: ``frames`` frames from ``start`` seconds on, ``fps`` of them a second."""

    start: float
    frames: int
    fps: float

    @property
    def stop(self) -> float:
        """Time of the last frame."""
        return self.start + (self.frames - 1) / self.fps


def windows(first: float, last: float, rate: float, lengths: Sequence[int], fps: float) -> list[Window]:
    """Clips of a shot that lasts from ``first`` to ``last``, one after the other, each as long as can be.

    No frame is made up: a video slower than ``fps`` keeps its own ``rate``.
    """
    pace = min(fps, rate)
    found: list[Window] = []
    start, step = first, 1 / pace
    while fitting := [length for length in lengths if start + (length - 1) * step <= last + 0.01 * step]:
        found.append(Window(start, max(fitting), pace))
        start = found[-1].stop + step
    return found


def nearest_frames(times: Floats, window: Window) -> npt.NDArray[np.intp]:
    """Index of the frame that is nearest to each moment of ``window``."""
    moments = window.start + np.arange(window.frames) / window.fps
    return np.abs(times - moments[:, None]).argmin(1)


def choose_bucket(width: int, height: int, buckets: Sequence[Sequence[int]]) -> tuple[int, int] | None:
    """The bucket ``(height, width)`` nearest in aspect, or None where the picture is too small for it."""
    high, wide = nearest_bucket(width, height, buckets)
    return (high, wide) if max(high / height, wide / width) <= LARGEST_ENLARGEMENT else None


def fitted(frame: Frame, height: int, width: int) -> Frame:
    """A frame scaled and cropped as the pipeline does with its pictures."""
    return np.asarray(fit_image(Image.fromarray(frame), height, width))
