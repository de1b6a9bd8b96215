"""A video that the model makes all at once, as a visitor sees it: progress, then all of it; nothing to steer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ardrag.tracks.tracks import Tracks
from pipelines.bidirectional import WholeClip


class WholeTake:
    """A clip in the making, and whether it is to go on.

    Args:
        begin: starts the clip.
        num_frames: how long it is.
    """

    def __init__(self, begin: Callable[[], WholeClip], num_frames: int) -> None:
        self._clip = begin()
        self.num_frames = num_frames
        self.playing = True
        self.frames: Sequence[np.ndarray] = ()

    @property
    def fps(self) -> float:
        """Playback rate."""
        return self._clip.fps

    @property
    def tracks(self) -> Tracks:
        """The control, on the picture."""
        return self._clip.tracks

    @property
    def places(self) -> list[list[list[float]]]:
        """``[T][P]`` of (x, y, visible): where the tracks are in each frame."""
        xy, visible, _ = self.tracks.to_array(frames=range(self.num_frames))
        rows = np.concatenate([xy.astype(float).round(4), visible[..., None]], axis=2)
        return list(rows.tolist())

    @property
    def done(self) -> bool:
        """Whether there is a video."""
        return len(self.frames) > 0

    @property
    def due(self) -> bool:
        """Whether there is something to do."""
        return self.playing and not self.done

    def step(self) -> tuple[int, int]:
        """One denoising step, or after the last one the frames; returns how many steps are made, and of how many."""
        if self._clip.done:
            self.frames = self._clip.frames()
        else:
            self._clip.step()
        return self._clip.position, self._clip.steps

    def summary(self) -> dict[str, Any]:
        """What a page should know of a take."""
        return {"frames": len(self.frames), "latent": 0, "num_frames": self.num_frames}

    def close(self) -> None:
        """Nothing to give back."""
