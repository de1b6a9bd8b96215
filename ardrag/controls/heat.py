"""Heat maps: a bright spot where each track is (AR-Drag section 3.2 and appendix B.1), the paper's control.

    heat = heatmap(tracks, 128, 128)            # [T, H, W] in 0..1

Three equal channels say where something goes on, not what; where two spots cross they do not say which goes on where.
`Coloured` gives each track a colour of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ardrag.controls.control import Look, PixelControl, Rows, size_of, spreads
from ardrag.tracks.schema import SIGMA
from ardrag.tracks.tracks import Tracks


SPOT_COLOURS = ((1.0, 1.0, 1.0), (1.0, 0.4, 0.4), (0.4, 1.0, 0.4), (0.4, 0.4, 1.0))
"""Red, green and blue of the heat of the tracks 0, 1, 2, 3, 4 as 0, and so on, where they are coloured."""


@dataclass(frozen=True)
class Heat(PixelControl):
    """The paper's: heat in three equal channels, 0 as -1 and 1 as 1."""

    name: ClassVar[str] = "heat"
    about: ClassVar[str] = "Tracks are shown as heat maps (`control: heat`), as in the paper."

    def paint(self, rows: Rows, look: Look, memory: Any = None) -> tuple[Tensor, Any]:
        """See `PixelControl`; nothing is remembered."""
        height, width = size_of(look)
        heat = rasterize(*rows.arrays, height, width, spreads(rows.brushes, SIGMA))
        return (heat * 2 - 1).expand(3, -1, -1, -1), None


@dataclass(frozen=True)
class Coloured(PixelControl):
    """Heat in `SPOT_COLOURS`, so that two paths may cross; the first track's is the paper's white."""

    name: ClassVar[str] = "coloured"
    about: ClassVar[str] = "Tracks are shown as heat, each in a colour of its own (`control: coloured`)."

    def paint(self, rows: Rows, look: Look, memory: Any = None) -> tuple[Tensor, Any]:
        """See `PixelControl`; nothing is remembered."""
        height, width = size_of(look)
        sigmas = spreads(rows.brushes, SIGMA)
        video = torch.zeros(3, len(rows), height, width)
        for first, colour in enumerate(SPOT_COLOURS[: rows.arrays.xy.shape[1]]):
            alike = slice(first, None, len(SPOT_COLOURS))
            xy, visible, force = (column[:, alike] for column in rows.arrays)
            heat = rasterize(xy, visible, force, height, width, sigmas[alike])
            torch.maximum(video, torch.tensor(colour)[:, None, None, None] * heat, out=video)
        return video * 2 - 1, None


def heatmap(tracks: Tracks, height: int, width: int, frames: Iterable[int] | None = None) -> Tensor:
    """Heat maps ``[T, height, width]`` in 0..1 of the whole clip, or of ``frames`` only (the same numbers)."""
    return rasterize(*tracks.to_array(frames=frames), height, width, tracks.sigmas())


def rasterize(
    xy: Any, visible: Any, force: Any, height: int, width: int, sigma: float | Sequence[float] | None = None
) -> Tensor:
    """Heat maps `force * exp(-d^2 / (2 s^2))` with `s = sigma * sqrt(height * width)`, combined by max over tracks.

    Args:
        xy: [..., P, 2] in 0..1, array or tensor; pixel centre i lies at (i + 0.5) / width.
        visible: [..., P] bool; an invisible track leaves no heat.
        force: [..., P] in 0..1.
        sigma: relative spread, one for all or one per track [P]; default `SIGMA`.

    Returns:
        [..., height, width] float32 in 0..1 on the device of `xy`. Spots end where the bell falls below 1e-12.
    """
    xy, visible = torch.as_tensor(xy), torch.as_tensor(visible)
    visible = visible.to(xy.device)
    force = torch.as_tensor(force, device=xy.device).float()
    spread = torch.as_tensor(SIGMA if sigma is None else sigma, dtype=torch.float64, device=xy.device)
    spread = spread * math.sqrt(height * width)
    place = torch.where(visible[..., None], xy, 0).double()
    columns = _bell(place[..., 0], width, spread) * torch.where(visible, force, 0)[..., None]
    rows = _bell(place[..., 1], height, spread)
    heat = torch.zeros(*xy.shape[:-2], height, width, device=xy.device)
    for p in range(xy.shape[-2]):
        torch.maximum(heat, rows[..., p, :, None] * columns[..., p, None, :], out=heat)
    return heat


def _bell(center: Tensor, size: int, spread: Tensor) -> Tensor:
    """One axis of the spot: center [..., P] in 0..1 -> [..., P, size] float32, no denormals."""
    pixels = torch.arange(size, dtype=torch.float64, device=center.device) + 0.5
    distance = (pixels - center[..., None] * size) / spread[..., None]
    bell = torch.exp(-0.5 * distance * distance)
    return torch.where(bell < 1e-12, 0.0, bell).float()
