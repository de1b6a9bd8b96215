"""Any folder of pictures and videos, without tracks: what there is to look at where nobody has drawn anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ardrag.tracks.tracks import Tracks
from eval.benchmark.videos import read_picture, read_video
from eval.suites.case import Case, Suite, clip_length, list_digest
from eval.suites.folder import PICTURES


VIDEOS = (".mp4", ".webm", ".mov", ".mkv")


class PlainSuite(Suite):
    """A case for each picture or video of a folder, in the order of their names; a prompt in ``name.txt``.

    Raises:
        ValueError: if there is no such folder, or nothing of the kind in it.
    """

    name = "plain"

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ValueError(f"suite: {self.folder} is no folder")
        self._files = sorted(path for path in self.folder.iterdir() if path.suffix.lower() in (*PICTURES, *VIDEOS))
        if not self._files:
            raise ValueError(f"suite: {self.folder} holds no picture and no video ({', '.join((*PICTURES, *VIDEOS))})")

    def names(self) -> Sequence[str]:
        """See `Suite`."""
        return [path.stem for path in self._files]

    def case(self, index: int, num_frames: int) -> Case:
        """See `Suite`; no tracks. A video is its own truth, as far as it goes."""
        path = self._files[index]
        prompt = path.with_suffix(".txt")
        truth = None
        if path.suffix.lower() in VIDEOS:
            truth = read_video(path)
            num_frames = clip_length(len(truth), num_frames)
            truth = truth[:num_frames]
        return Case(
            index=index,
            name=path.stem,
            picture=read_picture(path) if truth is None else truth[0],
            prompt=prompt.read_text(encoding="utf-8").strip() if prompt.is_file() else "",
            tracks=Tracks.empty(num_frames),
            num_frames=num_frames,
            truth=truth,
        )

    def digest(self) -> str:
        """See `Suite`."""
        return list_digest(self._files)
