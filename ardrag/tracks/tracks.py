"""Tracks: what the user draws, and what it means frame by frame. What a model is shown of it: `ardrag.controls`.

    tracks = Tracks.from_points([[(0, 0.2, 0.5), (32, 0.8, 0.5)]], num_frames=33)
    xy, visible, force = tracks.to_array()      # [T, P, 2], [T, P], [T, P]

A track is interpolated between its points (`catmull` by default, or `linear`) and draws nothing before its first point
or `start`. After its last point or `end` it holds its place (`hold`), is out of sight (`hide`: not visible, force
kept) or is let go (`release`: not visible, force 0); only a held track still commands anything. A point with `v`
below 0.5 takes the track out of sight until the next point, behind what lies there; so does any place outside the
canvas.

Edits are what a session changed while generating. Each one rules from its `applied_frame` on and never before, so
the arrays of an edited `Tracks` are, frame by frame, what was really applied. The file format is in
`ardrag.tracks.schema`. `Tracks` is immutable: every change returns a new one.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from numbers import Real
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ardrag.tracks.crop import WHOLE, Crop, crop_of_canvas
from ardrag.tracks.formats.paths import Given
from ardrag.tracks.sampling import (
    TrackArrays,
    Versions,
    apply_edit,
    camera_grid,
    camera_pins,
    held_places,
    replay,
    sample,
    shortest,
)
from ardrag.tracks.schema import (
    FAR,
    GROUND,
    MAX_BYTES,
    SCHEMA,
    SIGMA,
    Track,
    TrackFile,
    check_count,
    check_num_frames,
    dump_document,
    parse_document,
    parse_edit,
)


@dataclass(frozen=True)
class Tracks(TrackFile):
    """A checked track file that can be sampled, drawn and edited. Make one with a `from_...` method, not directly."""

    _versions: Versions | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self._versions is None:
            object.__setattr__(self, "_versions", replay(self.tracks, self.edits, self.defaults.interp))
            self._check_count()

    @classmethod
    def empty(cls, num_frames: int) -> "Tracks":
        """No control at all."""
        return cls.from_points([], num_frames=num_frames)

    @classmethod
    def from_points(
        cls,
        points: Iterable[Iterable[Sequence[float]]],
        *,
        num_frames: int,
        width: int | None = None,
        height: int | None = None,
        fps: float = 16.0,
        **options: Any,
    ) -> "Tracks":
        """One track per list of (f, x, y), (f, x, y, p) or (f, x, y, p, v); `options` are track fields for all.

        `width` and `height` are the size of the picture. Places are 0..1 of it, unless both are given and any x or y
        lies outside of -1..2: then all of them are pixels.

        Raises:
            ValueError: naming the point and the remedy.
        """
        if (width is None) != (height is None):
            raise ValueError("width and height: give both, the size of the picture in pixels, or neither")
        tracks = [
            {**options, "points": [_named(p, f"tracks[{i}].points[{j}]") for j, p in enumerate(path)]}
            for i, path in enumerate(points)
        ]
        if width is not None and height is not None:
            tracks = _unit_places(tracks, width, height)
        canvas = {"width": width, "height": height}
        document = {"schema": SCHEMA, "num_frames": num_frames, "fps": fps, "canvas": canvas, "tracks": tracks}
        return cls.from_json(document)

    @classmethod
    def from_array(cls, xy: Any, visible: Any = None, force: Any = None, **options: Any) -> "Tracks":
        """Tracks with a point in every frame: xy [T, P, 2] in 0..1, visible [T, P], force [T, P] (default 1).

        `to_array` gives the same float32 numbers back (visible only inside the canvas). Where a track is not visible
        its place is a guess; one that is none, like NaN or 0, 0, becomes the last one that is known before it.
        `options` as in `from_points`.
        """
        places = np.asarray(xy, dtype=np.float32)
        if places.ndim != 3 or places.shape[2] != 2:
            raise ValueError(f"xy must be [T, P, 2], not {list(places.shape)}")
        seen = np.ones(places.shape[:2]) if visible is None else np.asarray(visible, dtype=np.float32)
        pressed = np.ones(places.shape[:2]) if force is None else np.asarray(force, dtype=np.float32)
        for name, array in (("visible", seen), ("force", pressed)):
            if array.shape != places.shape[:2]:
                raise ValueError(f"{name} must be {list(places.shape[:2])} like xy, not {list(array.shape)}")
        places = held_places(places, seen >= 0.5)
        table = np.stack([*np.moveaxis(places, 2, 0), pressed.astype(np.float32), seen.astype(np.float32)], axis=2)
        paths = [[(f, *map(shortest, row)) for f, row in enumerate(path)] for path in table.swapaxes(0, 1)]
        settings = {"num_frames": len(places), "interp": "linear", **options}
        return cls.from_points(paths, **settings)

    @classmethod
    def from_json(cls, document: str | bytes | Mapping[str, Any]) -> "Tracks":
        """Read `ardrag.tracks/v1` text or its decoded object; ValueError names the field and the remedy."""
        if isinstance(document, str | bytes):
            if len(document) > MAX_BYTES:
                raise ValueError(f"the track file is larger than {MAX_BYTES} bytes; use fewer points")
            try:
                document = json.loads(document)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"the track file is not JSON ({error}); Tracks.load reads a path") from error
        return cls(**parse_document(document))  # type: ignore[arg-type]

    def to_json(self) -> str:
        """The track file as text; `from_json` gives an equal `Tracks` back."""
        text = json.dumps(dump_document(self), allow_nan=False)
        if len(text) > MAX_BYTES:
            raise ValueError(f"the track file would be larger than {MAX_BYTES} bytes; use fewer points")
        return text

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | BinaryIO,
        *,
        image_size: tuple[int, int] | None = None,
        num_frames: int | None = None,
        item: str | None = None,
    ) -> "Tracks":
        """Read a track file, ours or one of another system (`ardrag.tracks.formats`), told apart by its content.

        Args:
            path: path, or file open for reading bytes.
            image_size: (width, height) in pixels of the picture, for formats that give pixels and do not say of what.
            num_frames: frames that the paths take; needed for formats that do not say, and else another tempo.
            item: which clip of a file that holds several.

        Raises:
            OSError: if the file cannot be opened.
            ValueError: if it is none of these, or what it does not say is not given.
        """
        given = Given(image_size, num_frames, item)
        if isinstance(path, str | os.PathLike):
            place = Path(path).expanduser()
            with open(place, "rb") as file:
                found = _files().read_document(file, given, place)
        else:
            found = _files().read_document(path, given)
        tracks = cls.from_json(found)
        if num_frames is None or num_frames == tracks.num_frames:
            return tracks
        return tracks.retimed(num_frames)

    def export(
        self, path: str | os.PathLike[str], kind: str, *, image_size: tuple[int, int] | None = None
    ) -> list[Path]:
        """Write the tracks for another system's tools; gives the names of the files.

        Args:
            path: file to write; Tora's format makes one a track, Wan-Move's another one beside ``..._tracks.npy``.
            kind: ``wan_move``, ``ati``, ``kjnodes``, ``tora``, ``draganything`` or ``motionpro``.
            image_size: (width, height) in pixels of the picture there; default is the canvas.

        Raises:
            ValueError: if the kind is unknown or cannot hold these tracks, or the size is not known.
        """
        size = image_size or (self.canvas.width, self.canvas.height)
        made: list[Path] = _files().write_file(
            lambda frames: self.to_array(frames=frames), self.num_frames, Path(path), kind, size
        )
        return made

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the track file whole or not at all."""
        target, text = Path(path).expanduser(), self.to_json()
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
        try:
            with open(handle, "w", encoding="ascii") as file:
                file.write(text)
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise

    def to_array(self, num_frames: int | None = None, frames: Iterable[float] | None = None) -> TrackArrays:
        """Sample every track (groups and camera expanded) at frames 0..num_frames-1, or at the given `frames`.

        Frames behind the end of the clip continue each track's `after_end`. P is the order of `sigmas()`:
        the tracks of the file, those added by edits, then camera pins.
        """
        times = np.asarray(range(num_frames or self.num_frames) if frames is None else list(frames), dtype=np.float64)
        if len(times) and times.min() < 0:
            raise ValueError(f"frames starts at {times.min():g}; pixel frames count from 0")
        assert self._versions is not None
        parts = [sample(history, self.defaults, times) for history in self._versions.values()]
        if self.camera is not None:
            pins = camera_pins(self.camera, self.canvas, self.tracks, times)
            parts.append((pins, np.ones(pins.shape[:2], bool), np.full(pins.shape[:2], self.defaults.strength)))
        parts.append((np.zeros((len(times), 0, 2)), np.zeros((len(times), 0), bool), np.zeros((len(times), 0))))
        xy, visible, force = (np.concatenate(columns, axis=1) for columns in zip(*parts, strict=True))
        inside = ((xy >= 0) & (xy <= 1)).all(axis=2)
        return TrackArrays(xy.astype(np.float32), visible & inside, force.astype(np.float32))

    def sigmas(self) -> list[float]:
        """Relative spread of each of the P heat spots of `to_array`; a pin of the ground is a spot like any other."""
        wide = [self.defaults.sigma if brush is None else brush for brush in self.brushes()]
        return [SIGMA if brush == GROUND else brush for brush in wide]

    def brushes(self) -> tuple[float | None, ...]:
        """As `sigmas`, but None where neither the track nor the file asks for a width other than `SIGMA`.

        There a control uses the width that suits it: a heat spot is `SIGMA` wide, a carried piece is larger. Pins of
        the camera have `GROUND`.
        """
        tracks = self._first_versions()
        default = None if self.defaults.sigma == SIGMA else self.defaults.sigma
        spots = [default if t.sigma is None else t.sigma for t in tracks for _ in t.offsets or [()]]
        pins = 0 if self.camera is None else len(camera_grid(self.camera, self.tracks))
        return (*spots, *[GROUND] * pins)

    def with_brushes(self, brushes: Sequence[float | None]) -> "Tracks":
        """The same tracks, each as wide as said, or with the file's width where that is None."""
        wide = (replace(track, sigma=brush) for track, brush in zip(self.tracks, brushes, strict=True))
        return replace(self, tracks=tuple(wide), _versions=None)

    def retimed(self, num_frames: int) -> "Tracks":
        """The same paths stretched or squeezed to a clip of `num_frames`."""
        if self.edits:
            raise ValueError("edits cannot be retimed; freeze them first with Tracks.from_array(*tracks.to_array())")
        last, new_last = self.num_frames - 1, check_num_frames(num_frames) - 1
        if last and not new_last:
            raise ValueError("num_frames is 1, which leaves no room for motion; use 5 or more")

        def scaled(f: float) -> float:
            return f * new_last / last if last else f

        tracks = tuple(
            replace(
                track,
                points=tuple(point._replace(f=scaled(point.f)) for point in track.points),
                start=None if track.start is None else scaled(track.start),
                end=None if track.end is None else scaled(track.end),
            )
            for track in self.tracks
        )
        camera = self.camera and replace(
            self.camera, keys=tuple(key._replace(f=scaled(key.f)) for key in self.camera.keys)
        )
        return replace(self, num_frames=num_frames, tracks=tracks, camera=camera, _versions=None)

    def extended(self, num_frames: int) -> "Tracks":
        """The same tracks in a longer clip, nothing moved: what a session does that goes on."""
        if check_num_frames(num_frames) < self.num_frames:
            raise ValueError(f"num_frames is {num_frames}, shorter than {self.num_frames}; use retimed to squeeze")
        return replace(self, num_frames=num_frames)

    def crop_on(self, width: int, height: int) -> Crop:
        """The part of a ``width x height`` picture that the canvas is; ValueError if it has another shape."""
        return crop_of_canvas(self.canvas, width, height)

    def on_picture(
        self, width: int, height: int, num_frames: int | None = None, frames: Iterable[float] | None = None
    ) -> TrackArrays:
        """As `to_array`, in 0..1 of a picture of that size; ValueError as in `crop_on`."""
        return self.crop_on(width, height).inverse.arrays(self.to_array(num_frames, frames))

    def cropped(self, crop: Crop) -> "Tracks":
        """What these tracks are on a part of the picture: with a point in every frame, and without a canvas.

        Groups, camera and edits become tracks like all others. The whole picture leaves everything as it is.
        """
        if crop == WHOLE:
            return self
        made = Tracks.from_array(*crop.arrays(self.to_array()), fps=self.fps)
        return made.with_brushes(self.brushes())

    def with_edit(
        self,
        op: str,
        track: str,
        applied_frame: int,
        points: Iterable[Sequence[float]] = (),
        *,
        seen_frame: int | None = None,
        **options: Any,
    ) -> "Tracks":
        """Log one change that rules from `applied_frame` (0 or 4m-3) on.

        Args:
            op: `replace_tail` (new points for an existing track), `add` (a new track) or `end` (let go).
            track: id of the track.
            points: as in `from_points`, none before `applied_frame`.
            seen_frame: the pixel frame the user was looking at.
            options: track fields: any of them for `add`, `after_end` otherwise (default: as the track had it).
        """
        assert self._versions is not None
        where, seq = f"edits[{len(self.edits)}]", self.edits[-1].seq + 1 if self.edits else 1
        if op == "replace_tail" and track in self._versions:
            options = {"after_end": self._versions[track][0][1].after_end, **options}
        entry = {**options, "seq": seq, "op": op, "track": track, "applied_frame": applied_frame}
        entry["points"] = [_named(p, f"{where}.points[{j}]") for j, p in enumerate(points)]
        edit = parse_edit({**entry, "seen_frame": seen_frame}, where, self.num_frames)
        versions = apply_edit(self._versions, edit, self.edits[-1:], self.defaults.interp, where)
        edited = replace(self, edits=(*self.edits, edit), _versions=versions)
        edited._check_count()
        return edited

    def rewound(self, frame: int) -> "Tracks":
        """Without the edits applied at pixel frame `frame` or later: where a session goes on after a rewind."""
        kept = tuple(edit for edit in self.edits if edit.applied_frame < frame)
        return replace(self, edits=kept, _versions=None)

    def _first_versions(self) -> list[Track]:
        """Every track as it began, in the order of P."""
        assert self._versions is not None
        return [history[0][1] for history in self._versions.values()]

    def _check_count(self) -> None:
        check_count(self._first_versions(), self.camera)


def _files() -> Any:
    """The readers and writers of track files, by name: this file also runs where the package itself is not.

    Raises:
        ValueError: if the package is not there.
    """
    try:
        return import_module("ardrag.tracks.formats.files")
    except ImportError as error:
        raise ValueError("tracks: track files need the ardrag package itself; run where it can be imported") from error


def _named(point: Sequence[float], where: str) -> dict[str, float]:
    """(f, x, y[, p[, v]]) as the object of the file."""
    values = list(point)
    if not 3 <= len(values) <= 5:
        raise ValueError(f"{where} must be (f, x, y), (f, x, y, p) or (f, x, y, p, v), not {len(values)} values")
    return dict(zip("fxypv", values, strict=False))


def _unit_places(tracks: list[dict[str, Any]], width: int, height: int) -> list[dict[str, Any]]:
    """Tracks with places in 0..1, from pixels if one place is too far out to be anything else."""
    every: list[Any] = [point[axis] for track in tracks for point in track["points"] for axis in "xy"]
    if all(isinstance(value, Real) and FAR[0] <= float(value) <= FAR[1] for value in every):
        return tracks
    size = {"x": width, "y": height}
    for track in tracks:
        for point in track["points"]:
            point.update({axis: point[axis] / size[axis] for axis in "xy" if isinstance(point[axis], Real)})
    return tracks
