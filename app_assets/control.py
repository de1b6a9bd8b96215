"""What steers a video that is being made: paths drawn beforehand, and pointers that press on it now."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ardrag.tracks.sampling import TrackArrays
from ardrag.tracks.schema import MAX_TRACKS
from ardrag.tracks.tracks import Tracks


GRAB_RADIUS = 0.07
"""A press this near to where a track is (canvas units) takes hold of it; farther off it starts a new one."""
MAX_LIVE_TRACKS = 64
MAX_PENDING = 4096
"""Places of a pointer that are kept until the next latent; older ones are let go of."""

TimedPlace = tuple[float, float, float, float]
"""(milliseconds, x, y, force), x and y in 0..1 of the canvas."""
Key = tuple[Hashable, float | None]
"""A column: its name, and its brush, relative to sqrt(height * width); None as the checkpoint has it."""


@dataclass(slots=True)
class LiveTrack:
    """A track under a pointer, or where a pointer left it."""

    last: TimedPlace
    pointer: int | None = None
    pending: list[TimedPlace] = field(default_factory=list)

    def rest(self) -> np.ndarray:
        """``[1, 3]``: where it was taken hold of. Frame 0 is the picture, in which nothing has moved yet."""
        return np.array([self.last[1:]])

    def glide(self, num_frames: int) -> np.ndarray:
        """The way since the last step as ``[T, 3]`` (x, y, force); the last row is where the pointer is now."""
        way = np.array([self.last, *self.pending])
        times = np.maximum.accumulate(way[:, 0])
        wanted = times[0] + (times[-1] - times[0]) * np.arange(1, num_frames + 1) / num_frames
        self.last, self.pending = tuple(way[-1]), []
        rows = np.stack([np.interp(wanted, times, column) for column in way[:, 1:].T], axis=1)
        rows[-1] = way[-1, 1:]
        return rows


class Control:
    """The plan and the pointers, sampled latent by latent.

    Columns are only ever added, as a session wants it. A column follows the plan until a pointer takes hold of it;
    from then on it is where the pointer is, and stays where the pointer leaves it. A column keeps its brush: a planned
    track that gets another one goes on in a column of its own, which takes up what is there then.
    """

    def __init__(self, plan: Tracks) -> None:
        self._plan = plan
        self._keys: list[Key] = []
        self._live: dict[Key, LiveTrack] = {}
        self._last: TrackArrays | None = None
        self._add_columns()

    @property
    def brushes(self) -> list[float | None]:
        """How wide each column is (see `Key`)."""
        return [brush for _, brush in self._keys]

    @property
    def pressed(self) -> bool:
        """Whether a pointer is down."""
        return any(track.pointer is not None for track in self._live.values())

    @property
    def pending(self) -> bool:
        """Whether a pointer moved since the last sample."""
        return any(track.pending for track in self._live.values())

    def replan(self, plan: Tracks) -> None:
        """Follow another plan from the next sample on; a track that is no longer in it goes out of sight.

        Raises:
            ValueError: if there are too many tracks, with those that are out of sight.
        """
        before, self._plan = self._plan, plan
        if len({*self._keys, *self._plan_keys()}) > MAX_TRACKS:
            self._plan = before
            raise ValueError(f"tracks: more than {MAX_TRACKS} in one take, with those removed; start a new one")
        self._add_columns()

    def move(self, pointer: int, way: Sequence[TimedPlace], brush: float | None = None) -> None:
        """Pointer ``pointer`` is down and went along ``way``; its first place says what it takes hold of.

        A track that begins there gets ``brush``; one that is taken hold of keeps its own.

        Raises:
            ValueError: if there are too many tracks.
        """
        held = [track for track in self._live.values() if track.pointer == pointer]
        if held:
            held[0].pending = [*held[0].pending, *way][-MAX_PENDING:]
            return
        time, _, _, force = way[0]
        key = self._near(way[0])
        if key is None:
            key, origin = self._new_key(brush), way[0]
        elif key in self._live:
            origin = (time, *self._live[key].last[1:])
        else:  # a planned track, seen in the last sample
            x, y = map(float, self._last.xy[self._keys.index(key)])
            origin = (time, x, y, force)
        self._live[key] = LiveTrack(origin, pointer, list(way))

    def release(self, pointer: int | None = None) -> None:
        """Let go with one pointer, or with all: what it held stays where it is."""
        for track in self._live.values():
            if pointer is None or track.pointer == pointer:
                track.pointer = None

    def sample(self, frames: range) -> TrackArrays:
        """Control of ``frames``: the plan as drawn, and the pointers' way since the last sample."""
        planned = self._plan.to_array(frames=frames)
        place_of = {key: i for i, key in enumerate(self._plan_keys())}
        xy = np.zeros((len(frames), len(self._keys), 2), np.float32)
        visible = np.zeros(xy.shape[:2], bool)
        force = np.zeros(xy.shape[:2], np.float32)
        for column, key in enumerate(self._keys):
            if key in self._live:
                rows = self._live[key].glide(len(frames)) if frames.start else self._live[key].rest()
                xy[:, column], force[:, column] = rows[:, :2], rows[:, 2]
                visible[:, column] = True
            elif key in place_of:
                source = place_of[key]
                xy[:, column], visible[:, column] = planned.xy[:, source], planned.visible[:, source]
                force[:, column] = planned.force[:, source]
        self.see(TrackArrays(xy[-1], visible[-1], force[-1]))
        return TrackArrays(xy, visible, force)

    def see(self, row: TrackArrays | None) -> None:
        """Note where the tracks are in the last frame, ``[P]``, for presses that take hold of them."""
        self._last = row

    def snapshot(self) -> Control:
        """A copy that nobody presses on, to come back to."""
        twin = copy.copy(self)
        twin._live = {key: LiveTrack(track.last) for key, track in self._live.items()}
        return twin

    def _plan_keys(self) -> list[Key]:
        """A key for each column of the plan: its track's name, so that it keeps its column in another plan."""
        spots = [(track.id, i) for track in self._plan.tracks for i in range(max(1, len(track.offsets)))]
        brushes = self._plan.brushes()
        names = [*spots, *(("camera", i) for i in range(len(brushes) - len(spots)))]
        return list(zip(names, brushes, strict=True))

    def _add_columns(self) -> None:
        # A new list: copies of this control share the old.
        self._keys = [*self._keys, *(key for key in self._plan_keys() if key not in self._keys)]

    def _near(self, place: TimedPlace) -> Key | None:
        """The column nearest to ``place`` within reach that no pointer holds."""
        best, nearest = None, GRAB_RADIUS
        for column, key in enumerate(self._keys):
            live = self._live.get(key)
            if live is not None:
                if live.pointer is not None:
                    continue
                x, y = (live.pending or [live.last])[-1][1:3]
            elif self._last is not None and column < len(self._last.force) and self._last.visible[column]:
                x, y = self._last.xy[column]
            else:
                continue
            distance = float(np.hypot(x - place[1], y - place[2]))
            if distance <= nearest:
                best, nearest = key, distance
        return best

    def _new_key(self, brush: float | None) -> Key:
        if len(self._live) >= MAX_LIVE_TRACKS or len(self._keys) >= MAX_TRACKS:
            raise ValueError(f"drag: {len(self._live)} tracks are held already; take hold of one of them, or rewind")
        key = (("live", len(self._keys)), brush)
        self._keys = [*self._keys, key]
        return key
