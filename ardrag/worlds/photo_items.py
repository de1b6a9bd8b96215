"""What moves in Photo World: cut-outs and ragged pieces of photographs, prepared once and drawn under a transform."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ardrag.worlds.photo_library import Entry, PhotoLibrary
from ardrag.worlds.sprite_drawing import Float


SHADOW_STRENGTH = 0.4
"""Opacity of a shadow at its darkest; below the half at which a point counts as hidden."""


def pixel_offset(linear: npt.NDArray[np.float64], offset: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The offset of a transform for OpenCV, which counts from the centres of pixels."""
    return offset + 0.5 * linear.sum(1) - 0.5


@dataclass(frozen=True)
class Item:
    """Something on the background.

    ``rgba`` is ``[h, w, 4]`` uint8 with premultiplied colour, its shadow in it; ``matrices`` ``[T, 2, 3]`` take a
    place in it to the screen, in pixels, where pixel ``i`` spans ``i .. i + 1``; ``grab`` is the tracked place in it.
    """

    name: str
    rgba: npt.NDArray[np.uint8]
    matrices: Float
    grab: Float
    moves: bool

    def at(self, place: Float) -> Float:
        """Where a place ``[2]`` of the item is in every frame, ``[T, 2]`` pixels."""
        return (self.matrices[:, :, :2] @ place + self.matrices[:, :, 2]).astype(np.float32)

    def window(self, frame: int, height: int, width: int) -> tuple[slice, slice] | None:
        """Rows and columns of the screen that the item may touch in a frame, if any."""
        h, w = self.rgba.shape[:2]
        corners = np.array([[0, 0], [w, 0], [0, h], [w, h]], np.float32)
        places = corners @ self.matrices[frame, :, :2].T + self.matrices[frame, :, 2]
        left, top = np.floor(places.min(0)).astype(int).clip(0)
        right, bottom = np.ceil(places.max(0)).astype(int)
        right, bottom = min(right, width), min(bottom, height)
        return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None

    def draw(self, frame: int, window: tuple[slice, slice]) -> npt.NDArray[np.uint8]:
        """Premultiplied pixels of the item inside ``window``, bilinearly, uint8 ``[h, w, 4]``."""
        import cv2

        rows, columns = window
        matrix = self.matrices[frame].astype(np.float64)
        matrix[:, 2] = pixel_offset(matrix[:, :2], matrix[:, 2] - (columns.start, rows.start))
        size = (columns.stop - columns.start, rows.stop - rows.start)
        drawn: Any = cv2.warpAffine(self.rgba, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return drawn


def prepare(rgba: npt.NDArray[np.uint8], size: float, shadow: tuple[float, float] | None) -> npt.NDArray[np.uint8]:
    """A cut-out with straight alpha as an item's ``rgba``: longer side ``size``, premultiplied, on its shadow.

    ``shadow`` is the shadow's offset in pixels. A margin keeps the edges soft under rotation.
    """
    import cv2

    scale = size / max(rgba.shape[:2])
    small: npt.NDArray[Any]
    width, height = (max(round(extent * scale), 3) for extent in (rgba.shape[1], rgba.shape[0]))
    alpha = rgba[..., 3:].astype(np.float32) / 255
    premultiplied = np.concatenate([rgba[..., :3] * alpha, alpha * 255], -1)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    margin = 2 if shadow is None else 2 + math.ceil(max(map(abs, shadow)) + 6)
    small = np.pad(cv2.resize(premultiplied, (width, height), interpolation=method), [(margin, margin)] * 2 + [(0, 0)])
    if shadow is not None:
        move = np.array([[1, 0, shadow[0]], [0, 1, shadow[1]]], np.float32)
        cast = cv2.warpAffine(small[..., 3], move, small.shape[1::-1])
        small[..., 3] += (1 - small[..., 3] / 255) * SHADOW_STRENGTH * cv2.GaussianBlur(cast, (0, 0), 2.5)
    return (small + 0.5).astype(np.uint8)


def ragged_piece(library: PhotoLibrary, entry: Entry, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A piece of a photograph with an irregular outline, straight alpha, ``[96, 96, 4]``."""
    import cv2

    side = 96
    window = int(rng.integers(side, min(entry.height, entry.width) + 1))
    top, left = (int(rng.integers(extent - window + 1)) for extent in (entry.height, entry.width))
    texture = library.read(entry)[top : top + window, left : left + window]
    y, x = np.mgrid[:side, :side] / (side / 2) - 1 + 1 / side
    angle, waves = np.arctan2(y, x), np.arange(2, 7)
    phases, heights = rng.uniform(0, 2 * math.pi, waves.size), rng.uniform(0, 0.35, waves.size) / waves**0.7
    outline = 0.72 * (1 + (heights * np.sin(angle[..., None] * waves + phases)).sum(-1))
    edge = np.clip((np.minimum(outline, 0.98) - np.hypot(y, x)) * side / 4 + 0.5, 0, 1)
    alpha = (edge * 255).astype(np.uint8)
    return np.dstack([cv2.resize(texture, (side, side), interpolation=cv2.INTER_AREA), alpha])


def grab_place(rgba: npt.NDArray[np.uint8], rng: np.random.Generator) -> Float:
    """A well covered place of an item, more likely near its middle, ``[2]`` in its own pixels."""
    import cv2

    solid = (rgba[..., 3] > 200).astype(np.uint8)
    inner = cv2.erode(solid, np.ones((5, 5), np.uint8))
    rows, columns = np.nonzero(inner if inner.any() else solid if solid.any() else np.ones_like(solid))
    height, width = solid.shape
    squared = ((rows + 0.5 - height / 2) / height) ** 2 + ((columns + 0.5 - width / 2) / width) ** 2
    weights = np.exp(-squared / (2 * 0.15**2)) + 1e-6
    chosen = rng.choice(len(rows), p=weights / weights.sum())
    return np.array([columns[chosen] + 0.5, rows[chosen] + 0.5], np.float32)


def smooth_curve(rng: np.random.Generator, num_frames: int, spread: float) -> Float:
    """A slow random curve ``[T]`` that begins at 0 and stays within about ``spread``."""
    knots = np.concatenate([[0], rng.normal(0, spread, 3).clip(-1.5 * spread, 1.5 * spread)])
    position = np.linspace(0, 1, num_frames)
    eased = position * position * (3 - 2 * position)
    return np.interp(eased, np.linspace(0, 1, 4), np.cumsum(knots) / 2).astype(np.float32)


def item_matrices(rgba: npt.NDArray[np.uint8], path: Float, angle: Float, growth: Float, squash: Float) -> Float:
    """Transforms ``[T, 2, 3]`` that turn, grow and squash an item round its middle, which follows ``path`` ``[T, 2]``.

    ``angle`` in radians; ``growth`` and ``squash`` are logarithms of a common scale and of width over height.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    wide, high = np.exp(growth + squash / 2), np.exp(growth - squash / 2)
    linear = np.stack([np.stack([cos * wide, -sin * high], -1), np.stack([sin * wide, cos * high], -1)], 1)
    middle = np.array([rgba.shape[1] / 2, rgba.shape[0] / 2])
    offset = path - linear @ middle
    return np.concatenate([linear, offset[..., None]], -1).astype(np.float32)
