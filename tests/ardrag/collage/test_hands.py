"""Hands on things: how far a light one follows, several on one thing, who lets go and what stays."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from ardrag.collage.hands import Hand, Way, follow


def hand(track: int, thing: torch.Tensor, places: Sequence[complex], start: int = 0, force: float = 1) -> Hand:
    count = len(places)
    frames, way = range(start, start + count), Way(places[0], places[0], places[0])
    arrays = np.array(places, complex), np.ones(count, bool), np.full(count, force, np.float32)
    return Hand(track, thing, places[0], frames, way, *arrays)


def thing() -> torch.Tensor:
    return torch.zeros(4, 8, 8)


def test_a_light_touch_is_followed_a_part_of_each_step() -> None:
    (course,), (way,) = follow([hand(0, thing(), [0j, 4 + 0j, 4 + 8j], force=0.25)], 3)
    np.testing.assert_allclose(course.places, [0, 1, 1 + 2j])
    assert way == course.end and way.drawn == 4 + 8j and (course.turns == 1).all() and not course.let_go


def test_two_hands_are_a_similarity() -> None:
    """Both go on by 1, and turn each other by a right angle, twice as far apart."""
    one, two = 0j, 2 + 0j
    shared = thing()
    (course,), ways = follow([hand(0, shared, [one, 2 - 2j]), hand(1, shared, [two, 2 + 2j])], 2)
    np.testing.assert_allclose(course.places, [0, 2 - 2j])
    np.testing.assert_allclose(course.turns, [1, 2j])
    assert [way.now for way in ways] == pytest.approx([2 - 2j, 2 + 2j])


def test_three_hands_that_do_not_agree_are_followed_as_well_as_can_be() -> None:
    shared, moved = thing(), [0.5 + 0j, 4 + 0.5j, -0.5 + 4j]
    hands = [hand(n, shared, [at, to]) for n, (at, to) in enumerate(zip([0j, 4 + 0j, 4j], moved, strict=True))]
    (course,), ways = follow(hands, 2)
    turn = course.turns[1]
    now = np.array([way.now for way in ways])
    np.testing.assert_allclose(now - now[0], turn * np.array([0, 4, 4j]), atol=1e-12)
    assert now.mean() == pytest.approx(np.mean(moved)) and not np.allclose(now, moved)


def test_one_who_lets_go_leaves_it_to_the_other() -> None:
    shared = thing()
    first, second = hand(0, shared, [0j, -1j]), hand(1, shared, [2 + 0j, 1j, 3 + 1j, 4 + 1j])
    led, follows = follow([first, second], 4)[0]
    assert led.frames == range(0, 2) and follows.frames == range(2, 4)
    assert not led.let_go and not follows.let_go
    np.testing.assert_allclose(follows.turns, [1j, 1j])
    np.testing.assert_allclose(follows.places, [3 + 1j, 4 + 1j])


def test_what_nobody_holds_any_longer_is_let_go_once() -> None:
    shared, other = thing(), thing()
    hands = [hand(0, shared, [0j, 1j]), hand(1, shared, [2 + 0j, 2 + 1j, 2 + 2j]), hand(2, other, [5 + 0j] * 5)]
    found = follow(hands, 5)[0]
    assert [(course.hand.track, course.frames, course.let_go) for course in found] == [
        (0, range(0, 2), False),
        (1, range(2, 3), True),
        (2, range(0, 5), False),
    ]


def test_let_go_before_the_first_frame_it_stays_where_it_was() -> None:
    way = Way(0j, 3 + 0j, 2 + 0j, 1j, seen=False)
    none = np.zeros(0)
    gone = Hand(0, thing(), 0j, range(0, 0), way, none.astype(complex), none.astype(bool), none.astype(np.float32))
    (course,), ways = follow([gone], 4)
    assert course.let_go and course.end == way == ways[0] and course.frames == range(0, 0) and not len(course.places)


def test_a_thing_is_seen_where_one_hand_sees_it() -> None:
    shared = thing()
    blind = hand(0, shared, [0j, 0j])._replace(visible=np.array([True, False]))
    (course,), _ = follow([blind, hand(1, shared, [1 + 0j, 1 + 0j])], 2)
    assert course.visible.all()
    (course,), _ = follow([blind], 2)
    assert course.visible.tolist() == [True, False]
