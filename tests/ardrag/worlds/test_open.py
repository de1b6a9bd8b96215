"""Worlds by their names, with options."""

import numpy as np
import pytest

from ardrag.worlds.open import open_world
from ardrag.worlds.small import SmallWorld
from ardrag.worlds.sprites import make_clip


def test_worlds_by_name():
    sprites = open_world("sprites")
    assert sprites.title == "Sprite World"
    assert np.array_equal(sprites.make("test", 2, 5, 64, 64).frames, make_clip("test", 2, 5, 64, 64).frames)
    assert open_world("photos").title == "Photo World"


def test_the_small_world_with_its_options():
    world = open_world("small:label_noise=6.5,passers_by=2,two_futures=1")
    assert world.title == "the small world with label_noise=6.5,passers_by=2,two_futures=1"
    same = SmallWorld(label_noise=6.5, passers_by=2, two_futures=True).make("train", 1, 5)
    found = world.make("train", 1, 5, 64, 64)
    assert np.array_equal(found.frames, same.frames) and np.array_equal(found.labels, same.labels)
    assert open_world("small").title == "the small world"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("moon", "world: 'moon' is unknown; use sprites, photos or small"),
        ("sprites:passers_by=1", "world: sprites has no options, 'passers_by=1' is too much"),
        ("small:ghosts=1", "world: the small world has no option 'ghosts'; it has label_noise, late_start"),
        ("small:passers_by", "world: 'passers_by' is no number; write passers_by=1"),
        ("small:late_start=1.5", "world: 'late_start=1.5' is no number"),
        ("small:passers_by=9", "passers_by: 9 is not in 0 .. 3"),
    ],
)
def test_what_is_no_world(text, message):
    with pytest.raises(ValueError, match=message):
        open_world(text)
