"""How good does a frame of Sprite World look? A small scorer in the place of LAION's, with the same interface.

LAION's predictor knows photographs; it says nothing of flat sprites on soft backgrounds. This one has learnt to tell
how badly a frame was blurred, made noisy, discoloured or broken (`training.train_aesthetic`): 10 is untouched, 0 as
bad as the training went. It judges pictures alone, not whether they follow the tracks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from ardrag.home import ROOT
from ardrag.judges.rewards import mean_per_latent
from ardrag.saving import SavedWhole
from ardrag.tracks.tracks import Tracks


BUNDLED_SCORER = ROOT / "checkpoints" / "sprite-aesthetic"
"""The scorer that comes with the repository."""
HIGHEST = 10.0


def halvings(channels: int, width: int, levels: int) -> tuple[nn.Sequential, int]:
    """Two convolutions for each halving of a picture of ``channels``, and how many channels come out of the last.

    ``width`` channels after the first halving; they double with each.
    """
    layers: list[nn.Module] = []
    for level in range(levels):
        wider = width * 2**level
        layers += [
            nn.Conv2d(channels, wider, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(wider, wider, 3, padding=1),
            nn.SiLU(),
        ]
        channels = wider
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers), channels


def with_detail(pictures: Tensor, detail: float) -> Tensor:
    """Pictures ``[N, 3, H, W]`` and, ``detail`` times enlarged, what a 3x3 mean takes away: ``[N, 6, H, W]``."""
    fine = pictures - F.avg_pool2d(pictures, 3, stride=1, padding=1, count_include_pad=False)
    return torch.cat([pictures, detail * fine], dim=1)


class SpriteAesthetic(SavedWhole, ModelMixin, ConfigMixin):
    """Convolutions down to a sixteenth, the mean and the maximum over the picture, and a small network on both.

    It sees the picture and, enlarged, its fine detail (what a 3x3 mean takes away), where blur and noise show. There
    is no normalisation between: how strong a detail is, is the very question.

    Args:
        width: channels after the first layer; they double with each halving of the picture.
        levels: number of halvings.
        detail: how much the fine detail is enlarged.
    """

    @register_to_config
    def __init__(self, width: int = 12, levels: int = 4, detail: float = 8.0) -> None:
        super().__init__()
        self.features, channels = halvings(6, width, levels)
        self.head = nn.Sequential(nn.Linear(2 * channels, channels), nn.SiLU(), nn.Linear(channels, 1))

    def forward(self, frames: Tensor) -> Tensor:
        """Scores ``[N]``, 0 to 10, of pictures uint8 ``[N, 3, H, W]``."""
        seen = self.features(with_detail(frames.to(self.dtype) / 127.5 - 1, self.config.detail))
        pooled = torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], dim=1)
        score: Tensor = HIGHEST * torch.sigmoid(self.head(pooled)[:, 0])
        return score


class SpriteAestheticReward:
    """The score of every pixel frame, mean over the frames of a latent; see `ardrag.judges.rewards.Reward`."""

    def __init__(
        self,
        model: SpriteAesthetic,
        device: torch.device | str = "cpu",
        batch_size: int = 64,
        temporal_factor: int = 4,
    ) -> None:
        self.model = model.eval().requires_grad_(False).to(device)
        self.batch_size, self.temporal_factor = batch_size, temporal_factor

    @classmethod
    def from_pretrained(
        cls, folder: str | Path = BUNDLED_SCORER, device: torch.device | str = "cpu"
    ) -> SpriteAestheticReward:
        """Load a scorer, by default the bundled one.

        Raises:
            ValueError: if the folder holds none.
        """
        if not (Path(folder) / "config.json").is_file():
            raise ValueError(f"aesthetic: {folder} holds no scorer; make one with python -m training.train_aesthetic")
        return cls(SpriteAesthetic.from_pretrained(folder), device)

    @torch.no_grad()
    def score_frames(self, frames: Tensor) -> Tensor:
        """Scores ``[N]`` of pictures uint8 ``[N, 3, H, W]``."""
        device = self.model.device
        return torch.cat([self.model(part.to(device)).float().cpu() for part in frames.split(self.batch_size)])

    def __call__(self, videos: Tensor, tracks: Tracks) -> npt.NDArray[np.float64]:
        """See `Reward`."""
        scores = self.score_frames(videos.flatten(0, 1)).view(videos.shape[:2])
        return mean_per_latent(scores.double().numpy(), self.temporal_factor)
