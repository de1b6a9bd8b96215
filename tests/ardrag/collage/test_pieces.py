"""Pieces in windows: turned, scaled, at the edge of the picture, and the places they leave."""

import numpy as np
import pytest
import torch

from ardrag.collage.pieces import covers, cut, extent, filled, lay_over, vacated, with_edge


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
    cover = covers(torch.zeros(64, 64), cut(a_bar(), 16 + 16j, np.array([32 + 32j]), float("inf"), np.array([2])))
    assert float(cover.sum()) == pytest.approx(4 * 4 * 12, rel=0.03)


@pytest.mark.parametrize("place", [-1 + 5j, 31 + 33j, 100 + 100j, -60 + 0j])
def test_off_the_picture_nothing_breaks(place: complex) -> None:
    frame = shown(place)
    assert frame.shape == (3, 32, 32) and (frame >= -1).all()
    if abs(place) > 50:
        assert (frame == -1).all()


def test_beneath_what_covers_some_frames() -> None:
    laid, cover = cut(a_bar(), 16 + 16j, np.array([16 + 16j, 28 + 16j]), float("inf")), torch.zeros(32, 32)
    cover[:, 24:] = 1
    below = laid.beneath({1: cover})
    seen = covers(torch.zeros(32, 32), below)
    assert seen[0].sum() == 4 * 12 and (seen[1] > 0.5).sum() == 4 * 2 and not (seen[1, :, 24:] > 0).any()
    assert laid.layer[1, 3].sum() > below.layer[1, 3].sum(), "the piece itself is as it was"


def test_a_place_is_vacated_as_far_as_the_piece_has_left() -> None:
    edge, flat = torch.linspace(0, 1, 11).view(1, 1, 11), torch.ones(1, 4, 4)
    assert not vacated(edge, edge, 1).any(), "it is there still"
    assert (vacated(edge, 0 * edge, 1) >= edge).all() and vacated(flat / 2, 0 * flat, 1).eq(0.5).all()
    for now in (0.0, 0.5, 0.99):
        torch.testing.assert_close(vacated(flat, now * flat, 1), flat)
    assert not vacated(flat, flat, 1).any()


def test_extent_is_of_the_piece_and_not_of_the_picture() -> None:
    assert extent(a_bar(), 16 + 16j) == 6 and extent(a_bar(), 10.5 + 16j) == 11
    assert extent(torch.zeros(4, 8, 8), 4 + 4j) == 1
    assert with_edge(torch.rand(3, 4, 4))[3].eq(1).all()


def test_of_a_piece_that_left_no_rim_stays() -> None:
    """Its outline may be a pixel too small."""
    before = torch.zeros(1, 128, 128)
    before[:, 40:60, 40:60] = 1
    hole = vacated(before, torch.zeros_like(before), 1)
    assert hole[:, 39:61, 39:61].eq(1).all() and hole.sum() == 22 * 22


def test_what_is_known_stays_and_the_rest_closes_over() -> None:
    picture = torch.rand(3, 40, 56)
    known = torch.ones(1, 40, 56)
    assert torch.equal(filled(picture, known), picture)
    known[:, 10:30, 20:40] = 0
    closed = filled(picture, known)
    assert torch.equal(closed[:, :10], picture[:, :10]) and closed.min() >= 0 and closed.max() <= 1
    flat = filled(torch.full((3, 40, 56), 0.3) * known, known)
    torch.testing.assert_close(flat, torch.full((3, 40, 56), 0.3))
    assert torch.isfinite(filled(picture, torch.zeros(1, 40, 56))).all(), "nothing is known"


def test_what_closes_over_goes_from_one_side_to_the_other() -> None:
    """From dark on the left to light on the right, without a step as large as half of the way."""
    ramp = torch.linspace(0, 1, 64).expand(1, 64, 64)
    known = torch.ones(1, 64, 64)
    known[:, :, 16:48] = 0
    line = filled(ramp, known)[0, 32]
    assert line[20] < 0.45 < 0.55 < line[43] and line.diff().abs().max() < 0.25
