"""MoveBench (Wan-Move; Hub data set Ruihang/MoveBench, MIT): photographs with dense point tracks.

en/single_track.txt                       lines "<id>.jpg,<caption>"; also multi_track.txt, and zh/
en/first_frame/<id>.jpg
en/track/single/<id>_tracks.npy           float [1, T, N, 2], pixels of the picture
en/track/single/<id>_visibility.npy       bool [1, T, N]
en/video/<id>.mp4                         the true video, where it is there
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ardrag.tracks.formats import wan_move
from ardrag.tracks.formats.paths import Given
from ardrag.tracks.tracks import Tracks
from eval.benchmark.videos import read_picture, read_true_video
from eval.suites.case import Case, Suite, list_digest, naming, tracks_of


class MoveBenchSuite(Suite):
    """The cases of one list file, ``.../en/single_track.txt`` or ``multi_track.txt``.

    Raises:
        ValueError: if the list is missing, empty or has a line without a caption.
    """

    name = "movebench"

    def __init__(self, listing: str | Path) -> None:
        self.listing = Path(listing)
        if not self.listing.is_file():
            raise ValueError(f"suite: {self.listing} is no file; give .../en/single_track.txt of MoveBench")
        self.root, self.mode = self.listing.parent, self.listing.stem.removesuffix("_track")
        self._cases = [_line(line, self.listing) for line in self._lines()]
        if not self._cases:
            raise ValueError(f"suite: {self.listing} lists no clip")

    def _lines(self) -> list[str]:
        text = self.listing.read_text(encoding="utf-8")
        return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]

    def _picture(self, name: str) -> Path:
        return self.root / "first_frame" / f"{name}.jpg"

    def _arrays(self, name: str) -> tuple[Path, Path]:
        folder = self.root / "track" / self.mode
        return folder / f"{name}_tracks.npy", folder / f"{name}_visibility.npy"

    def names(self) -> Sequence[str]:
        """See `Suite`."""
        return [name for name, _ in self._cases]

    def case(self, index: int, num_frames: int) -> Case:
        """See `Suite`."""
        name, caption = self._cases[index]
        picture = read_picture(self._picture(name))
        tracks, length, note = self._tracks(name, (picture.shape[1], picture.shape[0]), num_frames)
        truth = read_true_video(self.root / "video" / f"{name}.mp4", length)
        return Case(index, name, picture, caption, tracks, length, (self.mode,), truth, note=note)

    def _tracks(self, name: str, size: tuple[int, int], num_frames: int) -> tuple[Tracks, int, str]:
        arrays = []
        for path in self._arrays(name):
            with naming(path), path.open("rb") as file:
                arrays.append(wan_move.load_array(file))
        with naming(self._arrays(name)[0]):
            return tracks_of(wan_move.convert(*arrays, Given(size, most=num_frames)), num_frames)

    def digest(self) -> str:
        """See `Suite`."""
        paths = [path for name, _ in self._cases for path in (self._picture(name), *self._arrays(name))]
        return list_digest([self.listing, *paths])


def _line(line: str, listing: Path) -> tuple[str, str]:
    name, comma, caption = line.partition(",")
    if not comma or not name.strip():
        raise ValueError(f"suite: {listing.name} has the line {line!r}; it must be <id>.jpg,<caption>")
    return Path(name.strip()).stem, caption.strip()
