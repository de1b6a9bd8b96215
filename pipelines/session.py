"""Interactive generation: one latent a step, control as of now, rewind and branch (AR-Drag Figure 1b).

A `Session` is the only engine: a whole clip (`ARDragPipeline.__call__`), a stream and every front end drive one. All
randomness is a function of (seed, latent frame), so that the same control gives the same pixels, called at once,
streamed, or replayed after a rewind.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ardrag.conditioning import Conditions, image_slot
from ardrag.kv_cache import KVCache
from ardrag.rollout import GeneratorNoise, generate_chunk, seeded_generator, write_cache
from ardrag.streaming_vae import StreamingVAE, StreamState
from ardrag.tracks.schema import FAR, MAX_POINTS, SIGMA
from ardrag.tracks.tracks import TrackArrays, Tracks, control_video
from pipelines.frame_store import Frame, FrameStore
from pipelines.video import to_frames, write_video


if TYPE_CHECKING:
    from pipelines.pipeline_ardrag import ARDragPipeline


Place = Sequence[float] | None
"""Where one track is now: ``(x, y)`` or ``(x, y, force)`` in 0..1 of the canvas, or None when it is let go."""
LatentCallback = Callable[[int, int, Tensor], Tensor]
"""Called after each denoising step with (latent frame, step, latents); returns the latents to go on with."""


@dataclass(frozen=True)
class SessionInputs:
    """All that a session is made of: tensors on the pipeline's device, settings, and the seed.

    ``reference`` is the normalised latent of the picture ``[1, C, 1, H, W]``; ``text`` and ``image_tokens`` hold one
    row, or two (wanted, negative) where ``guidance_scale`` is not 1.
    """

    reference: Tensor
    text: Tensor
    image_tokens: Tensor | None
    height: int
    width: int
    fps: float
    sigmas: tuple[float, ...]
    eta: float
    first_frame: str
    guidance_scale: float
    seed: int
    history_latents: int


class Session:
    """One video in the making. Get one from `ARDragPipeline.start_session`.

    Attributes:
        position: latent frame that the next `step` makes.
        frames: finished pixel frames, a sequence of uint8 ``[H, W, 3]``.
        seconds: time of the last step's parts: ``encode``, ``denoise``, ``cache``, ``decode``.
    """

    def __init__(
        self, pipeline: ARDragPipeline, inputs: SessionInputs, callback: LatentCallback | None = None
    ) -> None:
        self._pipeline = pipeline
        self._inputs = inputs
        self._callback = callback
        self._transformer = pipeline.transformer
        self._vae = StreamingVAE(pipeline.vae)
        self._cache: KVCache = self._transformer.new_cache(
            batch_size=inputs.text.shape[0],
            height=inputs.reference.shape[-2],
            width=inputs.reference.shape[-1],
            history_frames=inputs.history_latents,
        )
        self._states: deque[tuple[int, StreamState, list[float]]] = deque(maxlen=inputs.history_latents)
        self._applied: list[TrackArrays] = []
        self._sigmas: list[float] = []
        self.position = 0
        self.frames = FrameStore(inputs.height, inputs.width)
        self.seconds: dict[str, float] = {}

    @property
    def fps(self) -> float:
        """Playback rate of the video, pixel frames per second."""
        return self._inputs.fps

    @property
    def seed(self) -> int:
        """Seed of the video; with `tracks` it replays the session exactly."""
        return self._inputs.seed

    @property
    def tracks(self) -> Tracks:
        """The control that was really applied, frame by frame."""
        return applied_tracks(self._applied, self._sigmas, self.fps)

    @property
    def next_frames(self) -> range:
        """Pixel frames that the next `step` will make: the first ones a change of the drag can still reach."""
        start, stop = self._next_latents()
        return range(self._first_frame_of(start), self._first_frame_of(stop))

    def step(
        self, points: Tracks | TrackArrays | Sequence[Place] | None = None, sigmas: Sequence[float] = ()
    ) -> list[Frame]:
        """Make the next chunk of latents and return its pixel frames: 1 for latent 0, then 4 per latent.

        Args:
            points: where every track is now (it moves there in a straight line through the new frames), `Tracks` to
                follow as drawn, `TrackArrays` with a row for each of `next_frames`, or None for no control.
            sigmas: relative spread of the spots of `TrackArrays`, one per track; default `SIGMA` where there is none.

        Raises:
            ValueError: if a place is not finite, far outside of the canvas, or not two or three numbers, or an array
                has the wrong shape. Nothing has changed then.
        """
        frames = self.next_frames
        if isinstance(points, Tracks):
            control, spread = points.to_array(frames=frames), points.sigmas()
        else:
            last = self._applied[-1] if self._applied else None
            if isinstance(points, TrackArrays):
                control = checked_rows(points, last, len(frames))
            else:
                control = glide(points or (), last, len(frames))
            count = control.force.shape[1]
            spread = [*(sigmas or self._sigmas), *[SIGMA] * count][:count]
        with torch.no_grad():
            return self._advance(control, spread)

    def rewind(self, latent: int) -> None:
        """Go back so that the next `step` makes ``latent`` again; what came after is forgotten.

        Raises:
            ValueError: if that latent was never the start of a step or is further back than the session remembers.
        """
        if latent == self.position:
            return
        known = {entry[0]: entry for entry in self._states if entry[0] >= self._cache.earliest}
        if latent not in known:
            reach = ", ".join(str(start) for start in known) or "none"
            raise ValueError(f"latent: cannot rewind to {latent}; possible are {reach} (see history_latents)")
        self._cache.rollback(latent)
        _, state, self._sigmas = known[latent]
        self._vae.restore(state)
        while self._states and self._states[-1][0] >= latent:
            self._states.pop()
        kept = self._first_frame_of(latent)
        self.frames.truncate(kept)
        del self._applied[kept:]
        self.position = latent

    def fork(self) -> Session:
        """An independent session with the same past, to try another drag from here."""
        twin = Session(self._pipeline, self._inputs, self._callback)
        twin._vae.restore(self._vae.state())
        twin._cache = self._cache.fork()
        twin._states.extend(self._states)
        twin._applied = list(self._applied)
        twin._sigmas = list(self._sigmas)
        twin.position = self.position
        twin.frames.close()
        twin.frames = self.frames.copy()
        return twin

    def save_video(self, path: str | os.PathLike[str], draw_paths: bool = False) -> None:
        """Write all finished frames as mp4, whole or not at all.

        Raises:
            ValueError: if there is no frame yet, or the path cannot be written.
        """
        write_video(self.frames, path, self.fps, self.tracks if draw_paths else None)

    def close(self) -> None:
        """Give back the disk space of the frames."""
        self.frames.close()

    def _next_latents(self) -> tuple[int, int]:
        alone = self.position == 0 and self._inputs.first_frame == "encode"
        return self.position, self.position + (1 if alone else self._transformer.config.chunk_frames)

    def _first_frame_of(self, latent: int) -> int:
        return 0 if latent == 0 else 1 + self._temporal_factor * (latent - 1)

    @property
    def _temporal_factor(self) -> int:
        return int(self._pipeline.vae.config.scale_factor_temporal)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[part] = time.perf_counter() - started

    def _advance(self, control: TrackArrays, sigmas: list[float]) -> list[Frame]:
        start, stop = self._next_latents()
        before = self._vae.state()
        noise = self._noise(start)
        try:
            with self._timed("encode"):
                conditions = self._conditions(control, sigmas, start, stop, noise)
            with self._timed("denoise"):
                clean = self._denoise(conditions, noise)
            with self._timed("decode"):
                pixels = torch.cat([self._vae.decode_next(latent) for latent in clean.split(1, dim=2)], dim=2)
            with self._timed("cache"):
                write_cache(self._transformer, clean, conditions, self._cache, self._inputs.guidance_scale)
        except BaseException:
            self._vae.restore(before)
            raise
        frames = list(to_frames(pixels[0]))
        self._states.append((start, before, self._sigmas))
        self._sigmas = sigmas
        self._applied.extend(TrackArrays(*(column[t] for column in control)) for t in range(len(frames)))
        for frame in frames:
            self.frames.append(frame)
        self.position = stop
        return frames

    def _noise(self, latent: int) -> GeneratorNoise:
        """Noise of one step: a function of the session's seed and the latent frame alone."""
        reference = self._inputs.reference
        return GeneratorNoise([seeded_generator(self._inputs.seed, latent)], reference.device, reference.dtype)

    def _conditions(
        self, control: TrackArrays, sigmas: list[float], start: int, stop: int, noise: GeneratorNoise
    ) -> Conditions:
        """Control signals of the chunk (Eq. 6), doubled for guidance."""
        inputs = self._inputs
        coloured = self._pipeline.config.coloured_tracks
        video = control_video(control, inputs.height, inputs.width, sigmas, coloured)[None].to(inputs.reference)
        edges = [self._first_frame_of(latent) - self._first_frame_of(start) for latent in range(start, stop + 1)]
        parts = [video[:, :, low:high] for low, high in zip(edges, edges[1:], strict=False)]
        motion = torch.cat([self._vae.encode_next(part) for part in parts], dim=2)
        image = image_slot(inputs.reference, noise(motion.shape), start)
        rows = inputs.text.shape[0]
        return Conditions(
            motion.expand(rows, -1, -1, -1, -1),
            image.expand(rows, -1, -1, -1, -1),
            inputs.text,
            inputs.image_tokens,
            start,
        )

    def _denoise(self, conditions: Conditions, noise: GeneratorNoise) -> Tensor:
        inputs, latent = self._inputs, self.position
        if latent == 0 and inputs.first_frame == "encode":
            return inputs.reference
        callback = self._callback

        def tell(step: int, sigma: float, latents: Tensor) -> Tensor:
            return latents if callback is None else callback(latent, step, latents)

        rollout = generate_chunk(
            self._transformer,
            conditions,
            self._cache,
            inputs.sigmas,
            inputs.eta,
            noise,
            callback=tell,
            guidance_scale=inputs.guidance_scale,
        )
        return rollout.latents


def glide(points: Sequence[Place], last: TrackArrays | None, num_frames: int) -> TrackArrays:
    """Tracks that move in a straight line from where they were to ``points`` in ``num_frames`` pixel frames.

    A track that was not there before appears at its place. ``last`` is the frame before, rows ``[P]``.

    Raises:
        ValueError: if a place is malformed; names the track.
    """
    count = max(len(points), 0 if last is None else len(last.force))
    xy = np.zeros((num_frames, count, 2), np.float32)
    visible = np.zeros((num_frames, count), bool)
    force = np.zeros((num_frames, count), np.float32)
    share = (np.arange(1, num_frames + 1, dtype=np.float32) / num_frames)[:, None]
    for p, place in enumerate(points):
        if place is None:
            continue
        target, pressed = _checked_place(place, p)
        seen_before = last is not None and p < len(last.visible) and bool(last.visible[p])
        origin = last.xy[p] if last is not None and seen_before else target
        xy[:, p] = origin + share * (target - origin)
        visible[:, p] = ((xy[:, p] >= 0) & (xy[:, p] <= 1)).all(1)
        force[:, p] = pressed
    return TrackArrays(xy, visible, force)


def checked_rows(rows: TrackArrays, last: TrackArrays | None, num_frames: int) -> TrackArrays:
    """``rows`` as control of ``num_frames`` pixel frames: tracks may be added after ``last``, none may vanish.

    Raises:
        ValueError: if a shape or a number is wrong.
    """
    xy, visible, force = np.asarray(rows.xy), np.asarray(rows.visible), np.asarray(rows.force, np.float32)
    least = 0 if last is None else len(last.force)
    count = xy.shape[1] if xy.ndim == 3 else -1
    if xy.shape != (num_frames, count, 2) or visible.shape != xy.shape[:2] or force.shape != xy.shape[:2]:
        shapes = [list(column.shape) for column in (xy, visible, force)]
        raise ValueError(f"points: shapes {shapes} must be [T, P, 2], [T, P], [T, P] with T = {num_frames} new frames")
    if count < least:
        raise ValueError(f"points: {count} tracks where there were {least}; make a track invisible, do not drop it")
    if not (np.isfinite(xy).all() and np.isfinite(force).all() and ((force >= 0) & (force <= 1)).all()):
        raise ValueError("points: xy must be finite and force within 0..1")
    inside = ((xy >= 0) & (xy <= 1)).all(2)
    return TrackArrays(xy.astype(np.float32), visible.astype(bool) & inside, force.astype(np.float32))


def _checked_place(place: Sequence[float], track: int) -> tuple[np.ndarray, np.float32]:
    values = np.asarray(place, dtype=np.float32)
    if values.shape not in ((2,), (3,)) or not np.isfinite(values).all():
        raise ValueError(f"points[{track}]: {place!r} must be (x, y) or (x, y, force), all finite numbers")
    if np.abs(values[:2] - 0.5).max() > 1.5:
        raise ValueError(
            f"points[{track}]: {place!r} is far off the canvas; x and y are in 0..1, divide pixels by size"
        )
    pressed = values[2] if len(values) == 3 else np.float32(1)
    if not 0 <= pressed <= 1:
        raise ValueError(f"points[{track}].force: {pressed} is outside 0..1")
    return values[:2], pressed


def applied_tracks(rows: Sequence[TrackArrays], sigmas: Sequence[float], fps: float) -> Tracks:
    """`Tracks` from what was applied in each frame; a track that came later is invisible before.

    Clips longer than a track may have points go on as edits, which replay to the same numbers.
    """
    if not rows:
        return Tracks.empty(1)
    count = max(len(row.force) for row in rows)
    xy = np.zeros((len(rows), count, 2), np.float32)
    visible = np.zeros((len(rows), count), bool)
    force = np.zeros((len(rows), count), np.float32)
    for t, row in enumerate(rows):
        present = len(row.force)
        xy[t, :present], visible[t, :present], force[t, :present] = row
    xy = xy.clip(*FAR)  # out of sight a place means nothing, but a file allows no farther one
    part = 1 + (MAX_POINTS - 1) // 4 * 4
    tracks = Tracks.from_array(xy[:part], visible[:part], force[:part], fps=fps, num_frames=len(rows))
    spreads = [*sigmas, *[SIGMA] * count]
    spread = tuple(replace(track, sigma=sigma) for track, sigma in zip(tracks.tracks, spreads, strict=False))
    tracks = replace(tracks, tracks=spread, _versions=None)
    for start in range(part, len(rows), part - 1):
        for p, track in enumerate(tracks.tracks):
            frames = range(start, min(start + part - 1, len(rows)))
            tail = [(f, *map(float, (*xy[f, p], force[f, p], visible[f, p]))) for f in frames]
            tracks = tracks.with_edit("replace_tail", track.id, start, tail)
    return tracks
