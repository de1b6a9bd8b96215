"""What the VAE of both worlds sees besides whole clips: crops of photographs, cut-outs on them, and control videos."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ardrag.worlds.photo_library import PhotoLibrary


MODEL_SIDE = 128
"""Shorter side of the pictures that the model sees: the largest window of a photograph is all of its shorter side."""
CARRIED_SPREAD = 0.11 * MODEL_SIDE
"""Reach of a carried piece (`ardrag.controls.carried`: 0.11 sqrt(H W)) in pictures of the model's size."""


def photo_crop(library: PhotoLibrary, crop: int, rng: np.random.Generator) -> np.ndarray:
    """A window of a photograph of the training split at a random scale, ``[crop, crop, 3]`` in 0..1.

    Half of the windows have the scale of a whole picture, the others are nearer.
    """
    entries = library.choose("photo", "train")
    entry = entries[int(rng.integers(len(entries)))]
    widest = min(entry.height, entry.width) / max(MODEL_SIDE, crop)
    zoom = widest if rng.random() < 0.5 else math.exp(rng.uniform(0.0, math.log(widest)))
    side = int(crop * zoom)
    top, left = (int(rng.integers(extent - side + 1)) for extent in (entry.height, entry.width))
    window = library.read(entry)[top : top + side, left : left + side]
    picture = cv2.resize(window, (crop, crop), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return recoloured(picture[:, ::-1] if rng.random() < 0.5 else picture, rng)


def recoloured(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mildly other contrast, brightness and colour, in 0..1."""
    grey = picture.mean(-1, keepdims=True)
    coloured = grey + (picture - grey) * rng.uniform(0.7, 1.3)
    changed = (coloured - 0.5) * rng.uniform(0.8, 1.2) + 0.5 + rng.uniform(-0.08, 0.08, 3)
    return np.clip(changed, 0, 1).astype(np.float32)


def paste_cutout(canvas: np.ndarray, library: PhotoLibrary, rng: np.random.Generator) -> None:
    """Paste a cut-out of the training split somewhere on ``canvas`` ``[H, W, 3]``, in place."""
    entries = library.choose("cutout", "train")
    entry = entries[int(rng.integers(len(entries)))]
    size = rng.uniform(16, 56)
    scale = min(size / max(entry.height, entry.width), 1.0)
    width, height = max(int(entry.width * scale), 4), max(int(entry.height * scale), 4)
    rgba = cv2.resize(library.read(entry), (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    y, x = (
        int(rng.integers(-part // 2, extent - part // 2))
        for part, extent in ((height, canvas.shape[0]), (width, canvas.shape[1]))
    )
    part = rgba[max(-y, 0) : canvas.shape[0] - y, max(-x, 0) : canvas.shape[1] - x]
    target = canvas[max(y, 0) : max(y, 0) + part.shape[0], max(x, 0) : max(x, 0) + part.shape[1]]
    target += part[..., 3:] * (part[..., :3] - target)


def sample_photos(library: PhotoLibrary, count: int, crop: int, generator: torch.Generator) -> Tensor:
    """Crops of photographs, half of them with cut-outs, ``[count, 3, 1, crop, crop]`` in [-1, 1]."""
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    pictures = []
    for _ in range(count):
        picture = photo_crop(library, crop, rng)
        for _ in range(int(rng.integers(0, 3)) if rng.random() < 0.5 else 0):
            paste_cutout(picture, library, rng)
        pictures.append(picture)
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)[:, :, None] * 2 - 1


def sample_carried(pictures: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    """Control videos of the kind `carried`: one to three pieces of ``pictures`` ``[B, 3, 1, S, S]`` drift over grey.

    Returns ``[B, 3, frames, S, S]`` in [-1, 1].
    """
    count, _, _, side, _ = pictures.shape
    video = torch.zeros(count, 3, frames, side, side)
    axis = torch.arange(side) + 0.5
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)  # [S, S, 2]
    for row in range(count):
        for _ in range(int(torch.randint(1, 4, (), generator=generator))):
            start = (torch.rand(2, generator=generator) * 1.2 - 0.1) * side
            drift = torch.randn(2, generator=generator) * 2.0
            shift = drift * torch.arange(frames)[:, None, None, None]  # [T, 1, 1, 2]
            source = (grid - shift) / side * 2 - 1
            piece = F.grid_sample(
                pictures[row].movedim(1, 0).expand(frames, -1, -1, -1),
                source,
                padding_mode="border",
                align_corners=False,
            )
            squared = (grid - shift - start).square().sum(-1)
            alpha = torch.exp(-(squared / (2 * CARRIED_SPREAD**2)).square())[:, None]
            video[row] = torch.lerp(video[row], piece.movedim(0, 1), alpha.movedim(0, 1))
    return video


def held_out_photos(library: PhotoLibrary) -> Tensor:
    """The photographs of the test split, their middle square at the model's size, uint8 ``[N, 3, 1, 128, 128]``."""
    pictures = []
    for entry in library.choose("photo", "test"):
        side = min(entry.height, entry.width)
        top, left = (entry.height - side) // 2, (entry.width - side) // 2
        square = library.read(entry)[top : top + side, left : left + side]
        pictures.append(cv2.resize(square, (MODEL_SIDE, MODEL_SIDE), interpolation=cv2.INTER_AREA))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)[:, :, None]
