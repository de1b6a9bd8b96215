"""The Inception network of FID, as `pytorch-fid` runs it, without needing torchvision.

Inception-v3 (Szegedy et al. 2016) as ported from TensorFlow for FID: mean pools do not count their padding, the last
block pools by maximum, and pictures are resized to 299 without corner alignment. Module names are those of the
published weights, so that their state dict loads; its classifier (`fc`) is not needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


WEIGHTS_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
)
SIDE = 299
FEATURES = 2048


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, channels: int, out: int, kernel: int | tuple[int, int], **options: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, bias=False, **options)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def mean_pool(x: Tensor) -> Tensor:
    """3x3 mean of what lies in the picture."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class InceptionA(nn.Module):
    """35x35: 1x1, 5x5 and double 3x3 beside a pool."""

    def __init__(self, channels: int, pool: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(channels, 64, 1)
        self.branch5x5_1 = ConvNorm(channels, 48, 1)
        self.branch5x5_2 = ConvNorm(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = ConvNorm(channels, 64, 1)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, padding=1)
        self.branch_pool = ConvNorm(channels, pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), wide, double, self.branch_pool(mean_pool(x))], 1)


class InceptionB(nn.Module):
    """35x35 to 17x17."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = ConvNorm(channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = ConvNorm(channels, 64, 1)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, stride=2)], 1)


class InceptionC(nn.Module):
    """17x17: 7x7 in rows and columns, once and twice, beside a pool."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        row: dict[str, Any] = {"kernel": (1, 7), "padding": (0, 3)}
        column: dict[str, Any] = {"kernel": (7, 1), "padding": (3, 0)}
        self.branch1x1 = ConvNorm(channels, 192, 1)
        self.branch7x7_1 = ConvNorm(channels, inner, 1)
        self.branch7x7_2 = ConvNorm(inner, inner, **row)
        self.branch7x7_3 = ConvNorm(inner, 192, **column)
        self.branch7x7dbl_1 = ConvNorm(channels, inner, 1)
        self.branch7x7dbl_2 = ConvNorm(inner, inner, **column)
        self.branch7x7dbl_3 = ConvNorm(inner, inner, **row)
        self.branch7x7dbl_4 = ConvNorm(inner, inner, **column)
        self.branch7x7dbl_5 = ConvNorm(inner, 192, **row)
        self.branch_pool = ConvNorm(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(x), once, twice, self.branch_pool(mean_pool(x))], 1)


class InceptionD(nn.Module):
    """17x17 to 8x8."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = ConvNorm(channels, 192, 1)
        self.branch3x3_2 = ConvNorm(192, 320, 3, stride=2)
        self.branch7x7x3_1 = ConvNorm(channels, 192, 1)
        self.branch7x7x3_2 = ConvNorm(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = ConvNorm(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = ConvNorm(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        square = self.branch3x3_2(self.branch3x3_1(x))
        crossed = self.branch7x7x3_2(self.branch7x7x3_1(x))
        crossed = self.branch7x7x3_4(self.branch7x7x3_3(crossed))
        return torch.cat([square, crossed, F.max_pool2d(x, 3, stride=2)], 1)


class InceptionE(nn.Module):
    """8x8: 3x3 split in rows and columns, once and twice, beside a pool of mean or maximum."""

    def __init__(self, channels: int, pools_maximum: bool) -> None:
        super().__init__()
        self.pools_maximum = pools_maximum
        self.branch1x1 = ConvNorm(channels, 320, 1)
        self.branch3x3_1 = ConvNorm(channels, 384, 1)
        self.branch3x3_2a = ConvNorm(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = ConvNorm(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = ConvNorm(channels, 448, 1)
        self.branch3x3dbl_2 = ConvNorm(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = ConvNorm(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = ConvNorm(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = ConvNorm(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, stride=1, padding=1) if self.pools_maximum else mean_pool(x)
        halves = [self.branch3x3_2a(once), self.branch3x3_2b(once)]
        halves += [self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice)]
        return torch.cat([self.branch1x1(x), *halves, self.branch_pool(pooled)], 1)


class Inception(nn.Module):
    """Pictures uint8 ``[N, 3, H, W]`` to the 2,048 features of FID."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, 3)
        self.Mixed_5b = InceptionA(192, 32)
        self.Mixed_5c = InceptionA(256, 64)
        self.Mixed_5d = InceptionA(288, 64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, 128)
        self.Mixed_6c = InceptionC(768, 160)
        self.Mixed_6d = InceptionC(768, 160)
        self.Mixed_6e = InceptionC(768, 192)
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280, pools_maximum=False)
        self.Mixed_7c = InceptionE(2048, pools_maximum=True)

    def forward(self, frames: Tensor) -> Tensor:
        x = F.interpolate(frames.float() / 255, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(2 * x - 1)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))
        x = F.max_pool2d(x, 3, stride=2)
        blocks = [self.Mixed_5b, self.Mixed_5c, self.Mixed_5d, self.Mixed_6a, self.Mixed_6b, self.Mixed_6c]
        blocks += [self.Mixed_6d, self.Mixed_6e, self.Mixed_7a, self.Mixed_7b, self.Mixed_7c]
        for block in blocks:
            x = block(x)
        return x.mean((2, 3))


def load_inception(weights: str | Path | None = None, device: torch.device | str = "cpu") -> Inception:
    """The network with the weights of pytorch-fid, from a local file or (None) from their release.

    Raises:
        ValueError: if the weights cannot be had or belong to another network.
    """
    try:
        if weights is None:
            state = torch.hub.load_state_dict_from_url(WEIGHTS_URL, map_location="cpu", check_hash=True)
        else:
            state = torch.load(weights, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"inception: the weights cannot be had ({error}); give the path of pt_inception-2015-12-05-6726825d.pth"
        ) from error
    network = Inception()
    try:
        network.load_state_dict({name: value for name, value in state.items() if not name.startswith("fc.")})
    except RuntimeError as error:
        raise ValueError(f"inception: {weights} does not hold the Inception network of FID: {error}") from error
    return network.eval().requires_grad_(False).to(device)
