"""How good do the frames look? LAION's aesthetic predictor V2 (as the paper), or the small scorer of Sprite World.

Both give each frame a number, nominally 0 to 10, but not the same one: the sprite scorer's is called aesthetic-sprite.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ardrag.judges.rewards import LaionAesthetic
from ardrag.judges.sprite_aesthetic import SpriteAestheticReward


class FrameScorer(Protocol):
    """What both scorers can do."""

    def score_frames(self, frames: Tensor) -> Tensor:
        """Scores ``[N]`` of pictures uint8 ``[N, 3, H, W]``."""
        ...


def load_scorer(head: str | Path | None, device: torch.device | str = "cpu") -> FrameScorer:
    """LAION's predictor with the given file of its head, or the bundled sprite scorer where ``head`` is None.

    Raises:
        ValueError: if the head's file is missing or has other layers.
    """
    if head is None:
        return SpriteAestheticReward.from_pretrained()
    if not Path(head).is_file():  # told before CLIP is downloaded
        raise ValueError(f"aesthetic: {head} is no file; give sac+logos+ava1-l14-linearMSE.pth or its safetensors")
    return LaionAesthetic(head, device=device)


def frame_scores(scorer: FrameScorer, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Scores ``[T]`` of a video uint8 ``[T, H, W, 3]``."""
    return scorer.score_frames(torch.from_numpy(frames).permute(0, 3, 1, 2)).double().numpy()
