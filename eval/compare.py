"""Systems side by side on the 206 clips: the table of the distillation, and of any other set of checkpoints.

    python -m eval.compare --systems "AR-Drag=checkpoints/ardrag-tiny" "teacher=runs/teacher/pipeline@24" --workers 2

``name=folder`` runs a causal checkpoint as it is saved, ``name=folder@steps`` runs it as a bidirectional model, the
whole clip at once. Every system makes each clip twice: 33 frames for the errors, and (causal ones) 81 frames for what
is left at latent 20. Finished clips are kept in ``rows.jsonl`` of the output folder; an interrupted run goes on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm
from transformers import HfArgumentParser

from ardrag.sprite_tracks import clip_tracks
from ardrag.sprites import BENCHMARK_CLIPS, SpriteClip, make_clip
from ardrag.template_match import background_psnr, colour_errors, path_errors, sprite_centres
from eval.compare_report import contact_sheet, markdown, summarize
from eval.frechet import latent_statistics
from eval.model import load_pipeline, model_folder
from eval.record import run_record, write_json, write_text
from eval.sprite_suite import SPLIT, RowCache, in_processes, mean_of, pixel_frames, source_digest
from pipelines import ARDragPipeline
from pipelines.bidirectional import generate_bidirectional


SHORT, LONG = 33, 81
SHORT_LATENTS, LONG_LATENTS = (2, 4, 8), (2, 8, 20)


@dataclass(frozen=True)
class System:
    """One row of the table: a name, a checkpoint, and the steps of a bidirectional run (None: causal)."""

    name: str
    model: str
    bidirectional_steps: int | None = None

    @classmethod
    def parse(cls, text: str) -> System:
        """Read ``name=folder`` or ``name=folder@steps``.

        Raises:
            ValueError: naming what is wrong.
        """
        name, equals, rest = text.partition("=")
        model, at, steps = rest.partition("@")
        if not (name and equals and model) or (at and not (steps.isdigit() and int(steps))):
            raise ValueError(f"systems: {text!r} is not name=folder or name=folder@steps")
        return cls(name, model, int(steps) if at else None)


@dataclass
class CompareConfig:
    """What to compare and where to put it."""

    systems: list[str] = field(metadata={"help": "name=folder (causal) or name=folder@steps (bidirectional)."})
    title: str = field(default="Systems side by side", metadata={"help": "Headline of the report."})
    num_clips: int = field(default=BENCHMARK_CLIPS, metadata={"help": "First clips of the benchmark; fewer: a look."})
    num_long_clips: int = field(default=BENCHMARK_CLIPS, metadata={"help": "Of these, how many also with 81 frames."})
    seed: int = field(default=0, metadata={"help": "Seed of clip 0; clip i takes seed + i."})
    workers: int = field(default=1, metadata={"help": "Processes, each with one thread."})
    output_dir: str = field(
        default="outputs/compare", metadata={"help": "Folder of finished clips and of the report."}
    )
    report: str = field(default="", metadata={"help": "Path of the report without suffix; default: in output_dir."})

    def __post_init__(self) -> None:
        names = [System.parse(text).name for text in self.systems]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"systems: {names} must be one or more different names")
        if not 2 <= self.num_clips <= BENCHMARK_CLIPS:
            raise ValueError(
                f"num_clips: {self.num_clips} is outside 2..{BENCHMARK_CLIPS}, the clips of the benchmark"
            )
        if self.num_long_clips < 0 or self.workers < 1 or self.seed < 0:
            raise ValueError("num_long_clips, workers and seed: must be at least 0, 1 and 0")


def generate(pipeline: ARDragPipeline, system: System, clip: SpriteClip, seed: int) -> tuple[np.ndarray, float]:
    """The clip as ``system`` makes it, uint8 ``[T, H, W, 3]``, and seconds until its first generated latent."""
    reference, tracks, length = Image.fromarray(clip.frames[0]), clip_tracks(clip), len(clip.frames)
    started = time.perf_counter()
    if system.bidirectional_steps is not None:
        frames = generate_bidirectional(
            pipeline, reference, clip.caption, tracks, length, system.bidirectional_steps, seed
        )
        return frames, time.perf_counter() - started
    made: list[np.ndarray] = []
    latency = 0.0
    for part in pipeline.stream(reference, clip.caption, tracks=tracks, num_frames=length, seed=seed):
        made.extend(part)
        if not latency and len(made) > 1:
            latency = time.perf_counter() - started
    return np.stack(made), latency


def measure(
    clip: SpriteClip, frames: np.ndarray, latents: Sequence[int], temporal_factor: int = 4
) -> dict[str, float | None]:
    """Path and colour errors, flicker and background PSNR of one video; None where there is nothing to measure."""
    centres = sprite_centres(clip, frames)
    errors, colours = path_errors(clip, frames, centres), colour_errors(clip, frames, centres)
    quiet = clip.untouched
    change = np.abs(np.diff(frames[:, quiet].astype(np.float32), axis=0)).mean() if quiet.any() else None
    found = {"path_error": mean_of(errors[1:]), "flicker": None if change is None else float(change)}
    for latent in latents:
        shown = pixel_frames(latent, temporal_factor)
        found[f"path_error_latent_{latent}"] = mean_of(errors[shown])
        found[f"colour_error_latent_{latent}"] = mean_of(colours[shown])
        found[f"background_psnr_latent_{latent}"] = (
            mean_of(background_psnr(clip, frames[shown])) if quiet.any() else None
        )
    return found


def clip_row(pipeline: ARDragPipeline, system: System, config: CompareConfig, index: int) -> dict[str, Any]:
    """Everything that is measured of one system on one clip."""
    clip = make_clip(SPLIT, index, SHORT)
    frames, latency = generate(pipeline, system, clip, config.seed + index)
    factor = pipeline.vae.config.scale_factor_temporal
    row = {"index": index, "categories": list(clip.categories), "short": measure(clip, frames, SHORT_LATENTS, factor)}
    row |= {"latency": latency, "features": latent_statistics(pipeline, frames)}
    row["true_features"] = latent_statistics(pipeline, clip.frames)
    if index < config.num_long_clips and system.bidirectional_steps is None:
        clip = make_clip(SPLIT, index, LONG)
        row["long"] = measure(clip, generate(pipeline, system, clip, config.seed + index)[0], LONG_LATENTS, factor)
    return row


def run_key(system: System, config: CompareConfig) -> str:
    """Key of a system's finished clips: model files, code, settings."""
    digest = hashlib.sha256(source_digest(model_folder(system.model), [Path(__file__)]).encode())
    settings = [system.bidirectional_steps, config.seed, config.num_long_clips, torch.__version__]
    digest.update(json.dumps(settings).encode())
    return digest.hexdigest()[:16]


_worker: dict[str, Any] = {}


def _start_worker(system: System, config: CompareConfig) -> None:
    torch.set_num_threads(1)
    _worker.update(system=system, config=config, pipeline=load_pipeline(system.model))


def _work(index: int) -> dict[str, Any]:
    return clip_row(_worker["pipeline"], _worker["system"], _worker["config"], index)


def rows_of_system(system: System, config: CompareConfig) -> list[dict[str, Any]]:
    """Rows of all clips of one system, those of earlier runs included."""
    cache = RowCache(Path(config.output_dir) / "rows.jsonl", run_key(system, config))
    missing = [index for index in range(config.num_clips) if index not in cache.rows]
    with tqdm(total=config.num_clips, initial=config.num_clips - len(missing), desc=system.name, unit="clip") as bar:
        for row in in_processes(_work, missing, config.workers, _start_worker, (system, config)) if missing else ():
            cache.add(row)
            bar.update()
    return [cache.rows[index] for index in range(config.num_clips)]


def main(arguments: list[str] | None = None) -> None:
    """Measure all systems and write table, numbers and picture."""
    (config,) = HfArgumentParser(CompareConfig).parse_args_into_dataclasses(arguments)
    torch.set_num_threads(1)
    record = run_record("eval.compare", arguments)
    systems = [System.parse(text) for text in config.systems]
    for system in systems:
        model_folder(system.model)  # a missing model is told before any long computation
    rows = {system.name: rows_of_system(system, config) for system in systems}
    summary = summarize(rows)
    target = Path(config.report or Path(config.output_dir) / "compare")
    write_json(target.with_suffix(".json"), {"record": record, "settings": asdict(config), "summary": summary})
    page = markdown(config.title, summary, asdict(config), record, target.with_suffix(".png").name)
    write_text(target.with_suffix(".md"), page)
    pipelines = [(system, load_pipeline(system.model)) for system in systems]

    def make(index: int, frames: int) -> list[tuple[str, np.ndarray]]:
        clip = make_clip(SPLIT, index, frames)
        videos = [(s.name, generate(pipeline, s, clip, config.seed + index)[0]) for s, pipeline in pipelines]
        return [("truth", clip.frames), *videos]

    contact_sheet(rows, make, SHORT).save(target.with_suffix(".png"), optimize=True)
    print(page)


if __name__ == "__main__":
    main()
