"""What reinforcement learning changed: checkpoints before and after it, judged by what it was and was not paid for.

    python -m eval.rl --systems "w/o RL=runs/distill/pipeline" "AR-Drag=checkpoints/ardrag-tiny" --workers 2

The first system is the one that the others are compared with, clip by clip. Position is measured three times: by
template match (which knows the sprites and was never a reward), by the patch tracker that is the reward, and by
Lucas-Kanade; a policy that pleases its tracker and nobody else shows up here. Finished clips are kept in
``rows.jsonl`` of the output folder; an interrupted run goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm
from transformers import HfArgumentParser

from ardrag.patch_tracking import PatchTracker
from ardrag.rewards import MotionReward, Reward
from ardrag.sprite_aesthetic import SpriteAestheticReward
from ardrag.sprite_tracks import clip_tracks
from ardrag.sprites import BENCHMARK_CLIPS, SpriteClip, make_clip
from ardrag.template_match import Pixels, background_psnr, path_errors
from ardrag.tracking import LucasKanadeTracker
from eval.model import load_pipeline, model_folder
from eval.record import record_lines, run_record, write_json, write_text
from eval.sprite_report import interval_cell, interval_of, table
from eval.sprite_suite import SPLIT, RowCache, in_processes, mean_of, source_digest
from pipelines import ARDragPipeline


NUM_FRAMES = 33
FAR = 8.0
"""Pixels (one of the latent grid) beyond which a sprite counts as lost."""
COLUMNS = {
    "path error, px": "path_error",
    "last latent": "path_error_end",
    f"frames beyond {FAR:.0f} px, %": "far",
    "motion reward, patch tracker": "motion_patch",
    "motion reward, Lucas-Kanade": "motion_lucas_kanade",
    "aesthetic score": "aesthetic",
    "background PSNR, last latent, dB": "background_psnr",
}
Row = dict[str, Any]


@dataclass
class RlConfig:
    """What to compare and where to put it."""

    systems: list[str] = field(metadata={"help": "name=folder of checkpoints; the first is compared with."})
    title: str = field(default="Reinforcement learning", metadata={"help": "Headline of the report."})
    num_clips: int = field(default=BENCHMARK_CLIPS, metadata={"help": "First clips of the benchmark; fewer: a look."})
    seed: int = field(default=0, metadata={"help": "Seed of clip 0; clip i takes seed + i."})
    workers: int = field(default=1, metadata={"help": "Processes, each with one thread."})
    output_dir: str = field(default="outputs/rl", metadata={"help": "Folder of finished clips and of the report."})
    report: str = field(default="", metadata={"help": "Path of the report without suffix; default: in output_dir."})

    def __post_init__(self) -> None:
        pairs = [text.partition("=") for text in self.systems]
        names = [name for name, _, _ in pairs]
        if not all(name and folder for name, _, folder in pairs) or len(set(names)) != len(names) or not names:
            raise ValueError(f"systems: {self.systems} must be name=folder, names all different")
        if not 2 <= self.num_clips <= BENCHMARK_CLIPS:
            raise ValueError(f"num_clips: {self.num_clips} is outside 2..{BENCHMARK_CLIPS}")
        if self.workers < 1 or self.seed < 0:
            raise ValueError("workers and seed: must be at least 1 and 0")


def judges() -> dict[str, Reward]:
    """The rewards that are reported."""
    return {
        "motion_patch": MotionReward(PatchTracker()),
        "motion_lucas_kanade": MotionReward(LucasKanadeTracker()),
        "aesthetic": SpriteAestheticReward.from_pretrained(),
    }


def measure(clip: SpriteClip, frames: Pixels, rewards: Mapping[str, Reward]) -> dict[str, float | None]:
    """All columns of one video uint8 ``[T, H, W, 3]``, the given first frame left out."""
    errors = path_errors(clip, frames)
    known = errors[1:][np.isfinite(errors[1:])]
    found = {"path_error": mean_of(errors[1:]), "path_error_end": mean_of(errors[-4:])}
    found["far"] = float(100 * (known > FAR).mean()) if known.size else None
    quiet = bool(clip.untouched.any())
    found["background_psnr"] = mean_of(background_psnr(clip, frames[-4:])) if quiet else None
    video, tracks = torch.from_numpy(frames).permute(0, 3, 1, 2)[None], clip_tracks(clip)
    return found | {name: mean_of(reward(video, tracks)[0, 1:]) for name, reward in rewards.items()}


def clip_row(pipeline: ARDragPipeline, rewards: Mapping[str, Reward], index: int, seed: int) -> Row:
    """One clip of the benchmark, made and measured."""
    clip = make_clip(SPLIT, index, NUM_FRAMES)
    picture = Image.fromarray(clip.frames[0])
    parts = pipeline.stream(picture, clip.caption, tracks=clip_tracks(clip), num_frames=NUM_FRAMES, seed=seed + index)
    frames = np.stack([frame for part in parts for frame in part])
    return {"index": index, **measure(clip, frames, rewards)}


_worker: dict[str, Any] = {}


def _start_worker(model: str, seed: int) -> None:
    torch.set_num_threads(1)
    _worker.update(pipeline=load_pipeline(model), rewards=judges(), seed=seed)


def _work(index: int) -> Row:
    return clip_row(_worker["pipeline"], _worker["rewards"], index, _worker["seed"])


def rows_of(model: str, name: str, config: RlConfig) -> list[Row]:
    """Rows of all clips of one checkpoint, those of earlier runs included."""
    digest = source_digest(model_folder(model), [Path(__file__)])
    key = hashlib.sha256(json.dumps([digest, config.seed, torch.__version__]).encode()).hexdigest()[:16]
    cache = RowCache(Path(config.output_dir) / "rows.jsonl", key)
    missing = [index for index in range(config.num_clips) if index not in cache.rows]
    with tqdm(total=config.num_clips, initial=config.num_clips - len(missing), desc=name, unit="clip") as bar:
        given = (model, config.seed)
        for row in in_processes(_work, missing, config.workers, _start_worker, given) if missing else ():
            cache.add(row)
            bar.update()
    return [cache.rows[index] for index in range(config.num_clips)]


def summarize(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Per system: every column with its interval, and its difference to the first system, clip by clip."""
    first = next(iter(rows))
    summary: dict[str, Any] = {}
    for name, own in rows.items():
        columns, differences = {}, {}
        for label, key in COLUMNS.items():
            values = {row["index"]: row[key] for row in own if row[key] is not None}
            base = {row["index"]: row[key] for row in rows[first] if row[key] is not None}
            columns[label] = interval_of(list(values.values()))
            both = sorted(set(values) & set(base))
            differences[label] = interval_of([values[i] - base[i] for i in both])
        summary[name] = {"columns": columns, "differences": differences if name != first else None}
    return summary


def markdown(summary: Mapping[str, Any], config: RlConfig, record: dict[str, Any]) -> str:
    """The page."""
    first = next(iter(summary))
    rows = [[name, *(interval_cell(found["columns"][label]) for label in COLUMNS)] for name, found in summary.items()]
    apart = [
        [name, *(interval_cell(found["differences"][label]) for label in COLUMNS)]
        for name, found in summary.items()
        if found["differences"]
    ]
    lines = [
        f"# {config.title}",
        "",
        f"{config.num_clips} clips of the test split, {NUM_FRAMES} frames, the same seeds for all systems. Means with "
        "95 % bootstrap intervals over clips. Path error: template match, which knows the sprites and was no reward. "
        "Motion reward: Eq. 16 (5 is exact). Aesthetic: the sprite scorer, 0 to 10.",
        "",
        *table(["system", *COLUMNS], rows),
        "",
        f"Differences to {first}, clip by clip:",
        "",
        *(table(["system", *COLUMNS], apart) if apart else ["(one system)"]),
        "",
        "Systems:",
        "",
        *(f"- {text}" for text in config.systems),
        "",
        *record_lines(record),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Measure all systems and write the page and the numbers."""
    (config,) = HfArgumentParser(RlConfig).parse_args_into_dataclasses(arguments)
    torch.set_num_threads(1)
    record = run_record("eval.rl", arguments)
    systems = {name: folder for name, _, folder in (text.partition("=") for text in config.systems)}
    for folder in systems.values():
        model_folder(folder)  # a missing model is told before any long computation
    rows = {name: rows_of(folder, name, config) for name, folder in systems.items()}
    summary = summarize(rows)
    target = Path(config.report or Path(config.output_dir) / "rl")
    write_json(target.with_suffix(".json"), {"record": record, "settings": asdict(config), "summary": summary})
    page = markdown(summary, config, record)
    write_text(target.with_suffix(".md"), page)
    print(page)


if __name__ == "__main__":
    main()
