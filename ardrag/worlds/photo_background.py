"""What lies behind everything in Photo World: a window of a photograph, seen by a camera that may move."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ardrag.worlds.photo_items import pixel_offset
from ardrag.worlds.photo_library import Entry, PhotoLibrary
from ardrag.worlds.sprite_drawing import Float


MARGIN = 1.5
"""Background beyond the screen that a moving camera can show, as a factor."""


def camera_matrices(rng: np.random.Generator, num_frames: int, height: int, width: int, moving: bool) -> Float:
    """Transforms ``[T, 2, 3]`` from the screen of the first frame to that of each frame: pan and zoom, or none."""
    matrices = np.tile(np.eye(2, 3, dtype=np.float32), (num_frames, 1, 1))
    if not moving:
        return matrices
    ease = np.linspace(0, 1, num_frames)
    ease = ease * ease * (3 - 2 * ease)
    zoom = np.exp(ease * rng.uniform(-0.16, 0.25))
    reach = (MARGIN - 1) / 2 * 0.5 * np.array([width, height])
    pan = ease[:, None] * rng.uniform(-reach, reach)
    middle = np.array([width / 2, height / 2])
    matrices[:, 0, 0] = matrices[:, 1, 1] = zoom
    matrices[:, :, 2] = middle - zoom[:, None] * middle + pan
    return matrices


def draw_background(
    library: PhotoLibrary, split: str, rng: np.random.Generator, camera: Float, height: int, width: int
) -> tuple[npt.NDArray[np.uint8], str]:
    """The photograph behind everything, uint8 ``[T, H, W, 3]`` (one frame if nothing moves), and its name."""
    entries = library.choose("photo", split)
    entry = entries[int(rng.integers(len(entries)))]
    moving = bool(np.ptp(camera, 0).any())
    margin = MARGIN if moving else 1.0
    picture = photo_window(library, entry, rng, round(height * margin), round(width * margin))
    frames = filmed(picture, camera, height, width) if moving else picture[None]
    return frames, entry.name


def photo_window(
    library: PhotoLibrary, entry: Entry, rng: np.random.Generator, height: int, width: int
) -> npt.NDArray[np.uint8]:
    """A random window of a photograph, half of the time as large as fits, in mildly other colours, uint8."""
    import cv2

    widest = min(entry.height / height, entry.width / width)
    nearest = min(0.8, widest)
    zoom = widest if rng.random() < 0.5 else math.exp(rng.uniform(math.log(nearest), math.log(widest)))
    high, wide = min(int(height * zoom), entry.height), min(int(width * zoom), entry.width)
    top, left = int(rng.integers(entry.height - high + 1)), int(rng.integers(entry.width - wide + 1))
    window = library.read(entry)[top : top + high, left : left + wide]
    picture: Any = cv2.resize(window, (width, height), interpolation=cv2.INTER_AREA if zoom > 1 else cv2.INTER_LINEAR)
    return recoloured(picture[:, ::-1] if rng.random() < 0.5 else picture, rng)


def filmed(picture: npt.NDArray[np.uint8], camera: Float, height: int, width: int) -> npt.NDArray[np.uint8]:
    """A picture larger than the screen as the camera sees it, uint8 ``[T, H, W, 3]``; it starts in the middle."""
    import cv2

    corner = np.array([(picture.shape[1] - width) / 2, (picture.shape[0] - height) / 2])
    frames = []
    for matrix in camera.astype(np.float64):
        linear, offset = matrix[:, :2], matrix[:, 2] - matrix[:, :2] @ corner
        placed = np.concatenate([linear, pixel_offset(linear, offset)[:, None]], 1)
        frames.append(cv2.warpAffine(picture, placed, (width, height), borderMode=cv2.BORDER_REFLECT_101))
    return np.stack(frames)


def recoloured(picture: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Mildly other contrast, brightness and tint."""
    import cv2

    gain, shift = rng.uniform(0.85, 1.15) * rng.uniform(0.93, 1.07, 3), rng.uniform(-12, 12)
    table = np.clip((np.arange(256)[:, None] - 128) * gain + 128 + shift, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.LUT(np.ascontiguousarray(picture), table[None]))
