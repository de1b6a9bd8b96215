"""Pieces of a picture: cut out with their edge, laid over frames, and what closes over the place they left.

Places are complex numbers, ``x + i y`` in pixels of the video (pixel ``i`` spans ``i .. i + 1``), so that a turn and a
scale are one factor (`ardrag.collage.ground`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ardrag.outlines.network import disc


Places = npt.NDArray[np.complex128]
REACH = 2.5
"""Where a piece ends, in units of its spread: its edge has 6e-5 there."""
RIM = 1 / 128
"""How far beyond a piece its place closes over, relative to sqrt(H W); at least a pixel."""
FAINT = 1e-3
"""What a piece must leave uncovered before it is asked how much of its old place that is."""


class Laid(NamedTuple):
    """Pieces in windows: ``layer`` ``[n, 4, K, K]``, colours times edge, and edge; ``corners`` ``[n, 2]``, x and y."""

    layer: Tensor
    corners: npt.NDArray[np.int64]

    def room(self, like: Tensor, margin: int) -> tuple[slice, slice]:
        """Lines and columns of frames like ``like`` ``[..., H, W]`` that the windows need, and a margin."""
        first = self.corners.min(0, initial=max(like.shape)) - margin
        last = self.corners.max(0, initial=0) + self.layer.shape[-1] + margin
        columns, lines = (slice(max(int(a), 0), max(int(b), 0)) for a, b in zip(first, last, strict=True))
        return lines, columns

    def picked(self, frames: npt.NDArray[np.int64]) -> Laid:
        """Those of some frames; one that rests is the same in all."""
        chosen = frames if len(self.layer) > 1 else np.zeros_like(frames)
        return Laid(self.layer[chosen], self.corners[chosen])

    def beneath(self, covered: Mapping[int, Tensor]) -> Laid:
        """The same where some frames' pieces lie under what covers ``[H, W]`` of the frame."""
        layer = self.layer.clone()
        for n, cover in covered.items():
            over, under = overlap(cover[None], self.corners[n].tolist(), layer[n])
            under.mul_((1 - over).clamp_min(0))
        return Laid(layer, self.corners)

    def seen_in(self, lines: slice, columns: slice) -> Laid:
        """The same in a part of the frames."""
        return Laid(self.layer, self.corners - np.array([columns.start, lines.start]))


def cut(source: Tensor, taken: complex, places: Places, spread: float, turns: Places | None = None) -> Laid:
    """A piece laid at each of ``places`` ``[n]``, with its soft edge.

    Args:
        source: ``[4, H, W]``, a picture and how much of each pixel is the piece; beyond it there is nothing.
        taken: the grabbed point in the source.
        spread: how wide the soft edge round it is, in pixels of the source; infinite where the source says it all.
        turns: factors ``[n]`` by which it is turned and scaled; None: it is as it was.
    """
    height, width = source.shape[1:]
    grown = 1.0 if turns is None else float(abs(turns).max(initial=1))
    reach = math.ceil(min(REACH * spread, extent(source, taken)) * grown)
    points = pairs(places)
    corners = np.floor(points).astype(int) - reach
    inside = torch.from_numpy(points - corners).to(source)  # [n, 2]
    pixels = torch.arange(2 * reach + 1, device=source.device) + 0.5
    rows, columns = (pixels - inside[:, 1:])[:, :, None], (pixels - inside[:, :1])[:, None, :]
    x, y = torch.broadcast_tensors(columns, rows)  # [n, K, K], from the grabbed point
    if turns is not None:
        cos, sin = torch.from_numpy(pairs(1 / turns)).to(source).T[:, :, None, None]
        x, y = x * cos - y * sin, x * sin + y * cos
    edge = disc(x**2 + y**2, spread)
    grid = torch.stack([2 * (taken.real + x) / width - 1, 2 * (taken.imag + y) / height - 1], dim=3)
    many = source.expand(len(places), -1, -1, -1)
    return Laid(F.grid_sample(many, grid, padding_mode="zeros", align_corners=False) * edge[:, None], corners)


def pairs(places: Places) -> npt.NDArray[np.float64]:
    """Complex numbers ``[n]`` as pairs ``[n, 2]``."""
    return np.stack([places.real, places.imag], 1)


def lay_over(video: Tensor, frames: Sequence[int], laid: Laid) -> None:
    """Lay pieces over ``frames`` of ``video`` ``[3, T, H, W]``, in place."""
    for t, corner, part in zip(frames, laid.corners.tolist(), laid.layer, strict=True):
        under, over = overlap(video[:, t], corner, part)
        under.mul_(1 - over[3]).add_(over[:3])


def covers(like: Tensor, laid: Laid) -> Tensor:
    """How much of each pixel each piece covers, ``[n, H, W]``, in frames of the size of ``like`` ``[..., H, W]``."""
    cover = like.new_zeros(len(laid.layer), *like.shape[-2:])
    for frame, corner, part in zip(cover, laid.corners.tolist(), laid.layer, strict=True):
        under, over = overlap(frame[None], corner, part)
        under.copy_(over[3:])
    return cover


def overlap(frame: Tensor, corner: Sequence[int], part: Tensor) -> tuple[Tensor, Tensor]:
    """The pixels that ``frame`` ``[C, H, W]`` and a window ``part`` ``[4, K, K]`` with that corner share, of each."""
    (x, y), size = corner, part.shape[1]
    under = frame[:, max(y, 0) : max(y + size, 0), max(x, 0) : max(x + size, 0)]
    left, top = max(-x, 0), max(-y, 0)
    return under, part[:, top : top + under.shape[1], left : left + under.shape[2]]


def vacated(before: Tensor, now: Tensor, rim: int) -> Tensor:
    """How empty the place of a piece is, from what it covered there and what it covers now, both ``[T, H, W]``.

    Nothing until it leaves: under the piece itself the ground stays, and what is laid over it with its own soft edge
    is then the picture again. The place is ``rim`` pixels larger than the piece, or a rim of it would stay behind.
    """
    left = torch.maximum(before - now, grown(before, rim) - grown(now, rim)).clamp_min(0)
    return (left / (1 - now).clamp_min(FAINT)).clamp_max(1)


def rim_of(frames: Tensor) -> int:
    """How many pixels of frames ``[..., H, W]`` beyond a piece its place closes over."""
    return max(round(RIM * math.sqrt(math.prod(frames.shape[-2:]))), 1)


def grown(cover: Tensor, rim: int) -> Tensor:
    """A cover ``[T, H, W]`` that reaches ``rim`` pixels further."""
    return F.max_pool2d(cover[:, None], 2 * rim + 1, stride=1, padding=rim)[:, 0]


def filled(picture: Tensor, known: Tensor) -> Tensor:
    """A picture ``[C, H, W]`` where what is not ``known`` ``[1, H, W]`` (0..1) closes over: smoothly, from all sides.

    What is known stays as it is. Elsewhere each pixel is what a picture of half the size shows there, filled likewise.
    """
    if min(picture.shape[1:]) == 1:
        return picture
    share = F.avg_pool2d(known[None], 2, ceil_mode=True)
    half = F.avg_pool2d((known * picture)[None], 2, ceil_mode=True) / share.clamp_min(1e-6)
    below = filled(half[0], (4 * share[0]).clamp_max(1))
    wide = F.interpolate(below[None], size=picture.shape[1:], mode="bilinear")[0]
    return known * picture + (1 - known) * wide


def extent(source: Tensor, taken: complex) -> int:
    """How far a piece reaches from where it was grabbed, across or down, in pixels of its source; at least 1."""
    lines, columns = (source[3].amax(axis).nonzero()[:, 0] + 0.5 for axis in (1, 0))
    if not len(lines):
        return 1
    ends = (lines[[0, -1]] - taken.imag, columns[[0, -1]] - taken.real)
    return max(math.ceil(float(torch.cat(ends).abs().max())), 1)


def with_edge(frame: Tensor) -> Tensor:
    """A picture ``[3, H, W]`` and a channel of ones: beyond the picture there is nothing to carry."""
    return torch.cat([frame, torch.ones_like(frame[:1])])
