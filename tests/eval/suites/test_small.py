"""The small world as a suite: exact truth at 64x64, categories of difficulty, options by name."""

from dataclasses import replace

import numpy as np
import pytest

from ardrag.worlds.small import SmallWorld
from eval.suites.open import open_suite
from eval.suites.small import SmallSuite, cross


def test_cases_are_the_world_s_test_clips():
    suite = open_suite("small")
    assert isinstance(suite, SmallSuite) and len(suite) == 206
    case, clip = suite.case(3, 9), SmallWorld().make("test", 3, 9)
    assert case.truth.shape == (9, 64, 64, 3) and np.array_equal(case.truth, clip.frames)
    assert np.array_equal(case.picture, clip.frames[0]) and case.prompt == clip.caption
    arrays = case.tracks.to_array()
    assert np.abs(arrays.xy * 64 - clip.xy)[arrays.visible].max() < 1e-3


def test_categories_tell_one_path_from_two_and_those_that_cross():
    suite, seen = SmallSuite(), set()
    for index in range(40):
        case = suite.case(index, 25)
        kinds = set(case.categories)
        assert ("one path" in kinds) != ("two paths" in kinds)
        assert not {"one path", "paths cross"} <= kinds
        seen |= kinds
    assert {"one path", "two paths", "paths cross", "occluded"} <= seen


def test_sprites_cross_where_they_cover_each_other():
    clip = next(clip for clip in map(SmallWorld().make, ["test"] * 40, range(40)) if len(clip.movers) > 1)
    one, other = (clip.sprites[mover] for mover in clip.movers)
    apart = replace(other, xy=one.xy + (one.size + other.size) / 2)
    met = apart.xy.copy()
    met[7] = one.xy[7]
    assert not cross(replace(clip, sprites=(one, apart), movers=(0, 1)))
    assert cross(replace(clip, sprites=(one, replace(apart, xy=met)), movers=(0, 1)))


def test_the_crossing_suite_holds_clips_that_cross_and_no_others(monkeypatch):
    monkeypatch.setattr("eval.suites.small.CROSSING_CLIPS", 2)
    suite = open_suite("crossing")
    numbers = [index for index in range(int(suite.names()[1]) + 1) if cross(SmallWorld().make("test", index))]
    assert suite.names() == [f"{index:04d}" for index in numbers] and len(suite) == 2
    case = suite.case(1, 25)
    assert "paths cross" in case.categories and (case.index, case.name) == (1, suite.names()[1])
    assert np.array_equal(case.truth, SmallWorld().make("test", numbers[1]).frames)


def test_options_are_part_of_the_digest_and_checked():
    assert open_suite("small:passers_by=1").digest() != open_suite("small").digest()
    assert len(open_suite("small:passers_by=1").case(0, 5).sprites.free) == 1
    with pytest.raises(ValueError, match="the small world has no option 'rain'"):
        open_suite("small:rain=1")
