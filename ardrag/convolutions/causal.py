"""The causal convolutions and norms of `AutoencoderKLWan` for a CPU: the same parameters and results.

PyTorch's 3x3x3 convolution is an order of magnitude slower than its 2-D one there: the time taps become channels of
one `conv2d`, or oneDNN's own 3-D kernel is called where PyTorch would pass it by.
`ardrag.streaming_vae.fold_causal_convs` changes the classes of the modules of a VAE to these.
"""

from __future__ import annotations

import platform

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, WanRMS_norm

from ardrag.convolutions.remembered import remembered
from ardrag.convolutions.winograd import PRODUCTS, convolve, mixed_taps


# PyTorch asks oneDNN for a 3-D convolution only above a size that small models do not reach. Its kernels are known to
# be fast on x86 processors; elsewhere the fold stays.
HAS_ONEDNN_CONV3D = platform.machine() in ("x86_64", "AMD64") and torch.backends.mkldnn.is_available()


def _channels_last_3d(video: torch.Tensor) -> torch.Tensor:
    return video.contiguous(memory_format=torch.channels_last_3d)


def _folded(weight: torch.Tensor, first_tap: int) -> torch.Tensor:
    """The weight [C', C, taps, kh, kw] of a convolution from `first_tap` on, as [C', kh, kw, taps*C]."""
    return weight[:, :, first_tap:].permute(0, 3, 4, 2, 1).flatten(3)


class FoldedCausalConv3d(WanCausalConv3d):
    """A `WanCausalConv3d` computed as one `conv2d` over (time taps x channels); same parameters, same results.

    Where all past frames are known and no gradient is needed, as in a running stream, it takes fewer products
    (`ardrag.convolutions.winograd`), or oneDNN's 3-D kernel does it without putting the taps side by side first.

    Made by `fold_causal_convs`, which changes the class of an existing module.
    """

    def forward(self, x: torch.Tensor, cache_x: torch.Tensor | None = None) -> torch.Tensor:
        """Convolve `x` [B, C, T, H, W] after the past frames `cache_x` [B, C, 0-2, H, W]; returns [B, C', T', H', W'].

        On another device than the CPU this is the native convolution, so that a folded VAE may be moved or offloaded.
        Past frames that are missing count as zeros. A time tap that would only see zeros is left out, so a first
        frame (T = 1, no cache) costs one tap instead of three.
        """
        if x.device.type != "cpu":
            native: torch.Tensor = super().forward(x, cache_x)
            return native
        causal_padding = self._padding[4]
        if cache_x is not None and self._is_inference(x):
            cache_x = self._filled_up(cache_x, causal_padding if x.shape[2] > 1 else 0)
        known = 0 if cache_x is None else cache_x.shape[2]
        if known >= causal_padding and self.kernel_size != (1, 1, 1) and self._is_inference(x):
            if cache_x is not None and self._takes_products(x.shape[2]):
                return self._fewer_products(x, cache_x)
            if HAS_ONEDNN_CONV3D:
                return self._onednn_conv(x, cache_x)
        frames = x.permute(0, 2, 3, 4, 1)  # [B, T, H, W, C]
        if cache_x is not None and causal_padding > 0:
            past = cache_x[:, :, -causal_padding:].to(x.device).permute(0, 2, 3, 4, 1)
            frames = torch.cat([past, frames], dim=1)
        num_zeros = causal_padding + x.shape[2] - frames.shape[1]
        num_outputs = (frames.shape[1] + num_zeros - self.kernel_size[0]) // self.stride[0] + 1
        first_tap = max(0, num_zeros - self.stride[0] * (num_outputs - 1))
        gathered = self._gather_taps(frames, num_zeros, num_outputs, first_tap)
        outputs = self._spatial_conv(
            gathered.flatten(0, 1), remembered(self, self.weight, _folded, first_tap)
        )  # [B*T', H', W', C']
        return outputs.reshape(x.shape[0], num_outputs, *outputs.shape[1:]).permute(0, 4, 1, 2, 3)

    @staticmethod
    def _filled_up(past: torch.Tensor, count: int) -> torch.Tensor:
        """Past frames with zeros before them, so that there are ``count``: the second step of a stream knows one."""
        missing = count - past.shape[2]
        return past if missing <= 0 else F.pad(past, (0, 0, 0, 0, missing, 0))

    def _takes_products(self, num_frames: int) -> bool:
        shape = self.kernel_size, self.stride, self._padding[4]
        return num_frames in PRODUCTS and shape == ((3, 3, 3), (1, 1, 1), 2) and not torch.is_autocast_enabled("cpu")

    @staticmethod
    def _is_inference(x: torch.Tensor) -> bool:
        plain = not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))
        return plain and x.device.type == "cpu" and x.dtype == torch.float32

    def _fewer_products(self, x: torch.Tensor, cache_x: torch.Tensor) -> torch.Tensor:
        """The convolution of `x` after its two past frames by Winograd's products in time."""
        kernels = remembered(self, self.weight, mixed_taps, x.shape[2])
        return convolve(cache_x[:, :, -2:], x, kernels, self.bias, (self._padding[2], self._padding[0]))

    def _onednn_conv(self, x: torch.Tensor, cache_x: torch.Tensor | None) -> torch.Tensor:
        """The convolution of `x` after all its past frames, in channels-last memory."""
        causal_padding = self._padding[4]
        frames = x if cache_x is None or not causal_padding else torch.cat([cache_x[:, :, -causal_padding:], x], dim=2)
        outputs: torch.Tensor = torch.ops.aten.mkldnn_convolution(
            _channels_last_3d(frames),
            remembered(self, self.weight, _channels_last_3d),
            self.bias,
            [0, self._padding[2], self._padding[0]],
            self.stride,
            self.dilation,
            self.groups,
        )
        return outputs

    def _gather_taps(self, frames: torch.Tensor, num_zeros: int, num_outputs: int, first_tap: int) -> torch.Tensor:
        """Put what each tap sees of `num_zeros` zero frames and then `frames` side by side: [B, T', H, W, taps*C]."""
        num_leading = max(0, num_zeros - first_tap)
        if num_leading > 0:
            zeros = frames.new_zeros(frames.shape[0], num_leading, *frames.shape[2:])
            frames = torch.cat([zeros, frames], dim=1)
        shift = num_leading - num_zeros
        span = self.stride[0] * (num_outputs - 1) + 1
        taps = range(first_tap, self.kernel_size[0])
        seen = [frames[:, tap + shift : tap + shift + span : self.stride[0]] for tap in taps]
        return seen[0] if len(seen) == 1 else torch.cat(seen, dim=-1)

    def _spatial_conv(self, frames: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Convolve `frames` [N, H, W, C] with `weight` [C', kh, kw, C] in channels-last memory: [N, H', W', C']."""
        padding = (self._padding[2], self._padding[0])
        if weight.shape[1:3] == (1, 1) and self.stride[1:] == (1, 1) and padding == (0, 0):
            return F.linear(frames, weight.flatten(1), self.bias)
        images = frames.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        outputs = F.conv2d(images, weight.permute(0, 3, 1, 2), self.bias, self.stride[1:], padding)
        return outputs.permute(0, 2, 3, 1)


class FusedRMSNorm(WanRMS_norm):
    """A `WanRMS_norm` of video features computed by one `rms_norm` over the last dimension of channels-last memory.

    Made by `fold_causal_convs`, which changes the class of an existing module.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise `x` [B, C, T, H, W] over `C`; natively on another device than the CPU."""
        if x.device.type != "cpu":
            native: torch.Tensor = super().forward(x)
            return native
        channels = x.shape[1]
        normed = F.rms_norm(x.movedim(1, -1), (channels,), self.gamma.flatten(), eps=1e-24)
        return normed.movedim(-1, 1) + self.bias if torch.is_tensor(self.bias) else normed.movedim(-1, 1)
