"""Changes of tracks: each does what it says, to each track on its own, and nothing where it is not named."""

import numpy as np
import pytest

from ardrag.tracks.sampling import TrackArrays
from training.controls.changes import begun_late, changed, left_out, off, pressed
from training.settings.tracks import TrackConfig


FRAMES, COUNT = 25, 400


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    visible = rng.random((FRAMES, COUNT)) < 0.9
    return TrackArrays(rng.random((FRAMES, COUNT, 2), np.float32), visible, np.ones((FRAMES, COUNT), np.float32))


def seeded():
    return np.random.default_rng(1)


def test_a_touch_changes_smoothly_between_its_bounds(arrays):
    force = pressed(arrays, 0.0, seeded()).force
    assert force.min() < 0.05 and force.max() > 0.95 and 0 <= force.min() <= force.max() <= 1
    assert np.abs(np.diff(force, axis=0)).max() <= 3 / (FRAMES - 1) + 1e-6
    assert force.dtype == np.float32 and np.ptp(force, axis=1).min() > 0.1


def test_the_share_that_is_left_out_is_left_out_whole(arrays):
    gone = ~left_out(arrays, 0.25, seeded()).visible.any(0)
    assert gone.mean() == pytest.approx(0.25, abs=0.06)
    kept = left_out(arrays, 0.25, seeded()).visible[:, ~gone]
    assert np.array_equal(kept, arrays.visible[:, ~gone])


def test_late_tracks_begin_in_the_first_half(arrays):
    visible = begun_late(arrays._replace(visible=np.ones_like(arrays.visible)), 0.5, seeded()).visible
    starts = visible.argmax(0)
    assert (starts > 0).mean() == pytest.approx(0.5, abs=0.08) and starts.max() == FRAMES // 2
    assert (np.diff(visible.astype(int), axis=0) >= 0).all()


def test_noise_has_its_size_in_pixels_of_the_picture_and_leaves_frame_0(arrays):
    height, width = 64, 128
    step = (off(arrays, 6.0, height, width, seeded()).xy - arrays.xy) * (width, height)
    seen = arrays.visible
    assert not step[0].any() and not step[~seen].any()
    assert step[6:][seen[6:]].std(0) == pytest.approx((3.0, 3.0), rel=0.1)


def test_what_is_not_named_is_not_changed(arrays):
    for part, same in zip(changed(arrays, TrackConfig(), 64, 64, seeded()), arrays, strict=True):
        assert part is same
    every = TrackConfig(touch_force=0.2, dropped_tracks=0.1, late_tracks=0.1, track_noise=4)
    found, again = (changed(arrays, every, 64, 64, seeded()) for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(found, again, strict=True))
    assert all(not np.array_equal(one, other) for one, other in zip(found, arrays, strict=True))


def test_a_clip_without_tracks_stays_one():
    nothing = TrackArrays(np.zeros((5, 0, 2), np.float32), np.zeros((5, 0), bool), np.zeros((5, 0), np.float32))
    every = TrackConfig(touch_force=0.2, dropped_tracks=0.1, late_tracks=0.1, track_noise=4)
    assert [part.shape for part in changed(nothing, every, 64, 64, seeded())] == [(5, 0, 2), (5, 0), (5, 0)]


@pytest.mark.parametrize("name, value", [("touch_force", 1.5), ("dropped_tracks", -0.1), ("late_tracks", 2)])
def test_shares_are_shares(name, value):
    with pytest.raises(ValueError, match=f"{name}: {value} is no share; use 0 to 1"):
        TrackConfig(**{name: value})
    with pytest.raises(ValueError, match="track_noise: -1 is negative"):
        TrackConfig(track_noise=-1)
