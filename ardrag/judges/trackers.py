"""Trackers by name: what a reward or an evaluation is told in its settings."""

from __future__ import annotations

import torch

from ardrag.judges.patch_tracking import PatchTracker
from ardrag.judges.tracking import CoTracker, LucasKanadeTracker, PointTracker


def build_tracker(name: str, checkpoint: str = "", device: torch.device | str = "cpu") -> PointTracker:
    """A tracker by name.

    Raises:
        ValueError: if the name is unknown.
    """
    if name == "patch":
        return PatchTracker()
    if name == "lucas_kanade":
        return LucasKanadeTracker()
    if name in ("cotracker", "cotracker_online"):
        return CoTracker(checkpoint or None, online=name.endswith("online"), device=device)
    raise ValueError(f"tracker: {name!r} is unknown; use patch, lucas_kanade, cotracker or cotracker_online")
