"""DragNUWA, and Image Conductor alike: lists of clicked points, ``[[[x, y], ...], ...]``.

Pixels of the model's own picture: 576 x 320 of DragNUWA, 384 x 256 of Image Conductor. The list does not say which,
nor how many frames the paths take; points are spread evenly over them, and a path of one point stays there.
"""

from __future__ import annotations

from typing import Any

from ardrag.tracks.formats.paths import Given, points_of, spread


KIND = "dragnuwa"


def matches(found: Any) -> bool:
    """Whether decoded JSON is such a list, or one path of it."""
    return isinstance(found, list) and bool(found) and isinstance(found[0], list)


def read(found: Any, given: Given) -> dict[str, Any]:
    """The track file of decoded JSON; ValueError names the track that is none."""
    one = bool(found[0]) and not isinstance(found[0][0], list)
    paths = [points_of(path, f"track {i}") for i, path in enumerate([found] if one else found)]
    return spread(KIND, paths, given.size(KIND), given)
