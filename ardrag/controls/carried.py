"""The carried piece: what was grabbed moves along its path. It says what moves, not only where.

Round each visible point lies the piece of the picture that was round the point when it was grabbed, with the soft edge
``force * exp(-(d^2 / 2 s^2)^2)``; later tracks lie on top. ``s`` is the track's own ``sigma`` (its brush), or
``radius``, each times ``sqrt(H W)``. A track that begins while the clip goes on carries what is there *then*: it takes
its piece from the last finished frame.

`Carried` shows the pieces on neutral grey. `Collage` shows them on the picture, as an animation of paper cut-outs
would: where a piece was taken the colours round it close over, and where it is let go it stays. What rests and what
moves are then both there to be seen, in latents of a video like those that are asked for; from the first latent, which
stands for a single frame, the latents of the same picture at rest differ by a sixth of their variance.

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
import torch.nn.functional as F
from torch import Tensor

from ardrag.controls.control import Held, Look, Piece, PixelControl, Rows, Scene, Stretch, grabs, size_of, spreads
from ardrag.outlines.network import Outline, disc, squared_distances


REACH = 2.5
"""Where a piece ends, in units of ``s``: its edge has 6e-5 there."""
GAP = 0.6
"""How far what is round a cut-out reaches into the hole that it leaves, relative to the radius of a disc as large."""


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
            spread = self.spread(rows, stretch.track, video)
            held = rows.arrays.force[seen, stretch.track]
            lay_piece(video, stretch.piece, spread, seen.tolist(), rows.arrays.xy[seen, stretch.track], held)

    def spread(self, rows: Rows, track: int, picture: Tensor) -> float:
        """How wide the piece of a track is in ``picture`` ``[..., H, W]``, in pixels."""
        return spreads(rows.brushes, self.radius)[track] * math.sqrt(math.prod(picture.shape[-2:]))


class Left(NamedTuple):
    """Where a track was seen last, ``xy`` ``[1, 2]`` in 0..1, and how firmly it was held there, ``[1]``."""

    xy: np.ndarray
    force: np.ndarray


class Table(NamedTuple):
    """What a collage remembers, pictures ``[3, H, W]``.

    ``ground`` is what lies still, ``closed`` how it would look without what is held; ``held`` and ``left`` are what
    each track holds, and where it was seen last; ``outline`` knows where things end, if somebody does.
    """

    ground: Tensor
    closed: Tensor
    held: Held = ()
    left: tuple[Left | None, ...] = ()
    outline: Outline | None = None


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
        stretches, held = grabs(rows, partial(self.take, table, rows, cache(look)), table.held)
        if any(all(stretch.piece is not piece for piece in table.held) for stretch in stretches):
            table = table._replace(closed=self.close(table.ground, stretches, rows))
        ground = table.ground[:, None].repeat(1, len(rows) + 1, 1, 1)  # and what it will be after these rows
        let_go = (stretch for stretch in stretches if stretch.stop < len(rows))
        for stretch in sorted(let_go, key=lambda stretch: stretch.stop):
            rest = range(stretch.stop, len(rows) + 1)
            place, force = (np.repeat(part, len(rest), 0) for part in left_at(rows, stretch, table.left))
            spread = self.spread(rows, stretch.track, ground)
            self.take_off(ground, stretch.piece, spread, rest, force, table.closed)
            lay_piece(ground, stretch.piece, spread, rest, place, force)
        video = ground[:, :-1].clone()
        for stretch in stretches:
            frames, spread = range(stretch.start, stretch.stop), self.spread(rows, stretch.track, video)
            force = rows.arrays.force[stretch.start : stretch.stop, stretch.track]
            self.take_off(video, stretch.piece, spread, frames, force, table.closed)
        self.carry(video, stretches, rows)
        seen = last_seen(rows, table.left)
        return video, table._replace(ground=ground[:, -1].clone(), held=held, left=seen)

    def take(self, table: Table, rows: Rows, look: Look, track: int, xy: tuple[float, float]) -> Tensor:
        """The source ``[4, H, W]`` of what a track takes up at ``xy`` in the frame that ``look`` gives."""
        return with_edge(look())

    def gap(self, rows: Rows, stretch: Stretch, picture: Tensor) -> float:
        """How far what is round a piece must reach to close over its place, in pixels of ``picture``."""
        return self.spread(rows, stretch.track, picture)

    def close(self, ground: Tensor, stretches: Sequence[Stretch], rows: Rows) -> Tensor:
        """The picture ``ground`` ``[3, H, W]`` without the pieces of ``stretches``: what is round them closes over."""
        taken = torch.zeros_like(ground[:, None])
        for stretch in stretches:
            spread = self.spread(rows, stretch.track, ground)
            self.take_off(taken, stretch.piece, spread, [0], np.ones(1), torch.ones_like(ground))
        widest = max(self.gap(rows, stretch, ground) for stretch in stretches)
        known = (1 - taken[:1, 0]) ** 4 + 1e-6
        seen = blurred(torch.cat([known * ground, known]), widest)
        return seen[:3] / seen[3:]

    @staticmethod
    def take_off(
        video: Tensor, piece: Piece, spread: float, frames: Sequence[int], force: np.ndarray, closed: Tensor
    ) -> None:
        """Show what closes over the place of a piece, as firmly as it is held."""
        places = np.repeat(np.array([piece.xy]), len(frames), 0)
        under = Piece(with_edge(closed) * piece.source[3], piece.xy)
        lay_piece(video, under, spread, frames, places, force)


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

    def take(self, table: Table, rows: Rows, look: Look, track: int, xy: tuple[float, float]) -> Tensor:
        """See `Collage`: colours within the outline, and the outline."""
        assert table.outline is not None, "a table is what `begin` makes of a scene"
        picture, brush = look(), spreads(rows.brushes, self.radius)[track]
        if brush <= self.widest:
            return with_edge(picture) * table.outline.mask(picture, xy, brush)
        squared = squared_distances(picture.new_tensor([xy]), picture[None])[0]
        return with_edge(picture) * disc(squared, brush * math.sqrt(math.prod(picture.shape[1:])))

    def spread(self, rows: Rows, track: int, picture: Tensor) -> float:
        """See `Carried`: the outline is all the edge that there is."""
        return math.inf

    def gap(self, rows: Rows, stretch: Stretch, picture: Tensor) -> float:
        """See `Collage`."""
        return max(GAP * math.sqrt(float(stretch.piece.source[3].sum()) / math.pi), 1.0)


def lay_piece(
    video: Tensor, piece: Piece, spread: float, frames: Sequence[int], places: np.ndarray, force: np.ndarray
) -> None:
    """Lay a piece over ``frames`` of ``video`` ``[3, T, H, W]`` at ``places`` ``[n, 2]`` in 0..1, in place."""
    height, width = video.shape[2:]
    points = places.astype(np.float64) * (width, height)
    reach = math.ceil(min(REACH * spread, extent(piece)))
    corners = np.floor(points).astype(int) - reach
    layer = cut(piece, torch.from_numpy(points - corners).to(video), reach, spread)
    layer = layer * torch.from_numpy(force).to(video)[:, None, None, None]
    for t, (x, y), part in zip(frames, corners.tolist(), layer, strict=True):
        under = video[:, t, max(y, 0) : max(y + 2 * reach + 1, 0), max(x, 0) : max(x + 2 * reach + 1, 0)]
        left, top = max(-x, 0), max(-y, 0)
        over = part[:, top : top + under.shape[1], left : left + under.shape[2]]
        under.mul_(1 - over[3]).add_(over[:3])


def extent(piece: Piece) -> int:
    """How far a piece reaches from where it was grabbed, across or down, in pixels of its source; at least 1."""
    height, width = piece.source.shape[1:]
    lines, columns = (piece.source[3].amax(axis).nonzero()[:, 0] + 0.5 for axis in (1, 0))
    if not len(lines):
        return 1
    ends = (lines[[0, -1]] - piece.xy[1] * height, columns[[0, -1]] - piece.xy[0] * width)
    return max(math.ceil(float(torch.cat(ends).abs().max())), 1)


def blurred(picture: Tensor, spread: float) -> Tensor:
    """A picture ``[C, H, W]`` under a Gaussian of ``spread`` pixels; beyond it there is nothing."""
    reach = min(math.ceil(3 * spread), max(picture.shape[1:]))
    bell = torch.exp(-((torch.arange(-reach, reach + 1).to(picture) / spread) ** 2) / 2)
    columns = F.conv2d(picture[:, None], bell[None, None, :, None], padding=(reach, 0))
    return F.conv2d(columns, bell[None, None, None, :], padding=(0, reach))[:, 0]


def with_edge(frame: Tensor) -> Tensor:
    """A picture ``[3, H, W]`` and a channel of ones: beyond the picture there is nothing to carry."""
    return torch.cat([frame, torch.ones_like(frame[:1])])


def last_seen(rows: Rows, left: tuple[Left | None, ...], stop: int | None = None) -> tuple[Left | None, ...]:
    """Where each track was seen last before row ``stop`` (the end), ``left`` where these rows do not see it."""
    xy, visible, force = rows.arrays
    after = []
    for track in range(xy.shape[1]):
        seen = visible[:stop, track].nonzero()[0]
        known = left[track] if track < len(left) else None
        after.append(Left(xy[seen[-1:], track], force[seen[-1:], track]) if len(seen) else known)
    return tuple(after)


def left_at(rows: Rows, stretch: Stretch, left: tuple[Left | None, ...]) -> Left:
    """Where the track of a stretch was seen last before it ends."""
    place = last_seen(rows, left, stretch.stop)[stretch.track]
    assert place is not None, "what is held has been seen"
    return place


def cut(piece: Piece, points: Tensor, reach: int, spread: float) -> Tensor:
    """A piece with its soft edge in windows of ``2 reach + 1`` pixels: ``[n, 4, K, K]``, colours times edge, and edge.

    The source is a picture and a channel of ones, so that what lies beyond the picture has no edge either.
    ``points`` ``[n, 2]`` is where in each window the grabbed point lies, in pixels (pixel ``i`` spans ``i .. i + 1``).
    """
    height, width = piece.source.shape[1:]
    pixels = torch.arange(2 * reach + 1, device=points.device) + 0.5
    x, y = (pixels - points[:, axis, None] for axis in (0, 1))  # [n, K], from the grabbed point
    squared = x[:, None, :] ** 2 + y[:, :, None] ** 2
    edge = disc(squared, spread)
    columns = 2 * (piece.xy[0] + x / width) - 1
    lines = 2 * (piece.xy[1] + y / height) - 1
    grid = torch.stack(torch.broadcast_tensors(columns[:, None, :], lines[:, :, None]), dim=3)
    source = piece.source.expand(len(points), -1, -1, -1)
    return F.grid_sample(source, grid, padding_mode="zeros", align_corners=False) * edge[:, None]
