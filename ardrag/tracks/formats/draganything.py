"""DragAnything: ``{"1": {"trajectory": [[x, y], ...], ...}, ...}``; on VIPSeg only ``{"1": [[x, y], ...], ...}``.

Pixels of the picture, one point a frame; a path that is shorter than the longest is not visible after its end.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ardrag.tracks.formats.paths import Given, framewise, pixels_of, points_of, side_by_side
from ardrag.tracks.sampling import TrackArrays


KIND = "draganything"


def matches(found: Any) -> bool:
    """Whether decoded JSON is such an object."""
    if not isinstance(found, dict) or not found:
        return False
    return all(
        isinstance(entry, list) or (isinstance(entry, dict) and "trajectory" in entry) for entry in found.values()
    )


def read(found: Any, given: Given) -> dict[str, Any]:
    """The track file of decoded JSON; ValueError names the object whose path is none."""
    paths = [
        points_of(entry["trajectory"] if isinstance(entry, dict) else entry, f"track {str(name)[:40]!r}")
        for name, entry in found.items()
    ]
    return framewise(KIND, *side_by_side(paths), given.size(KIND), given)


def write(arrays: TrackArrays, path: Path, size: tuple[int, int]) -> list[Path]:
    """The file as on VIPSeg: DragAnything's demo wants a mask for each, which tracks have not."""
    pixels = pixels_of(arrays.xy, size).swapaxes(0, 1).tolist()
    path.write_text(json.dumps({str(i): track for i, track in enumerate(pixels)}), encoding="ascii")
    return [path]
