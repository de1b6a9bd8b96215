"""Points of a clip's first frame, followed through the clip: one pass of any `PointTracker`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ardrag.judges.tracking import PointTracker, Trajectories
from pipelines.video import Frame


PATCH, LEAST_CORRELATION = 11, 0.65
FURTHEST_CORRECTION = 3.0
"""Pixels by which the first frame may correct a place; beyond, it is another place that looks alike."""
CELLS = 20
"""Points along the side of a square as large as the picture."""


def grid_spacing(height: int, width: int) -> int:
    """Pixels between the points of the grid."""
    return max(6, round((height * width) ** 0.5 / CELLS))


def grid_points(frame: Frame) -> npt.NDArray[np.float32]:
    """The best point ``[P, 2]`` of each cell: a corner can be followed, a plain wall cannot."""
    import cv2

    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    strength = cv2.cornerMinEigenVal(grey, 7)
    height, width = grey.shape
    step = grid_spacing(height, width)
    found = []
    for top in range(0, height - step + 1, step):
        for left in range(0, width - step + 1, step):
            cell = strength[top : top + step, left : left + step]
            y, x = np.unravel_index(cell.argmax(), cell.shape)
            if cell[y, x] > 1e-5:
                found.append((left + x, top + y))
    return np.array(found, np.float32).reshape(-1, 2)


def track_grid(tracker: PointTracker, frames: npt.NDArray[np.uint8]) -> Trajectories:
    """Follow the points of frame 0 through ``frames`` ``[T, H, W, 3]``; the centre of a pixel is a whole number."""
    points = grid_points(frames[0])
    if not len(points):
        return Trajectories(np.zeros((len(frames), 0, 2), np.float32), np.zeros((len(frames), 0), bool))
    queries = np.concatenate([np.zeros((len(points), 1), np.float32), points], axis=1)
    found = tracker.track(torch.from_numpy(frames).permute(0, 3, 1, 2), torch.from_numpy(queries))
    xy = anchored(frames, found.xy)
    return Trajectories(xy, found.visible & still_alike(frames, xy))


def anchored(frames: npt.NDArray[np.uint8], xy: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """``xy`` ``[T, P, 2]`` corrected to where each frame looks like frame 0: small errors of many steps add up."""
    import cv2

    first = cv2.cvtColor(frames[0], cv2.COLOR_RGB2GRAY)
    start, places = np.ascontiguousarray(xy[0][:, None]), xy.copy()
    options = {"winSize": (PATCH, PATCH), "maxLevel": 0, "flags": cv2.OPTFLOW_USE_INITIAL_FLOW}
    for t in range(1, len(frames)):
        now = cv2.cvtColor(frames[t], cv2.COLOR_RGB2GRAY)
        better, status, _ = cv2.calcOpticalFlowPyrLK(first, now, start, xy[t][:, None].copy(), **options)
        near = np.linalg.norm(better[:, 0] - xy[t], axis=1) <= FURTHEST_CORRECTION
        places[t] = np.where((status.astype(bool)[:, 0] & near)[:, None], better[:, 0], xy[t])
    return places


def still_alike(frames: npt.NDArray[np.uint8], xy: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Where ``xy`` ``[T, P, 2]`` still shows what it showed in frame 0, ``[T, P]``.

    A tracker that compares each frame with the one before lets what passes over a point carry it away. The patch of
    the first frame tells the two apart; it forgives what a patch of eleven pixels may turn and grow.
    """
    first = patches(frames[0], xy[0])
    alike = [(first * patches(frame, places)).mean(1) for frame, places in zip(frames, xy, strict=True)]
    return np.stack(alike) >= LEAST_CORRELATION


def patches(frame: npt.NDArray[np.uint8], places: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Grey patches ``[P, N]`` around ``places``, of mean 0 and spread 1 (less where there is hardly any)."""
    import cv2

    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    offsets = np.stack(np.meshgrid(*[np.arange(PATCH) - PATCH // 2] * 2), axis=-1).reshape(1, -1, 2)
    around = (places[:, None] + offsets).astype(np.float32)
    found = cv2.remap(grey, around, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    found = found - found.mean(1, keepdims=True)
    return found / np.sqrt(np.square(found).mean(1, keepdims=True) + 1)
