"""Does a video keep what its first frame shows? A quality reward for worlds whose camera stands still.

The scorers of pictures (Eq. 15) know nothing of how this picture was. Stage 3 then finds that a sprite may fade and
that texture may be painted over the background, as long as the tracker is content. Here every frame is compared with
the first one, which was given: the background where it was, and each piece that a track moves wherever it is found,
so that little is won or lost by where it went: that is the motion reward's part.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from ardrag.judges.rewards import first_queries, mean_per_latent, pixel_trajectories
from ardrag.judges.tracking import Trajectories
from ardrag.tracks.tracks import Tracks


Float = npt.NDArray[np.float64]
PIECE, AROUND = 6 / 128, 24 / 128
"""Radius of the piece around a point, within a thing, and of what is no background there, of the shorter side."""
KEPT = 0.75
"""Share of the background that is compared, the part that changed least: in the rest something may pass by."""
SMALLEST = 3e-4
"""Mean squared error, of 1, below which nothing is better (35 dB): a VAE alone does not keep a picture better."""


class ConstancyReward:
    """PSNR against the first frame, in bels (10 dB are 1), per latent: the mean of the background's and the pieces'.

    A piece is the disc around a point in the first frame, taken from wherever in a frame it is matched best; what a
    3x3 mean takes away is left out, as it depends on the part of a pixel. Points that the tracks show later than in
    frame 0 have no piece.
    """

    def __init__(self, temporal_factor: int = 4) -> None:
        self.temporal_factor = temporal_factor

    def __call__(self, videos: Tensor, tracks: Tracks) -> Float:
        """See `ardrag.judges.rewards.Reward`."""
        num_frames, height, width = videos.shape[1], *videos.shape[3:]
        wanted = pixel_trajectories(tracks, num_frames, height, width)
        queries, rows = first_queries(wanted)
        rows = rows[queries[:, 0].numpy() == 0]
        shown = Trajectories(wanted.xy[:, rows], wanted.visible[:, rows])
        side = min(height, width)
        open_view = background_mask(shown, height, width, AROUND * side)
        return mean_per_latent(
            np.stack([self._frames(video.float() / 255, shown, open_view, PIECE * side) for video in videos]),
            self.temporal_factor,
        )

    def _frames(self, video: Tensor, shown: Trajectories, open_view: Tensor, radius: float) -> Float:
        """Bels of each frame ``[T]`` of ``video`` ``[T, 3, H, W]`` in 0..1; NaN where nothing can be compared."""
        behind = bels(background_errors(video, open_view))
        if not shown.xy.shape[1]:
            return behind
        pieces = [bels(piece_errors(video, tuple(point), radius)) for point in shown.xy[0]]
        seen = np.where(shown.visible, np.stack(pieces, axis=1), np.nan)
        count = np.isfinite(seen).sum(1)
        mean = np.where(count > 0, np.nansum(seen, axis=1) / np.maximum(count, 1), behind)
        return np.where(np.isfinite(behind), (behind + mean) / 2, mean)


def bels(errors: Tensor) -> Float:
    """PSNR in bels of mean squared errors, of 1."""
    found: Float = -np.log10(errors.double().clamp_min(SMALLEST).cpu().numpy())
    return found


def background_mask(shown: Trajectories, height: int, width: int, radius: float) -> Tensor:
    """Pixels that are background in the first frame and in each ``[T, H, W]``: none within ``radius`` of a point."""
    rows, columns = np.indices((height, width)) + 0.5
    x, y = (shown.xy[:, :, axis, None, None] for axis in range(2))
    near = ((columns - x) ** 2 + (rows - y) ** 2 <= radius**2) & shown.visible[..., None, None]
    near = near.any(1)
    return torch.from_numpy(~(near | near[:1]))


def background_errors(video: Tensor, open_view: Tensor) -> Tensor:
    """Mean squared change since the first frame ``[T]`` over the `KEPT` share of ``open_view``; NaN if it is empty."""
    squared = (video - video[:1]).square().mean(1)
    found = []
    for values, marked in zip(squared, open_view.to(video.device), strict=True):
        ordered = values[marked].sort().values
        found.append(ordered[: round(KEPT * len(ordered))].mean())
    return torch.stack(found)


def piece_errors(video: Tensor, point: tuple[float, ...], radius: float) -> Tensor:
    """Mean squared error ``[T]`` of the best match in each frame for the disc around ``point`` (x, y) in the first."""
    reach = round(radius)
    soft = F.avg_pool2d(F.pad(video, (1,) * 4, mode="replicate"), 3, stride=1)
    padded = F.pad(soft, (reach,) * 4, mode="replicate")
    x, y = (
        int(np.clip(value, 0, size - 1)) for value, size in zip(point, (soft.shape[3], soft.shape[2]), strict=True)
    )
    piece = padded[0, :, y : y + 2 * reach + 1, x : x + 2 * reach + 1]
    offset = torch.arange(-reach, reach + 1, device=video.device)
    disc = (offset[:, None] ** 2 + offset**2 <= radius**2).to(piece).expand_as(piece)[None]
    energy = F.conv2d(padded.square(), disc) - 2 * F.conv2d(padded, disc * piece) + (disc * piece.square()).sum()
    return (energy / disc.sum()).amin((1, 2, 3))
