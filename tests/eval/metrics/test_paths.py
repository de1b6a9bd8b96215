"""Path measures where the answer is known: a shift is its length, a steady lag does not tremble."""

import numpy as np
import pytest

from ardrag.judges.tracking import Trajectories
from eval.metrics.paths import epe, jitter, lost_share, mean_of, objmc, percent_of_diagonal, track_errors


def paths(offset=(0.0, 0.0), visible=None):
    """Two tracks of 9 frames on a bent path, moved by ``offset``."""
    t = np.arange(9, dtype=np.float32)
    xy = np.stack([np.stack([2 * t, t**2 / 4], -1), np.stack([40 - t, 10 + 0 * t], -1)], axis=1)
    shown = np.ones(xy.shape[:2], bool) if visible is None else visible
    return Trajectories(xy + np.array(offset, np.float32), shown)


def test_shifted_by_3_px_is_3_px():
    errors = track_errors(paths((3, 0)), paths())
    assert epe(errors) == pytest.approx(3) and objmc(errors) == pytest.approx(3)
    assert epe(track_errors(paths((3, 4)), paths())) == pytest.approx(5)
    assert epe(track_errors(paths(), paths())) == 0


def test_only_what_the_tracks_show_counts():
    visible = np.ones((9, 2), bool)
    visible[4:, 0] = False
    found = paths((0, 1))
    found.xy[4:, 0] += 50
    errors = track_errors(found, paths(visible=visible))
    assert np.isnan(errors[4:, 0]).all() and epe(errors) == pytest.approx(1)
    nothing = track_errors(paths(), paths(visible=np.zeros((9, 2), bool)))
    assert epe(nothing) is None and objmc(nothing) is None


def test_epe_weighs_points_and_objmc_tracks():
    visible = np.ones((9, 2), bool)
    visible[3:, 0] = False  # two counted frames of the first track, eight of the second
    found = paths()
    found.xy[:, 0] += np.array([6, 0], np.float32)
    errors = track_errors(found, paths(visible=visible))
    assert epe(errors) == pytest.approx(6 * 2 / 10) and objmc(errors) == pytest.approx(3)


def test_the_given_frame_does_not_count():
    found = paths()
    found.xy[0] += 100
    assert epe(track_errors(found, paths())) == 0


def test_percent_is_of_the_diagonal():
    assert percent_of_diagonal(5, 30, 40) == pytest.approx(10)
    assert percent_of_diagonal(None, 30, 40) is None


def test_jitter_sees_trembling_and_no_lag():
    assert jitter(paths((7, -2)), paths()) == pytest.approx(0, abs=1e-6)
    trembling = paths()
    trembling.xy[::2, :, 0] += 1
    assert jitter(trembling, paths()) == pytest.approx(2)
    assert jitter(paths(), paths(visible=np.eye(9, 2, dtype=bool))) is None


def test_lost_share():
    found = paths(visible=np.arange(9)[:, None] < np.array([9, 5]))
    assert lost_share(found, paths()) == pytest.approx(4 / 16)


def test_mean_of_nothing_is_none():
    assert mean_of(np.array([np.nan])) is None and mean_of(np.array([1.0, np.nan, 3.0])) == 2


def test_different_points_are_refused():
    with pytest.raises(ValueError, match="found and wanted: shapes"):
        track_errors(paths(), Trajectories(np.zeros((9, 3, 2), np.float32), np.ones((9, 3), bool)))
