"""One video in the making, as a visitor sees it: made at once, or at the pace at which it is watched."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app_assets.control import Control
from ardrag.tracks.tracks import Tracks
from pipelines.session import Session


MIN_LEAD, MAX_LEAD = 2, 12
"""Frames that a watched video is made ahead of what is on the screen: enough for the next latent to be in time."""
SETTLE_LATENTS = 1
"""Latents that a watched video goes on for when it is let go of, so that what was dragged arrives."""


@dataclass
class Made:
    """What one step made."""

    latent: int
    first: int
    frames: list[np.ndarray]
    places: list[list[list[float]]]
    """``[T][P]`` of (x, y, visible): where the tracks were in each frame."""
    lag: int | None
    """Frames between what was on the screen at the last drag and the first frame that it reached."""


class Take:
    """A session, what steers it, and when it wants to go on.

    Args:
        begin: starts a fresh session with the same settings, for a rewind beyond what the session remembers.
        plan: paths drawn beforehand.
        num_frames: where the video ends.
        paced: made as it is watched, or as fast as possible.
    """

    def __init__(self, begin: Callable[[], Session], plan: Tracks, num_frames: int, paced: bool) -> None:
        self._begin = begin
        self.session = begin()
        self.num_frames = num_frames
        self.paced = paced
        self.playing = not paced
        self.rtt = 0.0
        self.control = Control(plan)
        self._before: list[Control] = []
        self._seen = -1
        self._drag_seen: int | None = None
        self._work_seconds = 0.1
        self._settle = 0

    @property
    def frames(self) -> Sequence[np.ndarray]:
        """Finished frames."""
        return self.session.frames

    @property
    def tracks(self) -> Tracks:
        """The control that was applied."""
        return self.session.tracks

    @property
    def fps(self) -> float:
        """Playback rate."""
        return self.session.fps

    @property
    def done(self) -> bool:
        """Whether the video is as long as it may be."""
        return len(self.session.frames) >= self.num_frames

    @property
    def due(self) -> bool:
        """Whether the next latent is wanted now."""
        if self.done:
            return False
        if not self.paced:
            return self.playing
        if not (self.playing or self.control.pressed or self.control.pending or self._settle):
            return False
        return len(self.session.frames) - 1 - self._seen <= self.lead

    @property
    def lead(self) -> int:
        """Frames to keep ahead: as many as pass while a latent is made and brought to the screen, and one."""
        needed = 1 + math.ceil(self.session.fps * (self._work_seconds + self.rtt))
        return min(max(needed, MIN_LEAD), MAX_LEAD)

    def saw(self, frame: int, rtt: float) -> None:
        """The visitor's screen shows ``frame``; a message takes ``rtt`` seconds there and back."""
        self._seen = min(frame, len(self.session.frames) - 1)
        self.rtt = rtt

    def dragged(self, seen: int) -> None:
        """Note what was on the screen when the visitor dragged."""
        self._drag_seen = seen

    def step(self) -> Made:
        """Make the next latent."""
        started = time.perf_counter()
        frames = self.session.next_frames
        latent = self.session.position
        before = self.control.snapshot()
        before.see(None)  # the session remembers where the tracks were
        dragged = self.control.pressed or self.control.pending
        self._settle = SETTLE_LATENTS if dragged else max(0, self._settle - 1)
        rows = self.control.sample(frames)
        made = self.session.step(rows, self.control.brushes)
        del self._before[latent:]
        self._before += [before] * (self.session.position - latent)
        places = np.concatenate([rows.xy.astype(float).round(4), rows.visible[..., None]], axis=2).tolist()
        lag = None if self._drag_seen is None else frames.start - self._drag_seen
        self._drag_seen = None
        self._work_seconds += 0.3 * (time.perf_counter() - started - self._work_seconds)
        return Made(latent, frames.start, made, places, lag)

    def rewind(self, latent: int) -> Generator[None, None, int]:
        """Go back to before ``latent`` and wait there; gives the number of frames that are left.

        Yields after each latent that has to be made again, so that others may have a turn.

        Raises:
            ValueError: if that latent was never made.
        """
        position = self.session.position
        if not 0 <= latent <= position:
            raise ValueError(f"latent: {latent} is not in this take; choose 0 to {position}")
        if latent == position:
            self.control = self.control.snapshot()
        else:
            try:
                self.session.rewind(latent)
            except ValueError:  # farther back than the session remembers: same seed and same control, same pixels
                yield from self._replay(latent)
            self.control = self._before[latent].snapshot()
            self.control.see(self.session.last_row)
            del self._before[latent:]
        self.playing, self.paced, self._settle = False, True, 0
        self._seen = len(self.session.frames) - 1
        return len(self.session.frames)

    def branch(self, latent: int) -> Generator[None, None, Take]:
        """An independent take with the same past up to ``latent``; yields and raises as `rewind`."""
        twin = copy.copy(self)
        twin.session, twin.control, twin._before = self.session.fork(), self.control.snapshot(), list(self._before)
        try:
            yield from twin.rewind(latent)
        except BaseException:
            twin.close()
            raise
        return twin

    def summary(self) -> dict[str, Any]:
        """What a page should know of a take that it did not see from the start."""
        return {"frames": len(self.session.frames), "latent": self.session.position, "num_frames": self.num_frames}

    def close(self) -> None:
        """Give back what the session holds."""
        self.session.close()

    def _replay(self, latent: int) -> Iterator[None]:
        tracks, again = self.session.tracks, self._begin()
        try:
            while again.position < latent:
                again.step(tracks)
                yield
        except BaseException:
            again.close()
            raise
        self.session.close()
        self.session = again
