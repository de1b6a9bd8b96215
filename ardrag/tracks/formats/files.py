"""Which format a track file has, by its content; reading all of them, and writing those that others' tools read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ardrag.tracks.formats import (
    ati,
    draganything,
    dragnuwa,
    kjnodes,
    magicmotion,
    motionpro,
    pickles,
    tapvid,
    tora,
    wan_move,
)
from ardrag.tracks.formats.paths import Given, Size, check_image_size, even_frames
from ardrag.tracks.sampling import TrackArrays


MAX_TEXT = 16 << 20
"""Bytes of a text file of tracks."""
BY_KEYS = (motionpro, draganything)
BY_LISTS = (kjnodes, dragnuwa)
WRITERS: dict[str, Callable[[TrackArrays, Path, Size], list[Path]]] = {
    wan_move.KIND: wan_move.write,
    ati.KIND: ati.write,
    kjnodes.KIND: kjnodes.write,
    tora.KIND: tora.write,
    draganything.KIND: draganything.write,
    motionpro.KIND: motionpro.write,
}
CANNOT_HIDE = (kjnodes.KIND, tora.KIND, draganything.KIND, motionpro.KIND)
"""Formats in which a track is visible from the first frame to the last."""


def read_document(file: BinaryIO, given: Given, path: Path | None = None) -> dict[str, Any] | bytes:
    """The decoded track file (`ardrag.tracks/v1`) of a file in any format; one that is in ours already, as its bytes.

    Args:
        file: open at its start, and seekable.
        given: what the file may not say.
        path: where it lies, for formats of two files.

    Raises:
        ValueError: naming what is wrong, and the remedy.
    """
    head = file.read(16)
    file.seek(0)
    for magic, start, read in BY_MAGIC:
        if head[start:].startswith(magic):
            return read(file, given, path)
    return _of_text(file.read(MAX_TEXT + 1), given)


BY_MAGIC: tuple[tuple[bytes, int, Callable[[BinaryIO, Given, Path | None], dict[str, Any]]], ...] = (
    (wan_move.MAGIC, 0, wan_move.read),
    (ati.MAGIC, 0, ati.read),
    (pickles.MAGIC, 0, tapvid.read),
    (magicmotion.MAGIC, 4, magicmotion.read),
)


def write_file(
    sample: Callable[[Sequence[float]], TrackArrays], num_frames: int, path: Path, kind: str, size: Any
) -> list[Path]:
    """Write tracks for another system's tools; gives the names of the files.

    Args:
        sample: gives the tracks at some frames.
        num_frames: of the clip.
        path: file to write.
        kind: one of `WRITERS`.
        size: (width, height) in pixels of the picture there.

    Raises:
        ValueError: if the kind is unknown or cannot hold these tracks, or the size is none.
    """
    if kind not in WRITERS:
        raise ValueError(f"kind: {str(kind)[:40]!r} is unknown; use one of {', '.join(WRITERS)}")
    count = ati.PLACES if kind == ati.KIND else num_frames
    arrays = sample(even_frames(num_frames, count))
    hidden = np.flatnonzero(~arrays.visible.all(axis=0))
    if kind in CANNOT_HIDE and len(hidden):
        raise ValueError(f"tracks[{hidden[0]}] is hidden for a while, which {kind} cannot say; use wan_move or ati")
    if not arrays.force.shape[1]:
        raise ValueError("tracks: there is none to write")
    return WRITERS[kind](arrays, path, tora.CANVAS if kind == tora.KIND else check_image_size(size))


def _of_text(content: bytes, given: Given) -> dict[str, Any] | bytes:
    if len(content) > MAX_TEXT:
        raise ValueError(f"the track file is larger than {MAX_TEXT >> 20} MB; use fewer points")
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"the track file is not JSON and in no format that is known; {KNOWN}") from error
    if tora.matches(text):
        return tora.read(text, given)
    found = _decoded(text)
    if isinstance(found, dict) and "schema" in found:
        return content
    for form in BY_KEYS if isinstance(found, dict) else BY_LISTS:
        if form.matches(found):
            return form.read(found, given)
    raise ValueError(f"schema is missing, and the track file is in no other format that is known; {KNOWN}")


def _decoded(text: str) -> Any:
    """JSON, also with the single quotes of a Python list."""
    try:
        try:
            return json.loads(text)
        except ValueError:
            if not text.startswith("[") or "'" not in text:
                raise
            return json.loads(text.replace("'", '"'))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"the track file is not JSON ({error}), and in no other format that is known; {KNOWN}"
        ) from error


KNOWN = (
    "Wan-Move .npy, ATI .pth, lists of KJNodes, DragNUWA and MotionPro, DragAnything's JSON, Tora .txt, TAP-Vid "
    "pickles, MagicMotion's videos and ardrag.tracks/v1 are read"
)
