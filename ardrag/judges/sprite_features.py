"""What is in a frame of Sprite World, and what happens in a clip: features for Fréchet and kernel distances.

Inception (FID) and I3D (FVD) know photographs, and cannot always be had. This small network has learnt to name what
Sprite World is made of (colours, shapes, background, how things move) and what generated video does wrong (blur,
noise, broken shapes, frozen or shuffled frames, flicker); `training.train_features` makes it. Distances in its
features are called FID-sprite and FVD-sprite, for they cannot be compared with any FID or FVD.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from ardrag.home import ROOT
from ardrag.judges.sprite_aesthetic import halvings, with_detail
from ardrag.saving import SavedWhole


BUNDLED_FEATURES = ROOT / "checkpoints" / "sprite-features"
"""The network that comes with the repository."""


class SpriteFeatures(SavedWhole, ModelMixin, ConfigMixin):
    """Two encoders: one of single frames, one of short clips at half the size, frame by frame with the change.

    Args:
        width: channels after the first halving of a frame.
        clip_width: the same for the clip's encoder.
        features: numbers that describe a frame, and as many a clip.
        window: pixel frames that the clip's encoder sees at once.
        detail: how much the fine detail of a frame is enlarged, and the change from frame to frame.
    """

    @register_to_config
    def __init__(
        self, width: int = 12, clip_width: int = 16, features: int = 64, window: int = 16, detail: float = 8.0
    ) -> None:
        super().__init__()
        self.frame_layers, channels = halvings(6, width, 4)
        self.frame_head = nn.Linear(2 * channels, features)
        self.clip_layers, channels = halvings(6, clip_width, 3)
        self.time_layers = nn.Sequential(
            nn.Conv1d(channels, channels, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv1d(channels, channels, 3, stride=2, padding=1),
            nn.SiLU(),
        )
        self.clip_head = nn.Linear(2 * channels, features)

    def frame_features(self, frames: Tensor) -> Tensor:
        """Features ``[N, D]`` of pictures uint8 ``[N, 3, H, W]``."""
        seen = self.frame_layers(with_detail(frames.to(self.dtype) / 127.5 - 1, self.config.detail))
        pooled: Tensor = self.frame_head(torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], dim=1))
        return pooled

    def window_features(self, videos: Tensor) -> Tensor:
        """Features ``[B, D]`` of short clips uint8 ``[B, T, 3, H, W]``."""
        batch, length = videos.shape[:2]
        small = F.avg_pool2d(videos.flatten(0, 1).to(self.dtype) / 127.5 - 1, 2).unflatten(0, (batch, length))
        change = self.config.detail * small.diff(dim=1, prepend=small[:, :1])
        seen = self.clip_layers(torch.cat([small, change], dim=2).flatten(0, 1))  # [B T, C, h, w]
        paths = seen.unflatten(0, (batch, length)).permute(0, 3, 4, 2, 1)  # [B, h, w, C, T]
        places = paths.shape[1] * paths.shape[2]
        found = self.time_layers(paths.flatten(0, 2)).unflatten(0, (batch, places))  # [B, h w, C, T']
        pooled: Tensor = self.clip_head(torch.cat([found.mean((1, 3)), found.amax((1, 3))], dim=1))
        return pooled

    @torch.no_grad()
    def clip_features(self, video: Tensor) -> Tensor:
        """Features ``[D]`` of one clip uint8 ``[T, 3, H, W]``: mean over windows that lie end to end and begin late.

        The first frames that do not fill a window are left out; the very first is the given picture anyway.

        Raises:
            ValueError: if the clip is shorter than a window.
        """
        window = int(self.config.window)
        count = len(video) // window
        if count == 0:
            raise ValueError(f"video: {len(video)} frames; the features of a clip need at least {window}")
        windows = video[len(video) - count * window :].unflatten(0, (count, window))
        return self.window_features(windows.to(self.device)).mean(0)


def load_features(folder: str | Path = BUNDLED_FEATURES) -> SpriteFeatures:
    """Load a network, by default the bundled one, ready to use.

    Raises:
        ValueError: if the folder holds none.
    """
    if not (Path(folder) / "config.json").is_file():
        raise ValueError(f"features: {folder} holds no network; make one with python -m training.train_features")
    model: SpriteFeatures = SpriteFeatures.from_pretrained(folder)
    return model.eval().requires_grad_(False)
