"""The gate before any ablation: is there anything to win in this world with this model?

    python -m eval.headroom checkpoints/ardrag-tiny
    python -m eval.headroom runs/small/pipeline --world small:passers_by=1 --num_latents 7 --report outputs/headroom

Every clip is made several times from one picture and its tracks. Four questions are asked (AR-Drag sections 3.2, 3.3):
is the first step's prediction worse than the finished latent (else a history of either is the same), how much of the
error is variance (only that can be reinforced), what would the best of the group gain, and does the reward still see
differences. The page says which ablations mean something; it does not say who would win them. Several worlds and
models side by side: `eval.report.gates`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from transformers import HfArgumentParser

from ardrag.worlds.open import open_world
from ardrag.worlds.small import SmallClip
from ardrag.worlds.sprites import SpriteClip
from eval.benchmark.headroom import FULL_REWARD, ClipHeadroom, measure_clip
from eval.model import load_pipeline, with_model_named
from eval.record import page_file, record_lines, run_record, write_json, write_text
from eval.report.document import table
from eval.statistics import Interval, bootstrap_interval


WORSE = 0.10
"""A first step is worse than three where its error is larger by this share, or as much less of a free sprite shows."""
VARIANCE_SHARE = 0.30
"""Below this share of variance there is nothing to reinforce."""
BEST_GAIN = 0.10
"""The best of a group must be better than its mean by this share."""
SATURATED = 0.98
"""A reward whose median clip earns this share of the most it could sees no differences."""


@dataclass
class HeadroomConfig:
    """Which model, in which world."""

    model: str = field(metadata={"help": "Folder or Hub name of a causal checkpoint."})
    world: str = field(default="sprites", metadata={"help": "sprites, or small:OPTIONS; see training.precompute."})
    split: str = field(default="test", metadata={"help": "Split of the world."})
    num_clips: int = field(default=8, metadata={"help": "Clips."})
    members: int = field(default=8, metadata={"help": "How often each clip is made."})
    num_latents: int = field(default=9, metadata={"help": "Latent frames per clip."})
    seed: int = field(default=0, metadata={"help": "Seed of the first clip's noise."})
    report: str = field(default="outputs/headroom", metadata={"help": "Path of the report without suffix."})

    def __post_init__(self) -> None:
        for name, least in (("num_clips", 2), ("members", 2), ("num_latents", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)} is too few to compare; use {least} or more")


def gather(config: HeadroomConfig) -> list[ClipHeadroom]:
    """Make and measure the clips."""
    pipeline, world = load_pipeline(config.model), open_world(config.world)
    num_frames = 1 + pipeline.vae.config.scale_factor_temporal * (config.num_latents - 1)
    found = []
    for index in tqdm(range(config.num_clips), unit="clip"):
        clip = world.make(config.split, index, num_frames, *pipeline.config.buckets[0])
        if not isinstance(clip, SpriteClip):
            raise ValueError(f"world: {config.world} has no sprites that could be found exactly; use sprites or small")
        free = clip.free if isinstance(clip, SmallClip) else ()
        found.append(measure_clip(pipeline, clip, free, config.members, config.seed + index))
    return found


def summarize(clips: Sequence[ClipHeadroom]) -> dict[str, Interval]:
    """Means over clips with 95 % intervals; ratios are taken clip by clip."""
    one, three, best = (np.array([getattr(clip, name) for clip in clips]) for name in ("one_step", "finished", "best"))
    columns = {
        "one-step error, px": one,
        "three-step error, px": three,
        "one step worse by": one / three - 1,
        "share of variance": [clip.variance for clip in clips],
        "best of the group better by": 1 - best / three,
        "reward, share of the most": [clip.reward / FULL_REWARD for clip in clips],
        "spread of the reward in a group": [clip.reward_spread for clip in clips],
    }
    shown = [(clip.shown_one_step, clip.shown) for clip in clips if clip.shown_one_step is not None]
    if shown:
        pair = np.array(shown, dtype=np.float64)
        columns["free sprites shown by one step"], columns["free sprites shown by three"] = pair.T
        columns["one step shows less by"] = 1 - pair[:, 0] / pair[:, 1]
    return {name: bootstrap_interval(values) for name, values in columns.items()}


def histories_differ(found: Mapping[str, Interval]) -> bool:
    """Whether the first step's prediction is surely worse than the finished latent."""
    apart = [found[name] for name in ("one step worse by", "one step shows less by") if name in found]
    return any(interval.mean >= WORSE and interval.low > 0 for interval in apart)


def what_grpo_means(found: Mapping[str, Interval], median_reward: float) -> tuple[str, str]:
    """``nothing``, ``something`` or ``not decided``, and the reason."""
    share, gain = found["share of variance"], found["best of the group better by"]
    lacks = []
    if share.mean < VARIANCE_SHARE:
        lacks.append(f"{100 * share.mean:.0f} % of the squared error is variance, too little")
    if gain.mean < BEST_GAIN:
        lacks.append(f"the best of a group is only {100 * gain.mean:.0f} % better")
    if median_reward > SATURATED:
        lacks.append(f"the median clip earns {100 * median_reward:.0f} % of the reward already")
    if lacks:
        return "nothing", "; ".join(lacks)
    if share.low < VARIANCE_SHARE or gain.low < BEST_GAIN:
        return "not decided", "an interval reaches below its threshold, take more clips"
    return "something", "there is variance, and the reward sees it"


def verdicts(found: Mapping[str, Interval], median_reward: float) -> list[str]:
    """Which ablations mean something here, in words."""
    differ = histories_differ(found)
    told = f"the first step's prediction is {'worse than' if differ else 'as good as'} what comes of it"
    word, reason = what_grpo_means(found, median_reward)
    return [
        f"Self-Rollout against collapsed histories: means {'something' if differ else 'nothing'} here: {told}.",
        f"GRPO, what it means here: {word}: {reason}.",
        f"Selective stochasticity, an ablation within GRPO: {word} likewise.",
    ]


def median_share(clips: Sequence[ClipHeadroom]) -> float:
    """What the median clip earns of the most that it could."""
    return float(np.median([clip.reward for clip in clips])) / FULL_REWARD


def markdown(
    found: Mapping[str, Interval], clips: Sequence[ClipHeadroom], config: HeadroomConfig, record: dict[str, Any]
) -> str:
    """The page."""
    percent = {name for name in found if " by" in name and "shown" not in name} | {"share of variance"}
    percent |= {name for name in found if name.startswith("reward")}
    rows = []
    for name, interval in found.items():
        scale, unit = (100, " %") if name in percent else (1, "")
        mean, low, high = (scale * value for value in interval)
        rows.append([name, f"{mean:.3g}{unit} [{low:.3g}, {high:.3g}]"])
    lines = [
        f"# Headroom of {config.model} in {open_world(config.world).title}",
        "",
        f"{config.num_clips} clips of the {config.split} split, each made {config.members} times, "
        f"{config.num_latents} latents. Means over clips with 95 % bootstrap intervals; ratios by clip. One step "
        "is the first step's prediction on the same history; places and reward (Eq. 16) are by template match.",
        "",
        *table(["measure", "value"], rows),
        "",
        *(f"- {line}" for line in verdicts(found, median_share(clips))),
        "",
        f"Thresholds: one step worse, or showing less, by {WORSE:.0%}; variance {VARIANCE_SHARE:.0%}; best of the "
        f"group {BEST_GAIN:.0%}; a median reward of {SATURATED:.0%} is saturated.",
        "",
        *record_lines(record),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Measure, judge, write page and numbers."""
    given = with_model_named(sys.argv[1:] if arguments is None else arguments)
    (config,) = HfArgumentParser(HeadroomConfig).parse_args_into_dataclasses(given)
    open_world(config.world)  # checked before anything is loaded
    record = run_record("eval.headroom", arguments)
    clips = gather(config)
    found, target = summarize(clips), Path(config.report)
    numbers = {"record": record, "settings": asdict(config), "clips": [clip._asdict() for clip in clips]}
    write_json(page_file(target, ".json"), numbers)
    page = markdown(found, clips, config, record)
    write_text(page_file(target, ".md"), page)
    print(page)


if __name__ == "__main__":
    main()
