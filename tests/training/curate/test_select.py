"""Which tracks are chosen: one for each thing, some of the background; and how they are smoothed."""

import numpy as np
import pytest

from ardrag.judges.tracking import Trajectories
from training.curate.score import analyse
from training.curate.select import moving_regions, select_tracks, smoothed


SPACING = 8


@pytest.fixture
def tracks():
    """A still grid of 16 by 16 points on which two blocks of nine go their ways, and a lone one goes astray."""
    y, x = np.mgrid[4:132:SPACING, 4:132:SPACING]
    start = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    xy = np.repeat(start[None], 9, axis=0)
    share = np.linspace(0, 1, 9)[:, None, None]
    xy[:, block(2, 2)] += (share * [40, 10]).astype(np.float32)
    xy[:, block(9, 10)] += (share * [-30, -20]).astype(np.float32)
    xy[:, 16 * 15 + 1] += (share * [25, 0]).astype(np.float32)[:, 0]
    return Trajectories(xy, np.ones(xy.shape[:2], bool))


def block(row, column):
    return [16 * (row + i) + column + j for i in range(3) for j in range(3)]


def test_regions_are_things_and_a_lone_point_is_none(tracks):
    regions = moving_regions(tracks, analyse(tracks), 5, 2.3 * SPACING)
    assert sorted(members.tolist() for members in regions) == [block(2, 2), block(9, 10)]


def test_one_track_for_each_thing_and_some_of_the_background(tracks):
    chosen = select_tracks(tracks, analyse(tracks), 5, 2.3 * SPACING, objects=4, background=3)
    assert len(chosen) == 5 and len(set(chosen)) == 5
    assert sum(point in block(2, 2) for point in chosen) == 1 and sum(point in block(9, 10) for point in chosen) == 1
    still = [point for point in chosen if point not in block(2, 2) + block(9, 10)]
    assert 16 * 15 + 1 not in still
    apart = np.linalg.norm(tracks.xy[0, still][:, None] - tracks.xy[0, still][None], axis=2)
    assert apart[~np.eye(3, dtype=bool)].min() > 40, "spread out"
    assert len(select_tracks(tracks, analyse(tracks), 5, 2.3 * SPACING, objects=1, background=0)) == 1


def test_two_things_side_by_side_that_part_are_two(tracks):
    xy = tracks.xy.copy()
    xy[:, block(2, 5)] += (np.linspace(0, 1, 9)[:, None, None] * [40, 40]).astype(np.float32)
    regions = moving_regions(Trajectories(xy, tracks.visible), analyse(Trajectories(xy, tracks.visible)), 5, 20)
    assert sorted(members.tolist() for members in regions)[:2] == [block(2, 2), block(2, 5)]


def test_a_point_that_is_seen_for_long_speaks_for_its_thing(tracks):
    hidden = tracks.visible.copy()
    hidden[3:, block(2, 2)[:8]] = False
    motion = analyse(Trajectories(tracks.xy, hidden))
    first = select_tracks(Trajectories(tracks.xy, hidden), motion, 5, 20, objects=2, background=0)
    assert any(point in block(9, 10) for point in first)


def test_smoothing_keeps_straight_ways_ends_and_what_is_hidden():
    line = np.linspace(0, 16, 9, dtype=np.float32)[:, None, None] * np.ones((1, 2, 2), np.float32)
    seen = np.ones((9, 2), bool)
    assert np.allclose(smoothed(line, seen), line)
    shaken = line + np.where(np.arange(9) % 2, 0.4, -0.4)[:, None, None].astype(np.float32)
    found = smoothed(shaken, seen)
    assert np.abs(found - line)[1:-1].max() < 0.01 and np.array_equal(found[[0, -1]], shaken[[0, -1]])
    seen[4, 0] = False
    assert np.array_equal(smoothed(shaken, seen)[3:6, 0], shaken[3:6, 0])
