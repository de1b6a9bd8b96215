"""What drawn tracks mean frame by frame: interpolation, edits, camera pins. Pure functions of the file's records.

The rules are told in `ardrag.tracks.tracks`, the door to all of this. Everything is computed in float64, frame by
frame, so that sampling some frames gives the same numbers as sampling all.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ardrag.tracks.schema import FAR, Camera, Canvas, Defaults, Edit, Point, Track


Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
History = tuple[tuple[int, Track], ...]
"""The versions of one track, each with the pixel frame from which it rules."""
Versions = Mapping[str, History]
"""The history of every track, by id, in the order of appearance."""


class TrackArrays(NamedTuple):
    """Sampled tracks: `xy` [T, P, 2] float32 in 0..1, `visible` [T, P] bool, `force` [T, P] float32 in 0..1.

    Where a track is not visible `xy` is where it would be, as far as anybody knows.
    """

    xy: npt.NDArray[np.float32]
    visible: Bools
    force: npt.NDArray[np.float32]


def sample(history: History, defaults: Defaults, times: Floats) -> tuple[Floats, Bools, Floats]:
    """All n spots of one track at frames `times` [T], through its versions: xy [T, n, 2], visible and force [T, n]."""
    track = history[0][1]
    xy = np.tile(np.array(track.points[0][1:3]), (len(times), 1))
    visible, force = np.zeros(len(times), bool), np.zeros(len(times))
    ruling = np.searchsorted([start for start, _ in history], times, side="right") - 1
    for k in np.unique(ruling[ruling >= 0]):
        now = ruling == k
        xy[now], visible[now], force[now] = _state(history[k][1], defaults.interp, times[now])
    force = force * (defaults.strength if track.strength is None else track.strength)
    offsets = np.array(track.offsets or [(0.0, 0.0)])
    count = len(offsets)
    return xy[:, None] + offsets, np.repeat(visible[:, None], count, axis=1), np.repeat(force[:, None], count, axis=1)


def _state(track: Track, default_interp: str, times: Floats) -> tuple[Floats, Bools, Floats]:
    """One version of a track at the given frames: xy [T, 2], visible [T], force [T] before strength."""
    knots = np.array(track.points)
    f, table = knots[:, 0], knots[:, 1:4]
    start = f[0] if track.start is None else track.start
    open_end = math.inf if track.kind == "static" else f[-1]
    end = open_end if track.end is None else track.end
    clock = np.clip(np.minimum(times, end), f[0], f[-1])
    i = np.searchsorted(f, clock, side="right") - 1
    j = np.minimum(i + 1, len(f) - 1)
    step = np.where(j > i, f[j] - f[i], 1.0)[:, None]
    u = (clock - f[i])[:, None] / step
    values = table[i] + u * (table[j] - table[i])
    xy, force = values[:, :2], values[:, 2]
    if (track.interp or default_interp) == "catmull":
        slope = _slopes(f, table[:, :2])
        xy = _hermite(u, table[i, :2], table[j, :2], step * slope[i], step * slope[j])
    ended = (times > end) & (track.after_end != "hold")
    off = (times < start) | (ended & (track.after_end == "release"))
    visible = (knots[i, 4] >= 0.5) & ~ended & ~off
    return xy, visible, np.where(off, 0.0, force)


def _slopes(f: Floats, xy: Floats) -> Floats:
    """Catmull-Rom velocity at each point, one-sided at the ends: [k], [k, 2] -> [k, 2] per frame."""
    here = np.arange(len(f))
    before, after = np.maximum(here - 1, 0), np.minimum(here + 1, len(f) - 1)
    span = np.where(after > before, f[after] - f[before], 1.0)
    return np.asarray((xy[after] - xy[before]) / span[:, None])


def _hermite(u: Floats, a: Floats, b: Floats, slope_a: Floats, slope_b: Floats) -> Floats:
    """Cubic from a (u = 0) to b (u = 1) with the given slopes in u."""
    rest = 1.0 - u
    return (1 + 2 * u) * rest**2 * a + u**2 * (3 - 2 * u) * b + u * rest * (rest * slope_a - u * slope_b)


def replay(tracks: Sequence[Track], edits: Sequence[Edit], interp: str) -> Versions:
    """The history of every track after all edits."""
    versions: Versions = {track.id: ((0, track),) for track in tracks}
    for i, edit in enumerate(edits):
        versions = apply_edit(versions, edit, edits[max(i - 1, 0) : i], interp, f"edits[{i}]")
    return versions


def apply_edit(versions: Versions, edit: Edit, previous: Sequence[Edit], interp: str, where: str) -> Versions:
    """Versions after one more edit; frames before its `applied_frame` keep theirs."""
    first, name = edit.applied_frame, edit.track.id
    if previous and edit.seq <= previous[0].seq:
        raise ValueError(f"{where}.seq is {edit.seq} after {previous[0].seq}; edits are in rising order of seq")
    if previous and first < previous[0].applied_frame:
        raise ValueError(
            f"{where}.applied_frame is {first} after {previous[0].applied_frame}; "
            f"to go back call rewound({first}) first"
        )
    if (edit.op == "add") == (name in versions):
        remedy = "use replace_tail" if edit.op == "add" else f"use 'add' or one of {sorted(versions)}"
        state = "exists" if edit.op == "add" else "is no track"
        raise ValueError(f"{where}.track {name!r} {state}; {remedy}")
    if edit.op == "add":
        return {**versions, name: ((first, edit.track),)}
    past = tuple(version for version in versions[name] if version[0] < first)
    head = _head(past[-1][1], interp, first) if past else ()
    points = head + edit.track.points
    latest = versions[name][-1][1]
    after_end = edit.track.after_end
    if not points:  # ended before it began
        points, after_end = (latest.points[0]._replace(p=0.0, v=0.0),), latest.after_end
    version = replace(latest, points=points, start=None, end=None, after_end=after_end)
    return {**versions, name: (*past, (first, version))}


def _head(track: Track, interp: str, first: int) -> tuple[Point, ...]:
    """What ties a new tail to the past: the state really applied just before it, and one drawn point for the slope."""
    last = first - 1.0
    if last < (track.points[0].f if track.start is None else track.start):
        return ()
    xy, visible, force = _state(track, interp, np.array([last]))
    anchor = Point(last, float(xy[0, 0]), float(xy[0, 1]), float(force[0]), float(visible[0]))
    return (*[point for point in track.points if point.f < last][-1:], anchor)


def camera_grid(camera: Camera, tracks: Sequence[Track]) -> Floats:
    """Resting places [P, 2] of the camera pins: cell centres, but for those within a cell of an excluded track."""
    step = 1.0 / np.array(camera.grid)
    places = [((i + 0.5) * step[0], (j + 0.5) * step[1]) for j in range(camera.grid[1]) for i in range(camera.grid[0])]
    grid = np.array(places)
    for track in tracks:
        if track.id in camera.exclude:
            starts = np.array(track.points[0][1:3]) + np.array(track.offsets or [(0.0, 0.0)])
            near = (np.abs(grid[:, None] - starts) < step).all(axis=2).any(axis=1)
            grid = grid[~near]
    return grid


def camera_pins(camera: Camera, canvas: Canvas, tracks: Sequence[Track], times: Floats) -> Floats:
    """Camera pins [T, P, 2]: turned by roll (clockwise), scaled by zoom about the canvas centre, shifted by pan."""
    keys = np.array([(key.f, *key.pan, key.zoom, math.radians(key.roll)) for key in camera.keys])
    clock = np.clip(times, keys[0, 0], keys[-1, 0])
    i = np.searchsorted(keys[:, 0], clock, side="right") - 1
    j = np.minimum(i + 1, len(keys) - 1)
    u = (clock - keys[i, 0]) / np.where(j > i, keys[j, 0] - keys[i, 0], 1.0)
    u = u * u * (3 - 2 * u) if camera.interp == "smooth" else u
    now = keys[i, 1:] + u[:, None] * (keys[j, 1:] - keys[i, 1:])
    aspect = canvas.width / canvas.height if canvas.width and canvas.height else 1.0
    x, y = (camera_grid(camera, tracks) - 0.5).T * np.array([[aspect], [1.0]])
    cos, sin = (now[:, 2] * turn(now[:, 3]) for turn in (np.cos, np.sin))
    turned_x = (cos[:, None] * x - sin[:, None] * y) / aspect
    turned_y = sin[:, None] * x + cos[:, None] * y
    return np.stack([turned_x, turned_y], axis=2) + 0.5 + now[:, None, :2]


def held_places(places: npt.NDArray[np.float32], seen: Bools) -> npt.NDArray[np.float32]:
    """Places [T, P, 2]; what is not seen and nobody knows becomes the last place that is known before it.

    Unknown are places that no file can hold, and the corner 0, 0, which many files have there.
    """
    lost = ~seen & (~((places >= FAR[0]) & (places <= FAR[1])).all(axis=2) | (places == 0).all(axis=2))
    if not lost.any():
        return places
    frames = np.arange(len(places))[:, None]
    last = np.maximum.accumulate(np.where(lost, -1, frames), axis=0)
    first = np.where(lost.all(axis=0), 0, (~lost).argmax(axis=0))
    held = np.take_along_axis(places, np.where(last < 0, first, last)[..., None], axis=0)
    held[:, lost.all(axis=0)] = 0.5
    return held


def shortest(value: np.float32) -> float:
    """The shortest decimal that is the same float32: short files, exact round trips."""
    return float(str(value))
