"""Masks that move along the tracks, as MagicMotion's first stage has them (arXiv 2503.16421).

Kept: a video of the objects' masks, one colour for each, on black, through the VAE. Left out: its ControlNet branch,
and masks that change their form: the mask that each track has in the picture (`Scene.masks`) is moved along its path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ardrag.controls.boxes import lay
from ardrag.controls.control import Held, Look, Piece, PixelControl, Rows, Scene, Stretch, grabs


@dataclass(frozen=True)
class Masks(PixelControl):
    """See the module."""

    name: ClassVar[str] = "masks"
    about: ClassVar[str] = "Tracks are shown as the coloured masks of what they move (`control: masks`)."

    def begin(self, scene: Scene) -> Any:
        """See `PixelControl`: the masks, and that nothing is held yet.

        Raises:
            ValueError: if nobody gave masks.
        """
        if scene.masks is None:
            raise ValueError(
                "masks: the control shows masks, and none were given; give masks=[P, H, W] in 0..1, one for each track"
            )
        return scene.masks.float(), ()

    def paint(self, rows: Rows, look: Look, memory: Any = None) -> tuple[Tensor, Any]:
        """See `PixelControl`; masks and what each track holds are remembered.

        Raises:
            ValueError: if a track has no mask.
        """
        masks: Tensor = memory[0]
        held: Held = memory[1]
        stretches, held = grabs(rows, lambda track, xy: masks, held)
        video = torch.zeros(3, len(rows), *masks.shape[1:])
        for stretch in stretches:
            if stretch.track >= len(masks):
                raise ValueError(f"masks: {len(masks)} given, but there is a track {stretch.track}; give one for each")
            video = lay(video, self._cover(stretch, rows, masks), stretch.track)
        return video * 2 - 1, (masks, held)

    @staticmethod
    def _cover(stretch: Stretch, rows: Rows, masks: Tensor) -> Tensor:
        """Where the moved mask is in each frame of ``rows`` ``[T, H, W]``, times the force."""
        arrays, track = rows.arrays, stretch.track
        xy, visible, force = arrays.xy[:, track], arrays.visible[:, track], arrays.force[:, track]
        inside = (np.arange(len(rows)) >= stretch.start) & (np.arange(len(rows)) < stretch.stop) & visible
        steps = np.where(inside[:, None], xy - np.array(stretch.piece.xy), 0)
        cover = moved(Piece(masks[stretch.track, None], stretch.piece.xy), torch.from_numpy(steps).float())
        return cover * torch.from_numpy(inside * force).float()[:, None, None]


def moved(piece: Piece, steps: Tensor) -> Tensor:
    """A mask ``[1, H, W]`` moved by ``steps`` ``[T, 2]`` in 0..1: ``[T, H, W]``."""
    height, width = piece.source.shape[1:]
    x = (torch.arange(width) + 0.5) / width - steps[:, 0, None]
    y = (torch.arange(height) + 0.5) / height - steps[:, 1, None]
    grid = torch.stack(torch.broadcast_tensors(2 * x[:, None, :] - 1, 2 * y[:, :, None] - 1), dim=3)
    source = piece.source.expand(len(steps), -1, -1, -1)
    return F.grid_sample(source, grid, padding_mode="zeros", align_corners=False)[:, 0]
