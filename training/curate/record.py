"""A video becomes a plan, a clip of it becomes a row: what the engine runs, here or elsewhere."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ardrag.judges.trackers import build_tracker
from ardrag.judges.tracking import PointTracker, Trajectories
from ardrag.tracks.sampling import TrackArrays
from pipelines.video import draw_paths
from training.curate.bucket import Window, choose_bucket, fitted, nearest_frames, windows
from training.curate.cut import shots, survey
from training.curate.decode import Unusable, probe, read_frames
from training.curate.engine import Clock
from training.curate.score import Rules, analyse, broken_rule, score_clip
from training.curate.select import REACH, select_tracks, smoothed
from training.curate.store import write_json, write_part
from training.curate.track import grid_spacing, track_grid
from training.run.clips import pack_tracks


PARTS = ("hash", "probe", "decode", "cut", "bucket", "track", "score", "select", "encode", "draw", "write")
"""What is done to a video and its clips, as the seconds that it takes are told."""
SHEET_FRAMES, SHEET_HEIGHT = 6, 96
QUALITY = "12"
"""H.264's constant rate factor of the kept clips: about 45 dB."""


@dataclass(frozen=True)
class Recipe:
    """All that decides what becomes of a video."""

    fps: float
    num_frames: tuple[int, ...]
    buckets: tuple[tuple[int, int], ...]
    """``(height, width)``."""
    detector: str
    tracker: str
    tracker_checkpoint: str
    objects: int
    background: int
    rules: Rules = field(default_factory=Rules)


class Surveyor:
    """Looks at a video and writes its plan: ``{"source", "sha256", "caption", "clips": [...]}``."""

    def __init__(self, folder: str, recipe: Recipe) -> None:
        self.folder, self.recipe = Path(folder), recipe

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        """``task``: ``path``, ``name``, ``caption`` and ``key`` of a video."""
        clock = Clock(PARTS)
        with clock("hash"):
            digest = file_hash(Path(task["path"]))
        clips = plan_clips(Path(task["path"]), self.recipe, clock)
        named = [{**clip, "id": f"{digest[:12]}-{number:04d}"} for number, clip in enumerate(clips)]
        plan = {"path": task["path"], "source": task["name"], "sha256": digest, "caption": task["caption"]}
        write_json(self.folder / "plans" / f"{task['key']}.json", {**plan, "clips": named})
        return {"key": task["key"], "seconds": clock.read()}


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()


def plan_clips(path: Path, recipe: Recipe, clock: Clock) -> list[dict[str, Any]]:
    """The clips of a video, each with ``start``, ``frames``, ``fps`` and, where it cannot be used, ``drop``."""
    nothing = {"start": 0.0, "frames": 0, "fps": 0.0}
    try:
        with clock("probe"):
            info = probe(path)
        if choose_bucket(info.width, info.height, recipe.buckets) is None:
            raise Unusable("too small")
        with clock("cut"):
            seen = survey(clock.each("decode", read_frames(path)), recipe.detector)
        step = float(np.median(np.diff(seen.times))) if len(seen.times) > 1 else 1.0
        end = float(seen.times[-1] - seen.times[0]) + step
        if info.duration - end > max(0.5, 0.1 * info.duration):
            raise Unusable("truncated")
        spans = shots(seen)
    except Unusable as error:
        return [{**nothing, "drop": str(error)}]
    clips: list[dict[str, Any]] = []
    for first, last in spans:
        found = windows(float(seen.times[first]), float(seen.times[last]), 1 / step, recipe.num_frames, recipe.fps)
        clips += [{**window._asdict(), "drop": ""} for window in found]
        if not found:
            clips.append({**nothing, "start": float(seen.times[first]), "drop": "too short"})
    return clips


class Curator:
    """Makes the row of a clip and writes it; holds the tracker."""

    def __init__(self, folder: str, recipe: Recipe) -> None:
        self.folder, self.recipe = Path(folder), recipe
        self.tracker = build_tracker(recipe.tracker, recipe.tracker_checkpoint)

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        """``task``: a clip of a plan, with the plan's ``path``, ``source``, ``sha256`` and ``caption``."""
        clock = Clock(PARTS)
        row = curate_clip(task, self.tracker, self.recipe, clock)
        with clock("write"):
            write_part(self.folder, row)
        return {"id": row["id"], "drop": row["drop"], "seconds": clock.read()}


def curate_clip(task: dict[str, Any], tracker: PointTracker, recipe: Recipe, clock: Clock) -> dict[str, Any]:
    """The row of a clip; see `training.curate.store.TABLE`."""
    told = {name: task[name] for name in ("id", "source", "sha256", "caption", "start", "frames", "fps", "drop")}
    empty = {"height": 0, "width": 0, "scores": {}, "num_tracks": 0}
    empty |= dict.fromkeys(("tracks", "visible", "force", "video", "sheet"), b"")
    if task["drop"]:
        return {**empty, **told}
    window = Window(task["start"], task["frames"], task["fps"])
    try:
        return {**told, **follow(Path(task["path"]), window, tracker, recipe, clock)}
    except Unusable as error:
        return {**empty, **told, "drop": str(error)}


def follow(path: Path, window: Window, tracker: PointTracker, recipe: Recipe, clock: Clock) -> dict[str, Any]:
    """Decode, track, score and select.

    Points are followed through every frame of the video, in the size of the bucket, and sampled at the frames that are
    kept: small steps are followed better than large ones.
    """
    frames, times = read_window(path, window, recipe, clock)
    kept = nearest_frames(times, window)
    with clock("track"):
        every = track_grid(tracker, frames[: kept[-1] + 1])
    tracks = Trajectories(every.xy[kept], every.visible[kept])
    clip = frames[kept]
    height, width = clip.shape[1:3]
    with clock("score"):
        motion, diagonal = analyse(tracks), float(np.hypot(height, width))
        scores = score_clip(clip, tracks, every, motion, recipe.rules)
    least, reach = recipe.rules.min_motion * diagonal, REACH * grid_spacing(height, width)
    with clock("select"):
        chosen = select_tracks(tracks, motion, least, reach, recipe.objects, recipe.background)
        xy = smoothed(every.xy[:, chosen], every.visible[:, chosen])[kept]
    arrays = relative(xy, tracks.visible[:, chosen], height, width)
    with clock("encode"):
        video = encode_video(clip, window.fps)
    with clock("draw"):
        sheet = encode_sheet(clip, arrays)
    return {
        "height": height,
        "width": width,
        "drop": broken_rule(scores, recipe.rules),
        "scores": scores,
        **pack_tracks(arrays),
        "video": video,
        "sheet": sheet,
    }


def read_window(
    path: Path, window: Window, recipe: Recipe, clock: Clock
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """All frames of a window, in the size of their bucket, with their times."""
    frames, times = [], []
    for time, frame in clock.each("decode", read_frames(path, window.start, window.stop + 0.5 / window.fps)):
        size = choose_bucket(frame.shape[1], frame.shape[0], recipe.buckets)
        if size is None or (frames and frames[0].shape[:2] != size):
            raise Unusable("changes its size")
        with clock("bucket"):
            frames.append(fitted(frame, *size))
        times.append(time)
    if not frames:
        raise Unusable("unreadable or damaged")
    return np.stack(frames), np.array(times)


def relative(xy: npt.NDArray[np.float32], visible: npt.NDArray[np.bool_], height: int, width: int) -> TrackArrays:
    """Places from pixels (centres are whole numbers) to 0..1, with full force."""
    places = ((xy + 0.5) / np.array([width, height])).astype(np.float32)
    inside = ((places >= 0) & (places <= 1)).all(2)
    return TrackArrays(places, visible & inside, np.ones(visible.shape, np.float32))


def encode_video(frames: npt.NDArray[np.uint8], fps: float) -> bytes:
    """Frames ``[T, H, W, 3]`` as H.264 in mp4, full colour resolution."""
    from fractions import Fraction

    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options={"crf": QUALITY})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv444p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def decode_video(data: bytes) -> npt.NDArray[np.uint8]:
    """What `encode_video` was given, nearly."""
    import av

    with av.open(io.BytesIO(data)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def encode_sheet(frames: npt.NDArray[np.uint8], arrays: TrackArrays) -> bytes:
    """Some frames side by side with the tracks drawn, as JPEG, for human eyes."""
    chosen = np.linspace(0, len(frames) - 1, SHEET_FRAMES).round().astype(int)
    strip = Image.fromarray(np.concatenate([draw_paths(frames[t], arrays, int(t)) for t in chosen], axis=1))
    strip = strip.resize((round(strip.width * SHEET_HEIGHT / strip.height), SHEET_HEIGHT), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    strip.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
