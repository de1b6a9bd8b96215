"""Controls that are written on the latent grid, without the VAE: nothing to encode, so they cost next to nothing."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from ardrag.controls.control import Control, ControlStream, Look, Rows, Scene
from ardrag.known.still_video import Latents
from ardrag.tracks.tracks import Tracks


class LatentControl(Control):
    """A control that says latent by latent what stands in the motion slot ``[C, h, w]``."""

    @abstractmethod
    def mark(self, rows: Rows, scene: Scene, memory: Any = None) -> tuple[Tensor, Any]:
        """The slot of the next latent ``[C, h, w]``, and what the control has to remember.

        Args:
            rows: the tracks in the latent's pixel frames, one for latent 0.
            scene: the clip's; its reference has the size of the grid.
            memory: what the call before returned; None at the start of a clip.
        """

    def stream(self, vae: AutoencoderKLWan, scene: Scene) -> ControlStream:
        """See `Control`."""
        return LatentStream(self, int(vae.config.scale_factor_temporal), scene)

    def blank(self, vae: AutoencoderKLWan, scene: Scene) -> Latents:
        """See `Control`; without a track every latent is alike."""
        slot = self.stream(vae, scene).next(Rows.of(Tracks.empty(1), range(1)), lambda: scene.picture)
        return lambda start, stop: slot.expand(-1, -1, stop - start, -1, -1)

    def clip(self, vae: AutoencoderKLWan, scene: Scene, rows: Rows, keyframes: Tensor | None = None) -> Tensor:
        """See `Control`; a track that begins late takes what is in the picture, as the originals do."""
        return self.stream(vae, scene).next(rows, lambda: scene.picture)


class LatentStream(ControlStream):
    """A `LatentControl` in one clip."""

    def __init__(self, control: LatentControl, temporal_factor: int, scene: Scene) -> None:
        self._control, self._factor, self._scene = control, temporal_factor, scene
        self._memory: Any = None
        self._started = False

    def next(self, rows: Rows, look: Look) -> Tensor:
        """See `ControlStream`."""
        first = 0 if self._started else 1
        starts = [*range(first), *range(first, len(rows), self._factor)]
        marks = []
        for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
            mark, self._memory = self._control.mark(rows.part(start, stop), self._scene, self._memory)
            marks.append(mark)
        self._started = True
        return torch.stack(marks, dim=1)[None].to(self._scene.reference.dtype)

    def state(self) -> Any:
        """See `ControlStream`."""
        return self._memory, self._started

    def restore(self, state: Any) -> None:
        """See `ControlStream`."""
        self._memory, self._started = state
