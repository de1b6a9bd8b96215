"""What is in a clip, told by its tracks and its pixels, and the rule that it breaks, if any.

The tracks say more than a second network would: how far points go, how many can still be seen, what moves against the
camera (what is left after a homography), and whether many jump at once (a missed cut).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ardrag.judges.tracking import Trajectories


Floats = npt.NDArray[np.float64]
FEWEST_POINTS = 8
"""Points that a homography is fitted to."""


@dataclass(frozen=True)
class Rules:
    """Limits of what is kept; lengths are shares of the picture's diagonal."""

    min_motion: float = 0.03
    min_moving_points: int = 3
    min_visible: float = 0.3
    max_jump: float = 0.5
    max_frozen: float = 0.25
    max_bars: float = 0.02
    min_light: float = 16.0
    min_sharpness: float = 4.0


class Motion(NamedTuple):
    """Of the points of a clip: what moves them.

    ``displacement`` and ``own`` ``[P]`` are how far a point gets while it can be seen, in the picture and against the
    camera; ``residual`` ``[T, P, 2]`` is its way against the camera; all in pixels. ``camera`` is how far the camera
    carries the median point.
    """

    displacement: Floats
    own: Floats
    residual: Floats
    camera: float


def analyse(tracks: Trajectories) -> Motion:
    """Split the motion of points into the camera's and their own."""
    start = tracks.xy[0].astype(np.float64)
    residual, carried = np.zeros(tracks.xy.shape), np.zeros(tracks.xy.shape[:2])
    camera = np.eye(3)
    for t in range(len(tracks.xy)):
        camera = fit_homography(start, tracks.xy[t], tracks.visible[t], camera)
        moved = apply_homography(camera, start)
        residual[t] = tracks.xy[t] - moved
        carried[t] = np.linalg.norm(moved - start, axis=1)
    way = np.linalg.norm(tracks.xy - start, axis=2)
    displacement, own = (
        np.where(tracks.visible, length, 0).max(0, initial=0) for length in (way, np.linalg.norm(residual, axis=2))
    )
    return Motion(displacement, own, residual, float(np.median(carried.max(0))) if carried.size else 0.0)


def fit_homography(
    start: Floats, places: npt.NDArray[np.float32], seen: npt.NDArray[np.bool_], before: Floats
) -> Floats:
    """The homography that carries most of the seen points, or the one ``before`` where too few are seen."""
    import cv2

    if seen.sum() < FEWEST_POINTS:
        return before
    found, _ = cv2.findHomography(start[seen], places[seen].astype(np.float64), cv2.RANSAC, 2.0)
    return before if found is None else np.asarray(found, np.float64)


def apply_homography(matrix: Floats, points: Floats) -> Floats:
    """``points`` ``[P, 2]`` where ``matrix`` carries them."""
    carried = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ matrix.T
    return carried[:, :2] / carried[:, 2:]


def largest_jump(tracks: Trajectories, far: float) -> float:
    """The largest share of living points that are lost, or go further than ``far``, from one frame to the next."""
    alive = tracks.visible[:-1]
    gone = alive & (~tracks.visible[1:] | (np.linalg.norm(np.diff(tracks.xy, axis=0), axis=2) > far))
    count = alive.sum(1)
    return float((gone.sum(1)[count > 0] / count[count > 0]).max(initial=0))


def black_bars(frames: npt.NDArray[np.uint8], level: int = 24) -> float:
    """Share of the picture's height or width that is black at both ends of every frame."""
    brightest = frames[:: max(len(frames) // 8, 1)].max(axis=(0, 3))
    shares = []
    for lines in (brightest.max(1), brightest.max(0)):
        lit = np.flatnonzero(lines > level)
        first, last = (int(lit[0]), len(lines) - 1 - int(lit[-1])) if len(lit) else (0, 0)
        shares.append((first + last) / len(lines) if first and last else 0.0)
    return max(shares)


def sharpness(frame: npt.NDArray[np.uint8]) -> float:
    """How strong the strongest hundredth of the fine detail is, grey levels."""
    import cv2

    detail = cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.CV_64F)
    return float(np.percentile(np.abs(detail), 99))


def frozen_share(frames: npt.NDArray[np.uint8]) -> float:
    """Share of frames that repeat the one before."""
    steps = [np.abs(a.astype(np.int16) - b).mean() for a, b in zip(frames, frames[1:], strict=False)]
    return float(np.mean(np.array(steps) < 0.1)) if steps else 1.0


def score_clip(
    frames: npt.NDArray[np.uint8], tracks: Trajectories, every: Trajectories, motion: Motion, rules: Rules
) -> dict[str, float]:
    """The scores of a clip.

    Args:
        frames: ``[T, H, W, 3]``.
        tracks: of these frames.
        every: of all frames of the video in between.
        motion: of ``tracks``.
    """
    diagonal = float(np.hypot(*frames.shape[1:3]))
    return {
        "light": float(frames.mean()),
        "bars": black_bars(frames),
        "moving_points": float((motion.displacement > rules.min_motion * diagonal).sum()),
        "motion": float(np.median(motion.displacement)) / diagonal if motion.displacement.size else 0.0,
        "object_motion": float(np.percentile(motion.own, 98)) / diagonal if motion.own.size else 0.0,
        "camera_motion": motion.camera / diagonal,
        "frozen": frozen_share(frames),
        "jump": largest_jump(every, 0.15 * diagonal),
        "visible": float(tracks.visible[-1].mean()) if tracks.visible.size else 0.0,
        "sharpness": sharpness(frames[len(frames) // 2]),
    }


def broken_rule(scores: Mapping[str, float], rules: Rules) -> str:
    """The first rule that a clip breaks, or an empty string."""
    broken = {
        "black": scores["light"] < rules.min_light,
        "letterbox": scores["bars"] > rules.max_bars,
        "missed cut": scores["jump"] > rules.max_jump,
        "static": scores["moving_points"] < rules.min_moving_points,
        "frozen": scores["frozen"] > rules.max_frozen,
        "tracks lost": scores["visible"] < rules.min_visible,
        "blurred": scores["sharpness"] < rules.min_sharpness,
    }
    return next((name for name, is_broken in broken.items() if is_broken), "")
