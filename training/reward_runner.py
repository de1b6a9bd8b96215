"""Rewards by name, and asking one that may fail: tried again, and then the run stops with its rollout on disk."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.torch import save_file
from torch import Tensor

from ardrag.patch_tracking import PatchTracker
from ardrag.rewards import LaionAesthetic, MotionReward, Reward
from ardrag.sprite_aesthetic import BUNDLED_SCORER, SpriteAestheticReward
from ardrag.tracking import CoTracker, LucasKanadeTracker, PointTracker
from ardrag.tracks import Tracks


logger = logging.getLogger(__name__)
FAILED = "failed_rollout"


def build_tracker(name: str, checkpoint: str = "") -> PointTracker:
    """A tracker by name.

    Raises:
        ValueError: if the name is unknown.
    """
    if name == "patch":
        return PatchTracker()
    if name == "lucas_kanade":
        return LucasKanadeTracker()
    if name in ("cotracker", "cotracker_online"):
        return CoTracker(checkpoint or None, online=name.endswith("online"))
    raise ValueError(f"tracker: {name!r} is unknown; use patch, lucas_kanade, cotracker or cotracker_online")


def build_rewards(
    entries: Sequence[str], tracker: str = "lucas_kanade", checkpoint: str = "", head: str = ""
) -> tuple[dict[str, Reward], dict[str, float]]:
    """Rewards and their weights from ``name=weight`` entries.

    Raises:
        ValueError: if an entry is malformed, unknown or given twice, or a file that a reward needs is missing.
    """
    rewards: dict[str, Reward] = {}
    weights: dict[str, float] = {}
    for entry in entries:
        name, _, weight = entry.partition("=")
        try:
            weights[name] = float(weight)
        except ValueError as error:
            raise ValueError(f"rewards: {entry!r} is not name=weight, e.g. motion=1.0") from error
        if name in rewards:
            raise ValueError(f"rewards: {name!r} is given twice")
        if name == "motion":
            rewards[name] = MotionReward(build_tracker(tracker, checkpoint))
        elif name == "aesthetic":
            rewards[name] = LaionAesthetic(head)
        elif name == "sprite_aesthetic":
            rewards[name] = SpriteAestheticReward.from_pretrained(head or BUNDLED_SCORER)
        else:
            raise ValueError(f"rewards: {name!r} is unknown; use motion, aesthetic or sprite_aesthetic")
    if not rewards:
        raise ValueError("rewards: none given; use motion=1.0")
    return rewards, weights


def score(
    name: str, reward: Reward, videos: Tensor, tracks: Tracks, attempts: int, folder: Path
) -> npt.NDArray[np.float64]:
    """Ask ``reward``, again if it fails.

    Raises:
        RuntimeError: after ``attempts`` failures, with the folder where videos and tracks were kept.
    """
    for attempt in range(1, attempts + 1):
        try:
            return reward(videos, tracks)
        except Exception as error:  # whatever a reward model, a device or another process may throw
            logger.warning("reward %s failed (%d of %d): %s", name, attempt, attempts, error)
            last = error
    kept = folder / FAILED
    kept.mkdir(parents=True, exist_ok=True)
    save_file({"videos": videos.contiguous()}, kept / "videos.safetensors")
    tracks.save(kept / "tracks.json")
    raise RuntimeError(
        f"reward {name} failed {attempts} times ({last}); the rollout is kept in {kept}, the last saved state is "
        "intact: mend the reward and run the same command again"
    ) from last
