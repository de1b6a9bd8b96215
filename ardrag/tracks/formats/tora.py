"""Tora: a text file a track, a line ``x, y`` a point, on a canvas of 256 x 256 whatever the picture's shape.

How many frames the path takes is not said; its points are spread evenly over them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from ardrag.tracks.formats.paths import Given, pixels_of, points_of, spread
from ardrag.tracks.sampling import TrackArrays


KIND = "tora"
CANVAS = (256, 256)
LINE = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?)\s*")


def matches(text: str) -> bool:
    """Whether the first line that says something is one of a point."""
    return LINE.fullmatch(text.lstrip().split("\n", 1)[0]) is not None


def read(text: str, given: Given) -> dict[str, Any]:
    """The track file; ValueError names a line that is none."""
    points = []
    for number, line in enumerate(text.splitlines(), start=1):
        found = LINE.fullmatch(line)
        if found:
            points.append((float(found[1]), float(found[2])))
        elif line.strip():
            raise ValueError(f"line {number} is {line.strip()[:40]!r}, not x, y")
    made = spread(KIND, [points_of(points, "it")], CANVAS, given)
    return {**made, "canvas": {}}  # of any shape


def write(arrays: TrackArrays, path: Path, size: tuple[int, int]) -> list[Path]:
    """A file a track, numbered where there are several; gives their names."""
    pixels = np.round(pixels_of(arrays.xy, CANVAS)).astype(int).swapaxes(0, 1)
    paths = [path] if len(pixels) == 1 else [path.with_name(f"{path.stem}_{i + 1}.txt") for i in range(len(pixels))]
    for target, track in zip(paths, pixels, strict=True):
        target.write_text("".join(f"{x},{y}\n" for x, y in track), encoding="ascii")
    return paths
