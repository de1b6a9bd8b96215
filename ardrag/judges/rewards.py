"""Rewards of stage 3: does the video follow the tracks, and is it good to look at? (AR-Drag Eq. 12, 15, 16.)

A reward looks at decoded videos and gives one number for each latent frame, because that is what one action makes:
latent 0 is pixel frame 0, latent m >= 1 is pixel frames 4m-3..4m, and its reward is the mean over them. NaN says that
nothing could be measured there.

Shapes: `G` videos of one prompt, `T` pixel frames, `F` latent frames, `P` tracks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ardrag.judges.tracking import PointTracker, Trajectories
from ardrag.tracks.tracks import Tracks


Float = npt.NDArray[np.float64]
LATENT_PIXELS = 8
"""Pixels of one step of the latent grid: the unit of distances in Eq. 16 here."""


class Reward(Protocol):
    """A reward: videos of one prompt in, one number per video and latent frame out."""

    def __call__(self, videos: Tensor, tracks: Tracks) -> Float:
        """Reward ``[G, F]`` of ``videos`` uint8 ``[G, T, 3, H, W]`` that should follow ``tracks``."""
        ...


def latent_of_frame(num_frames: int, temporal_factor: int = 4) -> npt.NDArray[np.intp]:
    """Latent frame of each pixel frame ``[T]``: 0, then 1 four times, 2 four times, ..."""
    return (np.arange(num_frames) + temporal_factor - 1) // temporal_factor


def near_tracks(tracks: Tracks, size: Sequence[int], radius: float, temporal_factor: int) -> Tensor:
    """Where latents of ``size`` (F, H, W) lie within ``radius`` of a point that tracks show, bool ``[F, H, W]``."""
    num_latents, height, width = size
    num_frames = 1 + temporal_factor * (num_latents - 1)
    arrays = tracks.to_array(frames=range(num_frames))
    rows, columns = np.indices((height, width)) + 0.5
    x, y = arrays.xy[..., 0, None, None] * width, arrays.xy[..., 1, None, None] * height  # [T, P, 1, 1]
    near = ((columns - x) ** 2 + (rows - y) ** 2 <= radius**2) & np.asarray(arrays.visible, bool)[..., None, None]
    near = near.any(1)
    latents = latent_of_frame(num_frames, temporal_factor)
    return torch.from_numpy(np.stack([near[latents == m].any(0) for m in range(num_latents)]))


def mean_per_latent(values: Float, temporal_factor: int = 4) -> Float:
    """Mean over the pixel frames of each latent frame, ``[..., T]`` -> ``[..., F]``; NaN frames do not count."""
    latents = latent_of_frame(values.shape[-1], temporal_factor)
    known = np.isfinite(values)
    sums = np.stack([np.where(known, values, 0)[..., latents == m].sum(-1) for m in range(latents[-1] + 1)], axis=-1)
    counts = np.stack([known[..., latents == m].sum(-1) for m in range(latents[-1] + 1)], axis=-1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def motion_reward(
    found: Trajectories,
    wanted: Trajectories,
    alpha: float = 5.0,
    scale: float = 1.0,
    unit: float = LATENT_PIXELS,
    lost: Literal["off", "mask"] = "off",
) -> Float:
    """``scale * max(0, alpha - mean |found - wanted|^2)`` of each pixel frame ``[T]`` (Eq. 16), in ``unit`` pixels.

    The mean is over points that the tracks show in that frame; NaN where they show none. A point that the tracker
    lost although the tracks show it counts as far off as pays nothing (``lost="off"``; a video must not gain by hiding
    what it should move), or not at all (``"mask"``).
    """
    squared = np.square((found.xy.astype(np.float64) - wanted.xy) / unit).sum(-1)
    shown = wanted.visible.copy()
    if lost == "mask":
        shown &= found.visible
    else:
        squared = np.where(found.visible, squared, np.maximum(squared, alpha))
    count = shown.sum(1)
    mean = np.where(shown, squared, 0).sum(1) / np.maximum(count, 1)
    return np.where(count > 0, scale * np.maximum(0, alpha - mean), np.nan)


@dataclass
class MotionReward:
    """Eq. 16 with a tracker: each drawn point is queried where the tracks show it first."""

    tracker: PointTracker
    alpha: float = 5.0
    scale: float = 1.0
    temporal_factor: int = 4

    def __call__(self, videos: Tensor, tracks: Tracks) -> Float:
        """See `Reward`."""
        height, width = videos.shape[3:]
        wanted = pixel_trajectories(tracks, videos.shape[1], height, width)
        queries, rows = first_queries(wanted)
        rewards = []
        for video in videos:
            if not len(rows):
                rewards.append(np.full(videos.shape[1], np.nan))
                continue
            found = self.tracker.track(video, queries)
            target = Trajectories(wanted.xy[:, rows], wanted.visible[:, rows])
            rewards.append(motion_reward(found, target, self.alpha, self.scale))
        return mean_per_latent(np.stack(rewards), self.temporal_factor)


def pixel_trajectories(tracks: Tracks, num_frames: int, height: int, width: int) -> Trajectories:
    """The tracks in pixels over ``num_frames`` frames."""
    arrays = tracks.to_array(frames=range(num_frames))
    return Trajectories((arrays.xy * np.array([width, height])).astype(np.float32), np.asarray(arrays.visible, bool))


def first_queries(wanted: Trajectories) -> tuple[Tensor, npt.NDArray[np.intp]]:
    """Queries ``[N, 3]`` at the first visible frame of each track that is ever visible, and those tracks' numbers."""
    rows = np.flatnonzero(wanted.visible.any(0))
    frames = wanted.visible[:, rows].argmax(0)
    return torch.from_numpy(np.column_stack([frames, wanted.xy[frames, rows]]).astype(np.float32)), rows


class AestheticHead(nn.Module):
    """LAION's aesthetic predictor V2 on CLIP ViT-L/14 embeddings: five linear layers without activations between."""

    def __init__(self, width: int = 768) -> None:
        super().__init__()
        sizes = (width, 1024, 128, 64, 16, 1)
        layers: list[nn.Module] = []
        for i, (size, following) in enumerate(zip(sizes, sizes[1:], strict=False)):
            layers.append(nn.Linear(size, following))
            if i < 3:  # dropout sits where the published state dict has its gaps: layers 1, 3 and 5
                layers.append(nn.Dropout(0.1 if i == 2 else 0.2))
        self.layers = nn.Sequential(*layers)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Scores ``[N]``, nominally 1 to 10, of CLIP image embeddings ``[N, width]``."""
        scores: Tensor = self.layers(F.normalize(embeddings, dim=-1))
        return scores[:, 0]


class LaionAesthetic:
    """LAION aesthetic score V2 of every pixel frame (Eq. 15), mean over the frames of a latent.

    Args:
        head: file of the head's weights (``.safetensors``, or the published ``.pth``, read without unpickling).
        clip: folder or Hub name of CLIP ViT-L/14.
        device: where it runs.
        batch_size: pictures at once.

    Raises:
        ValueError: if the head's file is missing or has other layers.
    """

    def __init__(
        self,
        head: str | Path,
        clip: str = "openai/clip-vit-large-patch14",
        device: torch.device | str = "cpu",
        batch_size: int = 32,
        temporal_factor: int = 4,
    ) -> None:
        from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

        self.device, self.batch_size, self.temporal_factor = torch.device(device), batch_size, temporal_factor
        self.clip = CLIPVisionModelWithProjection.from_pretrained(clip).eval().to(self.device)
        self.processor = CLIPImageProcessorPil.from_pretrained(clip)
        self.head = load_head(Path(head), self.clip.config.projection_dim).to(self.device)

    @torch.no_grad()
    def score_frames(self, frames: Tensor) -> Tensor:
        """Scores ``[N]`` of pictures uint8 ``[N, 3, H, W]``."""
        scores = []
        for part in frames.split(self.batch_size):
            pictures = list(part.permute(0, 2, 3, 1).cpu().numpy())
            pixels = self.processor(images=pictures, return_tensors="pt").pixel_values.to(self.device)
            scores.append(self.head(self.clip(pixels).image_embeds.float()))
        return torch.cat(scores).cpu()

    def __call__(self, videos: Tensor, tracks: Tracks) -> Float:
        """See `Reward`."""
        scores = self.score_frames(videos.flatten(0, 1)).view(videos.shape[:2])
        return mean_per_latent(scores.double().numpy(), self.temporal_factor)


def load_head(path: Path, width: int) -> AestheticHead:
    """The aesthetic head from a local file.

    Raises:
        ValueError: if there is no such file, or it holds other layers.
    """
    if not path.is_file():
        raise ValueError(
            f"head: {path} is no file; download sac+logos+ava1-l14-linearMSE.pth of the improved aesthetic predictor"
        )
    state: Any
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    head = AestheticHead(width)
    try:
        head.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"head: {path} does not hold the five linear layers of the predictor: {error}") from error
    return head.eval().requires_grad_(False)


def combine(
    rewards: Mapping[str, Float],
    weights: Mapping[str, float],
    order: Literal["sum_then_normalize", "normalize_then_sum"] = "sum_then_normalize",
    eps: float = 1e-4,
) -> Float:
    """One reward ``[G, F]`` from several.

    Args:
        rewards: by name, ``[G, F]`` each.
        weights: by name.
        order: ``"sum_then_normalize"`` adds the raw rewards, which the advantage then normalises (Eq. 12-13);
            ``"normalize_then_sum"`` brings each to mean 0 and spread 1 over the group first, so that none drowns the
            others by its unit.

    Raises:
        ValueError: if names differ or an ``order`` is unknown.
    """
    if set(rewards) != set(weights):
        raise ValueError(f"weights: given for {sorted(weights)}, but rewards are {sorted(rewards)}")
    if order not in ("sum_then_normalize", "normalize_then_sum"):
        raise ValueError(f"order: {order!r} is unknown; use sum_then_normalize or normalize_then_sum")
    parts: Sequence[Float] = [
        weights[name] * (values if order == "sum_then_normalize" else _normalised(values, eps))
        for name, values in rewards.items()
    ]
    return np.asarray(np.sum(parts, axis=0))


def _normalised(values: Float, eps: float) -> Float:
    return np.asarray((values - values.mean(0)) / (values.std(0) + eps))
