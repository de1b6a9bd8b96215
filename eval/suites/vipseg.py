"""DragAnything's test trajectories on VIPSeg (VIPSeg: for research only, not for commercial use).

trajectories/<video>.json     {"<object id>": [[x, y], ...], ...} in pixels, one point a frame
images/<video>/*.jpg          the frames of VIPSeg in the order of their names
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ardrag.tracks.formats import draganything
from ardrag.tracks.formats.paths import Given
from eval.benchmark.videos import read_picture
from eval.suites.case import Case, Suite, list_digest, naming, tracks_of


class VipSegSuite(Suite):
    """Every trajectory file of a folder.

    Raises:
        ValueError: if the folder holds none.
    """

    name = "vipseg"

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._files = sorted((self.folder / "trajectories").glob("*.json"))
        if not self._files:
            raise ValueError(f"suite: {self.folder} holds no trajectories/*.json")

    def _frames(self, name: str) -> list[Path]:
        return sorted((self.folder / "images" / name).glob("*.jpg"))

    def names(self) -> Sequence[str]:
        """See `Suite`."""
        return [file.stem for file in self._files]

    def case(self, index: int, num_frames: int) -> Case:
        """See `Suite`: as long as the longest trajectory; a shorter one is not seen after its end."""
        file = self._files[index]
        frames = self._frames(file.stem)
        if not frames:
            raise ValueError(f"{self.folder}/images/{file.stem} holds no frame for {file.name}")
        picture = read_picture(frames[0])
        with naming(file):
            found = json.loads(file.read_text(encoding="utf-8"))
            if not draganything.matches(found):
                raise ValueError("it is not an object of lists of [x, y]")
            given = Given((picture.shape[1], picture.shape[0]), most=num_frames)
            tracks, length, note = tracks_of(draganything.read(found, given), num_frames)
        truth = np.stack([read_picture(frame) for frame in frames[:length]]) if len(frames) >= length else None
        return Case(index, file.stem, picture, "", tracks, length, truth=truth, note=note)

    def digest(self) -> str:
        """See `Suite`."""
        return list_digest(self._files)
