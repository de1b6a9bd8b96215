"""Four ways to spoil a frame of Sprite World by a known amount: what the aesthetic scorer learns to see.

All take pictures ``[N, 3, H, W]`` in 0..255 and a severity ``[N]`` in 0..1; severity 0 leaves a picture as it is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


LONGEST_BLUR = 4.0
"""Standard deviation of the strongest blur, pixels."""
STRONGEST_NOISE = 50.0
LARGEST_DRIFT = 70.0
"""Largest shift of a colour channel, of 255."""
LARGEST_BREAK = 9.0
"""Largest displacement of a part of a shape, pixels."""


def blur(pictures: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian blur."""
    offsets = torch.arange(-12, 13, dtype=torch.float32)
    spread = (LONGEST_BLUR * severity).clamp_min(1e-3)[:, None]
    kernel = torch.softmax(-(offsets**2) / (2 * spread**2), dim=1)  # [N, 25]
    count, channels, height, width = pictures.shape
    rows = F.pad(pictures, (12, 12, 12, 12), mode="reflect").reshape(1, count * channels, height + 24, width + 24)
    taps = kernel.repeat_interleave(channels, 0)
    rows = F.conv2d(rows, taps[:, None, None, :], groups=count * channels)
    return F.conv2d(rows, taps[:, None, :, None], groups=count * channels).view_as(pictures)


def noise(pictures: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Blotches of colour, as an unfinished denoising leaves them."""
    count, _, height, width = pictures.shape
    coarse = torch.randn(count, 3, height // 4, width // 4, generator=generator)
    blotches = F.interpolate(coarse, size=(height, width), mode="bilinear")
    return pictures + STRONGEST_NOISE * severity[:, None, None, None] * blotches


def colour_drift(pictures: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """A shift of the colours that changes slowly over the picture."""
    count, _, height, width = pictures.shape
    drift = F.interpolate(torch.randn(count, 3, 3, 3, generator=generator), size=(height, width), mode="bicubic")
    drift = drift / drift.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-6)
    return pictures + LARGEST_DRIFT * severity[:, None, None, None] * drift


def broken_shapes(pictures: Tensor, severity: Tensor, generator: torch.Generator) -> Tensor:
    """Parts of shapes pulled away from where they belong."""
    count, _, height, width = pictures.shape
    pull = F.interpolate(torch.randn(count, 2, height // 10, width // 10, generator=generator), size=(height, width))
    pull = pull.clamp(-1.5, 1.5) / 1.5 * LARGEST_BREAK * severity[:, None, None, None]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.stack([columns + pull[:, 0], rows + pull[:, 1]], dim=-1)
    grid = 2 * grid / torch.tensor([width - 1, height - 1]) - 1
    return F.grid_sample(pictures, grid, align_corners=True, padding_mode="reflection")


Degradation = Callable[[Tensor, Tensor, torch.Generator], Tensor]
DEGRADATIONS: dict[str, Degradation] = {
    "blur": blur,
    "noise": noise,
    "colour drift": colour_drift,
    "broken shapes": broken_shapes,
}


def degrade(pictures: Tensor, severity: Tensor, names: list[str], generator: torch.Generator) -> Tensor:
    """Each picture spoiled in its own way (``names [N]``) by its own amount; uint8 in, uint8 out."""
    spoiled = pictures.float().clone()
    for name, spoil in DEGRADATIONS.items():
        rows = torch.tensor([i for i, wanted in enumerate(names) if wanted == name], dtype=torch.long)
        if len(rows):
            spoiled[rows] = spoil(spoiled[rows], severity[rows], generator)
    return spoiled.round().clamp(0, 255).to(torch.uint8)
