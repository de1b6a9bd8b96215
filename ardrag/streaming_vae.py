"""Causal streaming encode and decode around diffusers' `AutoencoderKLWan` (AR-Drag, Section 3.2).

AR-Drag makes one latent frame at a time, so its VAE must turn one latent frame into pixels as soon as it exists, and
must be able to go back to an earlier moment when the user changes a drag. `StreamingVAE` holds the feature caches of
the causal convolutions itself and gives the same numbers as `vae.encode` and `vae.decode` on the whole clip.

`fold_causal_convs` is a separate choice for CPUs (`ardrag.convolutions.causal`, `ardrag.folded_vae`). On a GPU the
native convolution stays better.

Shapes: `B` batch, `C` channels, `F` latent frames, `H W` height and width, `T` pixel frames. Pixels are in [-1, 1].
Latent frame 0 holds 1 pixel frame, each later one `config.scale_factor_temporal` (4 for Wan) of them.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, WanRMS_norm, patchify, unpatchify

from ardrag.convolutions.causal import FoldedCausalConv3d, FusedRMSNorm
from ardrag.folded_vae import fold_resampling


logger = logging.getLogger(__name__)

# What a causal convolution remembers: past features, a marker (upstream's temporal upsampler stores the string "Rep"
# after the first latent frame), or None before the first step.
FeatureCache = tuple[torch.Tensor | str | None, ...]


def fold_causal_convs(vae: AutoencoderKLWan) -> AutoencoderKLWan:
    """Make every causal convolution of `vae` a `FoldedCausalConv3d`, every norm fused, in place; returns `vae`.

    Parameters, state-dict keys, saved files and results (to rounding) do not change, and wherever the VAE is moved off
    the CPU it computes as before.
    """
    for module in vae.modules():
        if type(module) is WanCausalConv3d:
            assert module.groups == 1 and module.dilation == (1, 1, 1)
            module.__class__ = FoldedCausalConv3d
        elif type(module) is WanRMS_norm:
            module.__class__ = FusedRMSNorm
    fold_resampling(vae)
    return vae


@dataclass(frozen=True)
class StreamState:
    """A moment of a stream: what encoder and decoder remember. It shares its tensors with the stream."""

    encoder: FeatureCache
    decoder: FeatureCache


class StreamingVAE:
    """Encode and decode a video latent frame by latent frame, equal to the whole-clip results of `vae`.

    The stream uses caches of its own, so any number of streams can share one `vae`. It computes and answers in the
    dtype of the VAE, whatever it is given. The VAE's tiling and slicing switches have no effect, as a warning says
    (most of a stream's memory is what it remembers, and overlapping tiles would remember half as much again).
    Gradients flow through every method; a stream that runs under autograd keeps its graph alive through its caches
    until `reset` or `restore`.

    Args:
        vae: an `AutoencoderKLWan` in the Wan 2.1 or the residual Wan 2.2 layout, folded or not.

    Raises:
        ValueError: if the factors or latent statistics in `vae.config` contradict its layers.
    """

    def __init__(self, vae: AutoencoderKLWan) -> None:
        _check_config(vae.config)
        if vae.use_tiling:
            _say_that_nothing_is_tiled()
        self.vae = vae
        self.spatial_factor: int = vae.config.scale_factor_spatial
        self.temporal_factor: int = vae.config.scale_factor_temporal
        self.pixel_channels: int = vae.config.in_channels // (vae.config.patch_size or 1) ** 2
        self.latent_channels: int = vae.config.z_dim
        self._dtype: torch.dtype = vae.dtype
        self._fresh = StreamState(_empty_cache(vae.encoder), _empty_cache(vae.decoder))
        self._state = self._fresh

    def encode_next(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode the next pixel frames of the stream.

        Args:
            pixels: [B, 3, 1, H, W] at the start of the stream, then [B, 3, 4, H, W], in [-1, 1].

        Returns:
            The normalised latent mean [B, C, 1, H/8, W/8].

        Raises:
            ValueError: on a wrong number of frames or channels, or a size that does not fit the VAE or the stream.
        """
        self._check_pixels(pixels)
        started = self._state.encoder[0] is not None
        expected = self.temporal_factor if started else 1
        if pixels.shape[2] != expected:
            raise ValueError(
                f"pixels has {pixels.shape[2]} frames, expected {expected}: a stream takes 1 frame first and "
                f"{self.temporal_factor} at a time after that; call reset() to start a new stream"
            )
        latent, cache = self._encode_step(pixels, self._state.encoder)
        self._state = StreamState(cache, self._state.decoder)
        return latent

    def decode_next(self, latent: torch.Tensor) -> torch.Tensor:
        """Decode the next latent frame of the stream.

        Args:
            latent: normalised, [B, C, 1, h, w].

        Returns:
            Pixels in [-1, 1]: [B, 3, 1, H, W] at the start of the stream, then [B, 3, 4, H, W].

        Raises:
            ValueError: on a wrong number of frames or channels, or a size that does not fit the stream.
        """
        self._check_latents("latent", latent)
        if latent.shape[2] != 1:
            raise ValueError(
                f"latent has {latent.shape[2]} latent frames, expected 1: call decode_next() for each, or decode()"
            )
        pixels, cache = self._decode_step(latent, self._state.decoder)
        self._state = StreamState(self._state.encoder, cache)
        return pixels

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode a whole clip [B, 3, T, H, W] (T = 4k+1) to normalised latents [B, C, k+1, H/8, W/8].

        Starts fresh and leaves the state of the stream alone. Raises ValueError on shapes that do not fit the VAE.
        """
        self._check_pixels(pixels)
        num_frames, factor = pixels.shape[2], self.temporal_factor
        if num_frames % factor != 1 % factor:
            raise ValueError(
                f"pixels has {num_frames} frames, expected {factor}k+1 (1, {factor + 1}, {2 * factor + 1}, ...): "
                "drop or repeat frames at the end of the clip"
            )
        steps = [pixels[:, :, :1], *torch.split(pixels[:, :, 1:], factor, dim=2)] if num_frames > 1 else [pixels]
        return _run_steps(self._encode_step, steps, self._fresh.encoder)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode a whole clip of normalised latents [B, C, F, h, w] to pixels [B, 3, 4(F-1)+1, H, W] in [-1, 1].

        Starts fresh and leaves the state of the stream alone. Raises ValueError on shapes that do not fit the VAE.
        """
        self._check_latents("latents", latents)
        return _run_steps(self._decode_step, list(torch.split(latents, 1, dim=2)), self._fresh.decoder)

    def state(self) -> StreamState:
        """The present moment of the stream, to `restore` later; no tensor is copied."""
        return self._state

    def restore(self, state: StreamState) -> None:
        """Go back (or over) to `state`, taken from this stream or from another one of the same VAE.

        Raises:
            ValueError: if `state` comes from a VAE with other layers.
        """
        lengths = [len(state.encoder), len(state.decoder)]
        expected = [len(self._fresh.encoder), len(self._fresh.decoder)]
        if lengths != expected:
            raise ValueError(
                f"state holds {lengths} encoder and decoder caches, this VAE has {expected}: "
                "restore a state taken from a stream of the same VAE"
            )
        self._state = state

    def reset(self) -> None:
        """Forget everything: the next `encode_next` and `decode_next` start a new stream."""
        self._state = self._fresh

    def _encode_step(self, pixels: torch.Tensor, cache: FeatureCache) -> tuple[torch.Tensor, FeatureCache]:
        """One step of the encoder: pixels [B, 3, 1|4, H, W] -> normalised latent mean [B, C, 1, h, w], new cache."""
        _move_to_device(self.vae)
        features = patchify(pixels.to(self._dtype), patch_size=self.vae.config.patch_size or 1)
        _check_same_stream("pixels", features, cache)
        slots = list(cache)
        moments = self.vae.quant_conv(self.vae.encoder(features, feat_cache=slots, feat_idx=[0]))
        mean, std = self._latent_statistics(moments)
        return (moments[:, : self.latent_channels] - mean) / std, tuple(slots)

    def _decode_step(self, latent: torch.Tensor, cache: FeatureCache) -> tuple[torch.Tensor, FeatureCache]:
        """One step of the decoder: normalised latent [B, C, 1, h, w] -> pixels [B, 3, 1|4, H, W], new cache."""
        _move_to_device(self.vae)
        _check_same_stream("latent", latent, cache)
        slots = list(cache)
        latent = latent.to(self._dtype)
        mean, std = self._latent_statistics(latent)
        features = self.vae.post_quant_conv(latent * std + mean)
        features = self.vae.decoder(features, feat_cache=slots, feat_idx=[0], first_chunk=cache[0] is None)
        pixels = unpatchify(features, patch_size=self.vae.config.patch_size or 1)
        return pixels.clamp(-1.0, 1.0), tuple(slots)

    def _latent_statistics(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of the latents, [1, C, 1, 1, 1] each, with the dtype and device of `like`."""
        config = self.vae.config
        statistics = like.new_tensor([config.latents_mean, config.latents_std]).view(2, 1, -1, 1, 1, 1)
        return statistics[0], statistics[1]

    def _check_pixels(self, pixels: torch.Tensor) -> None:
        _check_video("pixels", pixels, self.pixel_channels)
        height, width = pixels.shape[-2:]
        if height % self.spatial_factor or width % self.spatial_factor:
            raise ValueError(
                f"pixels is {height}x{width} (height x width), expected multiples of {self.spatial_factor}: "
                "crop or resize the video"
            )

    def _check_latents(self, name: str, latents: torch.Tensor) -> None:
        _check_video(name, latents, self.latent_channels)


def _run_steps(
    step: Callable[[torch.Tensor, FeatureCache], tuple[torch.Tensor, FeatureCache]],
    inputs: list[torch.Tensor],
    cache: FeatureCache,
) -> torch.Tensor:
    """Run `step` over `inputs`, handing the cache on, and join the results in time."""
    outputs = []
    for value in inputs:
        output, cache = step(value, cache)
        outputs.append(output)
    return torch.cat(outputs, dim=2)


def _empty_cache(module: torch.nn.Module) -> FeatureCache:
    return (None,) * sum(isinstance(layer, WanCausalConv3d) for layer in module.modules())


def _move_to_device(vae: Any) -> None:
    """Run the hook of accelerate's model offload, which diffusers runs in `vae.encode` and `vae.decode`."""
    hook: Any = getattr(vae, "_hf_hook", None)
    if hasattr(hook, "pre_forward"):
        hook.pre_forward(vae)


def _check_video(name: str, video: torch.Tensor, num_channels: int) -> None:
    if video.ndim != 5 or 0 in video.shape:
        raise ValueError(
            f"{name} has shape {list(video.shape)}, expected 5 non-empty dimensions: "
            "[batch, channels, frames, height, width]"
        )
    if video.shape[1] != num_channels:
        raise ValueError(
            f"{name} has {video.shape[1]} channels, expected {num_channels}: "
            "the order is [batch, channels, frames, height, width]"
        )


def _check_same_stream(name: str, features: torch.Tensor, cache: FeatureCache) -> None:
    """The first cached tensor is what the first convolution saw, so its batch and size are those of the stream."""
    past = cache[0]
    if not isinstance(past, torch.Tensor):
        return
    seen, given = [past.shape[0], *past.shape[-2:]], [features.shape[0], *features.shape[-2:]]
    if seen != given:
        raise ValueError(
            f"{name} changed in mid-stream: [batch, height, width] in the VAE was {seen} and is {given}; "
            "call reset() to start a new stream"
        )


@functools.cache
def _say_that_nothing_is_tiled() -> None:
    logger.warning(
        "vae: tiling has no effect; latents are encoded and decoded one by one, and tiles would save nothing"
    )


def _check_config(config: Any) -> None:
    spatial = 2 ** (len(config.dim_mult) - 1) * (config.patch_size or 1)
    temporal = 2 ** sum(config.temperal_downsample)
    for name, value in (("scale_factor_spatial", spatial), ("scale_factor_temporal", temporal)):
        if config[name] != value:
            raise ValueError(
                f"vae.config.{name} is {config[name]}, but the layers of the VAE make {value}: correct the config"
            )
    for name in ("latents_mean", "latents_std"):
        if len(config[name]) != config.z_dim:
            raise ValueError(
                f"vae.config.{name} has {len(config[name])} values, expected z_dim = {config.z_dim}: correct it"
            )
