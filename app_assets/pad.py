"""The server's half of the pad: pictures and drawings on their way to and from the page."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ardrag.tracks import Tracks


MAX_DRAWN_POINTS = 1024
"""A drawn path is thinned to this many points: far more than a clip has frames."""
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def data_url(picture: Image.Image, quality: int = 85) -> str:
    """A picture as WebP inside a URL."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality, method=0)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def timed_path(points: Sequence[Sequence[float]], num_frames: int) -> list[tuple[float, ...]]:
    """Drawn points ``(ms, x, y, force)`` as track points ``(f, x, y, p)`` that take the whole clip.

    The speed along the path stays in proportion; a tap becomes a pin.

    Raises:
        ValueError: if the points are no rows of four finite numbers.
    """
    rows = np.asarray(points, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != 4 or not len(rows) or not np.isfinite(rows).all():
        raise ValueError("points must be rows of (milliseconds, x, y, force)")
    kept = np.linspace(0, len(rows) - 1, min(len(rows), MAX_DRAWN_POINTS)).round().astype(int)
    times = np.maximum.accumulate(rows[kept, 0])
    span = times[-1] - times[0]
    frames = (times - times[0]) / span * (num_frames - 1) if span > 0 else np.zeros(len(kept))
    last_of_its_time = np.append(np.diff(frames) > 1e-6, True)
    places = np.column_stack([frames, rows[kept, 1:]])[last_of_its_time]
    return [tuple(float(value) for value in row) for row in places]


def tracks_from_drawing(drawing: str | None, num_frames: int, fps: float = 16.0) -> Tracks:
    """What the pad says, ``{"paths": [{"points": [[ms, x, y, force], ...]}, ...]}``, as `Tracks`.

    Raises:
        ValueError: naming the field, if it says something else or a place is off the picture.
    """
    try:
        paths = json.loads(drawing)["paths"] if drawing else []
        points = [timed_path(path["points"], num_frames) for path in paths]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"drawing: this is not what the pad writes ({error}); clear it and draw again") from error
    return Tracks.from_points(points, num_frames=num_frames, fps=fps, interp="linear")


def drawing_from_tracks(tracks: Tracks) -> str:
    """Tracks of a file as the pad would have written them."""
    paths = [
        {"points": [[1000 * point.f / tracks.fps, point.x, point.y, point.p] for point in track.points]}
        for track in tracks.tracks
    ]
    return json.dumps({"paths": paths})


def load_examples(folder: Path = EXAMPLES) -> list[dict[str, Any]]:
    """The bundled examples: title, prompt, seed, and the full paths of picture and tracks."""
    entries = json.loads((folder / "examples.json").read_text(encoding="utf-8"))
    return [{**entry, "image": str(folder / entry["image"]), "tracks": folder / entry["tracks"]} for entry in entries]
