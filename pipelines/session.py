"""Interactive generation: one latent a step, control as of now, rewind and branch (AR-Drag Figure 1b).

A `Session` is the only engine: a whole clip (`ARDragPipeline.__call__`), a stream and every front end drive one. All
randomness is a function of (seed, latent frame), so that the same control gives the same pixels, called at once,
streamed, or replayed after a rewind.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from ardrag.conditioning import Conditions, GreyVideo, image_slot
from ardrag.controls.control import Brushes, Control, Rows, Scene
from ardrag.guidance import Guidance
from ardrag.kv_cache import KVCache
from ardrag.rollout import GeneratorNoise, GivenFirst, generate_chunk, seeded_generator, write_cache
from ardrag.streaming_vae import StreamingVAE, StreamState
from ardrag.tracks.crop import Crop
from ardrag.tracks.sampling import TrackArrays
from ardrag.tracks.schema import Canvas
from ardrag.tracks.tracks import Tracks
from ardrag.transformer import CausalWanTransformer
from pipelines.inputs.points import Place, applied_tracks, checked_brushes, checked_rows, glide
from pipelines.past.applied_rows import AppliedRows
from pipelines.past.frame_store import Frame, FrameStore
from pipelines.video import frame_pixels, to_frames, write_video


Moment = tuple[StreamState, Any]
"""What VAE and control remember."""
LatentCallback = Callable[[int, int, Tensor], Tensor]
"""Called after each denoising step with (latent frame, step, latents); returns the latents to go on with."""


@dataclass(frozen=True)
class SessionInputs:
    """All that a session is made of: tensors on the device where the models run, settings, and the seed.

    ``scene`` holds what is generated of the picture ``[3, H, W]`` and its normalised latent ``[1, C, 1, h, w]``;
    ``control`` is what the model is shown of the tracks; ``text`` and ``image_tokens`` hold one row for each answer of
    the model (`ardrag.guidance`): wanted, negative where ``guidance_scale`` is not 1, and wanted again where
    ``motion_guidance_scale`` is not; ``motion_null`` is the scheduler's. ``picture`` is the (width, height) of the
    picture as it was given: all tracks are of it, and go through the crop that brings it to ``height x width``.
    ``latents`` is the noise ``[1, C, F, h, w]`` that the first ``F`` latents start from, in the place of the seed's.
    """

    scene: Scene
    control: Control
    text: Tensor
    image_tokens: Tensor | None
    picture: tuple[int, int]
    height: int
    width: int
    fps: float
    sigmas: tuple[float, ...]
    eta: float
    first_frame: str
    guidance_scale: float
    seed: int
    history_latents: int
    latents: Tensor | None = None
    attention_kwargs: Mapping[str, Any] | None = None
    motion_guidance_scale: float = 1.0
    motion_null: str = "blank"

    @property
    def crop(self) -> Crop:
        """The part of the picture that is generated."""
        return Crop.covering(*self.picture, self.width, self.height)

    @property
    def reference(self) -> Tensor:
        """The latent of the picture."""
        return self.scene.reference


class Session:
    """One video in the making. Get one from `ARDragPipeline.start_session`.

    Attributes:
        position: latent frame that the next `step` makes.
        frames: finished pixel frames, a sequence of uint8 ``[H, W, 3]``.
        latents: normalised latents ``[1, C, F, H, W]`` of the last step; none before the first.
        seconds: time of the last step's parts: ``encode``, ``denoise``, ``cache``, ``decode``.
    """

    def __init__(
        self,
        transformer: CausalWanTransformer,
        vae: AutoencoderKLWan,
        inputs: SessionInputs,
        callback: LatentCallback | None = None,
    ) -> None:
        self._transformer = transformer
        self._vae = StreamingVAE(vae)
        self._inputs = inputs
        self._callback = callback
        self._control = inputs.control.stream(vae, inputs.scene)
        shows_blank = inputs.motion_guidance_scale != 1 and inputs.motion_null == "blank"
        self._blank = inputs.control.stream(vae, inputs.scene) if shows_blank else None
        self._grey = GreyVideo(vae, inputs.scene.picture) if transformer.config.image_fill == "grey" else None
        self._cache: KVCache = transformer.new_cache(
            batch_size=inputs.text.shape[0],
            height=inputs.reference.shape[-2],
            width=inputs.reference.shape[-1],
            history_frames=inputs.history_latents,
            device=inputs.reference.device,
        )
        self._states: deque[tuple[int, Moment, Brushes]] = deque(maxlen=inputs.history_latents)
        self._applied = AppliedRows()
        self._brushes: Brushes = ()
        self._guidance_scale = inputs.guidance_scale
        self.position = 0
        self.latents = inputs.reference[:, :, :0]
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
    def guidance_scale(self) -> float:
        """Strength of guidance from the next step on.

        Raises:
            ValueError: where it is set so that guidance would begin or end; that takes another session.
        """
        return self._guidance_scale

    @guidance_scale.setter
    def guidance_scale(self, value: float) -> None:
        if (value == 1) != (self._inputs.guidance_scale == 1):
            raise ValueError(f"guidance_scale: {value} would turn guidance on or off in mid-video; start another one")
        self._guidance_scale = value

    @property
    def tracks(self) -> Tracks:
        """The control that was really applied, frame by frame, on the picture as it was given."""
        return replace(
            applied_tracks(self._applied.arrays, self._brushes, self.fps), canvas=Canvas(*self._inputs.picture)
        )

    @property
    def last_row(self) -> TrackArrays | None:
        """The control of the last frame, ``[P]``, or None before the first."""
        return self._applied.last

    @property
    def next_frames(self) -> range:
        """Pixel frames that the next `step` will make: the first ones a change of the drag can still reach."""
        start, stop = self._next_latents()
        return range(self._first_frame_of(start), self._first_frame_of(stop))

    def step(
        self, points: Tracks | TrackArrays | Sequence[Place] | None = None, brushes: Sequence[float | None] = ()
    ) -> list[Frame]:
        """Make the next chunk of latents and return its pixel frames: 1 for latent 0, then 4 per latent.

        All places are in 0..1 of the picture that the session was started with; it and they are cropped alike.

        Args:
            points: where every track is now (it moves there in a straight line through the new frames), `Tracks` to
                follow as drawn, `TrackArrays` with a row for each of `next_frames`, or None for no control.
            brushes: how wide the tracks of `TrackArrays` or of places are, one each, relative to sqrt(height * width);
                None, or none at all, is what the checkpoint's control has for its own.

        Raises:
            ValueError: if a place is not finite, far outside of the picture, or not two or three numbers, an array has
                the wrong shape, or tracks were drawn on a picture of another shape. Nothing has changed then.
        """
        frames = self.next_frames
        if isinstance(points, Tracks):
            rows = Rows(points.on_picture(*self._inputs.picture, frames=frames), points.brushes())
        else:
            last = self._applied.last
            if isinstance(points, TrackArrays):
                arrays = checked_rows(points, last, len(frames))
            else:
                arrays = glide(points or (), last, len(frames))
            rows = Rows(arrays, checked_brushes(brushes or self._brushes, arrays.force.shape[1]))
        with torch.no_grad():
            return self._advance(rows)

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
        _, moment, self._brushes = known[latent]
        self._restore(moment)
        while self._states and self._states[-1][0] >= latent:
            self._states.pop()
        kept = self._first_frame_of(latent)
        self.frames.truncate(kept)
        self._applied.truncate(kept)
        self.position = latent

    def fork(self) -> Session:
        """An independent session with the same past, to try another drag from here."""
        twin = Session(self._transformer, self._vae.vae, self._inputs, self._callback)
        twin._restore(self._moment())
        twin._cache = self._cache.fork()
        twin._states.extend(self._states)
        twin._applied = self._applied.copy()
        twin._brushes = self._brushes
        twin._guidance_scale, twin.latents = self._guidance_scale, self.latents
        twin.position = self.position
        twin.frames.close()
        twin.frames = self.frames.copy()
        return twin

    def save_video(self, path: str | os.PathLike[str], draw_paths: bool = False) -> None:
        """Write all finished frames as mp4, whole or not at all.

        Raises:
            ValueError: if there is no frame yet, or the path cannot be written.
        """
        write_video(self.frames, path, self.fps, self.tracks if draw_paths else None, self._inputs.picture)

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
        return self._vae.temporal_factor

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[part] = time.perf_counter() - started

    def _moment(self) -> Moment:
        return self._vae.state(), (self._control.state(), None if self._blank is None else self._blank.state())

    def _restore(self, moment: Moment) -> None:
        self._vae.restore(moment[0])
        self._control.restore(moment[1][0])
        if self._blank is not None:
            self._blank.restore(moment[1][1])

    def _look(self) -> Tensor:
        """The last finished frame, or the picture."""
        picture = self._inputs.scene.picture
        return frame_pixels(self.frames[-1]).to(picture) if self.frames else picture

    def _advance(self, rows: Rows) -> list[Frame]:
        start, stop = self._next_latents()
        before, kept = self._moment(), len(self.frames)
        noise = self._noise(start)
        try:
            with self._timed("encode"):
                conditions = self._conditions(rows.cropped(self._inputs.crop), start, noise)
            with self._timed("denoise"):
                clean = self._denoise(conditions, noise)
            with self._timed("decode"):
                pixels = torch.cat([self._vae.decode_next(latent) for latent in clean.split(1, dim=2)], dim=2)
            frames = list(to_frames(pixels[0]))
            for frame in frames:
                self.frames.append(frame)
            with self._timed("cache"):
                write_cache(self._transformer, clean, conditions, self._cache, self._guidance)
            self._applied.extend(rows.arrays)
            self._states.append((start, before, self._brushes))
            self._brushes, self.latents, self.position = rows.brushes, clean, stop
        except BaseException:  # an interrupt, a full disk: as if the step had not begun
            self._restore(before)
            self._cache.retract(start)
            self.frames.truncate(kept)
            self._applied.truncate(kept)
            raise
        return frames

    @property
    def _guidance(self) -> Guidance:
        return Guidance(text=self._guidance_scale - 1, motion=self._inputs.motion_guidance_scale - 1)

    def _noise(self, latent: int) -> GeneratorNoise:
        """Noise of one step: a function of the session's seed and the latent frame alone."""
        reference = self._inputs.reference
        return GeneratorNoise([seeded_generator(self._inputs.seed, latent)], reference.device, reference.dtype)

    def _conditions(self, tracks: Rows, start: int, noise: GeneratorNoise) -> Conditions:
        """Control signals of the chunk (Eq. 6), once for each answer that guidance takes."""
        inputs = self._inputs
        motion = self._control.next(tracks, self._look)
        drawn = noise((1, inputs.reference.shape[1], *motion.shape[2:]))
        grey = None if self._grey is None else self._grey(start, start + motion.shape[2])
        image = image_slot(inputs.reference, drawn, start, self._transformer.config.image_fill, grey)
        rows = inputs.text.shape[0]
        motions = motion.expand(rows, -1, -1, -1, -1)
        if inputs.motion_guidance_scale != 1:
            motions = torch.cat([motions[:-1], self._without_motion(tracks, motion)])
        return Conditions(
            motions,
            image.expand(rows, -1, -1, -1, -1),
            inputs.text,
            inputs.image_tokens,
            start,
            inputs.attention_kwargs,
        )

    def _without_motion(self, tracks: Rows, motion: Tensor) -> Tensor:
        if self._blank is None:
            return torch.zeros_like(motion)
        return self._blank.next(Rows.of(Tracks.empty(1), range(len(tracks))), self._look)

    def _denoise(self, conditions: Conditions, noise: GeneratorNoise) -> Tensor:
        inputs, latent = self._inputs, self.position
        if latent == 0 and inputs.first_frame == "encode":
            return inputs.reference
        callback = self._callback

        def tell(step: int, sigma: float, latents: Tensor) -> Tensor:
            return latents if callback is None else callback(latent, step, latents)

        given = None if inputs.latents is None else inputs.latents[:, :, latent : latent + conditions.num_latents]
        rollout = generate_chunk(
            self._transformer,
            conditions,
            self._cache,
            inputs.sigmas,
            inputs.eta,
            noise if given is None else GivenFirst(given, noise),
            callback=tell,
            guidance=self._guidance,
        )
        return rollout.latents
