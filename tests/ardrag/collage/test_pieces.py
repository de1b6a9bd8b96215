"""Pieces in windows: turned, scaled, at the edge of the picture, and the places they leave."""

import numpy as np
import pytest
import torch

from ardrag.collage.pieces import covers, cut, extent, lay_over, vacated, with_edge


def a_bar() -> torch.Tensor:
    """A picture of 32 by 32 with a piece of 4 rows and 12 columns round (16, 16), its left half red."""
    source = torch.zeros(4, 32, 32)
    source[3, 14:18, 10:22] = 1
    source[0, 14:18, 10:16] = 1
    return source


def shown(place: complex, turn: complex | None = None) -> torch.Tensor:
    video = torch.full((3, 1, 32, 32), -1.0)
    turns = None if turn is None else np.array([turn])
    lay_over(video, [0], cut(a_bar(), 16 + 16j, np.array([place]), float("inf"), turns))
    return video[:, 0]


def test_a_piece_lies_where_it_is_laid_and_nowhere_else() -> None:
    frame = shown(20 + 10j)
    red = frame[0] > 0.5
    assert red[8:12, 14:20].all() and red.sum() == 4 * 6
    assert (frame[0] > -0.5).sum() == 4 * 12


@pytest.mark.parametrize("turn", [1, None])
def test_a_turn_by_nothing_is_none(turn: complex | None) -> None:
    torch.testing.assert_close(shown(20 + 10j, turn), shown(20 + 10j), rtol=0, atol=1e-6)


def test_a_quarter_turn_stands_the_bar_up() -> None:
    """Clockwise, as y points down: what was left is above."""
    frame = shown(16 + 16j, 1j)
    assert (frame[0, 10:16, 14:18] > 0.9).all() and (frame[0, 16:22, 14:18] < 0.1).all()
    assert (frame[0] > -0.5).sum() == 4 * 12


def test_twice_as_large_covers_four_times_as_much() -> None:
    cover = covers(
        torch.zeros(3, 1, 64, 64), [0], cut(a_bar(), 16 + 16j, np.array([32 + 32j]), float("inf"), np.array([2]))
    )
    assert float(cover.sum()) == pytest.approx(4 * 4 * 12, rel=0.03)


@pytest.mark.parametrize("place", [-1 + 5j, 31 + 33j, 100 + 100j, -60 + 0j])
def test_off_the_picture_nothing_breaks(place: complex) -> None:
    frame = shown(place)
    assert frame.shape == (3, 32, 32) and (frame >= -1).all()
    if abs(place) > 50:
        assert (frame == -1).all()


def test_a_place_is_vacated_as_far_as_the_piece_has_left() -> None:
    edge = torch.linspace(0, 1, 11)
    assert not vacated(edge, edge).any(), "it is there still"
    torch.testing.assert_close(vacated(edge, torch.zeros(11)), edge)
    torch.testing.assert_close(vacated(torch.ones(3), torch.tensor([0.0, 0.5, 0.99])), torch.ones(3))
    assert not vacated(torch.ones(1), torch.ones(1)).any()


def test_extent_is_of_the_piece_and_not_of_the_picture() -> None:
    assert extent(a_bar(), 16 + 16j) == 6 and extent(a_bar(), 10.5 + 16j) == 11
    assert extent(torch.zeros(4, 8, 8), 4 + 4j) == 1
    assert with_edge(torch.rand(3, 4, 4))[3].eq(1).all()
