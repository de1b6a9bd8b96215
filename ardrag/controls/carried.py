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
(`ardrag.collage.ground`).

`Cutout` is a collage of things: what is grabbed is cut out along its own outline, not as a disc. The outline is the
guess of a small network, made once when something is grabbed (`ardrag.outlines.network`). Place and brush are told to
it; the worlds that it learnt from say that a brush on a thing means the whole thing, and on anything else its disc.
They know no brush wider than ``widest``: who takes one says how much is meant, and gets its disc.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ardrag.collage.ground import Ground, View, filmed
from ardrag.collage.pieces import Laid, Places, covers, cut, filled, grown, lay_over, rim_of, vacated, with_edge
from ardrag.controls.control import Held, Look, Piece, PixelControl, Rows, Scene, Stretch, grabs, size_of, spreads
from ardrag.outlines.network import Outline, disc, squared_distances


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
            laid = laid_at(stretch.piece, places, self.spread(rows, stretch.track, video))
            laid.layer.mul_(torch.from_numpy(rows.arrays.force[seen, stretch.track]).to(video)[:, None, None, None])
            lay_over(video, seen.tolist(), laid)

    def spread(self, rows: Rows, track: int, picture: Tensor) -> float:
        """How wide the piece of a track is in ``picture`` ``[..., H, W]``, in pixels."""
        return spreads(rows.brushes, self.radius)[track] * math.sqrt(math.prod(picture.shape[-2:]))


class Way(NamedTuple):
    """How far a track has come, in pixels of the first picture: where it was grabbed, drawn to last, and is shown."""

    grabbed: complex
    drawn: complex
    shown: complex


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


class Course(NamedTuple):
    """A stretch of rows as a collage shows it: its frames, where the piece is shown ``[n]``, and whether it is.

    The piece was ``grabbed`` at one place and is ``left`` at another when the stretch ends.
    """

    stretch: Stretch
    frames: range
    grabbed: complex
    left: complex
    shown: Places
    visible: np.ndarray


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
        courses, ways = followed(stretches, things, view.rest(places.T).T, table)
        if any(all(stretch.piece is not piece for piece in table.held) for stretch in stretches):
            table = table._replace(closed=self.close(table.picture, courses, rows))
        still = self.left_behind(table, courses, rows)
        video = filmed(still[:, :-1], view)
        closed = filmed(table.closed[:, None].expand_as(video), view)
        moved = [self.moved(course, rows, view, video) for course in courses]
        for course, (there, now) in zip(courses, moved, strict=True):
            uncover(video, closed, course, there, now)
        for course, (_, now) in zip(courses, moved, strict=True):
            seen = course.visible.nonzero()[0]
            lay_over(video, [course.frames[n] for n in seen], now.picked(seen))
        return video, table._replace(picture=still[:, -1].clone(), held=held, ways=ways, ground=ground)

    def moved(self, course: Course, rows: Rows, view: View, video: Tensor) -> tuple[Laid, Laid]:
        """The piece of a course where it was grabbed and where it is in each frame; once where all are the same."""
        here = View(view.turn[course.frames], view.shift[course.frames])
        spread = self.spread(rows, course.stretch.track, video)
        turns = here.turn if (here.turn != 1).any() else None
        there, now = here.of(np.array(course.grabbed)), here.of(course.shown)
        if turns is None and (there == there[:1]).all():
            there = there[:1]
            now = now[:1] if course.visible.all() and (now == now[:1]).all() else now
        return laid_at(course.stretch.piece, there, spread, turns), laid_at(course.stretch.piece, now, spread, turns)

    def left_behind(self, table: Table, courses: Sequence[Course], rows: Rows) -> Tensor:
        """What lies still in each frame of ``rows`` and after them, ``[3, T + 1, H, W]``: what is let go stays."""
        still = table.picture[:, None].repeat(1, len(rows) + 1, 1, 1)
        let_go = (course for course in courses if course.frames.stop < len(rows))
        for course in sorted(let_go, key=lambda course: course.frames.stop):
            rest, spread = range(course.frames.stop, len(rows) + 1), self.spread(rows, course.stretch.track, still)
            ends = np.array([course.grabbed, course.left])
            laid = laid_at(course.stretch.piece, ends, spread)
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

    def cut_out(self, table: Table, rows: Rows, picture: Tensor, track: int, xy: tuple[float, float]) -> Tensor:
        """The source ``[4, H, W]`` of a piece of ``picture`` ``[3, H, W]`` as it is."""
        return with_edge(picture)

    def close(self, picture: Tensor, courses: Sequence[Course], rows: Rows) -> Tensor:
        """``picture`` ``[3, H, W]`` without the pieces of ``courses``: what is round them closes over."""
        kept = torch.ones_like(picture[:1])
        for stretch, _, grabbed, *_ in courses:
            spread = self.spread(rows, stretch.track, picture)
            laid = laid_at(stretch.piece, np.array([grabbed]), spread)
            kept = kept * (1 - grown(covers(picture, laid), rim_of(picture)))
        return filled(picture, kept**2)


@dataclass(frozen=True)
class Cutout(Collage):
    """See the module. ``radius`` is the brush of a track that has none; a brush above ``widest`` means its disc."""

    name: ClassVar[str] = "cutout"
    about: ClassVar[str] = "Tracks are shown as things that are cut out of the picture and move (`control: cutout`)."
    widest: float = 0.2

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
        squared = squared_distances(picture.new_tensor([xy]), picture[None])[0]
        return with_edge(picture) * disc(squared, brush * math.sqrt(math.prod(picture.shape[1:])))

    def spread(self, rows: Rows, track: int, picture: Tensor) -> float:
        """See `Carried`: the outline is all the edge that there is."""
        return math.inf


def complex_places(xy: np.ndarray, video: Tensor) -> Places:
    """Places ``[..., 2]`` in 0..1 as ``x + i y`` in pixels of ``video`` ``[..., H, W]``."""
    height, width = video.shape[-2:]
    places = xy.astype(np.float64) * (width, height)
    return np.asarray(places[..., 0] + 1j * places[..., 1])


def laid_at(piece: Piece, places: Places, spread: float, turns: Places | None = None) -> Laid:
    """A piece at ``places`` ``[n]``; see `cut`."""
    height, width = piece.source.shape[1:]
    return cut(piece.source, complex(piece.xy[0] * width, piece.xy[1] * height), places, spread, turns)


def uncover(video: Tensor, closed: Tensor, course: Course, there: Laid, now: Laid) -> None:
    """Show what ``closed`` ``[3, T, H, W]`` has where a piece has left its place, in ``video``, in place."""
    rim = rim_of(video)
    room = there.room(video, 2 * rim)
    place = (slice(None), slice(course.frames.start, course.frames.stop), *room)
    if not video[place].numel():
        return
    before, covered = (covers(video[place], laid.seen_in(*room)) for laid in (there, now))
    if not course.visible.all():
        covered = covered * torch.from_numpy(course.visible).to(video)[:, None, None]
    hole = vacated(before, covered, rim)
    video[place] += hole * (closed[place] - video[place])


def followed(
    stretches: Sequence[Stretch], rows: Rows, places: Places, table: Table
) -> tuple[list[Course], tuple[Way | None, ...]]:
    """How the pieces of ``stretches`` go along ``places`` ``[T, P]``, and how far each track came.

    Each step of a track is followed as far as the touch has force (B.1).
    """
    ways: list[Way | None] = [*table.ways, *[None] * (places.shape[1] - len(table.ways))]
    courses = []
    for stretch in stretches:
        track, frames = stretch.track, range(stretch.start, stretch.stop)
        visible, force = rows.arrays.visible[frames, track], rows.arrays.force[frames, track]
        begins = not (track < len(table.held) and table.held[track] is stretch.piece)
        way = Way(*[complex(places[stretch.start, track])] * 3) if begins else ways[track]
        assert way is not None, "what is held was grabbed"
        shown = []
        for place, seen, share in zip(places[frames, track].tolist(), visible, force.tolist(), strict=True):
            if seen:
                way = Way(way.grabbed, place, way.shown + share * (place - way.drawn))
            shown.append(way.shown)
        ways[track] = way
        courses.append(Course(stretch, frames, way.grabbed, way.shown, np.array(shown, complex), visible))
    return courses, tuple(ways)
