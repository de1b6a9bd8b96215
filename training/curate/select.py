"""The tracks to condition on: one for each thing that moves by itself, some on the background."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ardrag.judges.tracking import Trajectories
from training.curate.score import Motion


SMALLEST_REGION = 4
"""Points of a region; fewer are more often the tracker's mistake than a thing."""
SMALLEST_SHARE = 0.3
"""Regions with fewer points than this share of the largest are mostly what its outline does to the background."""
REACH = 2.3
"""Neighbours are at most this many grid steps apart."""
ALIKE, NEAR = 0.025, 1.0
"""Points belong together if their ways differ by at most this share of their length, or so many pixels, on average."""


def select_tracks(
    tracks: Trajectories, motion: Motion, least: float, reach: float, objects: int, background: int
) -> list[int]:
    """Indices of the chosen points: of the largest regions first, then of the background.

    Args:
        least: pixels that a point must go against the camera to be part of a thing.
        reach: pixels between neighbours.
        objects, background: at most so many of each.
    """
    chosen = [middle_of(region, tracks, motion) for region in moving_regions(tracks, motion, least, reach)[:objects]]
    still = np.flatnonzero((motion.own < least) & (tracks.visible.mean(0) > 0.9))
    for _ in range(min(background, len(still))):
        far = distance_to(tracks.xy[0, still], tracks.xy[0, chosen])
        chosen.append(int(still[far.argmax()]))
    return chosen


def distance_to(points: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Distance of each of ``points`` ``[N, 2]`` to the nearest of ``others`` ``[M, 2]``."""
    if not len(others):
        return np.linalg.norm(points - points.mean(0), axis=1)
    return np.linalg.norm(points[:, None] - others[None], axis=2).min(1)


def middle_of(region: npt.NDArray[np.intp], tracks: Trajectories, motion: Motion) -> int:
    """The point of a region that can be seen for long and goes the way of the others."""
    seen, ways = tracks.visible[:, region], motion.residual[:, region]
    hidden = np.where(seen[..., None], ways, np.nan)
    known = seen.any(1)
    common = np.nanmedian(hidden[known], axis=1, keepdims=True)
    off = np.nanmean(np.linalg.norm(hidden[known] - common, axis=2), axis=0)
    frames = seen.sum(0)
    return int(region[np.where(frames >= 0.8 * frames.max(), off, np.inf).argmin()])


def moving_regions(tracks: Trajectories, motion: Motion, least: float, reach: float) -> list[npt.NDArray[np.intp]]:
    """Groups of neighbours that go the same way against the camera, the largest first.

    Where a thing's outline crosses the background there are corners that belong to neither, and what they do nobody
    else does: such points agree with few.
    """
    points = np.flatnonzero(motion.own >= least)
    support = np.zeros((len(points), len(points)))
    for row, point in enumerate(points):
        support[row] = agreement(point, points, tracks, motion)
    left, regions = np.ones(len(points), bool), []
    while left.any():
        seed = int(np.where(left, (support * left).sum(1), -1).argmax())
        region = connected(seed, tracks.xy[0, points], (support[seed] > 0) & left, reach)
        if region.sum() >= SMALLEST_REGION:
            regions.append(points[region])
        left &= ~region
    largest = max((len(region) for region in regions), default=0)
    return sorted((r for r in regions if len(r) >= SMALLEST_SHARE * largest), key=lambda region: -len(region))


def agreement(
    point: int, points: npt.NDArray[np.intp], tracks: Trajectories, motion: Motion
) -> npt.NDArray[np.float64]:
    """For how many frames each of ``points`` goes the way of ``point``; 0 where it does not, or cannot be seen."""
    both = tracks.visible[:, points] & tracks.visible[:, [point]]
    apart = np.linalg.norm(motion.residual[:, points] - motion.residual[:, [point]], axis=2)
    frames = both.sum(0)
    mean = np.where(both, apart, 0).sum(0) / np.maximum(frames, 1)
    long_enough = frames >= 0.5 * tracks.visible[:, points].sum(0)
    return np.where((mean <= max(NEAR, ALIKE * motion.own[point])) & long_enough, frames, 0).astype(np.float64)


def connected(
    seed: int, places: npt.NDArray[np.float32], members: npt.NDArray[np.bool_], reach: float
) -> npt.NDArray[np.bool_]:
    """Those of ``members`` that neighbours link to ``seed``."""
    found, edge = np.zeros(len(members), bool), [seed]
    found[seed] = True
    while edge:
        near = members & ~found & (np.linalg.norm(places - places[edge.pop()], axis=1) <= reach)
        found |= near
        edge += np.flatnonzero(near).tolist()
    return found


def smoothed(xy: npt.NDArray[np.float32], visible: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """``xy`` ``[T, P, 2]`` averaged with its neighbours in time (1 2 1) where all three can be seen; ends stay."""
    found = xy.copy()
    inner = visible[:-2] & visible[1:-1] & visible[2:]
    mean = 0.25 * xy[:-2] + 0.5 * xy[1:-1] + 0.25 * xy[2:]
    found[1:-1] = np.where(inner[..., None], mean, xy[1:-1])
    return found
