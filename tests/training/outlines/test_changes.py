"""Disguises leave the mask as it is, turns move picture and mask alike, colours change nothing of either's place."""

import numpy as np
import pytest

from training.outlines.changes import colour_step, coloured, disguised, turned
from training.outlines.things import Grab, Shown


@pytest.fixture
def shown():
    owner = np.zeros((48, 64), np.uint8)
    owner[10:30, 20:50] = 1
    picture = np.where(owner[..., None] == 1, [220, 40, 40], [30, 30, 200]).astype(np.uint8)
    return Shown(picture, owner, np.full((48, 64, 3), [30, 30, 200], np.uint8), np.array([[35, 20]], np.float32))


@pytest.fixture
def grab(shown):
    return Grab((shown.owner == 1).astype(np.float32), shown.places[0])


def test_a_disguise_changes_the_cut_or_the_colours_but_never_the_mask(shown, grab):
    other = shown._replace(empty=np.full((48, 64, 3), 99, np.uint8))
    mask, plain, ground = grab.mask.copy(), 0, 0
    for seed in range(60):
        picture = disguised(shown, grab, other, np.random.default_rng(seed))
        assert picture.dtype == np.float32 and picture.shape == (48, 64, 3)
        plain += np.array_equal(picture, shown.picture)
        ground += picture[2, 2].tolist() == [99, 99, 99]
        assert picture[20, 35, 0] > picture[2, 2, 0]  # the thing can still be told
    assert 2 < plain < 25 and 8 < ground < 30
    assert np.array_equal(grab.mask, mask) and shown.picture.max() == 220


def test_beside_things_nothing_is_disguised(shown):
    nothing = Grab(None, np.array([5, 5], np.float32))
    assert np.array_equal(disguised(shown, nothing, shown, np.random.default_rng(0)), shown.picture)


def test_from_the_colours_of_a_thing_to_those_round_it(shown, grab):
    step = colour_step(shown.picture.astype(np.float32), grab.mask)
    assert np.allclose(step, [-190, -10, 160])
    assert not colour_step(shown.picture.astype(np.float32), np.ones((48, 64), np.float32)).any()


def test_picture_mask_and_place_are_turned_alike(shown, grab):
    red = np.float32(shown.owner == 1)[..., None] * np.array([255, 0, 0], np.float32)
    moved = 0
    for seed in range(12):
        picture, found = turned(red, grab, np.random.default_rng(seed))
        inside = np.zeros((48, 64), bool)
        inside[6:-6, 6:-6] = True  # what is beyond the picture is mirrored into it
        assert np.abs(picture[..., 0] / 255 - found.mask)[inside].mean() < 0.08
        column, line = np.floor(found.xy).astype(int)
        assert found.mask[line, column] > 0.9
        moved += not np.array_equal(found.xy, grab.xy)
    assert moved == 12


def test_what_would_leave_the_picture_stays(shown):
    picture = shown.picture.astype(np.float32)
    edge = Grab(None, np.array([0.5, 0.5], np.float32))
    for seed in range(10):
        same, found = turned(picture, edge, np.random.default_rng(seed))
        assert found is edge or (found.xy > 2).all()
        assert found is not edge or same is picture


def test_another_light(shown):
    picture = shown.picture.astype(np.float32)
    changed = [coloured(picture, np.random.default_rng(seed)) for seed in range(40)]
    assert all(made.min() >= 0 and made.max() <= 255 and made.dtype == np.float32 for made in changed)
    grey = [
        made
        for made in changed
        if np.allclose(made[..., 0], made[..., 1]) and np.allclose(made[20, 35], made[20, 35, 0])
    ]
    assert 1 <= len(grey) <= 15
    assert len({round(float(made.mean()), 3) for made in changed}) == 40
