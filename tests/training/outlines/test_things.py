"""Things to grab: their masks are whole, places lie on them, places beside them do not."""

import numpy as np
import pytest

from ardrag.worlds.photos import make_photo_clip
from ardrag.worlds.sprites import make_clip
from tests.worlds_library import write_made_up
from training.outlines.things import Shown, any_place, grab_nothing, grab_thing, shown_photos, shown_sprites


@pytest.fixture
def two():
    """A thing of 10 by 20 pixels, and one of which 30 pixels are to be seen."""
    owner = np.zeros((40, 40), np.uint8)
    owner[5:15, 5:25], owner[30:35, 30:36] = 1, 2
    picture = np.repeat(owner[..., None] * 100, 3, axis=2).astype(np.uint8)
    return Shown(picture, owner, None, np.array([[15.5, 10.5], [33, 33]], np.float32))


def test_a_thing_is_grabbed_where_its_world_does_or_anywhere_on_it(two):
    grabs = [grab_thing(two, np.random.default_rng(seed)) for seed in range(80)]
    kept = [grab for grab in grabs if grab is not None]
    assert 20 < len(kept) < 60  # the other thing hardly shows
    assert all((grab.mask == (two.owner == 1)).all() for grab in kept)
    own = [np.array_equal(grab.xy, two.places[0]) for grab in kept]
    assert 5 < sum(own) < len(own) - 5
    for grab in kept:
        column, line = np.floor(grab.xy).astype(int)
        assert 7 <= column < 23 and 7 <= line < 13


def test_a_place_that_another_thing_covers_is_not_taken(two):
    hidden = two._replace(places=np.array([[33, 33], [33, 33]], np.float32))
    grabs = [grab_thing(hidden, np.random.default_rng(seed)) for seed in range(30)]
    assert all(grab.xy[0] < 25 for grab in grabs if grab is not None)


def test_beside_things_is_clear_of_them(two):
    for seed in range(40):
        grab = grab_nothing(two, np.random.default_rng(seed))
        column, line = np.floor(grab.xy).astype(int)
        assert grab.mask is None and not (two.owner[line - 2 : line + 3, column - 2 : column + 3]).any()
    assert grab_nothing(two._replace(owner=np.ones((40, 40), np.uint8)), np.random.default_rng(0)) is None


def test_a_place_is_the_centre_of_a_pixel():
    mask = np.zeros((4, 6), bool)
    mask[3, 5] = True
    assert any_place(mask, np.random.default_rng(0)).tolist() == [5.5, 3.5]


def test_sprites_are_those_of_the_world():
    (shown,) = shown_sprites("train", 6, 1)
    clip = make_clip("train", 6, 5)
    assert np.array_equal(shown.picture, clip.frames[0]) and shown.empty is None
    assert len(shown.places) == len(clip.sprites) >= shown.owner.max() > 0
    for number, mover in enumerate(clip.movers):
        assert np.allclose(shown.places[mover], clip.xy[0, number])
        column, line = np.floor(clip.xy[0, number]).astype(int)
        assert shown.owner[line, column] == mover + 1 or not clip.visible[0, number]


def test_photographs_are_those_of_the_world(tmp_path, monkeypatch):
    write_made_up(tmp_path)
    monkeypatch.setenv("ARDRAG_PHOTOS", str(tmp_path))
    (shown,) = shown_photos("train", 5, 1)
    clip = make_photo_clip("train", 5, 5)
    assert np.array_equal(shown.picture, clip.frames[0]) and np.array_equal(shown.owner, clip.owner[0])
    assert np.array_equal(shown.empty, clip.background) and len(shown.places) == len(clip.items)
    assert np.allclose(shown.places[list(clip.movers)], clip.xy[0, : len(clip.movers)])
