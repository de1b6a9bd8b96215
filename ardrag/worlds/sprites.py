"""Sprite World: procedural video with exact tracks (the data of the tiny checkpoint).

A clip shows one to four sprites on a soft background. One or two of them move along smooth splines with changing
speed, pauses, occlusions and near-border passages; the others stand still. Every clip comes with the exact position
and visibility of each moved sprite, a caption, and what an evaluation needs: the sprites themselves and the pixels
that no sprite ever touches. It stands in for the curated corpus of AR-Drag section 3.2 and appendix B.1.

Clips are a pure function of ``(split, index)``. The three splits never share a seed, and the shapes in
``HELD_OUT_SHAPES`` appear in the test split only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ardrag.worlds.sprite_drawing import BACKGROUNDS, COLOURS, OUTLINES, Float, draw_background, draw_sprite


if TYPE_CHECKING:
    from datasets import Dataset


SPLITS = ("train", "validation", "test")
BENCHMARK_CLIPS = 206
"""Number of test clips in the benchmark, as in the paper's evaluation (section 4)."""

SPRITE_SIZES = (18, 40)
FASTEST_STEP = 7.0
"""Upper bound of a sprite's speed, pixels per pixel frame."""


HELD_OUT_SHAPES = ("hexagon", "heart")
TRAINING_SHAPES = tuple(name for name in OUTLINES if name not in HELD_OUT_SHAPES)


@dataclass(frozen=True)
class Sprite:
    """One sprite: what it looks like and where it is.

    ``rgba`` is ``[size, size, 4]`` float32 in 0..1 with premultiplied colour; ``xy`` is its centre ``[T, 2]`` in
    pixels, where pixel ``i`` spans ``i .. i + 1``; ``grab`` is the tracked point relative to the centre; ``moves``
    says that a track moves it.
    """

    shape: str
    colour: str
    has_face: bool
    rgba: Float
    xy: Float
    grab: tuple[float, float]
    moves: bool

    @property
    def size(self) -> int:
        """Side of the sprite's square, pixels."""
        return self.rgba.shape[0]


@dataclass(frozen=True)
class SpriteClip:
    """One clip: ``frames`` uint8 ``[T, H, W, 3]`` and everything that is known about it.

    ``xy`` ``[T, P, 2]`` and ``visible`` ``[T, P]`` hold the tracked point of each moved sprite in pixels, in the order
    of ``movers``. ``sprites`` are listed from back to front. ``untouched`` ``[H, W]`` marks background pixels that no
    sprite ever covers.
    """

    frames: npt.NDArray[np.uint8]
    background: npt.NDArray[np.uint8]
    sprites: tuple[Sprite, ...]
    movers: tuple[int, ...]
    xy: Float
    visible: npt.NDArray[np.bool_]
    untouched: npt.NDArray[np.bool_]
    caption: str
    categories: tuple[str, ...]


def _catmull_rom(waypoints: Float, samples: int) -> Float:
    """Dense curve ``[samples, 2]`` through ``waypoints`` ``[N, 2]`` (centripetal tangents are not needed here)."""
    padded = np.concatenate([2 * waypoints[:1] - waypoints[1:2], waypoints, 2 * waypoints[-1:] - waypoints[-2:-1]])
    position = np.linspace(0, len(waypoints) - 1, samples)
    i = np.minimum(position.astype(int), len(waypoints) - 2)
    s = (position - i)[:, None]
    a, b, c, d = (padded[i + k] for k in range(4))
    return (0.5 * (2 * b + (c - a) * s + (2 * a - 5 * b + 4 * c - d) * s**2 + (3 * b - a - 3 * c + d) * s**3)).astype(
        np.float32
    )


def _speed_profile(rng: np.random.Generator, steps: int) -> Float:
    """Relative speed of each of ``steps`` frame intervals: smooth changes, sometimes a pause."""
    knots = rng.uniform(0.3, 1.0, 5)
    speed = np.interp(np.linspace(0, 4, steps), np.arange(5), knots)
    if rng.random() < 0.3:
        start = int(rng.integers(0, max(steps - steps // 4, 1)))
        speed[start : start + max(steps // 5, 1)] = 0
    return (speed / speed.sum()).astype(np.float32)


def sample_path(
    rng: np.random.Generator, start: Float, length: float, num_frames: int, low: Float, high: Float
) -> Float:
    """Sample a smooth path ``[T, 2]`` of about ``length`` pixels from ``start`` inside the box ``low .. high``."""
    segments = int(rng.integers(1, 4))
    heading = rng.uniform(0, 2 * math.pi)
    waypoints = [start]
    for _ in range(segments):
        for _ in range(12):
            turn = heading + rng.normal(0, 0.7)
            step = length / segments * np.array([math.cos(turn), math.sin(turn)], np.float32)
            target = waypoints[-1] + step
            if np.all(target >= low) and np.all(target <= high):
                break
            heading = rng.uniform(0, 2 * math.pi)
        heading = turn
        waypoints.append(np.clip(target, low, high))
    curve = _catmull_rom(np.stack(waypoints).astype(np.float32), 128)
    travelled = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    advance = _speed_profile(rng, num_frames - 1) * travelled[-1]
    distance = np.concatenate([[0], np.cumsum(np.minimum(advance, FASTEST_STEP))])
    path = np.stack([np.interp(distance, travelled, curve[:, axis]) for axis in range(2)], axis=-1)
    return np.clip(path, low, high).astype(np.float32)


def _paste(canvas: Float, rgba: Float, centre: Float) -> None:
    """Composite ``rgba`` over ``canvas`` ``[H, W, 3]`` in place, centred at a subpixel position, bilinearly."""
    size = rgba.shape[0]
    corner = centre - size / 2
    left, top = math.floor(corner[0]), math.floor(corner[1])
    fx, fy = float(corner[0] - left), float(corner[1] - top)
    patch = np.zeros((size + 1, size + 1, 4), np.float32)
    patch[:-1, :-1] += (1 - fx) * (1 - fy) * rgba
    patch[:-1, 1:] += fx * (1 - fy) * rgba
    patch[1:, :-1] += (1 - fx) * fy * rgba
    patch[1:, 1:] += fx * fy * rgba
    height, width = canvas.shape[:2]
    y0, y1, x0, x1 = max(top, 0), min(top + size + 1, height), max(left, 0), min(left + size + 1, width)
    if y0 >= y1 or x0 >= x1:
        return
    part = patch[y0 - top : y1 - top, x0 - left : x1 - left]
    canvas[y0:y1, x0:x1] = part[..., :3] + (1 - part[..., 3:]) * canvas[y0:y1, x0:x1]


def _alpha_at(sprite: Sprite, frame: int, point: Float) -> float:
    """Opacity of ``sprite`` at ``point`` (pixels) in one pixel frame."""
    x, y = np.floor(point - sprite.xy[frame] + sprite.size / 2).astype(int)
    inside = 0 <= x < sprite.size and 0 <= y < sprite.size
    return float(sprite.rgba[y, x, 3]) if inside else 0.0


def _visibility(sprites: tuple[Sprite, ...], index: int, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Where the tracked point of one sprite lies in the picture and is not hidden by a sprite in front, ``[T]``."""
    points = sprites[index].xy + np.array(sprites[index].grab, np.float32)
    seen = (points >= 0).all(1) & (points[:, 0] < width) & (points[:, 1] < height)
    for front in sprites[index + 1 :]:
        near = np.abs(points - front.xy).max(1) < front.size / 2
        for frame in np.flatnonzero(seen & near):
            seen[frame] = _alpha_at(front, int(frame), points[frame]) < 0.5
    return seen


def _direction(path: Float) -> str:
    dx, dy = path[-1] - path[0]
    if math.hypot(dx, dy) < 6:
        return "around"
    if abs(dx) > abs(dy):
        return "right" if dx > 0 else "left"
    return "down" if dy > 0 else "up"


def _caption(sprites: tuple[Sprite, ...], movers: tuple[int, ...], background: str) -> str:
    def name(sprite: Sprite) -> str:
        return f"a {sprite.colour} {sprite.shape}" + (" with a face" if sprite.has_face else "")

    moving = " and ".join(f"{name(sprites[i])} moves {_direction(sprites[i].xy)}" for i in movers)
    still = [name(sprite) for sprite in sprites if not sprite.moves]
    beside = f" beside {', '.join(still)}" if still else ""
    return f"{moving}{beside} on a {background} background"


def sample_sprite(
    rng: np.random.Generator,
    split: str,
    placed: list[Sprite],
    moves: bool,
    num_frames: int,
    height: int,
    width: int,
    scale: float = 1.0,
) -> Sprite:
    """Sample a sprite away from those ``placed``; it stands still, or ``moves`` along a smooth path.

    Sizes and lengths of paths are those of 128x128, times ``scale``.
    """
    shapes = tuple(OUTLINES) if split == "test" else TRAINING_SHAPES
    shape = str(rng.choice(HELD_OUT_SHAPES)) if split == "test" and rng.random() < 0.3 else str(rng.choice(shapes))
    free = [colour for colour in COLOURS if colour not in {sprite.colour for sprite in placed}]
    colour = str(rng.choice(free))
    size = int(rng.integers(round(scale * SPRITE_SIZES[0]), round(scale * SPRITE_SIZES[1]) + 1))
    has_face = bool(rng.random() < 0.5) and shape not in ("ring", "crescent")
    rgba = draw_sprite(shape, colour, size, has_face)
    extent = np.array([width, height], np.float32)
    for _ in range(30):
        start = rng.uniform(size / 2, extent - size / 2).astype(np.float32)
        if all(np.linalg.norm(start - other.xy[0]) > 0.55 * (size + other.size) for other in placed):
            break
    inset = np.float32(size / 2 if rng.random() < 0.7 else 2.0)
    seconds = (num_frames - 1) / 32
    path = np.repeat(start[None], num_frames, axis=0)
    if moves:
        path = sample_path(
            rng, start, scale * rng.uniform(40, 110) * seconds, num_frames, 0 * extent + inset, extent - inset
        )
    reach = 0.15 * size
    grab = (float(rng.uniform(-reach, reach)), float(rng.uniform(-reach, reach)))
    if shape in ("ring", "crescent"):
        grab = (0.0, 0.0)
    return Sprite(shape, colour, has_face, rgba, path, grab, moves)


def _categories(
    sprites: tuple[Sprite, ...], movers: tuple[int, ...], xy: Float, visible: npt.NDArray[np.bool_], size: Float
) -> tuple[str, ...]:
    """Names for the per-category breakdown of an evaluation."""
    mean_speed = float(np.linalg.norm(np.diff(xy, axis=0), axis=-1).mean())
    names = ["fast" if mean_speed > 2.3 else "slow"]
    inside = (xy >= 0).all(-1) & (xy < size).all(-1)
    if (inside & ~visible).any():
        names.append("occluded")
    if any((np.minimum(sprites[i].xy, size - sprites[i].xy) < sprites[i].size / 2 - 1).any() for i in movers):
        names.append("near border")
    if len(sprites) > 1:
        names.append("several sprites")
    if len(movers) > 1:
        names.append("two paths")
    return tuple(names)


def render(sprites: tuple[Sprite, ...], background: Float, num_frames: int) -> npt.NDArray[np.uint8]:
    """Render sprites (back to front) over a background ``[H, W, 3]`` in 0..1 to uint8 frames ``[T, H, W, 3]``."""
    frames = np.empty((num_frames, *background.shape), np.uint8)
    for t in range(len(frames)):
        canvas = background.copy()
        for sprite in sprites:
            _paste(canvas, sprite.rgba, sprite.xy[t])
        frames[t] = (canvas * 255 + 0.5).astype(np.uint8)
    return frames


def owners(sprites: tuple[Sprite, ...], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Number of the sprite on top of each pixel of the first frame, from 1 at the back, 0 for none, ``[H, W]``."""
    found = np.zeros((height, width), np.uint8)
    for number, sprite in enumerate(sprites, 1):
        cover = np.zeros((height, width, 3), np.float32)
        _paste(cover, np.repeat(sprite.rgba[..., 3:], 4, axis=2), sprite.xy[0])
        found[cover[..., 0] > 0.5] = number
    return found


def _untouched(sprites: tuple[Sprite, ...], height: int, width: int) -> npt.NDArray[np.bool_]:
    touched = np.zeros((height, width), bool)
    for sprite in sprites:
        low = np.floor(sprite.xy - sprite.size / 2 - 1).astype(int).clip(0)
        high = np.ceil(sprite.xy + sprite.size / 2 + 1).astype(int)
        for (x0, y0), (x1, y1) in zip(low, high, strict=True):
            touched[y0:y1, x0:x1] = True
    return ~touched


def check_request(split: str, index: int, num_frames: int) -> None:
    """Check what every world is asked for.

    Raises:
        ValueError: if the split is unknown, the index negative, or ``num_frames`` is not ``4k + 1``.
    """
    if split not in SPLITS:
        raise ValueError(f"split: {split!r} is unknown; choose one of {', '.join(SPLITS)}")
    if index < 0:
        raise ValueError(f"index: {index} is negative; clips are numbered from 0")
    if num_frames < 5 or num_frames % 4 != 1:
        raise ValueError(f"num_frames: {num_frames} is not of the form 4k + 1 with k >= 1; try 17 or 33")


def make_clip(split: str, index: int, num_frames: int = 33, height: int = 128, width: int = 128) -> SpriteClip:
    """Make clip number ``index`` of ``split``; the same arguments always give the same clip.

    Raises:
        ValueError: see `check_request`.
    """
    check_request(split, index, num_frames)
    rng = np.random.default_rng([SPLITS.index(split), index])
    kind = str(rng.choice(BACKGROUNDS))
    background = draw_background(kind, rng, height, width)
    count = int(rng.integers(1, 5))
    moving = min(count, 1 + int(rng.random() < 0.35))
    placed: list[Sprite] = []
    for number in range(count):
        placed.append(sample_sprite(rng, split, placed, number < moving, num_frames, height, width))
    return assemble(tuple(placed[i] for i in rng.permutation(count)), kind, background, num_frames)


def assemble(sprites: tuple[Sprite, ...], kind: str, background: Float, num_frames: int) -> SpriteClip:
    """The clip of ``sprites`` (back to front) on a ``background`` ``[H, W, 3]`` in 0..1 of the named kind."""
    height, width = background.shape[:2]
    movers = tuple(i for i, sprite in enumerate(sprites) if sprite.moves)
    xy = np.stack([sprites[i].xy + np.array(sprites[i].grab, np.float32) for i in movers], axis=1)
    visible = np.stack([_visibility(sprites, i, height, width) for i in movers], axis=1)
    return SpriteClip(
        frames=render(sprites, background, num_frames),
        background=(background * 255 + 0.5).astype(np.uint8),
        sprites=sprites,
        movers=movers,
        xy=xy,
        visible=visible,
        untouched=_untouched(sprites, height, width),
        caption=_caption(sprites, movers, kind),
        categories=_categories(sprites, movers, xy, visible, np.array([width, height], np.float32)),
    )


def _rows(split: str, start: int, num_clips: int, num_frames: int) -> Iterator[dict[str, Any]]:
    for index in range(start, start + num_clips):
        clip = make_clip(split, index, num_frames)
        yield {
            "index": index,
            "caption": clip.caption,
            "frames": clip.frames,
            "xy": clip.xy.swapaxes(0, 1),
            "visible": clip.visible.swapaxes(0, 1),
            "categories": list(clip.categories),
        }


def build_dataset(split: str, num_clips: int, num_frames: int = 33, start: int = 0) -> Dataset:
    """Build a `datasets.Dataset` of clips ``start .. start + num_clips`` of one split, ready for ``push_to_hub``.

    Columns: ``frames`` uint8 ``[T, H, W, 3]``, ``xy`` ``[P, T, 2]`` pixels, ``visible`` ``[P, T]``, ``caption``,
    ``categories`` and ``index`` (with which `make_clip` returns the full record).
    """
    from datasets import Array2D, Array4D, Dataset, Features, List, Value

    shape = make_clip(split, start, num_frames).frames.shape
    features = Features(
        {
            "index": Value("int64"),
            "caption": Value("string"),
            "frames": Array4D(shape, "uint8"),
            "xy": List(Array2D((num_frames, 2), "float32")),
            "visible": List(List(Value("bool"))),
            "categories": List(Value("string")),
        }
    )
    arguments = {"split": split, "start": start, "num_clips": num_clips, "num_frames": num_frames}
    dataset = Dataset.from_generator(_rows, features=features, gen_kwargs=arguments, split=split)
    assert isinstance(dataset, Dataset)
    return dataset
