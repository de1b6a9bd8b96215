"""MC-Bench (MotionPro): pictures with key points of drags, without time and without true videos.

<group>/<clip>/first_frame.png
<group>/<clip>/meta_data.json     {"traj_key_points": [[[x, y], ...], ...]} in pixels; one point: it stays
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ardrag.tracks.tracks import Tracks
from eval.benchmark.videos import read_picture
from eval.suites.case import Case, Suite, are_paths, clip_length, list_digest


CLIP_FRAMES = 17
"""Its own models make 16 frames; ours come in 4k + 1."""


class McBenchSuite(Suite):
    """Every folder with both files; key points are spread evenly over the clip.

    Raises:
        ValueError: if there is none, or a picture is missing.
    """

    name = "mcbench"

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._files = sorted(self.folder.glob("*/*/meta_data.json"))
        if not self._files:
            raise ValueError(f"suite: {self.folder} holds no <group>/<clip>/meta_data.json")
        for file in self._files:
            if not (file.parent / "first_frame.png").is_file():
                raise ValueError(f"suite: {file.parent} has no first_frame.png")

    def names(self) -> Sequence[str]:
        """See `Suite`."""
        return [f"{file.parent.parent.name}_{file.parent.name}" for file in self._files]

    def case(self, index: int, num_frames: int) -> Case:
        """See `Suite`."""
        file = self._files[index]
        picture = read_picture(file.parent / "first_frame.png")
        length = clip_length(CLIP_FRAMES, num_frames)
        size = np.array([picture.shape[1], picture.shape[0]])
        paths = [_timed(points / size, length) for points in _key_points(file)]
        tracks = Tracks.from_points(paths, num_frames=length, interp="linear")
        return Case(index, self.names()[index], picture, "", tracks, length, (file.parent.parent.name,))

    def digest(self) -> str:
        """See `Suite`."""
        return list_digest([*self._files, *(file.parent / "first_frame.png" for file in self._files)])


def _key_points(file: Path) -> list[np.ndarray]:
    try:
        paths = [np.asarray(path, float) for path in json.loads(file.read_text(encoding="utf-8"))["traj_key_points"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} has no traj_key_points that are lists of [x, y] ({error})") from error
    if not are_paths(paths):
        raise ValueError(f"{file} has no traj_key_points that are lists of [x, y]")
    return paths


def _timed(points: np.ndarray, length: int) -> list[tuple[float, float, float]]:
    """Key points ``[K, 2]`` in 0..1 with their frames; a single one holds its place."""
    frames = np.linspace(0, length - 1, len(points)) if len(points) > 1 else np.zeros(1)
    return [(float(f), float(x), float(y)) for f, (x, y) in zip(frames, points, strict=True)]
