"""What a session is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ardrag.controls.control import Control, Scene
from ardrag.tracks.crop import Crop


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
    ``overlap`` says whether independent parts run side by side, which changes no number.
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
    overlap: bool = False

    @property
    def crop(self) -> Crop:
        """The part of the picture that is generated."""
        return Crop.covering(*self.picture, self.width, self.height)

    @property
    def reference(self) -> Tensor:
        """The latent of the picture."""
        return self.scene.reference
