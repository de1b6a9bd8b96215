"""Causal convolutions of video with products of Winograd in time: 6 for four frames (not 12), 4 for two (not 6).

The product of two polynomials follows from its values at a few points. Convolving `n` frames with three taps in time
so takes `n + 2` products instead of `3 n`: frames and taps are mixed (`before`, `taps`), each mixture of frames is
convolved in space with its mixture of taps, and `after` mixes the results (Lavin and Gray 2016, F(n, 3) in one
dimension). The mixing is next to nothing where a product is a convolution of a whole picture. Results differ from the
plain sum by rounding: 1e-5 of numbers around 10.

Shapes: `B` batch, `C` channels, `n` frames in and out, `H W` height and width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F


TAPS = 3
"""Frames that the kernel spans."""


class Products(NamedTuple):
    """The mixtures for `n` frames: ``before [n+2, n+2]``, ``taps [n+2, 3]``, ``after [n, n+2]``."""

    before: torch.Tensor
    taps: torch.Tensor
    after: torch.Tensor


def _products(before: list[list[float]], taps: list[list[float]], after: list[list[float]]) -> Products:
    return Products(*(torch.tensor(rows, dtype=torch.float32) for rows in (before, taps, after)))


PRODUCTS = {
    2: _products(  # points 0, 1, -1, infinity
        [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]],
        [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
        [[1, 1, 1, 0], [0, 1, -1, 1]],
    ),
    4: _products(  # points 0, 1, -1, 2, -2, infinity
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ],
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    ),
}
"""By the number of frames."""


def mixed_taps(weight: torch.Tensor, num_frames: int) -> tuple[torch.Tensor, ...]:
    """The kernels ``[C', C, kh, kw]`` of each product, channels-last, from ``weight [C', C, 3, kh, kw]``."""
    mixed = torch.einsum("it,octhw->iochw", PRODUCTS[num_frames].taps, weight)
    return tuple(kernel.contiguous(memory_format=torch.channels_last) for kernel in mixed)


def convolve(
    past: torch.Tensor,
    frames: torch.Tensor,
    kernels: tuple[torch.Tensor, ...],
    bias: torch.Tensor | None,
    padding: tuple[int, int],
) -> torch.Tensor:
    """``frames [B, C, n, H, W]`` after ``past [B, C, 2, H, W]``, with the `mixed_taps`: ``[B, C', n, H', W']``.

    All in float32 on the CPU; the result lies in channels-last memory.
    """
    batch, channels, count, height, width = frames.shape
    before, _, after = PRODUCTS[count]
    first = before[:, : TAPS - 1].expand(batch, -1, -1)
    mixed = torch.matmul(before[:, TAPS - 1 :], _rows(frames)).baddbmm_(first, _rows(past))
    images = mixed.view(batch, -1, height, width, channels).permute(1, 0, 4, 2, 3)
    # The second product is in every frame once, so that its bias is added to each.
    products = [
        F.conv2d(image, kernel, bias if place == 1 else None, padding=padding).permute(0, 2, 3, 1)
        for place, (image, kernel) in enumerate(zip(images, kernels, strict=True))
    ]
    seen = torch.stack(products, dim=1)  # [B, n+2, H', W', C']
    return torch.matmul(after, seen.flatten(2)).view(batch, count, *seen.shape[2:]).movedim(-1, 1)


def _rows(frames: torch.Tensor) -> torch.Tensor:
    """``[B, C, T, H, W]`` as ``[B, T, H*W*C]``; a view of channels-last memory."""
    return frames.movedim(1, -1).flatten(2)
