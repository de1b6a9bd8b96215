"""Views that pins ask for: exact where they can be, least squares where not, as before where nobody says anything."""

import cmath

import numpy as np
import pytest
import torch

from ardrag.collage.ground import STILL, Ground, View, best_view, filmed


PINS = np.array([10 + 10j, 50 + 12j, 30 + 44j])
ALL = np.ones(3, bool)


def test_a_similarity_is_found_exactly() -> None:
    view = View(np.array(1.3 * cmath.exp(0.4j)), np.array(5 - 8j))
    found = best_view(PINS, view.of(PINS), ALL, STILL)
    assert found.turn == pytest.approx(complex(view.turn)) and found.shift == pytest.approx(complex(view.shift))
    np.testing.assert_allclose(found.rest(view.of(PINS)), PINS)


def test_what_no_similarity_does_is_done_as_well_as_can_be() -> None:
    """No other one nearby is closer: the squares are least."""
    asked = PINS + np.array([3, -2j, 1 + 4j])
    found = best_view(PINS, asked, ALL, STILL)

    def squares(turn: complex, shift: complex) -> float:
        return float((abs(turn * PINS + shift - asked) ** 2).sum())

    least = squares(complex(found.turn), complex(found.shift))
    for step in (1, -1, 1j, -1j):
        assert squares(found.turn + 1e-3 * step, found.shift) > least < squares(found.turn, found.shift + 0.1 * step)


def test_one_pin_pans_and_none_leaves_the_view() -> None:
    before = View(np.array(1.2 + 0j), np.array(3 + 0j))
    one = best_view(PINS, PINS + 7, np.array([False, True, False]), before)
    assert one.turn == before.turn and one.of(PINS[1]) == pytest.approx(PINS[1] + 7)
    assert best_view(PINS, PINS + 7, ~ALL, before) == before
    together = np.array([20 + 20j, 20 + 20j, 0j])
    assert best_view(together, together + 1j, np.array([True, True, False]), before).turn == before.turn


def test_pins_that_meet_in_one_place_leave_the_view() -> None:
    before = View(np.array(1 + 0j), np.array(2 + 0j))
    assert best_view(PINS, np.full(3, 4 + 4j), ALL, before) == before


def test_a_pin_that_comes_later_is_of_the_ground_as_it_is_then() -> None:
    """Chunk by chunk as at once, and the later pin alone goes on where both were."""
    shifts = np.arange(6) * 2.0
    places = np.stack([10 + shifts, 40 + 5j + shifts], 1)
    seen = np.array([[1, 0], [1, 0], [1, 1], [1, 1], [0, 1], [0, 1]], bool)
    view, after = Ground().follow(places, seen)
    np.testing.assert_allclose(view.shift, shifts, atol=1e-9)
    np.testing.assert_allclose(after.pins, [10, 40 + 5j])
    ground, parts = Ground(), []
    for part in (slice(0, 1), slice(1, 3), slice(3, 6)):
        one, ground = ground.follow(places[part], seen[part])
        parts.append(one)
    assert np.array_equal(np.concatenate([part.shift for part in parts]), view.shift)


def test_filmed_is_the_picture_itself_until_something_moves() -> None:
    video = torch.rand(3, 2, 8, 8)
    still = View(np.ones(2, complex), np.zeros(2, complex))
    assert filmed(video, still) is video
    moved = filmed(video, View(np.ones(2, complex), np.array([0, 3 + 0j])))
    torch.testing.assert_close(moved[:, 0], video[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(moved[:, 1, :, 3:], video[:, 1, :, :-3], rtol=0, atol=1e-5)
    quarter = filmed(video, View(np.full(2, 1j), np.full(2, 8 + 0j)))  # a quarter turn, clockwise as y points down
    torch.testing.assert_close(quarter, video.rot90(-1, (2, 3)), rtol=0, atol=1e-5)
