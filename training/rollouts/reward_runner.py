"""Rewards by name, and asking one that may fail: tried again, and then the run stops with its rollout on disk."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor

from ardrag.judges.constancy import ConstancyReward
from ardrag.judges.rewards import LaionAesthetic, MotionReward, Reward
from ardrag.judges.sprite_aesthetic import BUNDLED_SCORER, SpriteAestheticReward
from ardrag.judges.trackers import build_tracker
from ardrag.tracks.tracks import Tracks


logger = logging.getLogger(__name__)
FAILED = "failed_rollout"
REWARDS = ("motion", "constancy", "aesthetic", "sprite_aesthetic")


def build_reward(
    name: str, tracker: str = "patch", checkpoint: str = "", head: str = "", device: torch.device | str = "cpu"
) -> Reward:
    """A reward by name.

    Raises:
        ValueError: if the name is unknown, or a file that it needs is missing.
    """
    if name == "motion":
        return MotionReward(build_tracker(tracker, checkpoint, device))
    if name == "constancy":
        return ConstancyReward()
    if name == "aesthetic":
        return LaionAesthetic(head, device=device)
    if name == "sprite_aesthetic":
        return SpriteAestheticReward.from_pretrained(head or BUNDLED_SCORER, device)
    raise ValueError(f"rewards: {name!r} is unknown; use {', '.join(REWARDS[:-1])} or {REWARDS[-1]}")


def parse_weights(entries: Sequence[str]) -> dict[str, float]:
    """Weights by name from ``name=weight`` entries.

    Raises:
        ValueError: if an entry is malformed, unknown or given twice, or there is none.
    """
    weights: dict[str, float] = {}
    for entry in entries:
        name, _, weight = entry.partition("=")
        if name in weights:
            raise ValueError(f"rewards: {name!r} is given twice")
        try:
            weights[name] = float(weight)
        except ValueError as error:
            raise ValueError(f"rewards: {entry!r} is not name=weight, e.g. motion=1.0") from error
        if name not in REWARDS:
            raise ValueError(f"rewards: {name!r} is unknown; use {', '.join(REWARDS[:-1])} or {REWARDS[-1]}")
    if not weights:
        raise ValueError("rewards: none given; use motion=1.0")
    return weights


def build_rewards(
    entries: Sequence[str],
    tracker: str = "patch",
    checkpoint: str = "",
    head: str = "",
    device: torch.device | str = "cpu",
    processes: bool = False,
) -> tuple[dict[str, Reward], dict[str, float]]:
    """Rewards and their weights from ``name=weight`` entries; with ``processes`` each in a process of its own.

    Raises:
        ValueError: if an entry is malformed, unknown or given twice, or a file that a reward needs is missing.
    """
    weights = parse_weights(entries)
    given = (tracker, checkpoint, head, device)
    if processes:
        return {name: RewardProcess(build_reward, name, *given) for name in weights}, weights
    return {name: build_reward(name, *given) for name in weights}, weights


class RewardProcess:
    """A reward in a process of its own, which may sit on another device; see `ardrag.judges.rewards.Reward`.

    The process begins with the first call and builds the reward itself. One that dies fails the call that it was
    working on, and the next call begins another.

    Args:
        build: makes the reward, called in the process as ``build(*given)``; both are pickled.
        threads: of the process, so that several do not fight for the cores.
    """

    def __init__(self, build: Callable[..., Reward], *given: Any, threads: int = 1) -> None:
        self._start = (build, given, threads)
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, videos: Tensor, tracks: Tracks) -> npt.NDArray[np.float64]:
        """See `Reward`; raises what the reward raised, or `BrokenProcessPool` where the process died."""
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, context, initializer=_begin, initargs=self._start)
        try:
            return self._pool.submit(_work, videos.cpu().numpy(), tracks.to_json()).result()
        except BrokenProcessPool:
            self.close()
            raise

    def close(self) -> None:
        """End the process."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


_worker: dict[str, Reward] = {}


def _begin(build: Callable[..., Reward], given: tuple[Any, ...], threads: int) -> None:
    torch.set_num_threads(threads)
    _worker["reward"] = build(*given)


def _work(videos: npt.NDArray[np.uint8], tracks: str) -> npt.NDArray[np.float64]:
    return _worker["reward"](torch.from_numpy(videos), Tracks.from_json(tracks))


def score_all(
    rewards: Mapping[str, Reward], videos: Tensor, tracks: Tracks, attempts: int, folder: Path
) -> dict[str, npt.NDArray[np.float64]]:
    """Ask all rewards; those in processes of their own at the same time.

    Raises:
        RuntimeError: see `score`.
    """

    def ask(name: str) -> npt.NDArray[np.float64]:
        return score(name, rewards[name], videos, tracks, attempts, folder)

    apart = [name for name, reward in rewards.items() if isinstance(reward, RewardProcess)]
    with ThreadPoolExecutor(max(len(apart), 1)) as pool:
        asked = {name: pool.submit(ask, name) for name in apart}
        return {name: asked[name].result() if name in asked else ask(name) for name in rewards}


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
