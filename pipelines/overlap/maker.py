"""The latents of a session: made after one another, each of which becomes context for the next.

A chunk is made in three parts: its control is encoded, it is denoised against the context, and once it is clean it
becomes context itself (the cache pass). The last one need not be done before the next chunk is denoised, and nothing
of all this waits for pixels: a `LatentMaker` leaves the cache pass until it is needed and does it beside the encoding
on a second core. Along tracks that are known it makes a chunk ahead there, while the caller's core does the cache pass
of the one before and decodes it: each core then has half of the work. The numbers are the same in any order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from ardrag.conditioning import Conditions, image_slot
from ardrag.controls.control import LateLook, Look, Rows
from ardrag.guidance import Guidance
from ardrag.known.still_video import grey_after
from ardrag.kv_cache import KVCache
from ardrag.rollout import GeneratorNoise, GivenFirst, generate_chunk, seeded_generator, write_cache
from ardrag.transformer import CausalWanTransformer
from pipelines.inputs.session_inputs import LatentCallback, SessionInputs
from pipelines.overlap.second_core import on_two_cores, one_thread, submit
from pipelines.past.frame_store import Frame
from pipelines.video import frame_pixels


Shown = TypeVar("Shown")


@dataclass(frozen=True)
class MadeChunk:
    """Clean latents ``start .. stop`` ``[1, C, F, h, w]``, and what they were made of."""

    start: int
    stop: int
    rows: Rows
    guidance: Guidance
    conditions: Conditions
    clean: Tensor

    def rows_are(self, rows: Rows) -> bool:
        """Whether these latents are what ``rows`` ask for."""
        same = all(np.array_equal(*pair) for pair in zip(self.rows.arrays, rows.arrays, strict=True))
        return same and self.rows.brushes == rows.brushes


@dataclass(frozen=True)
class Ahead:
    """Latents that are being made on the second core: with the control as it was ``before`` them.

    Meanwhile the chunk before them becomes context (``settled``) and is decoded: ``shown`` is its last pixel frame.
    """

    job: Future[MadeChunk]
    before: Any
    settled: Future[None]
    shown: Future[Frame]

    def stop_waiting(self) -> None:
        """What is not done yet will not be done: the job ends without a result where it needs that."""
        self.settled.cancel()
        self.shown.cancel()


class LatentMaker:
    """Control, noise, conditions and context of one session.

    Attributes:
        last: the latest chunk of the session, context already or still to become it.
        seconds: time of the latest parts: ``encode``, ``denoise``, ``cache``.
    """

    def __init__(
        self,
        transformer: CausalWanTransformer,
        vae: AutoencoderKLWan,
        inputs: SessionInputs,
        callback: LatentCallback | None = None,
    ) -> None:
        self._transformer = transformer
        self._inputs = inputs
        self._callback = callback
        self._control = inputs.control.stream(vae, inputs.scene)
        shows_blank = inputs.motion_guidance_scale != 1 and inputs.motion_null == "blank"
        self._blank = inputs.control.blank(vae, inputs.scene) if shows_blank else None
        self._grey = grey_after(vae, inputs.scene.picture) if transformer.config.image_fill == "grey" else None
        self.cache: KVCache = transformer.new_cache(
            batch_size=inputs.text.shape[0],
            height=inputs.reference.shape[-2],
            width=inputs.reference.shape[-1],
            history_frames=inputs.history_latents + transformer.config.chunk_frames * inputs.overlap,
            device=inputs.reference.device,
        )
        self.last: MadeChunk | None = None
        self._ahead: Ahead | None = None
        self.seconds: dict[str, float] = {}

    def state(self) -> Any:
        """What the control remembers, before whatever is made ahead."""
        if self._ahead is not None:
            return self._ahead.before
        return self._control.state()

    def restore(self, state: Any) -> None:
        """Go back to a `state`; what was made ahead is forgotten."""
        self.discard()
        self._control.restore(state)

    def fork(self, twin: LatentMaker) -> None:
        """Give ``twin``, new and of the same inputs, this past."""
        self.settle()
        twin.restore(self.state())
        twin.cache = self.cache.fork()

    def rewind(self, start: int, state: Any) -> None:
        """Go back so that the chunk at ``start`` comes next; the cache must reach so far."""
        self.cache.rollback(start)
        self.restore(state)
        self.last = None

    def undo(self, start: int, state: Any) -> None:
        """As if the chunk at ``start``, the one in the making, had not been begun."""
        self.discard()
        if self.cache.position > start:  # what was made ahead of it has written over what left the window
            self.cache.rollback(start)
        self._control.restore(state)

    def next(self, rows: Rows, start: int, stop: int, guidance: Guidance, look: Look) -> MadeChunk:
        """The chunk ``start .. stop`` of ``rows``, whether it was made ahead or is made now."""
        ahead, made = self._ahead, self._join()
        if made is not None and made.rows_are(rows) and made.guidance == guidance:
            return made
        if made is not None and ahead is not None:
            self._control.restore(ahead.before)
        return self._make(rows, start, stop, guidance, look, self.last, self.overlaps)

    def first(
        self, rows: Rows, stop: int, guidance: Guidance, show: Callable[[Tensor], Shown]
    ) -> tuple[MadeChunk, Shown]:
        """The first chunk where its latent is given: its control is encoded beside what ``show`` makes of it."""
        picture, reference = self._inputs.scene.picture, self._inputs.reference

        def make() -> MadeChunk:
            return self._make(rows, 0, stop, guidance, lambda: picture, None, False)

        return on_two_cores(make, lambda: show(reference), self.overlaps)

    def show_beside(
        self, made: MadeChunk, rows: Rows, stop: int, show: Callable[[Tensor], list[Frame]]
    ) -> list[Frame]:
        """What ``show`` gives for ``made``, which becomes context, while the chunk of ``rows`` after it is begun with.

        That it cannot become context is not said here: the chunk after it then fails, is made again, and says so.
        """
        settled: Future[None] = Future()
        shown: Future[Frame] = Future()
        picture, before = self._inputs.scene.picture, self.state()

        def job() -> MadeChunk:
            noise = self._noise(made.stop)
            conditions = self._encode(rows, made.stop, noise, lambda: frame_pixels(shown.result()).to(picture))
            settled.result()
            return self._denoise_chunk(rows, stop, made.guidance, conditions, noise)

        self._ahead = Ahead(submit(job), before, settled, shown)
        with one_thread():
            try:
                self._settle(made)
            except Exception:
                settled.cancel()
            else:
                settled.set_result(None)
            frames = show(made.clean)
        shown.set_result(frames[-1])
        return frames

    def settle(self) -> None:
        """Make context of the latest chunk now; what was made ahead is forgotten."""
        self.discard()
        self._settle(self.last)

    def discard(self) -> None:
        """Forget what was made ahead."""
        ahead = self._ahead
        if ahead is not None:
            ahead.stop_waiting()
            self._join()
            self._control.restore(ahead.before)

    @property
    def overlaps(self) -> bool:
        """Whether parts run side by side; a call under autocast stays in its thread."""
        return self._inputs.overlap and not torch.is_autocast_enabled("cpu")

    def _make(
        self, rows: Rows, start: int, stop: int, guidance: Guidance, look: Look, last: MadeChunk | None, beside: bool
    ) -> MadeChunk:
        """A chunk after ``last``, which becomes context first, or ``beside`` the encoding of the control."""
        noise, is_over = self._noise(start), self._is_settled(last)
        _, conditions = on_two_cores(
            lambda: self._settle(last), lambda: self._encode(rows, start, noise, look), beside and not is_over
        )
        return self._denoise_chunk(rows, stop, guidance, conditions, noise)

    def _encode(self, rows: Rows, start: int, noise: GeneratorNoise, look: Look) -> Conditions:
        with self._timed("encode"):
            late = LateLook((self._inputs.height, self._inputs.width), look)
            return self.conditions(rows.cropped(self._inputs.crop), start, noise, late)

    def _denoise_chunk(
        self, rows: Rows, stop: int, guidance: Guidance, conditions: Conditions, noise: GeneratorNoise
    ) -> MadeChunk:
        with self._timed("denoise"):
            clean = self._denoise(conditions, noise, guidance)
        return MadeChunk(conditions.first_latent, stop, rows, guidance, conditions, clean)

    def _join(self) -> MadeChunk | None:
        """What was made ahead, once it is; None where nothing was, or it failed: made again it may fail for all."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return None
        try:
            return ahead.job.result()
        except BaseException as error:
            ahead.stop_waiting()
            wait([ahead.job])
            self._control.restore(ahead.before)
            if error is ahead.job.exception():
                return None
            raise

    def _is_settled(self, made: MadeChunk | None) -> bool:
        return made is None or self.cache.position != made.start

    def _settle(self, made: MadeChunk | None) -> None:
        """The cache pass of ``made`` (Algorithm 1, line 22), unless it has been; whole or not at all."""
        if made is None or self._is_settled(made):
            return
        try:
            with self._timed("cache"):
                write_cache(self._transformer, made.clean, made.conditions, self.cache, made.guidance)
        except BaseException:
            self.cache.retract(made.start)
            raise

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[part] = time.perf_counter() - started

    def _noise(self, latent: int) -> GeneratorNoise:
        """Noise of one step: a function of the session's seed and the latent frame alone."""
        reference = self._inputs.reference
        return GeneratorNoise([seeded_generator(self._inputs.seed, latent)], reference.device, reference.dtype)

    def conditions(self, tracks: Rows, start: int, noise: GeneratorNoise, look: Look) -> Conditions:
        """Control signals of the chunk (Eq. 6), once for each answer that guidance takes."""
        inputs = self._inputs
        motion = self._control.next(tracks, look)
        stop = start + motion.shape[2]
        drawn = noise((1, inputs.reference.shape[1], *motion.shape[2:]))
        grey = None if self._grey is None else self._grey(start, stop)
        image = image_slot(inputs.reference, drawn, start, self._transformer.config.image_fill, grey)
        rows = inputs.text.shape[0]
        motions = motion.expand(rows, -1, -1, -1, -1)
        if inputs.motion_guidance_scale != 1:
            blank = torch.zeros_like(motion) if self._blank is None else self._blank(start, stop)
            motions = torch.cat([motions[:-1], blank])
        return Conditions(
            motions,
            image.expand(rows, -1, -1, -1, -1),
            inputs.text,
            inputs.image_tokens,
            start,
            inputs.attention_kwargs,
        )

    def _denoise(self, conditions: Conditions, noise: GeneratorNoise, guidance: Guidance) -> Tensor:
        inputs, latent = self._inputs, conditions.first_latent
        if latent == 0 and inputs.first_frame == "encode":
            return inputs.reference
        callback = self._callback

        def tell(step: int, sigma: float, latents: Tensor) -> Tensor:
            return latents if callback is None else callback(latent, step, latents)

        given = None if inputs.latents is None else inputs.latents[:, :, latent : latent + conditions.num_latents]
        rollout = generate_chunk(
            self._transformer,
            conditions,
            self.cache,
            inputs.sigmas,
            inputs.eta,
            noise if given is None else GivenFirst(given, noise),
            callback=tell,
            guidance=guidance,
        )
        return rollout.latents
