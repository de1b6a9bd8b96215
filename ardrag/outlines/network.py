"""The outline of what is grabbed: a small network from a picture and a brush to a soft mask.

The brush says where and, roughly, how much is meant; the network says where the thing under it ends. It was taught on
worlds that know who owns each pixel (`training.outlines.train`): of a thing its mask, of anything else the disc of the
brush. So where nothing like a thing lies under the brush it gives the disc back, and where it is unsure a mixture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from ardrag.saving import SavedWhole


SEEN = 7
"""What the network sees of each pixel: three colours, the disc, its tip, how far away in colour and in space it is."""
GROUPS = 4
LEAN = 3.5
"""How far masks lean towards more, in logits: a missing part tears a thing, a little ground beside it hardly shows."""
SURE = 0.05
"""What is less likely than this is no part of a mask, what is more likely than the rest of it is wholly one."""


def layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A convolution of 3x3, normalised."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1)
    return nn.Sequential(convolution, nn.GroupNorm(GROUPS, outputs), nn.SiLU())


def disc(squared: Tensor, spread: Tensor | float) -> Tensor:
    """The soft edge of a brush, of squared distances in pixels: ``exp(-(d^2 / 2 s^2)^2)``."""
    return torch.exp(-((squared / (2 * spread**2)) ** 2))


class Outline(SavedWhole, ModelMixin, ConfigMixin):
    """Down by halves and up again, with what each level saw added; the last halving goes from four masks to one.

    Args:
        widths: channels after each halving; multiples of 4.
        side: pictures are brought to about ``side * side`` pixels, whatever their size.
        tip: radius in which the colour of the grabbed place is taken, relative to the side.
    """

    @register_to_config
    def __init__(self, widths: Sequence[int] = (12, 24, 48, 64), side: int = 128, tip: float = 0.03) -> None:
        super().__init__()
        wider = list(zip(widths[:-1], widths[1:], strict=True))
        first = layer(SEEN, widths[0], 2)
        self.down = nn.ModuleList([first, *(nn.Sequential(layer(a, b, 2), layer(b, b)) for a, b in wider)])
        self.middle = layer(widths[-1], widths[-1])
        self.narrow = nn.ModuleList([nn.Conv2d(b, a, 1) for a, b in reversed(wider)])
        self.up = nn.ModuleList([layer(a, a) for a, _ in reversed(wider)])
        self.conv_out = nn.Conv2d(widths[0] + 4 * SEEN, 4, 3, padding=1)

    def forward(self, pictures: Tensor, xy: Tensor, brushes: Tensor) -> Tensor:
        """Logits of the masks ``[N, H, W]``.

        Args:
            pictures: ``[N, 3, H, W]`` in [-1, 1], sides that all halvings divide.
            xy: where each is grabbed, ``[N, 2]`` in 0..1.
            brushes: ``[N]``, relative to ``sqrt(H W)``.
        """
        seen = self.see(pictures, xy, brushes)
        now, levels = seen, []
        for down in self.down:
            now = down(now)
            levels.append(now)
        now = self.middle(levels.pop())
        for narrow, up in zip(self.narrow, self.up, strict=True):
            level = levels.pop()
            now = up(level + F.interpolate(narrow(now), size=level.shape[2:], mode="nearest"))
        masks = self.conv_out(torch.cat([now, F.pixel_unshuffle(seen, 2)], dim=1))
        return F.pixel_shuffle(masks, 2)[:, 0]

    def brought(self, pictures: Tensor) -> Tensor:
        """Pictures or masks ``[N, C, H, W]`` in the size that the network sees, which all halvings divide."""
        step = 2 ** len(self.config.widths)
        scale = self.config.side / math.sqrt(math.prod(pictures.shape[2:]))
        size = [max(round(extent * scale / step), 1) * step for extent in pictures.shape[2:]]
        return F.interpolate(pictures, size=size, mode="bilinear", antialias=True)

    def see(self, pictures: Tensor, xy: Tensor, brushes: Tensor) -> Tensor:
        """What the network sees, ``[N, 7, H, W]``."""
        squared = squared_distances(xy, pictures)
        side = math.sqrt(math.prod(pictures.shape[2:]))
        tip = torch.exp(-squared / (2 * (self.config.tip * side) ** 2))[:, None]
        colour = (pictures * tip).sum((2, 3), keepdim=True) / tip.sum((2, 3), keepdim=True)
        unlike = (pictures - colour).square().mean(1, keepdim=True).sqrt()
        brush = disc(squared, brushes[:, None, None] * side)[:, None]
        return torch.cat([pictures, brush, tip, unlike, squared[:, None].sqrt() / side], dim=1)

    @torch.no_grad()
    def mask(self, picture: Tensor, xy: tuple[float, float], brush: float, lean: float = LEAN) -> Tensor:
        """How much of each pixel of ``picture`` ``[3, H, W]`` is what is grabbed at ``xy``: ``[H, W]`` in 0..1.

        The network looks twice, the second time in a mirror. The mask leans towards more by ``lean`` logits.
        """
        height, width = picture.shape[1:]
        small = self.brought(picture[None].to(self.dtype))
        places = small.new_tensor([xy, (1 - xy[0], xy[1])])
        seen, mirrored = self(torch.cat([small, small.flip(3)]), places, small.new_tensor([brush, brush]))
        likely = ((seen + mirrored.flip(1)) / 2 + lean).sigmoid()[None, None]
        mask = ((likely - SURE) / (1 - 2 * SURE)).clamp(0, 1)
        return F.interpolate(mask, size=(height, width), mode="bilinear")[0, 0].to(picture)


def discs(pictures: Tensor, xy: Tensor, brushes: Tensor) -> Tensor:
    """What brushes mean where nobody knows of things, ``[N, H, W]`` in 0..1; arguments are those of `Outline`."""
    side = math.sqrt(math.prod(pictures.shape[2:]))
    return disc(squared_distances(xy, pictures), brushes[:, None, None] * side)


def squared_distances(xy: Tensor, pictures: Tensor) -> Tensor:
    """Squared distance of each pixel's centre from a place in 0..1, in pixels, ``[N, H, W]``."""
    height, width = pictures.shape[2:]
    x = torch.arange(width, device=xy.device) + 0.5 - xy[:, :1] * width
    y = torch.arange(height, device=xy.device) + 0.5 - xy[:, 1:] * height
    return (x[:, None, :] ** 2 + y[:, :, None] ** 2).to(pictures.dtype)
