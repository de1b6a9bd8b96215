"""The 206 clips: fixed, numbered, with truth and categories."""

import numpy as np

from ardrag.worlds.sprites import BENCHMARK_CLIPS, HELD_OUT_SHAPES
from eval.suites.sprites import SpriteSuite


def test_clips_are_fixed_and_complete():
    suite = SpriteSuite()
    assert len(suite) == BENCHMARK_CLIPS == 206 == len(suite.names()) and suite.names()[7] == "007"
    case, again = suite.case(7, 9), suite.case(7, 9)
    assert (case.truth == again.truth).all() and case.name == "007" and case.num_frames == len(case.truth) == 9
    assert (case.picture == case.truth[0]).all() and case.prompt == case.sprites.caption
    arrays = case.tracks.to_array()
    assert np.abs(arrays.xy * 128 - case.sprites.xy)[arrays.visible].max() < 1e-3


def test_categories_cover_the_breakdown():
    suite, seen = SpriteSuite(), set()
    for index in range(12):
        case = suite.case(index, 33)
        seen |= set(case.categories)
        unseen = any(case.sprites.sprites[mover].shape in HELD_OUT_SHAPES for mover in case.sprites.movers)
        assert ("unseen shape" in case.categories) == unseen and ("fast" in case.categories) != (
            "slow" in case.categories
        )
    assert {"fast", "slow", "several sprites", "seen shape", "unseen shape"} <= seen
