"""Places of tracks: gliding, letting go, and what a session says it has applied."""

import numpy as np
import pytest

from ardrag.tracks.sampling import TrackArrays
from ardrag.tracks.schema import MAX_POINTS, SIGMA
from ardrag.tracks.tracks import Tracks
from pipelines.inputs.points import applied_tracks, glide
from pipelines.past.applied_rows import AppliedRows


def test_glide_is_a_straight_line():
    last = TrackArrays(np.array([[0.2, 0.2], [0.9, 0.9]], np.float32), np.array([True, False]), np.ones(2, np.float32))
    xy, visible, force = glide([(0.6, 0.4, 0.5), (0.5, 0.5)], last, 4)
    assert xy[:, 0] == pytest.approx(np.array([[0.3, 0.25], [0.4, 0.3], [0.5, 0.35], [0.6, 0.4]]))
    assert xy[:, 1] == pytest.approx(np.full((4, 2), 0.5))  # was not there: it appears at its place
    assert visible.all() and force[:, 0] == pytest.approx(0.5) and force[:, 1] == pytest.approx(1)


def test_glide_lets_go_and_leaves_the_canvas():
    last = TrackArrays(np.full((2, 2), 0.9, np.float32), np.ones(2, bool), np.ones(2, np.float32))
    xy, visible, force = glide([None, (1.3, 0.9)], last, 4)
    assert not visible[:, 0].any() and not force[:, 0].any()
    assert visible[:, 1].tolist() == [True, False, False, False] and xy[-1, 1] == pytest.approx([1.3, 0.9])
    assert glide((), last, 4).visible.shape == (4, 2) and not glide((), last, 4).visible.any()
    assert glide((), None, 1).xy.shape == (1, 0, 2)


def test_applied_tracks_are_what_was_applied():
    """Also those that came later, places out of sight, and more frames than a track may have points."""
    length = 2 * MAX_POINTS + 1 - (2 * MAX_POINTS) % 4
    generator = np.random.default_rng(0)
    xy = generator.uniform(0, 1, (length, 2, 2)).astype(np.float32)
    visible = generator.random((length, 2)) < 0.8
    force = generator.random((length, 2)).astype(np.float32)
    xy[~visible] = 7.0
    visible[:5, 1] = False
    tracks = applied_tracks(TrackArrays(xy, visible, force), [0.05], 16.0)
    sampled = tracks.to_array()
    assert tracks.num_frames == length and tracks.sigmas() == [0.05, SIGMA]
    assert np.array_equal(sampled.visible, visible)
    assert np.array_equal(sampled.xy[visible], xy[visible]) and np.array_equal(sampled.force[visible], force[visible])


def test_no_frame_no_tracks():
    assert applied_tracks(AppliedRows().arrays, [], 16.0) == Tracks.empty(1)
