"""Hands on things: one carries a thing along, two or more on the same thing also turn it and change its size.

A hand is a track while it holds something. A thing moves by the similarity that brings the places where hands have
grabbed it to where they are now, as the ground does under its pins (`ardrag.collage.ground`). Who lets go first leaves
it to the others as it is turned then; who lets go last leaves it where it is. Places are complex numbers in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ardrag.collage.ground import View, best_view
from ardrag.collage.pieces import Laid, Places, cut


class Way(NamedTuple):
    """How far a hand has come: where it grabbed, was drawn to last, and where what it grabbed is now.

    ``turn`` is the factor by which that is turned and scaled, ``seen`` whether one sees its place.
    """

    grabbed: complex
    drawn: complex
    now: complex
    turn: complex = 1 + 0j
    seen: bool = True

    def step(self, place: complex, seen: bool, force: float) -> Way:
        """Drawn to a place it follows as far as the touch has force (B.1)."""
        return self._replace(drawn=place, now=self.now + force * (place - self.drawn), seen=seen)


class Hand(NamedTuple):
    """A track that holds a thing in ``frames``: its way before them, and how it is drawn in them.

    Attributes:
        source: the thing, ``[4, H, W]`` (`ardrag.collage.pieces.cut`); hands with the same one hold it together.
        taken: the grabbed point in it.
        places: ``[n]``, whether they are ``visible``, and with which ``force``.
    """

    track: int
    source: Tensor
    taken: complex
    frames: range
    way: Way
    places: Places
    visible: npt.NDArray[np.bool_]
    force: npt.NDArray[np.float32]

    def drawn(self, frame: int) -> tuple[complex, bool, float]:
        """Place, visibility and force in a frame."""
        n = frame - self.frames.start
        return complex(self.places[n]), bool(self.visible[n]), float(self.force[n])


class Course(NamedTuple):
    """A thing in some ``frames``, as a ``hand`` tells it: its way in each, and after them.

    ``let_go``: afterwards nobody holds it, and it stays where it is.
    """

    hand: Hand
    frames: range
    ways: tuple[Way, ...]
    end: Way
    let_go: bool

    @property
    def places(self) -> Places:
        """Where what was grabbed is, ``[n]``."""
        return np.array([way.now for way in self.ways], complex)

    @property
    def turns(self) -> Places:
        """How it is turned, ``[n]``."""
        return np.array([way.turn for way in self.ways], complex)

    @property
    def visible(self) -> npt.NDArray[np.bool_]:
        """Whether one sees it, ``[n]``."""
        return np.array([way.seen for way in self.ways], bool)

    def laid(self, places: Places, spread: float, turns: Places | None = None) -> Laid:
        """The thing at ``places`` ``[n]``; see `ardrag.collage.pieces.cut`."""
        return cut(self.hand.source, self.hand.taken, places, spread, turns)


def follow(hands: Sequence[Hand], count: int) -> tuple[list[Course], list[Way]]:
    """What becomes of the things that ``hands`` hold in frames ``0 .. count``, and how far each hand came.

    Hands on one thing have grabbed it at the same time.
    """
    ways, found = [hand.way for hand in hands], []
    for thing in {id(hand.source): hand.source for hand in hands}.values():
        holders = [number for number, hand in enumerate(hands) if hand.source is thing]
        told = list(steps(hands, holders, ways, count))
        stop = max(hands[number].frames.stop for number in holders)
        runs = [list(run) for _, run in groupby(told, key=itemgetter(0))]
        for run in runs:
            (number, first, _), (*_, last, end) = run[0], run[-1]
            frames, let_go = range(first, last + 1), last + 1 == stop < count
            found.append(Course(hands[number], frames, tuple(way for *_, way in run), end, let_go))
        if not runs:
            found.append(Course(hands[holders[0]], range(stop, stop), (), ways[holders[0]], True))
    return found, ways


def steps(
    hands: Sequence[Hand], holders: Sequence[int], ways: list[Way], count: int
) -> Iterator[tuple[int, int, Way]]:
    """Each frame in which a thing is held: the first of its ``holders``, the frame, its way. ``ways`` go along."""
    for frame in range(count):
        holding = [number for number in holders if frame in hands[number].frames]
        for number in holding:
            ways[number] = ways[number].step(*hands[number].drawn(frame))
        if len(holding) > 1:
            pull_together(ways, holding)
        if holding:
            yield holding[0], frame, ways[holding[0]]


def pull_together(ways: list[Way], holding: Sequence[int]) -> None:
    """Several hands move one thing, as nearly as it can as each of them wants; all see it where one does. In place."""
    hands = [ways[number] for number in holding]
    grabbed, wanted = np.array([(way.grabbed, way.now) for way in hands], complex).T
    before = View(np.array(hands[0].turn), np.array(0j))
    view = best_view(grabbed, wanted, np.ones(len(hands), bool), before)
    seen = any(way.seen for way in hands)
    for number, now in zip(holding, view.of(grabbed).tolist(), strict=True):
        ways[number] = ways[number]._replace(now=now, turn=complex(view.turn), seen=seen)
