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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw


if TYPE_CHECKING:
    from datasets import Dataset


Float = npt.NDArray[np.float32]
Points = list[tuple[float, float]]

SPLITS = ("train", "validation", "test")
BENCHMARK_CLIPS = 206
"""Number of test clips in the benchmark, as in the paper's evaluation (section 4)."""

COLOURS = {
    "red": (224, 48, 56),
    "orange": (244, 136, 32),
    "yellow": (246, 212, 52),
    "green": (52, 172, 76),
    "cyan": (48, 190, 206),
    "blue": (48, 96, 216),
    "purple": (140, 70, 200),
    "pink": (244, 120, 184),
    "white": (244, 244, 244),
    "black": (36, 36, 40),
}
BACKGROUNDS = ("gradient", "noise", "stripe", "photo")
SUPERSAMPLING = 4
SPRITE_SIZES = (18, 40)
FASTEST_STEP = 7.0
"""Upper bound of a sprite's speed, pixels per pixel frame."""


def _regular(corners: int, turn: float = -math.pi / 2) -> Points:
    return [
        (math.cos(turn + 2 * math.pi * i / corners), math.sin(turn + 2 * math.pi * i / corners))
        for i in range(corners)
    ]


def _star() -> Points:
    outer, inner = _regular(5), _regular(5, -math.pi / 2 + math.pi / 5)
    return [point for a, b in zip(outer, inner, strict=True) for point in (a, (0.45 * b[0], 0.45 * b[1]))]


def _cross(arm: float = 0.38) -> Points:
    a = arm
    return [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]


def _heart() -> Points:
    angles = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    x = 16 * np.sin(angles) ** 3
    y = 13 * np.cos(angles) - 5 * np.cos(2 * angles) - 2 * np.cos(3 * angles) - np.cos(4 * angles)
    return [(float(a) / 17, -float(b) / 17) for a, b in zip(x, y, strict=True)]


def _drop() -> Points:
    arc = np.linspace(-0.15 * math.pi, 1.15 * math.pi, 40)
    return [(0.0, -1.0)] + [(0.68 * math.cos(a), 0.3 + 0.68 * math.sin(a)) for a in arc]


def _crescent() -> Points:
    outer = np.linspace(0.25 * math.pi, 1.75 * math.pi, 40)
    inner = outer[::-1]
    return [(math.cos(a), math.sin(a)) for a in outer] + [
        (0.42 + 0.72 * math.cos(a), 0.72 * math.sin(a)) for a in inner
    ]


OUTLINES: dict[str, Callable[[], Points]] = {
    "circle": lambda: _regular(48),
    "square": lambda: _regular(4, math.pi / 4),
    "triangle": lambda: _regular(3),
    "diamond": lambda: [(0, -1), (0.66, 0), (0, 1), (-0.66, 0)],
    "pentagon": lambda: _regular(5),
    "star": _star,
    "cross": _cross,
    "ring": lambda: _regular(48),
    "drop": _drop,
    "crescent": _crescent,
    "hexagon": lambda: _regular(6),
    "heart": _heart,
}
HELD_OUT_SHAPES = ("hexagon", "heart")
TRAINING_SHAPES = tuple(name for name in OUTLINES if name not in HELD_OUT_SHAPES)


@dataclass(frozen=True)
class Sprite:
    """One sprite: what it looks like and where it is.

    ``rgba`` is ``[size, size, 4]`` float32 in 0..1 with premultiplied colour; ``xy`` is its centre ``[T, 2]`` in
    pixels, where pixel ``i`` spans ``i .. i + 1``; ``grab`` is the tracked point relative to the centre.
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


def draw_sprite(shape: str, colour: str, size: int, has_face: bool) -> Float:
    """Draw one sprite, ``[size, size, 4]`` float32 in 0..1, premultiplied, antialiased.

    Raises:
        ValueError: if ``shape`` or ``colour`` is unknown.
    """
    if shape not in OUTLINES:
        raise ValueError(f"shape: {shape!r} is unknown; choose one of {', '.join(OUTLINES)}")
    if colour not in COLOURS:
        raise ValueError(f"colour: {colour!r} is unknown; choose one of {', '.join(COLOURS)}")
    side = size * SUPERSAMPLING
    centre, radius = side / 2, side / 2 - SUPERSAMPLING
    fill = COLOURS[colour]
    rim = tuple(int(0.62 * channel) for channel in fill)
    canvas = Image.new("RGBA", (side, side), (*fill, 0))
    pen = ImageDraw.Draw(canvas)
    outline = [(centre + radius * x, centre + radius * y) for x, y in OUTLINES[shape]()]
    pen.polygon(outline, fill=(*fill, 255), outline=(*rim, 255), width=max(side // 18, 1))
    if shape == "ring":
        hole = 0.45 * radius
        pen.ellipse((centre - hole, centre - hole, centre + hole, centre + hole), fill=(*fill, 0))
    elif has_face:
        _draw_face(pen, centre, radius, (20, 20, 24) if colour != "black" else (230, 230, 230))
    pixels = np.asarray(canvas, dtype=np.float32) / 255
    pixels[..., :3] *= pixels[..., 3:]
    return pixels.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING, 4).mean((1, 3))


def _draw_face(pen: ImageDraw.ImageDraw, centre: float, radius: float, ink: tuple[int, int, int]) -> None:
    eye, spread, height = 0.1 * radius, 0.22 * radius, centre - 0.08 * radius
    for x in (centre - spread, centre + spread):
        pen.ellipse((x - eye, height - eye, x + eye, height + eye), fill=(*ink, 255))
    box = (centre - 0.28 * radius, centre - 0.1 * radius, centre + 0.28 * radius, centre + 0.36 * radius)
    pen.arc(box, 25, 155, fill=(*ink, 255), width=max(int(0.09 * radius), 1))


def _soft_noise(rng: np.random.Generator, height: int, width: int, cells: int, channels: int) -> Float:
    """Value noise in -1..1 with ``cells`` cells along the shorter side, ``[H, W, channels]``."""
    grid = rng.uniform(-1, 1, (channels, cells, cells)).astype(np.float32)
    layers = [Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC) for plane in grid]
    return np.stack([np.asarray(layer) for layer in layers], axis=-1)


def draw_background(kind: str, rng: np.random.Generator, height: int, width: int) -> Float:
    """Draw a background, ``[H, W, 3]`` float32 in 0..1, of one of the kinds in ``BACKGROUNDS``.

    Raises:
        ValueError: if ``kind`` is unknown.
    """
    if kind not in BACKGROUNDS:
        raise ValueError(f"background: {kind!r} is unknown; choose one of {', '.join(BACKGROUNDS)}")
    ends = rng.uniform(0.25, 0.8, (2, 3)).astype(np.float32)
    turn = rng.uniform(0, 2 * math.pi)
    v, u = np.mgrid[0:height, 0:width].astype(np.float32)
    u, v = u / width - 0.5, v / height - 0.5
    along = u * math.cos(turn) + v * math.sin(turn)
    canvas = ends[0] + (ends[1] - ends[0]) * (along + 0.5)[..., None]
    if kind == "noise":
        canvas = canvas + 0.10 * _soft_noise(rng, height, width, 4, 3) + 0.05 * _soft_noise(rng, height, width, 8, 1)
    elif kind == "stripe":
        waves = rng.uniform(3, 7)
        canvas = canvas + 0.07 * np.sin(2 * math.pi * waves * along)[..., None]
    elif kind == "photo":
        horizon = 0.5 + 0.5 * np.tanh((v - rng.uniform(-0.2, 0.3)) * 14)
        ground = rng.uniform(0.2, 0.7, 3).astype(np.float32) - canvas
        canvas = canvas + horizon[..., None] * ground
        canvas = canvas + 0.06 * _soft_noise(rng, height, width, 6, 3) + 0.03 * _soft_noise(rng, height, width, 14, 1)
        canvas = canvas * (1 - 0.5 * (u**2 + v**2))[..., None]
    return np.clip(canvas, 0, 1).astype(np.float32)


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


def _sample_sprite(
    rng: np.random.Generator, split: str, placed: list[Sprite], moves: bool, num_frames: int, height: int, width: int
) -> Sprite:
    shapes = tuple(OUTLINES) if split == "test" else TRAINING_SHAPES
    shape = str(rng.choice(HELD_OUT_SHAPES)) if split == "test" and rng.random() < 0.3 else str(rng.choice(shapes))
    free = [colour for colour in COLOURS if colour not in {sprite.colour for sprite in placed}]
    colour = str(rng.choice(free))
    size = int(rng.integers(SPRITE_SIZES[0], SPRITE_SIZES[1] + 1))
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
        path = sample_path(rng, start, rng.uniform(40, 110) * seconds, num_frames, 0 * extent + inset, extent - inset)
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


def _untouched(sprites: tuple[Sprite, ...], height: int, width: int) -> npt.NDArray[np.bool_]:
    touched = np.zeros((height, width), bool)
    for sprite in sprites:
        low = np.floor(sprite.xy - sprite.size / 2 - 1).astype(int).clip(0)
        high = np.ceil(sprite.xy + sprite.size / 2 + 1).astype(int)
        for (x0, y0), (x1, y1) in zip(low, high, strict=True):
            touched[y0:y1, x0:x1] = True
    return ~touched


def make_clip(split: str, index: int, num_frames: int = 33, height: int = 128, width: int = 128) -> SpriteClip:
    """Make clip number ``index`` of ``split``; the same arguments always give the same clip.

    Raises:
        ValueError: if the split is unknown, the index negative, or ``num_frames`` is not ``4k + 1``.
    """
    if split not in SPLITS:
        raise ValueError(f"split: {split!r} is unknown; choose one of {', '.join(SPLITS)}")
    if index < 0:
        raise ValueError(f"index: {index} is negative; clips are numbered from 0")
    if num_frames < 5 or num_frames % 4 != 1:
        raise ValueError(f"num_frames: {num_frames} is not of the form 4k + 1 with k >= 1; try 17 or 33")
    rng = np.random.default_rng([SPLITS.index(split), index])
    kind = str(rng.choice(BACKGROUNDS))
    background = draw_background(kind, rng, height, width)
    count = int(rng.integers(1, 5))
    moving = min(count, 1 + int(rng.random() < 0.35))
    placed: list[Sprite] = []
    for number in range(count):
        placed.append(_sample_sprite(rng, split, placed, number < moving, num_frames, height, width))
    sprites = tuple(placed[i] for i in rng.permutation(count))
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
