"""The small world: Sprite World with one or two sprites, and options that leave something to learn or to decide.

Sprite World is deterministic: a picture and its tracks leave one video, so neither the history that a student was
trained on nor a reward can show what it is worth. Each option, off unless named, brings back one thing that the
paper's data has (AR-Drag sections 3.2, 3.3 and appendix B.1):

- ``label_noise``: the tracks of the training split are as a tracker's, smoothly off (pixels of a 128x128 picture, zero
  in frame 0); with ``late_start`` a track that was seen in frame 0 is picked up again only some frames later.
- ``passers_by``: sprites that no track moves, at a hidden speed in a hidden direction that they keep, thrown back by
  the borders.
- ``two_futures``: a sprite that no track moves runs up a forked road and takes either branch.

Clips are a pure function of ``(split, index)`` and the options. An option changes nothing of the sprites that tracks
move: what is added lies behind them and has seeds of its own. Lengths are relative to the shorter side; 64x64 is
meant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from ardrag.worlds.sprite_drawing import BACKGROUNDS, Float, draw_background
from ardrag.worlds.sprites import SPLITS, Sprite, SpriteClip, assemble, check_request, sample_sprite


STREAM = 32
"""First number of the seeds of this world, so that it shares none with the others."""
BASE, LABELS, PASSERS, FORK = range(4)
"""Seeds within a clip."""
FULL_SIDE = 128
"""The picture that sizes, speeds and noise are told in."""
PASSING_SPEEDS = (1.6, 3.0)
"""Of what passes by, pixels of a 128x128 picture per frame; headings are uniform."""
KNOT_FRAMES = 6
"""Pixel frames between independent label errors; they change smoothly from one to the next."""


@dataclass(frozen=True)
class SmallClip(SpriteClip):
    """A clip of the small world: what `SpriteClip` has, which is true, and what is said and left open.

    ``labels`` ``[T, P, 2]`` (pixels) and ``labelled`` ``[T, P]`` are the tracks as the data has them, off where labels
    are noisy. ``free`` are the numbers of the sprites that no track moves; ``futures`` ``[2, T, 2]`` are the paths
    that the last of them could take, if there is a fork.
    """

    labels: Float
    labelled: npt.NDArray[np.bool_]
    free: tuple[int, ...]
    futures: Float | None


@dataclass(frozen=True)
class SmallWorld:
    """The options, and with them the world.

    ``label_noise`` is a standard deviation in pixels of a 128x128 picture; ``late_start`` the most frames that a label
    is missing after frame 0; ``passers_by`` how many there are.
    """

    label_noise: float = 0.0
    late_start: int = 0
    passers_by: int = 0
    two_futures: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.label_noise < FULL_SIDE / 2:
            raise ValueError(f"label_noise: {self.label_noise} is not in 0 .. {FULL_SIDE // 2} pixels; use 6, or 0")
        if self.late_start < 0:
            raise ValueError(f"late_start: {self.late_start} is negative; use 8, or 0 for none")
        if not 0 <= self.passers_by <= 3:
            raise ValueError(f"passers_by: {self.passers_by} is not in 0 .. 3; use 1 or 2")

    @property
    def named(self) -> str:
        """The options that are on, as `ardrag.worlds.open.open_world` reads them; empty if none is."""
        on = {field.name: getattr(self, field.name) for field in fields(self)}
        return ",".join(f"{name}={value:g}" for name, value in on.items() if value)

    def make(self, split: str, index: int, num_frames: int = 25, height: int = 64, width: int = 64) -> SmallClip:
        """Make clip number ``index`` of ``split``; the same arguments always give the same clip.

        Raises:
            ValueError: see `check_request`.
        """
        check_request(split, index, num_frames)
        seed, scale = [STREAM, SPLITS.index(split), index], min(height, width) / FULL_SIDE
        rng = np.random.default_rng([*seed, BASE])
        kind = str(rng.choice(BACKGROUNDS))
        background = draw_background(kind, rng, height, width)
        count, both = int(rng.integers(1, 3)), bool(rng.random() < 0.3)
        placed: list[Sprite] = []
        for number in range(count):
            moves = number == 0 or both
            placed.append(sample_sprite(rng, split, placed, moves, num_frames, height, width, scale))
        moved = [placed[i] for i in rng.permutation(count)]
        size = num_frames, height, width
        passing = (np.random.default_rng([*seed, PASSERS, k]) for k in range(self.passers_by))
        free = [passer(own, split, placed, size, scale) for own in passing]
        futures = None
        if self.two_futures:
            own = np.random.default_rng([*seed, FORK])
            runner, futures, background = at_fork(own, split, placed, background, num_frames, scale)
            free.append(runner)
        clip = assemble((*free, *moved), kind, background, num_frames)
        labels, labelled = clip.xy, clip.visible
        if split == "train":
            labels, labelled = self._labels(clip, np.random.default_rng([*seed, LABELS]), scale)
        return SmallClip(**vars(clip), labels=labels, labelled=labelled, free=tuple(range(len(free))), futures=futures)

    def _labels(self, clip: SpriteClip, rng: np.random.Generator, scale: float) -> tuple[Float, npt.NDArray[np.bool_]]:
        """What a tracker would have said: places and where it said anything."""
        num_frames, count = clip.visible.shape
        wrong = np.stack([smooth_noise(rng, num_frames) for _ in range(count)], axis=1)
        starts = rng.integers(0, self.late_start + 1, count)
        frames = np.arange(num_frames)[:, None]
        heard = (frames == 0) | (frames > starts)
        return (clip.xy + scale * self.label_noise * wrong).astype(np.float32), clip.visible & heard


def smooth_noise(rng: np.random.Generator, num_frames: int) -> Float:
    """Errors ``[T, 2]`` that change smoothly: zero in frame 0, of standard deviation 1 from the first knot on."""
    knots = np.concatenate([np.zeros((1, 2)), rng.standard_normal((math.ceil(num_frames / KNOT_FRAMES), 2))])
    place = np.arange(num_frames) / KNOT_FRAMES
    before = place.astype(int)
    angle = (place - before)[:, None] * math.pi / 2
    return (np.cos(angle) * knots[before] + np.sin(angle) * knots[before + 1]).astype(np.float32)


def passer(
    rng: np.random.Generator, split: str, placed: list[Sprite], size: tuple[int, int, int], scale: float
) -> Sprite:
    """A sprite that passes by; nothing in the first frame tells whither. ``size`` is (T, H, W)."""
    sprite = sample_sprite(rng, split, placed, False, *size, scale)
    placed.append(sprite)
    return replace(sprite, xy=passing_paths(sprite, drawn_velocity(rng, scale), size))


def drawn_velocity(rng: np.random.Generator, scale: float) -> npt.NDArray[np.float64]:
    """A hidden velocity ``[2]``, pixels per frame."""
    heading, speed = rng.uniform(0, 2 * math.pi), scale * rng.uniform(*PASSING_SPEEDS)
    return speed * _towards(heading)


def passing_paths(sprite: Sprite, velocity: npt.NDArray[np.float64], size: tuple[int, int, int]) -> Float:
    """Paths ``[T, ..., 2]`` that ``sprite`` takes from its place in frame 0 at each ``velocity`` ``[..., 2]``.

    ``size`` is (T, H, W).
    """
    low, high = np.float64(sprite.size / 2), np.array([size[2], size[1]]) - sprite.size / 2
    return thrown_back(sprite.xy[0], velocity, size[0], low, high)


def thrown_back(
    start: Float,
    velocity: npt.NDArray[np.float64],
    num_frames: int,
    low: npt.NDArray[np.float64] | np.float64,
    high: npt.NDArray[np.float64],
) -> Float:
    """Paths ``[T, ..., 2]`` at constant velocities ``[..., 2]`` (pixels per frame), thrown back at ``low .. high``."""
    span = high - low
    frames = np.arange(num_frames).reshape(-1, *[1] * velocity.ndim)
    phase = (start - low + frames * velocity) % (2 * span)
    return (low + np.minimum(phase, 2 * span - phase)).astype(np.float32)


def at_fork(
    rng: np.random.Generator, split: str, placed: list[Sprite], background: Float, num_frames: int, scale: float
) -> tuple[Sprite, Float, Float]:
    """A sprite on a forked road: it with the path that it took, both paths ``[2, T, 2]``, and the road's picture."""
    height, width = background.shape[:2]
    side = min(height, width)
    sprite = sample_sprite(rng, split, placed, False, num_frames, height, width, scale)
    fork = np.array([width, height]) / 2 + rng.uniform(-0.05, 0.05, 2) * side
    heading, opening = rng.uniform(0, 2 * math.pi), rng.uniform(0.6, 0.9)
    start = fork - 0.24 * side * _towards(heading)
    ends = [fork + 0.26 * side * _towards(heading + turn) for turn in (-opening, opening)]
    speed = scale * rng.uniform(2.6, 3.6)
    futures = np.stack([_along(np.stack([start, fork, end]), speed, num_frames) for end in ends])
    road = background
    for end in (start, *ends):
        road = with_road(road, fork, end, 0.03 * side)
    taken = int(rng.integers(2))
    return replace(sprite, xy=futures[taken]), futures, road


def _towards(heading: float) -> npt.NDArray[np.float64]:
    return np.array([math.cos(heading), math.sin(heading)])


def _along(corners: npt.NDArray[np.float64], speed: float, num_frames: int) -> Float:
    """Path ``[T, 2]`` at a constant speed along ``corners`` ``[N, 2]``; it stays at the last."""
    travelled = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
    distance = speed * np.arange(num_frames)
    return np.stack([np.interp(distance, travelled, corners[:, axis]) for axis in range(2)], axis=-1).astype(
        np.float32
    )


def with_road(
    background: Float, one: npt.NDArray[np.float64], other: npt.NDArray[np.float64], half_width: float
) -> Float:
    """``background`` ``[H, W, 3]`` with a dark road between two points (pixels), soft at its sides."""
    rows, columns = np.indices(background.shape[:2]) + 0.5
    point = np.stack([columns, rows], axis=-1) - one
    way = other - one
    share = np.clip(point @ way / (way @ way), 0, 1)[..., None]
    distance = np.linalg.norm(point - share * way, axis=-1)
    cover = np.clip(half_width + 0.5 - distance, 0, 1)[..., None]
    return np.minimum(background, background * (1 - cover) + 0.12 * cover).astype(np.float32)
