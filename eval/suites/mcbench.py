"""MC-Bench (MotionPro): pictures with key points of drags, without time and without true videos.

<group>/<clip>/first_frame.png
<group>/<clip>/meta_data.json     {"traj_key_points": [[[x, y], ...], ...]} in pixels; one point: it stays
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ardrag.tracks.formats import motionpro
from ardrag.tracks.formats.paths import Given
from eval.benchmark.videos import read_picture
from eval.suites.case import Case, Suite, clip_length, list_digest, naming, tracks_of


CLIP_FRAMES = 17
"""Its own models make 16 frames; ours come in 4k + 1."""


class McBenchSuite(Suite):
    """Every folder with both files; key points are spread evenly over the clip.

    Raises:
        ValueError: if there is none.
    """

    name = "mcbench"

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._files = sorted(self.folder.glob("*/*/meta_data.json"))
        if not self._files:
            raise ValueError(f"suite: {self.folder} holds no <group>/<clip>/meta_data.json")

    def names(self) -> Sequence[str]:
        """See `Suite`."""
        return [f"{file.parent.parent.name}_{file.parent.name}" for file in self._files]

    def case(self, index: int, num_frames: int) -> Case:
        """See `Suite`."""
        file = self._files[index]
        picture = read_picture(file.parent / "first_frame.png")
        size, length = (picture.shape[1], picture.shape[0]), clip_length(CLIP_FRAMES, num_frames)
        with naming(file):
            tracks, length, _ = tracks_of(_read(file, Given(size, length)), length)
        return Case(index, self.names()[index], picture, "", tracks, length, (file.parent.parent.name,))

    def digest(self) -> str:
        """See `Suite`."""
        return list_digest([*self._files, *(file.parent / "first_frame.png" for file in self._files)])


def _read(file: Path, given: Given) -> dict[str, Any]:
    found = json.loads(file.read_text(encoding="utf-8"))
    if not motionpro.matches(found):
        raise ValueError(f"it has no {motionpro.KEY}")
    return motionpro.read(found, given)
