"""Track files that visitors bring, in any format that `ardrag.tracks.formats` knows."""

from __future__ import annotations

import json
from typing import BinaryIO

from app_assets.messages import read_tracks
from ardrag.tracks.formats.files import read_document
from ardrag.tracks.formats.paths import Given
from ardrag.tracks.tracks import Tracks


def read_track_file(file: BinaryIO, size: tuple[int, int] | None, clip_frames: int, most: int) -> Tracks:
    """The tracks in a file; one of ours has the limits of those that come over the socket.

    Args:
        file: open at its start.
        size: (width, height) of the picture, for places that are pixels.
        clip_frames: of the clip, for paths of which nothing says how long they take.
        most: frames that the tracks may last.

    Raises:
        ValueError: naming what is wrong, and the remedy.
    """
    found = read_document(file, Given(size, clip_frames=clip_frames))
    if isinstance(found, bytes):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"tracks: not JSON ({error}); export the file again") from error
    return read_tracks(found, most)
