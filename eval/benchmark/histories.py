"""What a model makes of futures that its controls leave open, several times from one picture (AR-Drag section 3.2).

    python -m eval.benchmark.histories --systems "rollout, seed 0=runs/rollout_0/pipeline" truth \
        "teacher=runs/teacher/pipeline@24" "VAE=vae:runs/teacher/pipeline" --output_dir runs/histories/eval
    python -m eval.report.seeds runs/histories/eval/report.json --metrics passer_sharpness passer_off \
        --report docs/results/histories

The world has passers-by: nothing in the picture tells whither they go. Each video of a picture has a seed of its own;
true videos are other futures of it, which the world's rules allow as well. The measures are in
`eval.benchmark.passers` and `eval.metrics.latents`; some clips are also made long and measured at their end. Finished
clips are kept, and an interrupted run goes on where it stopped. `report.json` has the form of that of `eval.run`, for
`eval.report.seeds` and `eval.gate`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from tqdm import tqdm
from transformers import HfArgumentParser

from ardrag.judges.rewards import mean_per_latent
from ardrag.worlds.small import FULL_SIDE, SmallClip, drawn_velocity, passing_paths
from ardrag.worlds.sprites import render
from eval.benchmark.config import LONG_FRAMES
from eval.benchmark.measure import Values
from eval.benchmark.passers import coverage, follow_passers, passers_of
from eval.benchmark.systems import Maker, System, expand, maker_of, reconstruct, source_folder
from eval.metrics.frechet import frechet_distance
from eval.metrics.latents import Float, latent_steps
from eval.metrics.paths import mean_of
from eval.model import BUNDLED_NAME, load_pipeline, model_folder
from eval.record import run_record, write_json
from eval.report.columns import HISTORIES, LATE
from eval.report.rows import RowCache, code_digest, files_digest
from eval.report.summary import interval_of, values_of
from eval.suites.case import Case, Pixels, Suite
from eval.suites.open import open_suite
from pipelines import ARDragPipeline


TRUE_FUTURES = 8
"""Other true videos that the latents of a clip are compared with."""
LATE_LATENTS = 5
"""Latents at the end of a long clip: 16 to 20."""
SEEDS_OF_A_CLIP = 1000
SHOWN = ("path_error", *(metric.key for metric in (*HISTORIES, *LATE)))


@dataclass
class HistoriesConfig:
    """Which systems, and how often."""

    systems: list[str] = field(metadata={"help": "As eval.run takes them: name=folder, name=folder@steps, truth, ..."})
    suite: str = field(default="small:passers_by=1", metadata={"help": "The small world with passers-by."})
    num_clips: int = field(default=24, metadata={"help": "First clips of the suite."})
    members: int = field(default=4, metadata={"help": "How often each clip is made."})
    num_frames: int = field(default=25, metadata={"help": "Pixel frames per clip, 4k + 1."})
    num_long_clips: int = field(
        default=6, metadata={"help": f"Of these, how many are made with {LONG_FRAMES} frames."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of clip 0."})
    vae: str = field(default=BUNDLED_NAME, metadata={"help": "Pipeline whose VAE turns all videos into latents."})
    output_dir: str = field(default="outputs/histories", metadata={"help": "Folder of rows.jsonl and report.json."})

    def __post_init__(self) -> None:
        for name, least in (("num_clips", 1), ("members", 2), ("num_frames", 5), ("num_long_clips", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)} is too few; use {least} or more")


def clip_of(case: Case) -> SmallClip:
    """The record of a case.

    Raises:
        ValueError: if nobody passes by in it.
    """
    clip = case.sprites
    if not isinstance(clip, SmallClip) or not passers_of(clip):
        raise ValueError(f"suite: nobody passes by in clip {case.name}; use small:passers_by=1")
    return clip


def future(clip: SmallClip, *seed: int) -> Pixels:
    """A true video of the clip's picture in which its passers-by go another way, drawn by ``seed``."""
    rng, (height, width) = np.random.default_rng(seed), clip.frames.shape[1:3]
    size, sprites = (len(clip.frames), height, width), list(clip.sprites)
    for number, sprite in enumerate(passers_of(clip)):
        velocity = drawn_velocity(rng, min(height, width) / FULL_SIDE)
        sprites[number] = replace(sprite, xy=passing_paths(sprite, velocity, size))
    return render(tuple(sprites), clip.background / np.float32(255), len(clip.frames))


def measure_group(
    clip: SmallClip, videos: Sequence[Pixels], vae: AutoencoderKLWan, true: Float, latents: slice
) -> Values:
    """All measures of several videos of the clip's picture.

    Args:
        true: `latent_steps` ``[K, F - 1, h * w, 2 * C]`` of true futures.
        latents: which latents count, for all but the headings, which are those of whole videos.
    """
    found, errors = zip(*(follow_passers(clip, video) for video in videos), strict=True)
    steps, factor = slice(latents.start - 1, latents.stop - 1), vae.config.scale_factor_temporal
    made = np.stack([latent_steps(vae, video)[steps] for video in videos])
    width = made.shape[-1]

    def mean(name: str) -> float | None:
        curves = np.stack([getattr(one, name) for passers in found for one in passers])
        return mean_of(mean_per_latent(curves, factor)[:, latents])

    shares = [coverage([passers[p].heading for passers in found]) for p in range(len(found[0]))]
    return {
        "passer_sharpness": mean("sharpness"),
        "passer_off": mean("off"),
        "passer_coverage": mean_of(np.array(shares, np.float64)),
        "latent_distance": frechet_distance(made.reshape(-1, width), true[:, steps].reshape(-1, width)),
        "path_error": mean_of(mean_per_latent(np.concatenate(errors, axis=1).T, factor)[:, latents]),
    }


class Bench:
    """The clips of a suite with what is compared with them, which all systems share."""

    def __init__(self, suite: Suite, pipeline: ARDragPipeline, config: HistoriesConfig) -> None:
        self.suite, self.pipeline, self.config = suite, pipeline, config
        self._true: dict[tuple[int, int], Float] = {}

    def values(self, make: Maker, index: int) -> Values:
        """All measures of one clip, those of the long one beside them."""
        values = self._group(make, index, self.config.num_frames, slice(1, self._latents(self.config.num_frames)))
        if index < self.config.num_long_clips:
            last = self._latents(LONG_FRAMES)
            late = self._group(make, index, LONG_FRAMES, slice(last - LATE_LATENTS, last))
            values |= {metric.key: late[metric.key.removeprefix("late_")] for metric in LATE}
        return values

    def _latents(self, num_frames: int) -> int:
        return 1 + (num_frames - 1) // self.pipeline.vae.config.scale_factor_temporal

    def _group(self, make: Maker, index: int, num_frames: int, latents: slice) -> Values:
        case = self.suite.case(index, num_frames)
        clip, seed = clip_of(case), self.config.seed + SEEDS_OF_A_CLIP * index
        members = [
            make(replace(case, truth=future(clip, seed + member)), seed + member).frames
            for member in range(self.config.members)
        ]
        if members[0].shape != clip.frames.shape:
            size, own = ("x".join(map(str, video.shape[2:0:-1])) for video in (members[0], clip.frames))
            raise ValueError(f"systems: videos of {size}; the clips have {own}: give models that were trained on them")
        return measure_group(clip, members, self.pipeline.vae, self._futures(clip, index, num_frames), latents)

    def _futures(self, clip: SmallClip, index: int, num_frames: int) -> Float:
        """Latents of true futures that no system is given, as a VAE leaves them."""
        key = index, num_frames
        if key not in self._true:
            videos = [reconstruct(self.pipeline, future(clip, index, number, 1)) for number in range(TRUE_FUTURES)]
            self._true[key] = np.stack([latent_steps(self.pipeline.vae, video) for video in videos])
        return self._true[key]


def rows_of(system: System, bench: Bench, record: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of one system, those of earlier runs among them."""
    config = bench.config
    kept = {
        name: value for name, value in asdict(config).items() if name not in ("systems", "num_clips", "output_dir")
    }
    files = [files_digest(folder) for folder in (source_folder(system), model_folder(config.vae))]
    parts = [system.kind, system.steps, bench.suite.digest(), *files, code_digest(), kept, torch.__version__]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    cache = RowCache(Path(config.output_dir) / "rows.jsonl", key)
    missing = [index for index in range(config.num_clips) if index not in cache.rows]
    if missing:
        cache.begin(record)
        make = maker_of(system, bench.suite)
    for index in tqdm(missing, desc=system.name, unit="clip"):
        cache.add({"index": index, "values": bench.values(make, index)})
    return [cache.rows[index] for index in range(config.num_clips)]


def main(arguments: list[str] | None = None) -> None:
    """Make and measure what is missing, write the numbers."""
    (config,) = HfArgumentParser(HistoriesConfig).parse_args_into_dataclasses(arguments)
    torch.set_num_threads(1)
    record, suite = run_record("eval.benchmark.histories", arguments), open_suite(config.suite)
    clip_of(suite.case(0, config.num_frames))
    systems, _ = expand(config.systems, "runs")
    bench = Bench(suite, load_pipeline(config.vae), config)
    rows = {system.name: rows_of(system, bench, record) for system in systems}
    summary = {
        name: {"values": {key: interval_of(list(values_of(own, key).values())) for key in SHOWN}}
        for name, own in rows.items()
    }
    clips = {name: {key: [row["values"].get(key) for row in own] for key in SHOWN} for name, own in rows.items()}
    report = {"record": record, "settings": asdict(config), "summary": summary, "clips": clips}
    write_json(Path(config.output_dir) / "report.json", report)
    for name, found in summary.items():
        print(name, {key: interval and round(interval["mean"], 3) for key, interval in found["values"].items()})


if __name__ == "__main__":
    main()
