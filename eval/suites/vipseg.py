"""DragAnything's test trajectories on VIPSeg (VIPSeg: for research only, not for commercial use).

trajectories/<video>.json     {"<object id>": [[x, y], ...], ...} in pixels, one point a frame
images/<video>/*.jpg          the frames of VIPSeg in the order of their names
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eval.benchmark.videos import read_picture
from eval.suites.case import Case, Suite, are_paths, clip_length, list_digest, tracks_within_limits


class VipSegSuite(Suite):
    """Every trajectory file of a folder whose frames are there.

    Raises:
        ValueError: if the folder holds none, or the frames of one are missing.
    """

    name = "vipseg"

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._files = sorted((self.folder / "trajectories").glob("*.json"))
        if not self._files:
            raise ValueError(f"suite: {self.folder} holds no trajectories/*.json")
        for file in self._files:
            if not self._frames(file.stem):
                raise ValueError(f"suite: {self.folder}/images/{file.stem} holds no frame for {file.name}")

    def _frames(self, name: str) -> list[Path]:
        return sorted((self.folder / "images" / name).glob("*.jpg"))

    def names(self) -> Sequence[str]:
        """See `Suite`."""
        return [file.stem for file in self._files]

    def case(self, index: int, num_frames: int) -> Case:
        """See `Suite`: as long as the longest trajectory; a shorter one is not seen after its end."""
        file = self._files[index]
        paths = _read_paths(file)
        frames = self._frames(file.stem)
        longest = max(len(path) for path in paths)
        length = clip_length(longest, num_frames)
        picture = read_picture(frames[0])
        xy = np.zeros((longest, len(paths), 2))
        visible = np.zeros((longest, len(paths)), bool)
        for p, path in enumerate(paths):
            xy[: len(path), p], visible[: len(path), p] = path, True
        scale = np.array([picture.shape[1], picture.shape[0]])
        tracks, note = tracks_within_limits((xy / scale)[:length], visible[:length])
        truth = np.stack([read_picture(frame) for frame in frames[:length]]) if len(frames) >= length else None
        return Case(index, file.stem, picture, "", tracks, length, truth=truth, note=note)

    def digest(self) -> str:
        """See `Suite`."""
        return list_digest(self._files)


def _read_paths(file: Path) -> list[list[list[float]]]:
    """Paths of one file.

    Raises:
        ValueError: if it is not as described above.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        paths = [np.asarray(path, float) for path in found.values()]
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{file} is not an object of lists of [x, y] ({error})") from error
    if not are_paths(paths):
        raise ValueError(f"{file} is not an object of lists of [x, y]")
    return [path.tolist() for path in paths]
