"""The track file `ardrag.tracks/v1`: its records, reading with errors that name the field, and writing.

Positions are 0..1 of the canvas (0 = left/top pixel edge), times `f` are float pixel frames, `p` is the intensity
(touch force) and `v` the visibility, both 0..1. Readers ignore keys they do not know. What the records mean for a
video is in `ardrag.tracks.tracks`; nothing here samples or draws.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, NamedTuple


SCHEMA = "ardrag.tracks/v1"
SIGMA = 0.0206  # standard deviation of a heat spot, relative to sqrt(height * width)
SMALLEST = 1e-3  # sigma at least; at most it is 1, as wide as the picture
GROUND = 0.0  # the sigma of a pin: it holds no thing, but the ground behind all things
MAX_BYTES = 1 << 20
MAX_TRACKS = 256  # after groups and camera are expanded
MAX_POINTS = 4096  # of one track or one edit
MAX_EDITS = 1 << 16
MAX_FRAMES = 100_001
FAR = (-1.0, 2.0)  # where x and y may lie: the canvas and one canvas around it
IN_PIXELS = "; places are 0..1 of the picture, so give its width and height with pixels"
KINDS = ("drag", "static", "group")
INTERPS = ("linear", "catmull")
CAMERA_INTERPS = ("linear", "smooth")
AFTER_END = ("hold", "hide", "release")
OPS = ("replace_tail", "add", "end")

Json = Mapping[str, Any]


class Point(NamedTuple):
    """One drawn point: frame, position 0..1, intensity 0..1, visibility 0..1 (visible from 0.5 on)."""

    f: float
    x: float
    y: float
    p: float = 1.0
    v: float = 1.0


@dataclass(frozen=True)
class Track:
    """One drawn path. `None` for interp, strength or sigma means the file's default; start/end are frames.

    A `sigma` of `GROUND` makes it a pin: not a thing moves along it, but the picture behind all things.
    """

    id: str
    points: tuple[Point, ...]
    kind: str = "drag"
    interp: str | None = None
    start: float | None = None
    end: float | None = None
    after_end: str = "hold"
    strength: float | None = None
    sigma: float | None = None
    offsets: tuple[tuple[float, float], ...] = ()
    label: str | None = None
    color: str | None = None


class CameraKey(NamedTuple):
    """Camera state at frame `f`: how the scene moves (pan, canvas units), grows (zoom) and turns (roll, degrees)."""

    f: float
    pan: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0
    roll: float = 0.0


@dataclass(frozen=True)
class Camera:
    """Camera keyframes, carried out by a grid of pins; pins next to the start of an `exclude` track are left out."""

    keys: tuple[CameraKey, ...]
    grid: tuple[int, int] = (5, 4)
    exclude: tuple[str, ...] = ()
    interp: str = "smooth"


@dataclass(frozen=True)
class Canvas:
    """The picture the user drew on; width and height in pixels. `fit` "cover": it was cut to this shape before."""

    width: int | None = None
    height: int | None = None
    image_sha256: str | None = None
    fit: str | None = None


@dataclass(frozen=True)
class Defaults:
    """What a track without its own value uses."""

    sigma: float = SIGMA
    interp: str = "catmull"
    strength: float = 1.0


@dataclass(frozen=True)
class Edit:
    """One change made while generating, in force from pixel frame `applied_frame` (first of a latent frame) on.

    `track` carries the target's id and, for `replace_tail` and `add`, the new points; for `end`, its `after_end`.
    """

    seq: int
    op: str
    applied_frame: int
    track: Track
    seen_frame: int | None = None


@dataclass(frozen=True)
class TrackFile:
    """Everything a track file says, checked when it was read."""

    num_frames: int
    tracks: tuple[Track, ...] = ()
    fps: float = 16.0
    canvas: Canvas = Canvas()
    defaults: Defaults = Defaults()
    camera: Camera | None = None
    edits: tuple[Edit, ...] = ()
    source: dict[str, Any] = field(default_factory=dict, hash=False)


def check_num_frames(num_frames: Any, where: str = "num_frames") -> int:
    """A clip length 4k+1 (one pixel frame for latent 0, four for each other), or ValueError with the nearest two."""
    count = _whole(num_frames, where, 1, MAX_FRAMES)
    if count % 4 != 1:
        below = (count - 1) // 4 * 4 + 1
        raise ValueError(f"{where} is {count}, but a clip has 4k+1 frames; use {below} or {below + 4}")
    return count


def parse_document(document: Json) -> dict[str, Any]:
    """The fields of `TrackFile` from a decoded track file; ValueError names the field and the remedy."""
    if not isinstance(document, Mapping):
        raise ValueError(f"a track file is a JSON object, not {type(document).__name__}")
    if document.get("schema") != SCHEMA:
        raise ValueError(f"schema is {document.get('schema')!r}, but only {SCHEMA!r} is read; export the file as that")
    num_frames = check_num_frames(document.get("num_frames"))
    entries = _list(document.get("tracks", []), "tracks", MAX_TRACKS)
    tracks = tuple(parse_track(e, f"tracks[{i}]", num_frames, f"t{i + 1}") for i, e in enumerate(entries))
    canvas = _parse_canvas(_object(document.get("canvas"), "canvas"))
    camera = _parse_camera(document["camera"], num_frames, canvas) if document.get("camera") is not None else None
    edits = _list(document.get("edits", []), "edits", MAX_EDITS)
    fields = {
        "num_frames": num_frames,
        "tracks": tracks,
        "fps": _number(document.get("fps", 16.0), "fps", 0.01, 1000.0),
        "canvas": canvas,
        "defaults": _parse_defaults(_object(document.get("defaults"), "defaults")),
        "camera": camera,
        "edits": tuple(parse_edit(e, f"edits[{i}]", num_frames) for i, e in enumerate(edits)),
        "source": dict(_object(document.get("source"), "source")),
    }
    _check_ids(tracks, camera)
    return fields


def parse_track(entry: Any, where: str, num_frames: int, default_id: str, needs_points: bool = True) -> Track:
    """One entry of `tracks` as a record."""
    entry = _object(entry, where)
    points = parse_points(entry.get("points", []), f"{where}.points", num_frames)
    if needs_points and not points:
        raise ValueError(f"{where}.points is empty; give at least one point or leave the track out")
    track = Track(
        id=_text(entry.get("id", default_id), f"{where}.id") or default_id,
        points=points,
        kind=_choice(entry.get("kind", "drag"), KINDS, f"{where}.kind"),
        interp=_maybe(_choice, entry.get("interp"), INTERPS, f"{where}.interp"),
        start=_maybe(_number, entry.get("start"), f"{where}.start", 0.0, num_frames - 1.0),
        end=_maybe(_number, entry.get("end"), f"{where}.end", 0.0, num_frames - 1.0),
        after_end=_choice(entry.get("after_end", "hold"), AFTER_END, f"{where}.after_end"),
        strength=_maybe(_number, entry.get("strength"), f"{where}.strength", 0.0, 1.0),
        sigma=_maybe(parse_sigma, entry.get("sigma"), f"{where}.sigma"),
        offsets=_parse_offsets(entry.get("offsets"), f"{where}.offsets"),
        label=_text(entry.get("label"), f"{where}.label"),
        color=_text(entry.get("color"), f"{where}.color"),
    )
    _check_track(track, where, needs_points)
    return track


def parse_sigma(value: Any, where: str) -> float:
    """The width of a track, or `GROUND`."""
    if value == GROUND and not isinstance(value, bool):
        return GROUND
    return _number(value, where, SMALLEST, 1.0, f", or {GROUND:g} for a pin of the ground")


def parse_points(entries: Any, where: str, num_frames: int) -> tuple[Point, ...]:
    """The points of one track: objects with f, x, y and optional p, v; f strictly increasing inside the clip."""
    points: list[Point] = []
    for i, raw in enumerate(_list(entries, where, MAX_POINTS)):
        here, entry = f"{where}[{i}]", _object(raw, f"{where}[{i}]")
        f = _number(entry.get("f"), f"{here}.f", 0.0, MAX_FRAMES - 1.0)
        if f > num_frames - 1:
            longer = math.ceil(f / 4) * 4 + 1
            raise ValueError(
                f"{here}.f is {f:g}, but the clip ends at frame {num_frames - 1}; drop the points after it, "
                f"or declare num_frames={longer} and fit the whole path with Tracks.retimed({num_frames})"
            )
        if points and f <= points[-1].f:
            raise ValueError(f"{here}.f is {f:g} after {points[-1].f:g}; f must increase, sort and merge the points")
        x, y = (_number(entry.get(k), f"{here}.{k}", *FAR, IN_PIXELS) for k in "xy")
        p, v = (_number(entry.get(k, 1.0), f"{here}.{k}", 0.0, 1.0) for k in "pv")
        points.append(Point(f, x, y, p, v))
    return tuple(points)


def parse_edit(entry: Any, where: str, num_frames: int) -> Edit:
    """One entry of `edits`: its own fields and those of a track, `track` being the id."""
    entry = _object(entry, where)
    op = _choice(entry.get("op"), OPS, f"{where}.op")
    applied = _whole(entry.get("applied_frame"), f"{where}.applied_frame", 0, num_frames - 1)
    if applied and applied % 4 != 1:
        below = (applied - 1) // 4 * 4 + 1
        raise ValueError(
            f"{where}.applied_frame is {applied}, not the first frame of a latent; use {below} or {below + 4}"
        )
    target = _text(entry.get("track"), f"{where}.track")
    if not target:
        raise ValueError(f"{where}.track is missing; name the id of the track to change")
    after_end = entry.get("after_end", "release" if op == "end" else "hold")
    as_track = {**entry, "id": target, "after_end": after_end}
    track = parse_track(as_track, where, num_frames, target, needs_points=op != "end")
    if op == "end" and track.points:
        raise ValueError(f"{where}.points must be empty when op is 'end'; use replace_tail for a last stretch")
    if op != "end" and track.points[0].f < applied:
        raise ValueError(
            f"{where}.points[0].f is {track.points[0].f:g}, before applied_frame {applied}; "
            "what was already generated cannot change, so give only points from applied_frame on"
        )
    seen = _maybe(_whole, entry.get("seen_frame"), f"{where}.seen_frame", 0, applied)
    return Edit(_whole(entry.get("seq"), f"{where}.seq", 0, 1 << 53), op, applied, track, seen)


def check_count(tracks: Sequence[Track], camera: Camera | None) -> None:
    """ValueError when groups and camera together expand to more than MAX_TRACKS spots."""
    count = sum(max(1, len(t.offsets)) for t in tracks) + (camera.grid[0] * camera.grid[1] if camera else 0)
    if count > MAX_TRACKS:
        raise ValueError(f"tracks expand to {count} with groups and camera; the limit is {MAX_TRACKS}, remove some")


def dump_document(file: TrackFile) -> dict[str, Any]:
    """A track file as plain JSON values; `parse_document` gives the same records back."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "canvas": _drop_none(vars(file.canvas)),
        "fps": file.fps,
        "num_frames": file.num_frames,
        "defaults": dict(vars(file.defaults)),
        "tracks": [_dump_track(track) for track in file.tracks],
    }
    if file.camera is not None:
        keys = [key._asdict() for key in file.camera.keys]
        document["camera"] = {**vars(file.camera), "keys": keys}
    if file.edits:
        document["edits"] = [_dump_edit(edit) for edit in file.edits]
    if file.source:
        document["source"] = file.source
    return document


def _dump_track(track: Track) -> dict[str, Any]:
    entry = {k: v for k, v in _drop_none(vars(track)).items() if k != "offsets" or v}
    return {**entry, "points": [_dump_point(point) for point in track.points]}


def _dump_point(point: Point) -> dict[str, float]:
    entry = {k: int(v) if v == int(v) else v for k, v in point._asdict().items()}
    return {k: v for k, v in entry.items() if k not in ("p", "v") or v != 1}


def _dump_edit(edit: Edit) -> dict[str, Any]:
    entry = {**_dump_track(edit.track), **_drop_none(vars(edit)), "track": edit.track.id}
    del entry["id"]
    return entry


def _parse_canvas(entry: Json) -> Canvas:
    size = [_maybe(_whole, entry.get(k), f"canvas.{k}", 1, 1 << 16) for k in ("width", "height")]
    return Canvas(*size, *(_text(entry.get(k), f"canvas.{k}") for k in ("image_sha256", "fit")))


def _parse_defaults(entry: Json) -> Defaults:
    return Defaults(
        sigma=_number(entry.get("sigma", SIGMA), "defaults.sigma", SMALLEST, 1.0),
        interp=_choice(entry.get("interp", "catmull"), INTERPS, "defaults.interp"),
        strength=_number(entry.get("strength", 1.0), "defaults.strength", 0.0, 1.0),
    )


def _parse_camera(raw: Any, num_frames: int, canvas: Canvas) -> Camera:
    entry = _object(raw, "camera")
    keys: list[CameraKey] = []
    for i, item in enumerate(_list(entry.get("keys", []), "camera.keys", MAX_POINTS)):
        key, here = _object(item, f"camera.keys[{i}]"), f"camera.keys[{i}]"
        f = _number(key.get("f"), f"{here}.f", 0.0, num_frames - 1.0)
        if keys and f <= keys[-1].f:
            raise ValueError(f"{here}.f is {f:g} after {keys[-1].f:g}; f must increase, so sort the keys")
        zoom = _number(key.get("zoom", 1.0), f"{here}.zoom", 0.05, 20.0)
        roll = _number(key.get("roll", 0.0), f"{here}.roll", -3600.0, 3600.0)
        keys.append(CameraKey(f, _pair(key.get("pan", (0, 0)), f"{here}.pan", 2.0), zoom, roll))
    if not keys:
        raise ValueError("camera.keys is empty; give at least one key or leave camera out")
    if any(key.roll for key in keys) and not (canvas.width and canvas.height):
        raise ValueError("canvas.width and canvas.height are missing; a camera roll needs the aspect ratio")
    nx, ny = _pair(entry.get("grid", (5, 4)), "camera.grid", MAX_TRACKS)
    return Camera(
        keys=tuple(keys),
        grid=(_whole(nx, "camera.grid[0]", 1, MAX_TRACKS), _whole(ny, "camera.grid[1]", 1, MAX_TRACKS)),
        exclude=tuple(str(name) for name in _list(entry.get("exclude", []), "camera.exclude", MAX_TRACKS)),
        interp=_choice(entry.get("interp", "smooth"), CAMERA_INTERPS, "camera.interp"),
    )


def _parse_offsets(value: Any, where: str) -> tuple[tuple[float, float], ...]:
    pairs = _list(value, where, MAX_TRACKS) if value is not None else []
    return tuple(_pair(pair, f"{where}[{i}]", 1.0) for i, pair in enumerate(pairs))


def _check_track(track: Track, where: str, needs_points: bool) -> None:
    if track.kind == "static" and needs_points and len(track.points) != 1:
        raise ValueError(f"{where}.points has {len(track.points)} points; a static pin has one, or use kind 'drag'")
    if (track.kind == "group") != bool(track.offsets):
        raise ValueError(f"{where}.offsets: kind 'group' needs offsets [[dx, dy], ...] and no other kind has them")
    if track.start is not None and track.end is not None and track.start > track.end:
        raise ValueError(f"{where}.start is {track.start:g}, after end {track.end:g}; swap them")


def _check_ids(tracks: Sequence[Track], camera: Camera | None) -> None:
    seen: set[str] = set()
    for i, track in enumerate(tracks):
        if track.id in seen:
            raise ValueError(f"tracks[{i}].id {track.id!r} is used twice; give every track its own id")
        seen.add(track.id)
    for name in camera.exclude if camera else ():
        if name not in seen:
            raise ValueError(f"camera.exclude names {name!r}, which is no track; use one of {sorted(seen)}")


def _drop_none(fields: Json) -> dict[str, Any]:
    return {k: v for k, v in fields.items() if v is not None}


def _maybe(parse: Any, value: Any, *args: Any) -> Any:
    return None if value is None else parse(value, *args)


def _object(value: Any, where: str) -> Json:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be an object, not {type(value).__name__}")
    return value


def _list(value: Any, where: str, limit: int) -> Sequence[Any]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise ValueError(f"{where} must be a list, not {type(value).__name__}")
    if len(value) > limit:
        raise ValueError(f"{where} has {len(value)} entries; the limit is {limit}, remove some")
    return value


def _number(value: Any, where: str, low: float, high: float, remedy: str = "") -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{where} must be a number, not {str(value)[:40]!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not low <= number <= high:
        raise ValueError(f"{where} is {str(value)[:40]}; give a finite number from {low:g} to {high:g}{remedy}")
    return number


def _whole(value: Any, where: str, low: int, high: int) -> int:
    number = _number(value, where, low, high)
    if number != int(number):
        raise ValueError(f"{where} is {number:g}; give a whole number")
    return int(number)


def _pair(value: Any, where: str, limit: float) -> tuple[float, float]:
    if len(_list(value, where, 2)) != 2:
        raise ValueError(f"{where} must be two numbers")
    return _number(value[0], f"{where}[0]", -limit, limit), _number(value[1], f"{where}[1]", -limit, limit)


def _choice(value: Any, allowed: tuple[str, ...], where: str) -> str:
    if value not in allowed:
        raise ValueError(f"{where} is {str(value)[:40]!r}; use one of {', '.join(allowed)}")
    return str(value)


def _text(value: Any, where: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{where} must be text, not {type(value).__name__}")
    if value is not None and len(value) > 256:
        raise ValueError(f"{where} has {len(value)} characters; the limit is 256")
    return value
