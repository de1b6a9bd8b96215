"""MagicMotion: an mp4 of coloured masks, boxes, or a few key boxes on black. Each colour's centre becomes a path.

A mask's centre is its centre of mass, a box's (drawn as an outline) the middle of its sides. A colour that is missing
is not visible there; but where most frames are all black, the others are keys, and the path goes straight between.
Colours are told apart by which of red, green and blue are on: up to seven.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ardrag.tracks.formats.paths import Given, framewise
from ardrag.tracks.sampling import Bools, Floats


KIND = "magicmotion"
MAGIC = b"ftyp"
"""At byte 4."""
ON = 64
"""A channel is on from here; compression leaves less where it is off."""
LEAST = 0.002
"""Share of the picture that a colour must have to be a thing, and no seam between two."""
HOLLOW = 0.5
"""An outline fills less of its box than this; masks fill more."""
MOST_PIXELS = 1 << 22
ENOUGH = 480
"""Pixels of the longer side that centres are found from."""
MOST_FRAMES = 1024


def read(file: BinaryIO, given: Given, path: Path | None) -> dict[str, Any]:
    """The track file.

    Raises:
        ValueError: if it is no video, or nothing in it has a colour.
    """
    measures, size = _measured(file.read())
    things = np.flatnonzero((measures[..., 0] >= LEAST).any(axis=0))
    if not len(things):
        raise ValueError("nothing in this video has a colour; masks and boxes are coloured on black")
    measures = measures[:, things]
    visible = measures[..., 0] >= LEAST
    filled = np.where(visible, measures[..., 5], np.nan)
    hollow = np.nanmedian(filled, axis=0) < HOLLOW
    xy = np.where(hollow[:, None], measures[..., 1:3], measures[..., 3:5])
    if np.mean(visible.any(axis=1)) < 0.5:
        xy, visible = _between_keys(xy, visible)
    return framewise(KIND, xy, visible, size, given)


def _measured(content: bytes) -> tuple[Floats, tuple[int, int]]:
    """Of every frame and colour, ``[T, 7, 6]`` as `_measures_of`; and (width, height)."""
    import imageio

    rows: list[Floats] = []
    try:
        with tempfile.NamedTemporaryFile(suffix=".mp4") as file:  # the decoder wants a name
            file.write(content)
            file.flush()
            opened: Any = imageio.get_reader(file.name, format="ffmpeg", input_params=["-f", "mov"])
            with opened as reader:
                width, height = reader.get_meta_data()["size"]
                if width * height > MOST_PIXELS:
                    raise ValueError(f"{width} x {height} pixels are too many")
                for frame in reader:
                    rows.append(_measures_of(np.asarray(frame)))
                    if len(rows) > MOST_FRAMES:
                        raise ValueError(f"it has more than {MOST_FRAMES} frames")
        return np.stack(rows), (int(width), int(height))
    except Exception as error:  # decoders raise whatever they stumble over in a damaged file
        raise ValueError(f"it is no video of masks or boxes that can be read ({str(error)[:80]})") from error


def _measures_of(frame: npt.NDArray[np.uint8]) -> Floats:
    """What is seen of the seven colours in a frame ``[H, W, 3]``, ``[7, 6]``.

    Share of the picture, middle of its box (x, y), centre of mass (x, y), share of the box that it fills; zeros where
    it is missing. Of large frames every so many pixels are looked at.
    """
    step = 1 + max(frame.shape[:2]) // ENOUGH
    red, green, blue = (frame[::step, ::step, channel] >= ON for channel in range(3))
    colours = red + 2 * green.astype(np.uint8) + 4 * blue.astype(np.uint8)
    table = np.zeros((7, 6))
    for colour in np.flatnonzero(np.bincount(colours.ravel(), minlength=8)[1:]) + 1:
        rows, columns = np.nonzero(colours == colour)
        low, high = np.array([columns.min(), rows.min()]), np.array([columns.max(), rows.max()]) + 1
        mass = np.array([columns.mean(), rows.mean()]) + 0.5
        places = step * np.array([*(low + high) / 2, *mass])
        table[colour - 1] = [len(rows) / colours.size, *places, len(rows) / np.prod(high - low)]
    return table


def _between_keys(xy: Floats, visible: Bools) -> tuple[Floats, Bools]:
    """Places ``[T, P, 2]`` that are known in a few frames, straight between those, and seen from first to last."""
    frames, filled, seen = np.arange(len(xy)), xy.copy(), visible.copy()
    for p in range(xy.shape[1]):
        keys = np.flatnonzero(visible[:, p])
        filled[:, p] = np.stack([np.interp(frames, keys, xy[keys, p, axis]) for axis in (0, 1)], axis=1)
        seen[keys[0] : keys[-1] + 1, p] = True
    return filled, seen
