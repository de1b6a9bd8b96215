"""MotionPro and MC-Bench: ``{"traj_key_points": [[[x, y], ...], ...]}``, key points in pixels of the picture.

How many frames the paths take is not said; the points are spread evenly over them. A path of one point stays there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ardrag.tracks.formats.paths import Given, pixels_of, points_of, spread
from ardrag.tracks.sampling import TrackArrays


KIND = "motionpro"
KEY = "traj_key_points"


def matches(found: Any) -> bool:
    """Whether decoded JSON is such an object."""
    return isinstance(found, dict) and KEY in found


def read(found: Any, given: Given) -> dict[str, Any]:
    """The track file of decoded JSON; ValueError names the track that is none."""
    if not isinstance(found[KEY], list) or not found[KEY]:
        raise ValueError(f"{KEY} is not a list of lists of [x, y]")
    paths = [points_of(path, f"{KEY}[{i}]") for i, path in enumerate(found[KEY])]
    return spread(KIND, paths, given.size(KIND), given)


def write(arrays: TrackArrays, path: Path, size: tuple[int, int]) -> list[Path]:
    """The file, with a key point a frame."""
    path.write_text(json.dumps({KEY: pixels_of(arrays.xy, size).swapaxes(0, 1).tolist()}), encoding="ascii")
    return [path]
