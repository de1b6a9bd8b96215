"""Latents of videos in which nothing moves after the first frame: no track at all, or grey after a picture."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from ardrag.known.answers import answer, digest
from ardrag.streaming_vae import StreamingVAE


Latents = Callable[[int, int], Tensor]
"""Gives the latent frames ``start .. stop`` ``[1, C, stop - start, h, w]`` of a clip, in any order."""


@dataclass
class Stills:
    """Latents ``[1, C, 1, h, w]`` by their number; from ``settled`` on all are alike."""

    made: dict[int, Tensor] = field(default_factory=dict)
    settled: int = sys.maxsize

    @property
    def nbytes(self) -> int:
        """Bytes of the latents."""
        return sum(latent.nbytes for latent in self.made.values())


class StillVideo:
    """Latents of a video that is ``first`` and then ``rest`` for ever, as they are asked for.

    They are the latents of the whole video in whatever order they are asked for. Each is encoded once, also for other
    videos of the same frames and VAE; once the VAE remembers nothing but ``rest``, all that follow are alike, and an
    endless video takes no more work or memory.

    Args:
        vae: of the pipeline.
        first, rest: frames ``[3, H, W]`` in [-1, 1] on the device where the VAE runs.
    """

    def __init__(self, vae: AutoencoderKLWan, first: Tensor, rest: Tensor) -> None:
        self._vae = StreamingVAE(vae)
        self._first, self._rest = first[None, :, None], rest[None, :, None]
        self._asked = digest(first, rest)
        self._next = 0

    def __call__(self, start: int, stop: int) -> Tensor:
        """Latent frames ``start .. stop``, ``[1, C, stop - start, h, w]``."""
        with torch.no_grad():
            known = answer(self._vae.vae, self._asked, self._first.device, Stills)
            return torch.cat([self._latent(known, latent) for latent in range(start, stop)], dim=2)

    def _latent(self, known: Stills, latent: int) -> Tensor:
        if min(latent, known.settled) not in known.made and latent < self._next:
            self._restart()  # what was known is forgotten
        while min(latent, known.settled) not in known.made:
            self._encode(known)
        return known.made[min(latent, known.settled)]

    def _restart(self) -> None:
        self._vae.reset()
        self._next = 0

    def _encode(self, known: Stills) -> None:
        """Encode the next latent of this stream, whether another one has done so or not."""
        before, number = self._vae.state().encoder, self._next
        frames = self._rest.expand(-1, -1, self._vae.temporal_factor, -1, -1) if number else self._first
        made = known.made[number] = self._vae.encode_next(frames)
        self._next += 1
        last = known.made.get(number - 1)
        if number > 1 and last is not None and torch.equal(made, last) and self._remembers(before):
            known.settled = number
            self._restart()

    def _remembers(self, before: tuple[Tensor | str | None, ...]) -> bool:
        """Whether the encoder's memory is what it was ``before`` the last latent: then the next one is the same."""
        pairs = zip(self._vae.state().encoder, before, strict=True)
        return all(
            torch.equal(now, was) if isinstance(now, Tensor) and isinstance(was, Tensor) else now is was
            for now, was in pairs
        )


def grey_after(vae: AutoencoderKLWan, picture: Tensor) -> StillVideo:
    """``picture`` ``[3, H, W]`` and grey after it, what public image-to-video checkpoints have in their image slot."""
    return StillVideo(vae, picture, torch.zeros_like(picture))
