"""Fréchet distance between two sets of clips in a stated feature space.

The feature space here is that of the model's own VAE: for every channel of the latent video the mean and the spread
over space and the mean absolute change from one latent to the next, averaged over the clip (3 numbers a channel). It
sees colour, contrast and motion, needs no download, and is no FVD: numbers compare systems on the same clips only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ardrag.streaming_vae import StreamingVAE
from pipelines import ARDragPipeline


Float = npt.NDArray[np.float64]


@torch.no_grad()
def latent_statistics(pipeline: ARDragPipeline, frames: npt.NDArray[np.uint8]) -> list[float]:
    """Features of one clip uint8 ``[T, H, W, 3]``: ``3 C`` numbers."""
    vae = StreamingVAE(pipeline.vae)
    pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    latents = vae.encode(pixels.to(pipeline.vae.device, pipeline.vae.dtype))[0, :, 1:].double().cpu()  # [C, F-1, h, w]
    change = latents.diff(dim=1).abs().mean((1, 2, 3)) if latents.shape[1] > 1 else latents.new_zeros(len(latents))
    return [*latents.mean((1, 2, 3)).tolist(), *latents.std((2, 3)).mean(1).tolist(), *change.tolist()]


def frechet_distance(first: Float, second: Float) -> float:
    """Squared Fréchet distance of the Gaussians fitted to two sets of features ``[N, D]``, in float64.

    ``|mean1 - mean2|^2 + trace(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2)``, both roots by symmetric eigendecomposition,
    which stays real where a general matrix root does not.

    Raises:
        ValueError: if a set has fewer than two rows, the widths differ, or a number is not finite.
    """
    sets = [np.asarray(values, np.float64) for values in (first, second)]
    for name, values in zip(("first", "second"), sets, strict=True):
        if values.ndim != 2 or len(values) < 2 or not np.isfinite(values).all():
            raise ValueError(f"{name}: shape {values.shape}; give at least two rows of finite features")
    if sets[0].shape[1] != sets[1].shape[1]:
        raise ValueError(f"first and second: {sets[0].shape[1]} and {sets[1].shape[1]} features; they must agree")
    means = [values.mean(0) for values in sets]
    covariances = [np.atleast_2d(np.cov(values, rowvar=False)) for values in sets]
    root = _symmetric_root(covariances[0])
    cross = _symmetric_root(root @ covariances[1] @ root)
    trace = np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.trace(cross)
    return float(max(0.0, np.square(means[0] - means[1]).sum() + trace))


def _symmetric_root(matrix: Float) -> Float:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray((vectors * np.sqrt(values.clip(0))) @ vectors.T)
