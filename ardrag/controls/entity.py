"""The grabbed entity, as DragAnything has it (arXiv 2403.07420): the mean feature of what was grabbed, along its path.

Kept: one feature vector for the entity, averaged over the grabbed region of the first frame, painted with a Gaussian
that is as wide as the entity. Left out: features of a diffusion model (here the VAE's latent features), segmentation
(the region is the track's brush, or the mask where one is given) and the encoder that DragAnything adds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ardrag.controls.control import Piece, Rows, Scene, grabs, spreads
from ardrag.controls.copied import cell, placed
from ardrag.controls.latent import LatentControl


@dataclass(frozen=True)
class Entity(LatentControl):
    """See the module. ``radius`` is the brush of a track that has none, relative to ``sqrt(H W)``."""

    name: ClassVar[str] = "entity"
    about: ClassVar[str] = "Tracks are shown as the mean feature of what was grabbed (`control: entity`)."
    radius: float = 0.08

    def __post_init__(self) -> None:
        if not 0 < self.radius <= 1:
            raise ValueError(f"control.radius: {self.radius} must be above 0 and at most 1, the picture; use 0.08")

    @property
    def brush(self) -> float:
        """See `Control`."""
        return self.radius

    def mark(self, rows: Rows, scene: Scene, memory: Any = None) -> tuple[Tensor, Any]:
        """See `LatentControl`."""
        reference = scene.reference[0, :, 0].float()
        stretches, held = grabs(rows, lambda track, xy: reference, memory or ())
        slot = reference.new_zeros(reference.shape)
        brushes = spreads(rows.brushes, self.radius)
        for stretch, place, force in placed(rows, stretches):
            spread = brushes[stretch.track] * math.sqrt(slot.shape[1] * slot.shape[2])
            mask = None if scene.masks is None else scene.masks[stretch.track]
            feature = entity_feature(stretch.piece, spread, mask)
            bell = force * torch.exp(-squares(place, slot) / (2 * spread**2))
            slot = slot + bell * (feature[:, None, None] - slot)
        return slot, held


def squares(place: tuple[float, float], grid: Tensor) -> Tensor:
    """Squared distance of each cell's centre from a place in 0..1, in cells, ``[h, w]``."""
    height, width = grid.shape[-2:]
    x = torch.arange(width, device=grid.device) + 0.5 - place[0] * width
    y = torch.arange(height, device=grid.device) + 0.5 - place[1] * height
    return x[None, :] ** 2 + y[:, None] ** 2


def entity_feature(piece: Piece, spread: float, mask: Tensor | None) -> Tensor:
    """Mean feature ``[C]`` over the mask ``[H, W]``, or over the disc of radius ``spread`` round the grabbed place."""
    column, line = cell(piece.xy, piece.source)
    inside = (squares(piece.xy, piece.source) <= spread**2).float()
    if mask is not None:
        inside = F.adaptive_avg_pool2d(mask[None].float(), (piece.source.shape[1], piece.source.shape[2]))[0].to(
            piece.source
        )
    inside[line, column] = 1
    return (piece.source * inside).sum((1, 2)) / inside.sum()
