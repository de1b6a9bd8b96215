"""The carried piece: what was grabbed moves along its path. It says what moves, not only where.

Round each visible point lies the piece of the picture that was round the point when it was grabbed, with the soft edge
``exp(-(d^2 / 2 s^2)^2)``; later tracks lie on top. ``s`` is the track's own ``sigma`` (its brush), or ``radius``, each
times ``sqrt(H W)``. A track that begins while the clip goes on carries what is there *then*: it takes its piece from
the last finished frame.

`Carried` shows the pieces on neutral grey, fainter where the touch has less force. `Collage` shows them on the
picture, as an animation of paper cut-outs would: where a piece was taken the colours round it close over, as far as it
has left the place, and where it is let go it stays. What rests and what moves are then both there to be seen, in
latents of a video like those that are asked for; from the first latent, which stands for a single frame, the latents
of the same picture at rest differ by a sixth of their variance. A touch of half the force is followed half of each
step (B.1). Pins of the ground (a track's ``sigma`` is `GROUND`) move the picture under the pieces
(`ardrag.collage.ground`). What is held while its grabbed place is hidden goes on where its track says: under what
covers that place, or bit by bit out of the picture.

`Cutout` is a collage of things: what is grabbed is cut out along its own outline, not as a disc. The outline is the
guess of a small network, made once when something is grabbed (`ardrag.outlines.network`). Place and brush are told to
it; the worlds that it learnt from say that a brush on a thing means the whole thing, and on anything else its disc.
They know no brush wider than ``widest``: who takes one says how much is meant, and gets its disc. Tracks that grab one
thing at the same time hold it together: they also turn it and change its size (`ardrag.collage.hands`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial, reduce
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ardrag.collage.ground import Ground, View, filmed
from ardrag.collage.hands import Course, Hand, Way, follow
from ardrag.collage.pieces import Laid, Places, covers, cut, filled, grown, lay_over, rim_of, vacated, with_edge
from ardrag.controls.control import Held, Look, Piece, PixelControl, Rows, Scene, Stretch, grabs, size_of, spreads
from ardrag.outlines.network import Outline, discs


@dataclass(frozen=True)
class Carried(PixelControl):
    """See the module. ``radius`` is the brush of a track that has none, relative to ``sqrt(H W)``."""

    name: ClassVar[str] = "carried"
    about: ClassVar[str] = "Tracks are shown as the piece of the picture that each one carries (`control: carried`)."
    takes_later: ClassVar[bool] = True
    radius: float = 0.11

    def __post_init__(self) -> None:
        if not 0 < self.radius <= 1:
            raise ValueError(f"control.radius: {self.radius} must be above 0 and at most 1, the picture; use 0.11")

    @property
    def brush(self) -> float:
        """See `Control`."""
        return self.radius

    def paint(self, rows: Rows, look: Look, memory: Any = None) -> tuple[Tensor, Any]:
        """See `PixelControl`; what each track holds is remembered."""
        stretches, held = grabs(rows, lambda track, xy: with_edge(look()), memory or ())
        like = stretches[0].piece.source if stretches else torch.empty(0)
        video = like.new_zeros(3, len(rows), *size_of(look))
        self.carry(video, stretches, rows)
        return video, held

    def carry(self, video: Tensor, stretches: Iterable[Stretch], rows: Rows) -> None:
        """Lay the pieces over the frames of their stretches, in place."""
        for stretch in stretches:
            visible = rows.arrays.visible[stretch.start : stretch.stop, stretch.track]
            seen = np.arange(stretch.start, stretch.stop)[visible]
            places = complex_places(rows.arrays.xy[seen, stretch.track], video)
            laid = cut(stretch.piece.source, taken(stretch.piece), places, self.spread(rows, stretch.track, video))
            laid.layer.mul_(torch.from_numpy(rows.arrays.force[seen, stretch.track]).to(video)[:, None, None, None])
            lay_over(video, seen.tolist(), laid)

    def spread(self, rows: Rows, track: int, picture: Tensor) -> float:
        """How wide the piece of a track is in ``picture`` ``[..., H, W]``, in pixels."""
        return spreads(rows.brushes, self.radius)[track] * math.sqrt(math.prod(picture.shape[-2:]))


class Table(NamedTuple):
    """What a collage remembers, pictures ``[3, H, W]`` as they are before the ground moves.

    ``picture`` is what lies still, ``closed`` how it would look without what is held; ``held`` and ``ways`` are what
    each track holds, and how far it came; ``ground`` knows the pins, ``outline`` where things end, if somebody does.
    """

    picture: Tensor
    closed: Tensor
    held: Held = ()
    ways: tuple[Way | None, ...] = ()
    ground: Ground = Ground()
    outline: Outline | None = None

    def begins(self, stretch: Stretch) -> bool:
        """Whether its piece is taken up in it."""
        return all(stretch.piece is not piece for piece in self.held)

    def led(self, hands: Sequence[Hand], ways: Sequence[Way]) -> tuple[Way | None, ...]:
        """The ways of all tracks after those of ``hands`` have come to ``ways``."""
        count = max((hand.track + 1 for hand in hands), default=0)
        led = [*self.ways, *[None] * (count - len(self.ways))]
        for hand, way in zip(hands, ways, strict=True):
            led[hand.track] = way
        return tuple(led)


class Moved(NamedTuple):
    """The piece of a course in the frames of a video: as it was grabbed, as it is now, and its place now ``[n]``."""

    before: Laid
    now: Laid
    places: Places


@dataclass(frozen=True)
class Collage(Carried):
    """See the module."""

    name: ClassVar[str] = "collage"
    about: ClassVar[str] = "Tracks are shown as pieces that move over the picture (`control: collage`)."

    def begin(self, scene: Scene) -> Table:
        """See `PixelControl`: at first there is the picture."""
        return Table(scene.picture, scene.picture)

    def paint(self, rows: Rows, look: Look, memory: Any = None) -> tuple[Tensor, Any]:
        """See `PixelControl`."""
        table = Table(look(), look()) if memory is None else memory
        places = complex_places(rows.arrays.xy, table.picture)
        view, ground = table.ground.follow(places, rows.pinned)
        things = rows.without_pins()
        stretches, held = grabs(things, partial(self.take, table, rows, cache(look)), table.held)
        if table.ground.view.turn == 1:
            stretches, held = self.together(table, things, stretches, held)
        hands = hands_of(stretches, things, view.rest(places.T).T, table)
        courses, ends = follow(hands, len(rows))
        if any(table.begins(stretch) for stretch in stretches):
            table = table._replace(closed=self.close(table.picture, courses, rows))
        still = self.left_behind(table, courses, rows)
        video = filmed(still[:, :-1], view)
        closed = filmed(table.closed[:, None].expand_as(video), view)
        moved = [self.moved(course, rows, view, video) for course in courses]
        moved = self.beneath(table, moved, courses, video)
        for course, piece in zip(courses, moved, strict=True):
            uncover(video, closed, course, piece)
        for course, piece in zip(courses, moved, strict=True):
            lay_over(video, course.frames, piece.now.picked(np.arange(len(course.frames))))
        return video, table._replace(
            picture=still[:, -1].clone(), held=held, ways=table.led(hands, ends), ground=ground
        )

    def moved(self, course: Course, rows: Rows, view: View, video: Tensor) -> Moved:
        """The piece of a course where it was grabbed and where it is in each frame; once where all are the same."""
        here = View(view.turn[course.frames], view.shift[course.frames])
        spread = self.spread(rows, course.hand.track, video)
        before, places = here.of(np.array(course.end.grabbed)), here.of(course.places)
        turned = here.turn * course.turns
        if (turned != 1).any():
            return Moved(course.laid(before, spread, here.turn), course.laid(places, spread, turned), places)
        now = places
        if (before == before[:1]).all():
            before, now = before[:1], places[:1] if (places == places[:1]).all() else places
        return Moved(course.laid(before, spread), course.laid(now, spread), places)

    def beneath(self, table: Table, moved: Sequence[Moved], courses: Sequence[Course], video: Tensor) -> list[Moved]:
        """The pieces without what covers them in frames in which the place where they were grabbed is hidden.

        That is another piece, where one that is seen lies there, or what `hides` them of what lies still in ``video``.
        """
        found = []
        for course, piece in zip(courses, moved, strict=True):
            covered = {}
            for n in (~course.visible).nonzero()[0].tolist():
                frame, place = course.frames[n], complex(piece.places[n])
                above = [cover for cover in seen_pieces(moved, courses, frame, video) if at(cover, place) > 0.5]
                covered[n] = torch.stack(above or [self.hides(table, video[:, frame], place)]).amax(0)
            every = np.arange(len(course.frames))
            found.append(piece._replace(now=piece.now.picked(every).beneath(covered)) if covered else piece)
        return found

    def left_behind(self, table: Table, courses: Sequence[Course], rows: Rows) -> Tensor:
        """What lies still in each frame of ``rows`` and after them, ``[3, T + 1, H, W]``: what is let go stays."""
        still = table.picture[:, None].repeat(1, len(rows) + 1, 1, 1)
        let_go = (course for course in courses if course.let_go)
        for course in sorted(let_go, key=lambda course: course.frames.stop):
            rest, end = range(course.frames.stop, len(rows) + 1), course.end
            turns = np.array([1, end.turn]) if end.turn != 1 else None
            laid = course.laid(np.array([end.grabbed, end.now]), self.spread(rows, course.hand.track, still), turns)
            if not end.seen:
                laid = laid.beneath({1: self.hides(table, still[:, rest.start], end.now)})
            before, now = covers(still, laid)[:, None]
            hole = vacated(before, now, rim_of(still))
            still[:, rest.start :] += hole * (table.closed[:, None] - still[:, rest.start :])
            lay_over(still, rest, laid.picked(np.ones(len(rest), int)))
        return still

    def take(self, table: Table, rows: Rows, look: Look, track: int, xy: tuple[float, float]) -> Tensor:
        """The source ``[4, H, W]`` of what a track takes up at ``xy`` in the frame that ``look`` gives.

        It is as large as it was before the ground moved.
        """
        seen, turn = self.cut_out(table, rows, look(), track, xy), table.ground.view.turn
        if turn == 1:
            return seen
        height, width = seen.shape[1:]
        pivot = complex(xy[0] * width, xy[1] * height)
        return filmed(seen[:, None], View(1 / turn[None], pivot - pivot / turn[None]))[:, 0]

    def together(self, table: Table, rows: Rows, stretches: list[Stretch], held: Held) -> tuple[list[Stretch], Held]:
        """The same where tracks that have grabbed one thing at the same time hold it together: they share its source.

        A collage does not know things: each track has its own piece.
        """
        return stretches, held

    def cut_out(self, table: Table, rows: Rows, picture: Tensor, track: int, xy: tuple[float, float]) -> Tensor:
        """The source ``[4, H, W]`` of a piece of ``picture`` ``[3, H, W]`` as it is."""
        return with_edge(picture)

    def hides(self, table: Table, picture: Tensor, place: complex) -> Tensor:
        """What of ``picture`` ``[3, H, W]`` lies over a piece whose ``place`` is hidden, ``[H, W]``.

        Beyond the picture nothing does.
        """
        height, width = picture.shape[1:]
        if not (0 <= place.real <= width and 0 <= place.imag <= height):
            return picture.new_zeros(height, width)
        return self.thing_at(table, picture, (place.real / width, place.imag / height))

    def thing_at(self, table: Table, picture: Tensor, xy: tuple[float, float]) -> Tensor:
        """The thing at a place of ``picture`` ``[3, H, W]``, ``[H, W]`` in 0..1; a collage knows none: all of it."""
        return torch.ones_like(picture[0])

    def close(self, picture: Tensor, courses: Sequence[Course], rows: Rows) -> Tensor:
        """``picture`` ``[3, H, W]`` without the pieces of ``courses``: what is round them closes over."""
        kept = torch.ones_like(picture[:1])
        for course in courses:
            laid = course.laid(np.array([course.end.grabbed]), self.spread(rows, course.hand.track, picture))
            kept = kept * (1 - grown(covers(picture, laid), rim_of(picture)))
        return filled(picture, kept**2)


@dataclass(frozen=True)
class Cutout(Collage):
    """See the module. ``radius`` is the brush of a track that has none; a brush above ``widest`` means its disc.

    A mask that is more than ``plain`` the disc of the brush (intersection over union) is that of no thing: of grabs of
    test things 7 % have such a mask, of grabs beside them 74 %.
    """

    name: ClassVar[str] = "cutout"
    about: ClassVar[str] = (
        "Tracks are shown as things that are cut out of the picture and move; two on one thing also turn it "
        "(`control: cutout`)."
    )
    widest: float = 0.2
    plain: ClassVar[float] = 0.6

    def begin(self, scene: Scene) -> Table:
        """See `PixelControl`.

        Raises:
            ValueError: if there is no network that knows outlines.
        """
        if scene.outline is None:
            raise ValueError(
                "outline: the control cutout asks a network where things end, and the pipeline has none; give it one "
                "(outline=Outline.from_pretrained(FOLDER)), or use the control collage"
            )
        return super().begin(scene)._replace(outline=scene.outline)

    def cut_out(self, table: Table, rows: Rows, picture: Tensor, track: int, xy: tuple[float, float]) -> Tensor:
        """See `Collage`: colours within the outline, and the outline."""
        assert table.outline is not None, "a table is what `begin` makes of a scene"
        brush = spreads(rows.brushes, self.radius)[track]
        if brush <= self.widest:
            return with_edge(picture) * table.outline.mask(picture, xy, brush)
        return with_edge(picture) * disc_at(picture, xy, brush)

    def together(self, table: Table, rows: Rows, stretches: list[Stretch], held: Held) -> tuple[list[Stretch], Held]:
        """See `Collage`: two outlines that have most of both in common, and both grabbed places, are of one thing."""
        brushes = spreads(rows.brushes, self.radius)
        new = [s for s in stretches if table.begins(s) and brushes[s.track] <= self.widest]
        pieces: dict[int, Piece] = {}
        while new:
            first = new.pop(0)
            others = [s for s in new if s.start == first.start and same_thing(first.piece, s.piece)]
            source = reduce(either, (s.piece.source for s in others), first.piece.source)
            pieces |= {id(s.piece): Piece(source, s.piece.xy) for s in (first, *others) if others}
            new = [s for s in new if s not in others]
        return [s._replace(piece=pieces.get(id(s.piece), s.piece)) for s in stretches], tuple(
            piece and pieces.get(id(piece), piece) for piece in held
        )

    def thing_at(self, table: Table, picture: Tensor, xy: tuple[float, float]) -> Tensor:
        """See `Collage`: the thing along its outline; a mask that is the disc of the brush is that of no thing."""
        assert table.outline is not None, "a table is what `begin` makes of a scene"
        mask, plain = table.outline.mask(picture, xy, self.radius, lean=0), disc_at(picture, xy, self.radius)
        alike = torch.minimum(mask, plain).sum() / torch.maximum(mask, plain).sum()
        return mask if alike < self.plain else torch.ones_like(mask)

    def spread(self, rows: Rows, track: int, picture: Tensor) -> float:
        """See `Carried`: the outline is all the edge that there is."""
        return math.inf


def complex_places(xy: np.ndarray, video: Tensor) -> Places:
    """Places ``[..., 2]`` in 0..1 as ``x + i y`` in pixels of ``video`` ``[..., H, W]``."""
    height, width = video.shape[-2:]
    places = xy.astype(np.float64) * (width, height)
    return np.asarray(places[..., 0] + 1j * places[..., 1])


def seen_pieces(moved: Sequence[Moved], courses: Sequence[Course], frame: int, video: Tensor) -> Iterator[Tensor]:
    """What of a frame of ``video`` each of those pieces covers whose grabbed place is seen in it, ``[H, W]``."""
    for course, piece in zip(courses, moved, strict=True):
        if frame in course.frames and course.visible[frame - course.frames.start]:
            yield covers(video, piece.now.picked(np.array([frame - course.frames.start])))[0]


def at(cover: Tensor, place: complex) -> float:
    """A cover ``[H, W]`` at a place in pixels; 0 beyond it."""
    line, column = math.floor(place.imag), math.floor(place.real)
    inside = 0 <= line < cover.shape[0] and 0 <= column < cover.shape[1]
    return float(cover[line, column]) if inside else 0.0


def taken(piece: Piece) -> complex:
    """Where a piece was grabbed, in pixels of its source."""
    height, width = piece.source.shape[1:]
    return complex(piece.xy[0] * width, piece.xy[1] * height)


def disc_at(picture: Tensor, xy: tuple[float, float], brush: float) -> Tensor:
    """The disc of a brush at a place in 0..1 of ``picture`` ``[3, H, W]``, ``[H, W]`` in 0..1."""
    return discs(picture[None], picture.new_tensor([xy]), picture.new_tensor([brush]))[0]


def uncover(video: Tensor, closed: Tensor, course: Course, piece: Moved) -> None:
    """Show what ``closed`` ``[3, T, H, W]`` has where a piece has left its place, in ``video``, in place."""
    rim = rim_of(video)
    room = piece.before.room(video, 2 * rim)
    place = (slice(None), slice(course.frames.start, course.frames.stop), *room)
    if not video[place].numel():
        return
    before, now = (covers(video[place], laid.seen_in(*room)) for laid in (piece.before, piece.now))
    hole = vacated(before, now, rim)
    video[place] += hole * (closed[place] - video[place])


def hands_of(stretches: Sequence[Stretch], rows: Rows, places: Places, table: Table) -> list[Hand]:
    """Who holds what in ``rows``, drawn along ``places`` ``[T, P]`` of the first picture."""
    hands = []
    for stretch in stretches:
        track, frames = stretch.track, range(stretch.start, stretch.stop)
        start, visible, force = complex(places[stretch.start, track]), rows.arrays.visible, rows.arrays.force
        way = Way(start, start, start) if table.begins(stretch) else table.ways[track]
        assert way is not None, "what is held was grabbed"
        drawn = places[frames, track], visible[frames, track], force[frames, track]
        hands.append(Hand(track, stretch.piece.source, taken(stretch.piece), frames, way, *drawn))
    return hands


def either(one: Tensor, other: Tensor) -> Tensor:
    """What at least one of two sources ``[4, H, W]`` of one picture has."""
    return torch.where(other[3] > one[3], other, one)


def same_thing(one: Piece, other: Piece) -> bool:
    """Whether two pieces of one picture, cut out along outlines, are the same thing."""
    masks, spots = (one.source[3], other.source[3]), (taken(one), taken(other))
    alike = torch.minimum(*masks).sum() / torch.maximum(*masks).sum().clamp_min(1)
    return float(alike) > 0.5 and all(at(mask, spot) > 0.5 for mask in masks for spot in spots)
