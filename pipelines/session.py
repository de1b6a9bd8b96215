"""Interactive generation: one latent a step, control as of now, rewind and branch (AR-Drag Figure 1b).

A `Session` is the only engine: a whole clip (`ARDragPipeline.__call__`), a stream and every front end drive one. All
randomness is a function of (seed, latent frame), so that the same control gives the same pixels, called at once,
streamed, or replayed after a rewind.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from ardrag.controls.control import Brushes, Rows
from ardrag.guidance import Guidance
from ardrag.streaming_vae import StreamingVAE, StreamState
from ardrag.tracks.sampling import TrackArrays
from ardrag.tracks.schema import Canvas
from ardrag.tracks.tracks import Tracks
from ardrag.transformer import CausalWanTransformer
from pipelines.inputs.hooks import is_hooked
from pipelines.inputs.points import Place, applied_tracks, checked_brushes, checked_rows, glide
from pipelines.inputs.session_inputs import LatentCallback, SessionInputs
from pipelines.overlap.maker import LatentMaker, MadeChunk
from pipelines.past.applied_rows import AppliedRows
from pipelines.past.frame_store import Frame, FrameStore
from pipelines.video import frame_pixels, to_frames, write_video


Moment = tuple[StreamState, Any]
"""What VAE and control remember."""


class Session:
    """One video in the making. Get one from `ARDragPipeline.start_session`.

    Attributes:
        position: latent frame that the next `step` makes.
        frames: finished pixel frames, a sequence of uint8 ``[H, W, 3]``.
        latents: normalised latents ``[1, C, F, H, W]`` of the last step; none before the first.
        seconds: time of the last step's parts: ``encode``, ``denoise``, ``cache``, ``decode``.

    What a step made becomes context (the cache pass) after its pixels are handed out: at the next operation, or in
    `settle`. Where ``overlap`` is on, it runs beside the control's encoding, and in `follow` the next latent is made
    while this one is decoded. The numbers are the same in any order. A session runs under the autocast that it was
    begun under, or none, whatever is on when it is stepped: its cache has one precision.
    """

    def __init__(
        self,
        transformer: CausalWanTransformer,
        vae: AutoencoderKLWan,
        inputs: SessionInputs,
        callback: LatentCallback | None = None,
    ) -> None:
        self._transformer, self._inputs, self._callback = transformer, inputs, callback
        self._vae = StreamingVAE(vae)
        self._moves = torch.accelerator.is_available() or is_hooked(transformer) or is_hooked(vae)
        self._autocast = self._autocast_now()
        self._maker = LatentMaker(transformer, vae, inputs, callback)
        self._states: deque[tuple[int, Moment, Brushes]] = deque(maxlen=inputs.history_latents)
        self._applied = AppliedRows()
        self._brushes: Brushes = ()
        self._guidance_scale = inputs.guidance_scale
        self.position = 0
        self.latents = inputs.reference[:, :, :0]
        self.frames = FrameStore(inputs.height, inputs.width)
        self.seconds = self._maker.seconds

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
        start, stop = self._next_latents(self.position)
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
        if isinstance(points, Tracks):
            rows = self._drawn(points, self.position)
        else:
            frames, last = self.next_frames, self._applied.last
            if isinstance(points, TrackArrays):
                arrays = checked_rows(points, last, len(frames))
            else:
                arrays = glide(points or (), last, len(frames))
            rows = Rows(arrays, checked_brushes(brushes or self._brushes, arrays.force.shape[1]))
        with self._as_begun(), self._without_gradients():
            return self._advance(rows)

    def follow(self, tracks: Tracks | None, num_frames: int) -> Iterator[list[Frame]]:
        """`step` along ``tracks`` until there are ``num_frames`` frames, each latent's as soon as they exist.

        Where ``overlap`` is on and no callback listens, the next latent is already in the making then.
        """
        while len(self.frames) < num_frames:
            drawn = Tracks.empty(1) if tracks is None else tracks
            _, stop = self._next_latents(self.position)
            alone = self._callback is not None or self._first_frame_of(stop) >= num_frames
            with self._as_begun(), self._without_gradients():
                goes_on = self._maker.overlaps and not alone
                frames = self._advance(
                    self._drawn(drawn, self.position), self._drawn(drawn, stop) if goes_on else None
                )
            yield frames

    def settle(self) -> None:
        """Make context of what the last step made, now rather than at the next operation: for idle moments."""
        with self._as_begun(), self._without_gradients():
            self._maker.settle()

    def rewind(self, latent: int) -> None:
        """Go back so that the next `step` makes ``latent`` again; what came after is forgotten.

        Raises:
            ValueError: if that latent was never the start of a step or is further back than the session remembers.
        """
        if latent == self.position:
            return
        self.settle()
        known = {entry[0]: entry for entry in self._states if entry[0] >= self._maker.cache.earliest}
        if latent not in known:
            reach = ", ".join(str(start) for start in known) or "none"
            raise ValueError(f"latent: cannot rewind to {latent}; possible are {reach} (see history_latents)")
        _, (pixels, control), self._brushes = known[latent]
        self._maker.rewind(latent, control)
        self._vae.restore(pixels)
        while self._states and self._states[-1][0] >= latent:
            self._states.pop()
        kept = self._first_frame_of(latent)
        self.frames.truncate(kept)
        self._applied.truncate(kept)
        self.position = latent

    def fork(self) -> Session:
        """An independent session with the same past, to try another drag from here."""
        with self._as_begun():
            twin = Session(self._transformer, self._vae.vae, self._inputs, self._callback)
            with self._without_gradients():
                self._maker.fork(twin._maker)
        twin._vae.restore(self._vae.state())
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

    def _autocast_now(self) -> tuple[torch.dtype | None, bool]:
        """What the caller's autocast computes in, and whether it is on."""
        place = self._inputs.reference.device.type
        is_on = torch.is_autocast_enabled(place)
        return (torch.get_autocast_dtype(place) if is_on else None), is_on

    def _as_begun(self) -> AbstractContextManager[Any]:
        """The autocast that the session was begun under, where the caller is under another."""
        if self._autocast == self._autocast_now():
            return nullcontext()
        return torch.autocast(self._inputs.reference.device.type, *self._autocast)

    def _without_gradients(self) -> AbstractContextManager[None]:
        """Inference mode (4 % faster on a CPU), unless a callback meets its tensors, or weights are moved in it."""
        kept = self._moves or self._callback is not None
        return torch.no_grad() if kept else torch.inference_mode()

    def close(self) -> None:
        """Give back the disk space of the frames."""
        self._maker.discard()
        self.frames.close()

    def _next_latents(self, start: int) -> tuple[int, int]:
        config = self._transformer.config
        if start:
            return start, start + config.chunk_frames
        return 0, 1 if self._inputs.first_frame == "encode" else config.first_chunk_frames or config.chunk_frames

    def _drawn(self, tracks: Tracks, latent: int) -> Rows:
        """``tracks`` in the pixel frames of the chunk that starts at ``latent``."""
        start, stop = (self._first_frame_of(bound) for bound in self._next_latents(latent))
        return Rows(tracks.on_picture(*self._inputs.picture, frames=range(start, stop)), tracks.brushes())

    def _first_frame_of(self, latent: int) -> int:
        return 0 if latent == 0 else 1 + self._temporal_factor * (latent - 1)

    @property
    def _temporal_factor(self) -> int:
        return self._vae.temporal_factor

    def _look(self) -> Tensor:
        """The last finished frame, or the picture."""
        picture = self._inputs.scene.picture
        return frame_pixels(self.frames[-1]).to(picture) if self.frames else picture

    def _advance(self, rows: Rows, following: Rows | None = None) -> list[Frame]:
        """Make the chunk of ``rows``, and begin with that of ``following`` while it is decoded."""
        maker, (start, stop), kept = self._maker, self._next_latents(self.position), len(self.frames)
        before = self._vae.state(), maker.state()
        try:
            made, frames = self._make_and_show(rows, start, stop, following)
            self._applied.extend(rows.arrays)
            self._states.append((start, before, self._brushes))
            self._brushes, self.latents, self.position, maker.last = rows.brushes, handed_out(made.clean), stop, made
        except BaseException:  # an interrupt, a full disk: as if the step had not begun
            maker.undo(start, before[1])
            self._vae.restore(before[0])
            self.frames.truncate(kept)
            self._applied.truncate(kept)
            raise
        return frames

    def _make_and_show(
        self, rows: Rows, start: int, stop: int, following: Rows | None
    ) -> tuple[MadeChunk, list[Frame]]:
        maker, guidance = self._maker, self._guidance
        if start == 0 and self._inputs.first_frame == "encode" and following is None:
            return maker.first(rows, stop, guidance, self._show)
        made = maker.next(rows, start, stop, guidance, self._look)
        if following is None:
            return made, self._show(made.clean)
        return made, maker.show_beside(made, following, self._next_latents(stop)[1], self._show)

    def _show(self, clean: Tensor) -> list[Frame]:
        """The pixel frames of finished latents, stored."""
        started = time.perf_counter()
        pixels = torch.cat([self._vae.decode_next(latent) for latent in clean.split(1, dim=2)], dim=2)
        self.seconds["decode"] = time.perf_counter() - started
        frames = list(to_frames(pixels[0]))
        for frame in frames:
            self.frames.append(frame)
        return frames

    @property
    def _guidance(self) -> Guidance:
        return Guidance(text=self._guidance_scale - 1, motion=self._inputs.motion_guidance_scale - 1)


def handed_out(latents: Tensor) -> Tensor:
    """A copy that may go through autograd, also of what was made in inference mode."""
    with torch.inference_mode(False), torch.no_grad():
        return latents.clone()
