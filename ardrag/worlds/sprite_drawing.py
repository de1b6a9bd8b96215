"""What Sprite World looks like: outlines and colours of sprites, and the backgrounds they stand on."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw


Float = npt.NDArray[np.float32]
Points = list[tuple[float, float]]

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
