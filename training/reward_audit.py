"""Does a reward see what it should? Trackers as rewards against the true error, where it matters: within a group.

    python -m training.reward_audit --init_from checkpoints/ardrag-tiny --prompts 24 --trackers patch lucas_kanade

Groups are rolled out as in stage 3 and every video is measured by template match, which knows the sprites and is no
reward. GRPO learns from differences within a group alone, so that is where a reward must agree with the truth; one
that ranks clips well may still be blind there. The last lines say what there is to gain: the error of the member that
the truth likes best.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from ardrag.judges.rewards import MotionReward, Reward, mean_per_latent
from ardrag.judges.template_match import path_errors
from ardrag.judges.trackers import build_tracker
from ardrag.worlds.clip_tracks import clip_tracks
from ardrag.worlds.sprites import SpriteClip, make_clip
from pipelines import ARDragPipeline
from training.rollouts.group_rollout import collect
from training.rollouts.prompts import Prompt
from training.run.config import parse_config
from training.settings.grpo import GrpoConfig


Float = npt.NDArray[np.float64]
FIRST_CLIP = 900_000
"""Clips of the training split from here on are asked for: few runs have met them."""


@dataclass
class AuditConfig:
    """What to roll out and whom to ask."""

    init_from: str = field(metadata={"help": "Pipeline of the student."})
    trackers: list[str] = field(default_factory=lambda: ["patch", "lucas_kanade"], metadata={"help": "See grpo."})
    prompts: int = field(default=24, metadata={"help": "Groups."})
    group_size: int = field(default=8, metadata={"help": "Videos per group."})
    num_latents: int = field(default=9, metadata={"help": "Latent frames per clip."})
    mode: str = field(default="crn", metadata={"help": "See grpo."})
    eta: float = field(default=1.0, metadata={"help": "See grpo."})

    def __post_init__(self) -> None:
        if self.prompts < 2:
            raise ValueError(f"prompts: {self.prompts} is too few to compare; use 24")


def true_errors(clip: SpriteClip, videos: torch.Tensor) -> Float:
    """Distance in px to the drawn paths ``[G, F]`` of videos uint8 ``[G, T, 3, H, W]``, NaN where nothing is shown."""
    frames = videos.permute(0, 1, 3, 4, 2).numpy()
    errors = np.stack([path_errors(clip, video) for video in frames]).astype(np.float64)  # [G, T, P]
    known = np.isfinite(errors)
    mean = np.where(known, errors, 0).sum(-1) / np.maximum(known.sum(-1), 1)
    return mean_per_latent(np.where(known.any(-1), mean, np.nan))


def within_groups(reward: Float, error: Float) -> tuple[float, int]:
    """Mean correlation over groups of ``reward`` and ``error`` ``[N, G, F]``, latent by latent, and how many told.

    Groups whose members are all alike by either measure tell nothing.
    """
    found = []
    for one, other in zip(np.swapaxes(reward, 1, 2), np.swapaxes(error, 1, 2), strict=True):
        for x, y in zip(one, other, strict=True):
            if np.isfinite(x).all() and np.isfinite(y).all() and x.std() > 1e-9 and y.std() > 1e-9:
                found.append(np.corrcoef(x, y)[0, 1])
    return (float(np.mean(found)) if found else float("nan")), len(found)


def page(rewards: Mapping[str, Float], error: Float) -> str:
    """The audit of rewards ``[N, G, F]`` against the true error as Markdown."""
    groups = int(np.isfinite(error).all(1).sum())
    lines = [
        "| reward | correlation within a group | groups that told | clip by clip | spread within a group |",
        "| --- | --- | --- | --- | --- |",
    ]
    clip_error = np.nanmean(error, (1, 2))
    for name, reward in rewards.items():
        inside, told = within_groups(reward, error**2)
        with np.errstate(invalid="ignore"):  # a reward that is the same for all has no correlation
            between = np.corrcoef(np.nanmean(reward, (1, 2)), clip_error)[0, 1]
        apart = np.nanmean(np.nanstd(reward, 1))
        lines.append(f"| {name} | {inside:.2f} | {told} of {groups} | {between:.2f} | {apart:.4f} |")
    member = np.nanmean(error, 2)
    spread = np.nanmedian(np.nanstd(error, 1))
    best, best_latents = member.min(1).mean(), np.nanmean(error.min(1))
    lines += [
        "",
        f"True error {member.mean():.2f} px, spread within a group (median) {spread:.2f} px; the best member of each "
        f"group {best:.2f} px, the best at each latent {best_latents:.2f} px.",
    ]
    return "\n".join(lines)


def main(config: AuditConfig) -> None:
    """Roll out, ask, print."""
    pipeline = ARDragPipeline.from_pretrained(config.init_from)
    settings = {"num_latents": config.num_latents, "group_size": config.group_size, "mode": config.mode}
    grpo = GrpoConfig(output_dir="", init_from=config.init_from, eta=config.eta, **settings)  # type: ignore[arg-type]
    asked: dict[str, Reward] = {name: MotionReward(build_tracker(name)) for name in config.trackers}
    height, width = pipeline.config.buckets[0]
    frames = 1 + pipeline.vae.config.scale_factor_temporal * (config.num_latents - 1)
    errors: list[Float] = []
    rewards: dict[str, list[Float]] = {name: [] for name in asked}
    for number in range(config.prompts):
        clip = make_clip("train", FIRST_CLIP + number, frames, height, width)
        prompt = Prompt(clip.frames[0], clip.caption, clip_tracks(clip))
        group = collect(pipeline, prompt, grpo, (0, number, 0))
        errors.append(true_errors(clip, group.videos)[:, 1:])
        for name, reward in asked.items():
            rewards[name].append(reward(group.videos, group.tracks)[:, 1:])
    print(page({name: np.stack(values) for name, values in rewards.items()}, np.stack(errors)))


if __name__ == "__main__":
    main(parse_config(AuditConfig))
