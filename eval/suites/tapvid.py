"""TAP-Vid DAVIS (annotations CC-BY 4.0): 30 videos with tracked points, in one pickle; and its sisters of that format.

`ardrag.tracks.formats.tapvid` says what is in it, and reads it without running anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ardrag.tracks.formats import tapvid
from ardrag.tracks.formats.paths import Given, framewise
from eval.suites.case import Case, Suite, list_digest, naming, tracks_of


class TapVidSuite(Suite):
    """The videos of the pickle, in the order of their names; the points that are seen drive the clip.

    Raises:
        ValueError: if the file is missing, or holds anything but arrays.
    """

    name = "tapvid"

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"suite: {self.path} is no file; give tapvid_davis.pkl")
        with naming(self.path), self.path.open("rb") as file:
            self._videos = tapvid.load_clips(file)
        self._names = sorted(self._videos)

    def names(self) -> Sequence[str]:
        """See `Suite`."""
        return self._names

    def case(self, index: int, num_frames: int) -> Case:
        """See `Suite`."""
        name = self._names[index]
        with naming(f"{self.path}, {name}"):
            clip = tapvid.clip_of(name, self._videos[name])
            document = framewise(tapvid.KIND, clip.xy, clip.visible, None, Given(most=num_frames))
            tracks, length, note = tracks_of(document, num_frames)
            video = clip.frames(length)
        return Case(index, name, video[0], "", tracks, length, truth=video, note=note)

    def digest(self) -> str:
        """See `Suite`."""
        return list_digest([self.path])
