"""The small world: an option adds what it names and leaves the rest as it is; labels are off as they say."""

import dataclasses

import numpy as np
import pytest

from ardrag.judges.template_match import path_errors
from ardrag.worlds.clip_tracks import clip_tracks
from ardrag.worlds.small import FULL_SIDE, KNOT_FRAMES, SmallWorld, smooth_noise, thrown_back


EVERYTHING = SmallWorld(label_noise=6, late_start=8, passers_by=2, two_futures=True)


def test_same_number_same_clip_and_another_number_another():
    one, same = (EVERYTHING.make("train", 3, 9) for _ in range(2))
    for name, value in vars(one).items():
        if name != "sprites":
            assert np.array_equal(getattr(same, name), value), name
    assert not np.array_equal(one.frames, EVERYTHING.make("train", 4, 9).frames)
    assert not np.array_equal(one.frames, EVERYTHING.make("test", 3, 9).frames)


def test_the_plain_world_is_small_and_its_labels_are_exact():
    for index in range(20):
        clip = SmallWorld().make("train", index, 9)
        assert clip.frames.shape == (9, 64, 64, 3) and len(clip.sprites) in (1, 2)
        assert all(9 <= sprite.size <= 20 for sprite in clip.sprites)
        assert clip.free == () and clip.futures is None
        assert np.array_equal(clip.labels, clip.xy) and np.array_equal(clip.labelled, clip.visible)
        assert np.nanmax(path_errors(clip, clip.frames)) < 1.0  # what is told is what is seen


@pytest.mark.parametrize("option", ["label_noise", "late_start", "passers_by", "two_futures"])
def test_an_option_leaves_what_tracks_move_as_it_is(option):
    changed = dataclasses.replace(SmallWorld(), **{option: getattr(EVERYTHING, option)})
    told = []
    for index in range(6):
        plain, other = SmallWorld().make("train", index, 13), changed.make("train", index, 13)
        assert np.array_equal(plain.xy, other.xy)
        added = len(other.free)
        assert added == changed.passers_by + changed.two_futures
        for one, same in zip(plain.sprites, other.sprites[added:], strict=True):
            assert np.array_equal(one.rgba, same.rgba) and np.array_equal(one.xy, same.xy)
        assert np.array_equal(plain.frames, other.frames) == (added == 0)
        told.append(np.array_equal(plain.labels, other.labels) and np.array_equal(plain.labelled, other.labelled))
    assert all(told) == (option not in ("label_noise", "late_start"))


def test_labels_are_noisy_in_training_alone():
    noisy = SmallWorld(label_noise=6, late_start=8)
    for split in ("validation", "test"):
        clip = noisy.make(split, 0)
        assert np.array_equal(clip.labels, clip.xy) and np.array_equal(clip.labelled, clip.visible)
    errors, starts = [], set()
    for index in range(70):
        clip = noisy.make("train", index)
        assert np.array_equal(clip.labels[0], clip.xy[0]) and np.array_equal(clip.labelled[0], clip.visible[0])
        errors.append(clip.labels - clip.xy)
        starts |= {int(np.argmax(clip.labelled[1:, p])) for p in range(clip.xy.shape[1]) if clip.visible[:, p].all()}
    off = np.concatenate(errors, axis=1) * FULL_SIDE / 64
    assert off[KNOT_FRAMES:].std() == pytest.approx(6, rel=0.15)
    assert np.abs(np.diff(off, axis=0)).mean() < 2 and starts == set(range(9))
    sampled = clip_tracks(clip).to_array()
    shown = sampled.visible
    assert np.allclose(sampled.xy[shown] * 64, clip.labels[shown], atol=1e-3) and not (shown & ~clip.labelled).any()


def test_noise_has_no_error_at_first_and_the_same_spread_later():
    noise = np.stack([smooth_noise(np.random.default_rng(seed), 20) for seed in range(2000)])
    spread = noise.std((0, 2))
    assert (noise[:, 0] == 0).all() and (np.diff(spread[: KNOT_FRAMES + 1]) > 0).all()
    assert spread[KNOT_FRAMES:] == pytest.approx(np.ones(20 - KNOT_FRAMES), abs=0.06)


def test_a_passer_by_keeps_its_speed_and_any_direction_is_possible():
    headings = []
    for index in range(40):
        long = SmallWorld(passers_by=1).make("train", index, 33).sprites[0]
        steps = np.abs(np.diff(long.xy, axis=0))
        usual = np.median(steps, axis=0)
        thrown = (steps < usual - 2e-3).any(-1)  # in the frame in which a border is met
        assert (np.abs(steps - usual).max(-1) < 2e-3)[~thrown].all() and thrown.sum() <= 4
        assert 0.79 < np.linalg.norm(usual) < 1.51 and not long.moves
        half = long.size / 2
        assert (long.xy >= half - 1e-3).all() and (long.xy <= 64 - half + 1e-3).all()
        dx, dy = long.xy[1] - long.xy[0]
        headings.append(int((np.arctan2(dy, dx) + np.pi) // (np.pi / 2)) % 4)
    assert set(headings) == {0, 1, 2, 3}


def test_borders_throw_back_with_the_angle_of_light():
    path = thrown_back(
        np.array([2.0, 5.0], np.float32), np.array([-1.5, 1.0]), 4, np.float64(0), np.array([10.0, 7.0])
    )
    assert path == pytest.approx(np.array([[2, 5], [0.5, 6], [1, 7], [2.5, 6]]))


def test_both_branches_of_a_fork_are_taken_and_start_as_one():
    taken = set()
    for index in range(12):
        clip = SmallWorld(two_futures=True).make("train", index)
        runner, (left, right) = clip.sprites[clip.free[-1]], clip.futures
        same = np.linalg.norm(left - right, axis=1) < 1e-6
        assert same[:4].all() and not same[-6:].any() and np.linalg.norm(left[-1] - right[-1]) > 12
        branch = [np.array_equal(runner.xy, path) for path in clip.futures]
        assert sum(branch) == 1
        taken.add(branch.index(True))
        for x, y in (left[0], left[-1], right[-1]):
            assert clip.background[int(y), int(x)].mean() < 60  # where the road is
    assert taken == {0, 1}


def test_captions_do_not_tell_what_is_hidden():
    clip = EVERYTHING.make("train", 1, 9)
    plain = SmallWorld().make("train", 1, 9)
    assert clip.caption.count("moves") == plain.caption.count("moves") == len(clip.movers)
    assert all(clip.sprites[number].shape in clip.caption.partition(" beside ")[2] for number in clip.free)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_noise": -1.0}, "label_noise: -1.0 is not in 0 .. 64"),
        ({"late_start": -2}, "late_start: -2 is negative"),
        ({"passers_by": 4}, "passers_by: 4 is not in 0 .. 3"),
    ],
)
def test_what_is_no_option(options, message):
    with pytest.raises(ValueError, match=message):
        SmallWorld(**options)
