"""Motion consistency as the paper reports it: its own reward (Eq. 16), here with any tracker.

``scale * max(0, alpha - mean |found - wanted|^2)`` per frame, distances in latent-grid pixels, averaged over a latent
and then over the latents after the first. A model trained with this reward is best judged by a tracker that was not
in it; in Sprite World the template match is one.
"""

from __future__ import annotations

import numpy as np

from ardrag.judges.rewards import mean_per_latent, motion_reward
from ardrag.judges.tracking import Trajectories
from eval.metrics.paths import mean_of


def motion_consistency(found: Trajectories, wanted: Trajectories, temporal_factor: int = 4) -> float | None:
    """Mean reward, 0 to 5, over the latents after the first; None where the tracks show nothing."""
    rewards = mean_per_latent(np.asarray(motion_reward(found, wanted)), temporal_factor)
    return mean_of(rewards[1:])
