"""First frames of both worlds and who owns each pixel: things to grab, with the places where they are grabbed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ardrag.worlds.photos import make_photo_clip
from ardrag.worlds.sprites import make_clip, owners


FRAMES = 5
"""The shortest clip; only its first frame is used."""
SMALLEST = 40
"""Pixels that a thing must show."""
RIM = 9
"""How far a place beside all things stays from them, in pixels."""
OWN_PLACE = 0.5
"""How often a thing is grabbed where its world does; else anywhere on it."""

Floats = npt.NDArray[np.float32]


class Shown(NamedTuple):
    """A picture uint8 ``[H, W, 3]`` with the number of the thing on top of each pixel, 0 for none, ``[H, W]``.

    ``empty`` is the picture without things where a world knows it; ``places`` ``[N, 2]`` are where the world grabs
    each, in pixels.
    """

    picture: npt.NDArray[np.uint8]
    owner: npt.NDArray[np.uint8]
    empty: npt.NDArray[np.uint8] | None
    places: Floats


class Grab(NamedTuple):
    """What is grabbed: its mask ``[H, W]`` in 0..1, None beside all things, at ``xy`` in pixels."""

    mask: Floats | None
    xy: Floats


def shown_photos(split: str, start: int, count: int) -> Iterator[Shown]:
    """First frames of Photo World."""
    for index in tqdm(range(start, start + count), desc=f"photographs, {split}", mininterval=10):
        clip = make_photo_clip(split, index, FRAMES)
        places = np.stack([item.at(item.grab)[0] for item in clip.items])
        yield Shown(clip.frames[0], clip.owner[0], clip.background, places)


def shown_sprites(split: str, start: int, count: int) -> Iterator[Shown]:
    """First frames of Sprite World."""
    for index in tqdm(range(start, start + count), desc=f"sprites, {split}", mininterval=10):
        clip = make_clip(split, index, FRAMES)
        places = np.stack([sprite.xy[0] + np.array(sprite.grab, np.float32) for sprite in clip.sprites])
        yield Shown(clip.frames[0], owners(clip.sprites, *clip.frames.shape[1:3]), None, places)


def grab_thing(shown: Shown, rng: np.random.Generator) -> Grab | None:
    """One of the things, or None where the one that was drawn hardly shows."""
    number = int(rng.integers(len(shown.places)))
    mask = shown.owner == number + 1
    if mask.sum() < SMALLEST:
        return None
    place = shown.places[number]
    column, line = np.floor(place).astype(int)
    inside = 0 <= line < mask.shape[0] and 0 <= column < mask.shape[1]
    if not (inside and mask[line, column] and rng.random() < OWN_PLACE):
        inner = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8))
        place = any_place(inner if inner.any() else mask, rng)
    return Grab(mask.astype(np.float32), place)


def grab_nothing(shown: Shown, rng: np.random.Generator) -> Grab | None:
    """A place beside all things, or None where there is none."""
    free = cv2.dilate((shown.owner > 0).astype(np.uint8), np.ones((RIM, RIM), np.uint8)) == 0
    return Grab(None, any_place(free, rng)) if free.any() else None


def any_place(mask: npt.NDArray[np.generic], rng: np.random.Generator) -> Floats:
    """The centre of a pixel of ``mask`` ``[H, W]``, ``[2]`` in pixels."""
    lines, columns = np.nonzero(mask)
    chosen = rng.integers(len(lines))
    return np.array([columns[chosen], lines[chosen]], np.float32) + np.float32(0.5)
