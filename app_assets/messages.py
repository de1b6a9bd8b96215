"""What a page may say, checked; and how frames and files are packed on their way to it.

The page speaks JSON, one object with a ``type`` a message. The server answers in JSON too; where pictures or files go
along, the message is binary: four bytes with the length of the JSON (big-endian), the JSON, and the parts, whose sizes
are its ``sizes``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app_assets.control import TimedPlace
from ardrag.tracks.schema import SMALLEST
from ardrag.tracks.tracks import Tracks


MAX_MESSAGE = 1 << 20
MAX_WAY = 1024
"""Places of one pointer in one message."""
MAX_POINTERS = 16
MAX_STEPS = 64
"""Denoising steps of a latent, through whichever door."""
MAX_EDITS = 256
"""Edits of tracks: each one is replayed when they are read, and no video here is long enough to need more."""


@dataclass(frozen=True)
class Start:
    """Begin a take."""

    picture: str
    prompt: str
    seed: int
    steps: int | None
    num_frames: int
    tracks: Tracks
    paced: bool

    def check_length(self, most: int) -> None:
        """Raise ValueError if the video is to have more than ``most`` frames."""
        if self.num_frames > most:
            raise ValueError(f"num_frames: {self.num_frames} is more than {most}, the most here")


@dataclass(frozen=True)
class Drag:
    """Pointers that are down, with their way since the last message and their brush, and those that were let go."""

    take: int
    seq: int
    seen: int
    ways: dict[int, list[TimedPlace]]
    brushes: dict[int, float | None]
    released: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """Follow these paths from the next latent on."""

    take: int
    tracks: Tracks


@dataclass(frozen=True)
class Run:
    """Play on, or pause."""

    take: int
    on: bool


@dataclass(frozen=True)
class Seen:
    """What is on the screen, and how long a message takes there and back (seconds)."""

    take: int
    frame: int
    rtt: float


@dataclass(frozen=True)
class Rewind:
    """Go on from before this latent; ``branch`` leaves the take as it is and makes another."""

    take: int
    latent: int
    branch: bool


@dataclass(frozen=True)
class Export:
    """Send the video (plain, or with the paths drawn) and the tracks that were really applied."""

    take: int
    draw: bool


@dataclass(frozen=True)
class Cancel:
    """Stop making this take."""

    take: int


Message = Start | Drag | Plan | Run | Seen | Rewind | Export | Cancel


def read_message(text: str | bytes) -> Message:
    """Read and check one message of a page.

    Raises:
        ValueError: naming the field and the remedy.
    """
    if isinstance(text, bytes):
        raise ValueError("message: binary, where text is expected; pictures go to POST /picture")
    if len(text) > MAX_MESSAGE:
        raise ValueError(f"message: longer than {MAX_MESSAGE} characters; use fewer points")
    try:
        entry = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"message: not JSON ({error})") from error
    if not isinstance(entry, dict):
        raise ValueError("message: must be a JSON object with a type")
    read = READERS.get(entry.get("type")) if isinstance(entry.get("type"), str) else None
    if read is None:
        raise ValueError(f"type: {str(entry.get('type'))[:40]!r} is unknown; use one of {', '.join(READERS)}")
    return read(entry)


def pack(header: Mapping[str, Any], parts: Sequence[bytes]) -> bytes:
    """One binary message: length of the JSON, the JSON with the parts' ``sizes``, the parts."""
    text = json.dumps({**header, "sizes": [len(part) for part in parts]}, allow_nan=False).encode()
    return b"".join([len(text).to_bytes(4, "big"), text, *parts])


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def read_start(entry: dict[str, Any]) -> Start:
    """Read and check what begins a video.

    Raises:
        ValueError: naming the field and the remedy.
    """
    steps = entry.get("steps")
    count = _whole(entry, "num_frames", 5, 1 << 16)
    tracks = entry.get("tracks")
    return Start(
        picture=_text(entry, "picture", 200),
        prompt=_text(entry, "prompt", 1000),
        seed=_whole(entry, "seed", 0, (1 << 53) - 1),
        steps=None if steps is None else _whole(entry, "steps", 1, MAX_STEPS),
        num_frames=count,
        tracks=read_tracks(tracks, count),
        paced=_flag(entry, "paced"),
    )


def _drag(entry: dict[str, Any]) -> Drag:
    pointers = entry.get("pointers", [])
    if not isinstance(pointers, list) or len(pointers) > MAX_POINTERS:
        raise ValueError(f"pointers: must be a list of at most {MAX_POINTERS}")
    ways: dict[int, list[TimedPlace]] = {}
    brushes: dict[int, float | None] = {}
    for i, pointer in enumerate(pointers):
        if not isinstance(pointer, dict):
            raise ValueError(f"pointers[{i}]: must be an object with id and way")
        name = _whole(pointer, "id", -(1 << 31), 1 << 31)
        ways[name] = _way(pointer.get("way"), f"pointers[{i}].way")
        brushes[name] = _brush(pointer.get("sigma"), f"pointers[{i}].sigma")
    released = entry.get("released", [])
    whole = isinstance(released, list) and all(isinstance(name, int) for name in released)
    if not whole or len(released) > MAX_POINTERS:
        raise ValueError(f"released: must be a list of at most {MAX_POINTERS} pointer ids")
    place = {"seq": _whole(entry, "seq", 0, 1 << 53), "seen": _whole(entry, "seen", -1, 1 << 30)}
    return Drag(_take(entry), **place, ways=ways, brushes=brushes, released=tuple(released))


def _brush(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not SMALLEST <= value <= 1:
        raise ValueError(
            f"{where}: {str(value)[:40]} must be a number from {SMALLEST:g} to 1, as wide as the picture; leave it out"
        )
    return float(value)


def _way(value: Any, where: str) -> list[TimedPlace]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where}: must be rows of (milliseconds, x, y, force)")
    if len(value) > MAX_WAY:
        raise ValueError(f"{where}: {len(value)} places; at most {MAX_WAY} in one message")
    way: list[TimedPlace] = []
    for j, row in enumerate(value):
        good = isinstance(row, list) and len(row) == 4
        good = good and all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in row)
        if not good:
            raise ValueError(f"{where}[{j}]: must be four finite numbers (milliseconds, x, y, force)")
        t, x, y, force = map(float, row)
        if not (0 <= x <= 1 and 0 <= y <= 1 and 0 <= force <= 1):
            raise ValueError(f"{where}[{j}]: x, y and force must lie within 0..1 of the picture")
        way.append((t, x, y, force))
    return way


def read_tracks(value: Any, num_frames: int) -> Tracks:
    """The tracks of a decoded track file for a video of ``num_frames``.

    Raises:
        ValueError: naming the field and the remedy.
    """
    if value is None:
        return Tracks.empty(num_frames)
    if not isinstance(value, dict):
        raise ValueError("tracks: must be an ardrag.tracks/v1 object, or null")
    edits = value.get("edits")
    if isinstance(edits, list) and len(edits) > MAX_EDITS:
        raise ValueError(f"tracks: {len(edits)} edits, at most {MAX_EDITS} here; freeze them with Tracks.from_array")
    tracks = Tracks.from_json(value)
    if tracks.num_frames > num_frames:
        raise ValueError(f"tracks: they last {tracks.num_frames} frames, the clip {num_frames}; retime them")
    return tracks


def _take(entry: dict[str, Any]) -> int:
    return _whole(entry, "take", 1, 1 << 53)


def _whole(entry: dict[str, Any], name: str, low: int, high: int) -> int:
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name}: {str(value)[:40]} must be a whole number from {low} to {high}")
    return value


def _flag(entry: dict[str, Any], name: str) -> bool:
    value = entry.get(name)
    if not isinstance(value, bool):
        raise ValueError(f"{name}: {str(value)[:40]} must be true or false")
    return value


def _text(entry: dict[str, Any], name: str, limit: int) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or len(value) > limit:
        raise ValueError(f"{name}: must be text of at most {limit} characters")
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"{name}: holds half a character; send whole ones")
    return value


def _seen(entry: dict[str, Any]) -> Seen:
    rtt = entry.get("rtt", 0.0)
    if isinstance(rtt, bool) or not isinstance(rtt, int | float) or not 0 <= rtt <= 10:
        raise ValueError("rtt: must be seconds from 0 to 10")
    return Seen(_take(entry), _whole(entry, "frame", -1, 1 << 30), float(rtt))


READERS = {
    "start": read_start,
    "drag": _drag,
    "plan": lambda entry: Plan(
        _take(entry), read_tracks(entry.get("tracks"), _whole(entry, "num_frames", 5, 1 << 16))
    ),
    "run": lambda entry: Run(_take(entry), _flag(entry, "on")),
    "seen": _seen,
    "rewind": lambda entry: Rewind(_take(entry), _whole(entry, "latent", 0, 1 << 30), False),
    "branch": lambda entry: Rewind(_take(entry), _whole(entry, "latent", 0, 1 << 30), True),
    "export": lambda entry: Export(_take(entry), _flag(entry, "draw")),
    "cancel": lambda entry: Cancel(_take(entry)),
}
