"""Any folder with our track files: ``<name>.tracks.json`` beside ``<name>.png``, and what else is known.

name.tracks.json    tracks (`ardrag.tracks/v1`), with the number of frames
name.png or .jpg    the picture
name.txt            the prompt (optional)
name.mp4            the true video (optional)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ardrag.tracks.tracks import Tracks
from eval.benchmark.videos import read_picture, read_true_video
from eval.suites.case import Case, Suite, clip_length, first_frames, list_digest, naming


SUFFIX = ".tracks.json"
PICTURES = (".png", ".jpg", ".jpeg")


class FolderSuite(Suite):
    """Cases from the files of one folder, in the order of their names.

    Raises:
        ValueError: if there is no such folder, no track file in it, or a picture is missing.
    """

    name = "folder"

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ValueError(f"suite: {self.folder} is no folder")
        self._names = sorted(path.name.removesuffix(SUFFIX) for path in self.folder.glob(f"*{SUFFIX}"))
        if not self._names:
            raise ValueError(f"suite: {self.folder} holds no *{SUFFIX}")
        self._pictures = {name: self._picture(name) for name in self._names}

    def names(self) -> Sequence[str]:
        """See `Suite`."""
        return self._names

    def case(self, index: int, num_frames: int) -> Case:
        """See `Suite`."""
        name = self._names[index]
        picture = read_picture(self._pictures[name])
        with naming(self.folder / f"{name}{SUFFIX}"):
            tracks = Tracks.load(self.folder / f"{name}{SUFFIX}")
            length = clip_length(tracks.num_frames, num_frames)
            drawn_on = tracks.crop_on(picture.shape[1], picture.shape[0])
        prompt = self.folder / f"{name}.txt"
        return Case(
            index=index,
            name=name,
            picture=picture,
            prompt=prompt.read_text(encoding="utf-8").strip() if prompt.is_file() else "",
            tracks=first_frames(tracks.cropped(drawn_on.inverse), length),
            num_frames=length,
            truth=read_true_video(self.folder / f"{name}.mp4", length),
        )

    def digest(self) -> str:
        """See `Suite`."""
        return list_digest(sorted(self.folder.iterdir()))

    def _picture(self, name: str) -> Path:
        for suffix in PICTURES:
            if (self.folder / f"{name}{suffix}").is_file():
                return self.folder / f"{name}{suffix}"
        raise ValueError(f"suite: {self.folder} has {name}{SUFFIX}, but no picture {name}.png or .jpg beside it")


def write_case(case: Case, folder: Path) -> None:
    """Write what a system is given of a case, as `FolderSuite` reads it (no true video)."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(case.picture).save(folder / f"{case.name}.png")
    case.tracks.save(folder / f"{case.name}{SUFFIX}")
    (folder / f"{case.name}.txt").write_text(case.prompt + "\n", encoding="utf-8")
