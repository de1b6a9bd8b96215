"""Items are drawn exactly where their transforms say, and are prepared without dark edges."""

import numpy as np
import pytest

from ardrag.worlds.photo_items import SHADOW_STRENGTH, Item, grab_place, item_matrices, prepare, ragged_piece


def bright_place(picture):
    """Centre of mass of a picture's brightness, in pixels with edges at whole numbers."""
    weights = picture.astype(float)
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]] + 0.5
    return np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()


@pytest.mark.parametrize("place", [(10.0, 20.0), (21.5, 12.5)])
def test_the_tracked_place_is_where_it_is_drawn(place):
    """A soft spot in an item that turns, grows and is squashed: its centre of mass is `at` of its place."""
    y, x = np.mgrid[:32, :36] + 0.5
    spot = np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * 2.5**2))
    rgba = np.zeros((32, 36, 4), np.uint8)
    rgba[..., 0] = 250 * spot
    rgba[..., 3] = 255
    path = np.stack([np.linspace(30, 61.3, 5), np.linspace(40.4, 33, 5)], 1)
    turn, grow, squash = np.linspace(-0.6, 0.8, 5), np.linspace(0, 0.2, 5), np.linspace(0, -0.15, 5)
    item = Item("spot", rgba, item_matrices(rgba, path, turn, grow, squash), np.array(place), True)
    assert np.allclose(item.at(np.array([18.0, 16.0])), path, atol=1e-4)
    for frame in range(5):
        window = item.window(frame, 96, 100)
        canvas = np.zeros((96, 100))
        canvas[window] = item.draw(frame, window)[..., 0]
        assert np.abs(bright_place(canvas) - item.at(item.grab)[frame]).max() < 0.12


def test_an_item_off_the_screen_has_no_window():
    rgba = np.full((8, 8, 4), 255, np.uint8)
    still = np.zeros(1)
    matrices = item_matrices(rgba, np.array([[-30.0, 5.0]]), still, still, still)
    assert Item("away", rgba, matrices, np.zeros(2), True).window(0, 32, 32) is None


def test_colours_are_premultiplied_and_edges_not_dark():
    rgba = np.zeros((40, 40, 4), np.uint8)
    rgba[8:32, 8:32] = 200
    rgba[..., 3] = np.where(rgba[..., 0] > 0, 255, 0)
    small = prepare(rgba, 20, None).astype(int)
    assert (small[..., :3] <= small[..., 3:]).all()
    inner = small[..., 3] > 100
    assert np.abs(small[inner][:, 0] * 255 / small[inner][:, 3] - 200).max() < 4


def test_a_shadow_hides_less_than_half():
    rgba = np.zeros((30, 30, 4), np.uint8)
    rgba[10:20, 10:20] = 255
    plain, shaded = (prepare(rgba, 30, shadow) for shadow in (None, (6.0, 4.0)))
    below = shaded[..., :3].max(-1) == 0
    assert 0 < shaded[below][:, 3].max() <= 255 * SHADOW_STRENGTH + 1 < 127
    assert shaded[..., 0].sum() == pytest.approx(plain[..., 0].sum(), rel=0.01)


def test_pieces_are_ragged_and_from_the_photograph(library):
    rng = np.random.default_rng(2)
    entry = library.choose("photo", "train")[0]
    pieces = [ragged_piece(library, entry, rng) for _ in range(4)]
    covered = [float((piece[..., 3] > 127).mean()) for piece in pieces]
    assert all(0.15 < part < 0.9 for part in covered) and len(set(covered)) == 4
    assert all(piece[..., 0].mean() > piece[..., 2].mean() + 60 for piece in pieces)


def test_what_is_grabbed_is_solid():
    rng = np.random.default_rng(3)
    rgba = np.zeros((40, 40, 4), np.uint8)
    rgba[:12, :, 3] = 255
    places = np.array([grab_place(rgba, rng) for _ in range(50)])
    assert (places[:, 1] < 12).all() and len(np.unique(places, axis=0)) > 10
