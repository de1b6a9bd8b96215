"""Reading a video file: what it is, and its frames, upright, with their times."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipelines.video import Frame


class Unusable(Exception):
    """A video or clip that is left out; the message is the rule that it broke."""


class VideoInfo(NamedTuple):
    """What a file says of its video. ``width`` and ``height`` are upright; ``duration`` is 0 where it is not known."""

    width: int
    height: int
    fps: float
    duration: float


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Container and first video stream of ``path``.

    Raises:
        Unusable: if it cannot be read, or what is read is damaged.
    """
    try:
        import av
    except ImportError as error:
        raise ValueError("videos: PyAV is not installed; pip install -r requirements-curate.txt") from error
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise Unusable("no video")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise Unusable("no decoder")
            stream.codec_context.options = {"err_detect": "explode"}  # damage is not to be painted over
            yield container, stream
    except (av.error.FFmpegError, OSError) as error:
        raise Unusable("unreadable or damaged") from error


def probe(path: Path) -> VideoInfo:
    """What ``path`` says of itself, and the size of its first frame.

    Raises:
        Unusable: if there is no frame to be had.
    """
    with opened(path) as (container, stream):
        first = next(container.decode(stream), None)
        if first is None:
            raise Unusable("unreadable or damaged")
        height, width = upright(first).shape[:2]
        duration = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / 1e6
        return VideoInfo(width, height, float(stream.average_rate or stream.guessed_rate or 0), duration)


def upright(frame: Any) -> Frame:
    """Pixels ``[H, W, 3]`` of a decoded frame, turned as its container says."""
    pixels = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4))


def read_frames(path: Path, start: float = -math.inf, stop: float = math.inf) -> Iterator[tuple[float, Frame]]:
    """Frames from ``start`` to ``stop`` (seconds, both included) with their times, in order.

    Raises:
        Unusable: if the file is damaged before ``stop``.
    """
    late = False
    with opened(path) as (container, stream):
        if start > 0:
            container.seek(int(start / stream.time_base), stream=stream)
        for place, (time, frame) in enumerate(timed(container, stream)):
            if place == 0 and start > 0 and time > start + 1e-6:
                late = True  # a container without an index: from the beginning then
                break
            if time > stop + 1e-6:
                return
            if time >= start - 1e-6:
                yield time, upright(frame)
    if late:
        yield from ((time, frame) for time, frame in read_frames(path, stop=stop) if time >= start - 1e-6)


def timed(container: Any, stream: Any) -> Iterator[tuple[float, Any]]:
    """Decoded frames with their times; a frame that has none follows the one before at the stream's rate."""
    step, time = 1 / float(stream.average_rate or stream.guessed_rate or 25), None
    for frame in container.decode(stream):
        known = frame.time
        time = known if known is not None else (0.0 if time is None else time + step)
        yield time, frame
