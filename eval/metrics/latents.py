"""How far the latents of a video are from those of the true one where the tracks go: what training wants small."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKLWan

from ardrag.judges.rewards import near_tracks
from ardrag.streaming_vae import StreamingVAE
from ardrag.tracks.tracks import Tracks


Pixels = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float64]
RADIUS = 2.0
"""Latent pixels from a drawn point: what is dragged reaches about so far."""


class LatentError:
    """Mean squared distance of normalised latents, one VAE for all videos that are compared.

    Args:
        vae: encodes both videos.
    """

    def __init__(self, vae: AutoencoderKLWan) -> None:
        self._vae = vae

    @torch.inference_mode()
    def __call__(self, frames: Pixels, truth: Pixels, tracks: Tracks) -> float | None:
        """Error of ``frames`` uint8 ``[T, H, W, 3]`` near ``tracks``, after the first latent.

        None if the tracks show nothing there.
        """
        made, true = (encoded(self._vae, video)[0].float().cpu() for video in (frames, truth[: len(frames)]))
        near = near_tracks(tracks, made.shape[1:], RADIUS, self._vae.config.scale_factor_temporal)
        squared = (made - true).square().mean(0)[1:][near[1:]]
        return squared.mean().item() if len(squared) else None


def encoded(vae: AutoencoderKLWan, video: Pixels) -> torch.Tensor:
    """Normalised latents ``[1, C, F, h, w]`` of a video uint8 ``[T, H, W, 3]``."""
    pixels = torch.from_numpy(video).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    return StreamingVAE(vae).encode(pixels.to(vae.device, vae.dtype))


def latent_steps(vae: AutoencoderKLWan, video: Pixels) -> Float:
    """What the latents are and become at each place: features ``[F - 1, h * w, 2 * C]`` of a video.

    Row m is a place in latents m and m + 1, for Fréchet distances between sets of videos of one picture.
    """
    with torch.inference_mode():
        latents = encoded(vae, video)[0].double().cpu().flatten(2).permute(1, 2, 0)
    return np.asarray(torch.cat([latents[:-1], latents[1:]], dim=-1).numpy())
