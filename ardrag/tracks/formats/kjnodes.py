"""Point lists of KJNodes' spline editor and of the nodes for ATI and Wan-Move: ``[[{"x": 12, "y": 34}, ...], ...]``.

Also one such list alone, a list of texts with one each, and single quotes as Python prints them. Pixels of the node's
own width and height. A point a frame; 121 points are ATI's 24 a second, and make 81 frames. A path that is shorter
than the longest is not visible after its end.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ardrag.tracks.formats.ati import FRAMES, PLACES
from ardrag.tracks.formats.paths import Given, framewise, pixels_of, points_of, side_by_side
from ardrag.tracks.sampling import TrackArrays


KIND = "kjnodes"


def matches(found: Any) -> bool:
    """Whether decoded JSON is such a list."""
    first = found[0] if isinstance(found, list) and found else None
    return isinstance(first, str | dict) or (isinstance(first, list) and bool(first) and isinstance(first[0], dict))


def read(found: Any, given: Given) -> dict[str, Any]:
    """The track file of decoded JSON; ValueError names the track that is not as described above."""
    if isinstance(found[0], dict):
        found = [found]
    paths = []
    for i, path in enumerate(found):
        entries = json.loads(path.replace("'", '"')) if isinstance(path, str) else path
        good = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
        if not good or not all({"x", "y"} <= entry.keys() for entry in entries):
            raise ValueError(f'track {i} is not a list of {{"x": ..., "y": ...}}')
        paths.append(points_of([(entry["x"], entry["y"]) for entry in entries], f"track {i}"))
    xy, visible = side_by_side(paths)
    return framewise(KIND, xy, visible, given.size(KIND), given, FRAMES if len(xy) == PLACES else None)


def write(arrays: TrackArrays, path: Path, size: tuple[int, int]) -> list[Path]:
    """The file: it cannot say that a track is hidden."""
    pixels = pixels_of(arrays.xy, size).swapaxes(0, 1).tolist()
    path.write_text(json.dumps([[{"x": x, "y": y} for x, y in track] for track in pixels]), encoding="ascii")
    return [path]
