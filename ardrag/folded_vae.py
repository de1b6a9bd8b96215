"""The resampling blocks of `AutoencoderKLWan` for a CPU: fewer products and copies, the same parameters and results.

Between the convolutions of a Wan VAE lie blocks that change the grid. As diffusers writes them they first enlarge the
picture and then convolve it, and hand every tensor on in another memory order than the convolutions want. Here

- an upsampling convolution works on the small picture. After each pixel has been doubled, a 3x3 kernel meets only 2x2
  different pixels, others for even and odd rows and columns: four 2x2 kernels, 4/9 of the products, nothing enlarged;
- features stay in channels-last memory from convolution to convolution.

`ardrag.streaming_vae.fold_causal_convs` changes the classes of the modules of a VAE to these.

Shapes: `B` batch, `C` channels, `T` frames, `H W` height and width of features.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import DupUp3D, WanResample, WanResidualUpBlock
from torch import nn

from ardrag.convolutions.remembered import remembered


def phase_kernels(weight: torch.Tensor) -> torch.Tensor:
    """Kernels on the small picture that do what ``weight`` does on the one with every pixel doubled.

    Row ``2i + a`` of the large picture sees rows ``i - 1 + a`` and ``i + a`` of the small one: through the taps 0 and
    1 + 2 where ``a`` is 0, through 0 + 1 and 2 where it is 1. Columns likewise.

    Args:
        weight: ``[C', C, 3, 3]``.

    Returns:
        ``[4 C', C, 2, 2]`` in channels-last memory: the kernels of (even, even), (even, odd), (odd, even) and (odd,
        odd) rows and columns.
    """

    rows = _phases(weight.movedim(2, -1))
    columns = [_phases(row.movedim(-1, 2)) for row in rows]
    kernels = torch.cat([kernel for pair in columns for kernel in pair])
    return kernels.contiguous(memory_format=torch.channels_last)


def _phases(taps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Three taps (last dimension) on doubled pixels as two taps on single ones, of even and of odd places."""
    first, middle, last = taps.unbind(-1)
    return torch.stack([first, middle + last], -1), torch.stack([first + middle, last], -1)


class FoldedUpsample(nn.Sequential):
    """``nearest-exact`` doubling and the 3x3 convolution after it, as one 2x2 convolution of the small picture."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """``[N, C, H, W]`` to ``[N, C', 2H, 2W]`` in channels-last memory; natively on another device than the CPU."""
        if images.device.type != "cpu":
            native: torch.Tensor = super().forward(images)
            return native
        weight, bias = (self[1].get_parameter(name) for name in ("weight", "bias"))
        kernels = remembered(self, weight, phase_kernels)
        images = images.contiguous(memory_format=torch.channels_last)
        seen = F.conv2d(images, kernels, bias.repeat(4), padding=1)
        height, width = images.shape[2:]
        phases = seen.permute(0, 2, 3, 1).unflatten(3, (4, -1))  # [N, H+1, W+1, 4, C']
        even, odd = (
            torch.stack([phases[:, a : a + height, b : b + width, 2 * a + b] for b in (0, 1)], dim=3) for a in (0, 1)
        )
        return torch.stack([even, odd], dim=2).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class FoldedResample(WanResample):
    """A `WanResample` that upsamples, its features in channels-last memory throughout."""

    def forward(self, x: torch.Tensor, feat_cache: Any = None, feat_idx: Any = None) -> torch.Tensor:
        """``x [B, C, T, H, W]`` to ``[B, C', T or 2T, 2H, 2W]``; the caches are diffusers' own."""
        if self.mode == "upsample3d" and feat_cache is not None:
            x = self._double_frames(x, feat_cache, feat_idx)
        frames = x.shape[2]
        images: torch.Tensor = self.resample(x.transpose(1, 2).flatten(0, 1))
        return images.unflatten(0, (-1, frames)).transpose(1, 2)

    def _double_frames(self, x: torch.Tensor, feat_cache: Any, feat_idx: Any) -> torch.Tensor:
        """Two frames of every one but the first of a stream, which stays alone."""
        place, past = feat_idx[0], feat_cache[feat_idx[0]]
        feat_idx[0] += 1
        if past is None:
            feat_cache[place] = "Rep"
            return x
        recent = x[:, :, -2:].clone()
        if recent.shape[2] < 2:
            before = torch.zeros_like(recent) if past == "Rep" else past[:, :, -1:].to(recent.device)
            recent = torch.cat([before, recent], dim=2)
        doubled: torch.Tensor = self.time_conv(x, None if isinstance(past, str) else past)
        feat_cache[place] = recent
        return doubled.unflatten(1, (2, -1)).permute(0, 3, 1, 4, 5, 2).flatten(1, 2).movedim(-1, 1)


class FoldedDupUp(DupUp3D):
    """A `DupUp3D` (each value repeated in time and space) that writes channels-last memory in one copy."""

    def forward(self, x: torch.Tensor, first_chunk: bool = False) -> torch.Tensor:
        """``x [B, C, T, H, W]`` to ``[B, C', factor_t T, factor_s H, factor_s W]``; a first chunk is one frame."""
        spread = x.movedim(1, -1)[..., None].expand(*(-1,) * 5, self.repeats)
        cells = spread.reshape(*spread.shape[:4], self.out_channels, self.factor_t, self.factor_s, self.factor_s)
        video = cells.permute(0, 1, 5, 2, 6, 3, 7, 4).flatten(5, 6).flatten(3, 4).flatten(1, 2).movedim(-1, 1)
        return video[:, :, self.factor_t - 1 :] if first_chunk else video


class FoldedUpBlock(WanResidualUpBlock):
    """A `WanResidualUpBlock` without a copy of its input, which nobody changes."""

    def forward(
        self, x: torch.Tensor, feat_cache: Any = None, feat_idx: Any = None, first_chunk: bool = False
    ) -> torch.Tensor:
        """``x [B, C, T, H, W]`` through the residual blocks and, where there are, upsampling and its shortcut."""
        options = {} if feat_cache is None else {"feat_cache": feat_cache, "feat_idx": feat_idx}
        hidden = x
        for resnet in self.resnets:
            hidden = resnet(hidden, **options)
        if self.upsampler is None:
            return hidden
        shortcut: torch.Tensor = self.avg_shortcut(x, first_chunk=first_chunk)
        return self.upsampler(hidden, **options) + shortcut


def fold_resampling(vae: nn.Module) -> None:
    """Change the classes of the upsampling blocks of an `AutoencoderKLWan` to those of this module, in place."""
    for module in vae.modules():
        if type(module) is WanResample and str(module.mode).startswith("upsample"):
            module.__class__ = FoldedResample
            module.resample.__class__ = FoldedUpsample
        elif type(module) is DupUp3D:
            module.__class__ = FoldedDupUp
        elif type(module) is WanResidualUpBlock:
            module.__class__ = FoldedUpBlock
