"""The control benchmark: 206 unseen Sprite World clips, and how far each sprite stays from the path drawn for it.

    python -m eval.sprite_suite                           # the bundled checkpoint, all clips
    python -m eval.sprite_suite --num_clips 6 --steps 3   # a quick look
    python -m eval.sprite_suite --workers 2               # two processes, one thread each

Every clip is measured as generated with its own tracks, as generated with another clip's tracks (the control that
ignores the path), as a still picture, as the true video through the VAE, and as the true video itself. Finished clips
are kept in ``rows.jsonl`` of the output folder, under a key of the model's files, the code and the settings: an
interrupted run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm
from transformers import HfArgumentParser

from ardrag.sprite_tracks import clip_tracks
from ardrag.sprites import BENCHMARK_CLIPS, HELD_OUT_SHAPES, SpriteClip, make_clip
from ardrag.streaming_vae import StreamingVAE
from ardrag.template_match import background_psnr, path_errors
from ardrag.tracks import Tracks
from eval.model import BUNDLED_NAME, RESULTS, load_pipeline, model_folder
from eval.record import run_record, write_json, write_text
from eval.sprite_report import LATENTS, PSNR_LATENT, Pixels, Row, contact_sheet, markdown, summarize
from pipelines import ARDragPipeline
from pipelines.video import to_frames


SPLIT = "test"
DONOR_SEED = 206
MODEL_FILES = (".json", ".safetensors", ".model", ".txt")


@dataclass
class SuiteConfig:
    """What to measure and where to put it."""

    model: str = field(default=BUNDLED_NAME, metadata={"help": "Pipeline folder or Hub name."})
    steps: int | None = field(default=None, metadata={"help": "Steps per latent; default: the checkpoint's."})
    num_clips: int = field(default=BENCHMARK_CLIPS, metadata={"help": "First clips of the benchmark; fewer: a look."})
    num_frames: int = field(default=33, metadata={"help": "Pixel frames per clip, 4k + 1."})
    seed: int = field(default=0, metadata={"help": "Seed of clip 0; clip i takes seed + i."})
    workers: int = field(default=1, metadata={"help": "Processes, each with one thread."})
    device: str = field(default="cpu", metadata={"help": "Where the pipeline runs: cpu, cuda."})
    output_dir: str = field(default="outputs/sprites", metadata={"help": "Folder of the finished clips and results."})
    report_dir: str | None = field(
        default=None,
        metadata={"help": "Folder of the report; default: docs/results for the bundled model and all clips."},
    )

    def __post_init__(self) -> None:
        if not 1 <= self.num_clips <= BENCHMARK_CLIPS:
            raise ValueError(
                f"num_clips: {self.num_clips} is outside 1..{BENCHMARK_CLIPS}, the clips of the benchmark"
            )
        if self.num_frames < 5 or self.num_frames % 4 != 1:
            raise ValueError(f"num_frames: {self.num_frames} is not 4k + 1; use 33, or 17 for a quick look")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps: {self.steps} is not positive; use 3, or leave it out")
        if self.workers < 1:
            raise ValueError(f"workers: {self.workers} is not positive; use 1, or one per free core")
        if self.seed < 0:
            raise ValueError(f"seed: {self.seed} is negative; use 0 or more")

    @property
    def report_folder(self) -> Path:
        """Where the report goes: only the full benchmark of the bundled model speaks for the repository."""
        if self.report_dir is not None:
            return Path(self.report_dir)
        whole = (self.model, self.num_clips, self.num_frames) == (BUNDLED_NAME, BENCHMARK_CLIPS, 33)
        return RESULTS if whole else Path(self.output_dir)


def donor_of(index: int) -> int:
    """The clip whose tracks drive clip ``index`` in the control: a fixed cycle through all clips, never itself."""
    order = np.random.default_rng(DONOR_SEED).permutation(BENCHMARK_CLIPS)
    place = int(np.flatnonzero(order == index)[0])
    return int(order[(place + 1) % BENCHMARK_CLIPS])


def generate(pipeline: ARDragPipeline, clip: SpriteClip, tracks: Tracks, config: SuiteConfig, seed: int) -> Pixels:
    """The clip's first frame and caption, driven by ``tracks``: uint8 ``[T, H, W, 3]``."""
    reference = Image.fromarray(clip.frames[0])
    parts = pipeline.stream(
        reference,
        clip.caption,
        tracks=tracks,
        num_frames=config.num_frames,
        num_inference_steps=config.steps,
        seed=seed,
    )
    return np.stack([frame for part in parts for frame in part])


@torch.no_grad()
def reconstruct(pipeline: ARDragPipeline, frames: Pixels) -> Pixels:
    """Frames ``[T, H, W, 3]`` through the VAE and back: what no model on these latents can beat."""
    vae = StreamingVAE(pipeline.vae)
    pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    return to_frames(vae.decode(vae.encode(pixels.to(pipeline.vae.device, pipeline.vae.dtype)))[0])


def measure(clip: SpriteClip, frames: Pixels, temporal_factor: int = 4) -> dict[str, float | None]:
    """Path errors in pixels and background PSNR in dB of one video; None where there is nothing to measure.

    The first pixel frame is the given picture and does not count. Latent frame m holds the ``temporal_factor`` pixel
    frames that end with ``temporal_factor * m``.
    """
    errors = path_errors(clip, frames)
    found = {"path_error": mean_of(errors[1:])}
    for latent in LATENTS:
        found[f"path_error_latent_{latent}"] = mean_of(errors[pixel_frames(latent, temporal_factor)])
    compared = frames[pixel_frames(PSNR_LATENT, temporal_factor)]
    has_background = len(compared) > 0 and bool(clip.untouched.any())
    found["background_psnr"] = mean_of(background_psnr(clip, compared)) if has_background else None
    return found


def pixel_frames(latent: int, temporal_factor: int) -> slice:
    """Pixel frames of one latent frame after the first."""
    return slice(temporal_factor * (latent - 1) + 1, temporal_factor * latent + 1)


def mean_of(values: np.ndarray) -> float | None:
    """Mean of what could be measured, None where nothing could."""
    known = values[np.isfinite(values)]
    return float(known.mean(dtype=np.float64)) if known.size else None


def clip_row(pipeline: ARDragPipeline, config: SuiteConfig, index: int) -> Row:
    """Everything that is measured on one clip; ``seconds`` is the time of the clip's own generation."""
    clip = make_clip(SPLIT, index, config.num_frames)
    donor = make_clip(SPLIT, donor_of(index), config.num_frames)
    started = time.perf_counter()
    own = generate(pipeline, clip, clip_tracks(clip), config, config.seed + index)
    seconds = time.perf_counter() - started
    videos = {
        "generated": own,
        "shuffled": generate(pipeline, clip, clip_tracks(donor), config, config.seed + index),
        "still": np.repeat(clip.frames[:1], len(clip.frames), axis=0),
        "reconstruction": reconstruct(pipeline, clip.frames),
        "truth": clip.frames,
    }
    factor = pipeline.vae.config.scale_factor_temporal
    return {
        "index": index,
        "categories": categories_of(clip),
        "seconds": round(seconds, 3),
        "results": {name: measure(clip, frames, factor) for name, frames in videos.items()},
    }


def categories_of(clip: SpriteClip) -> list[str]:
    """The clip's own categories, and whether a moved sprite has a shape that training never shows."""
    unseen = any(clip.sprites[mover].shape in HELD_OUT_SHAPES for mover in clip.movers)
    return [*clip.categories, "unseen shape" if unseen else "seen shape"]


def run_key(config: SuiteConfig) -> str:
    """Key of finished clips: model files, the code that makes and measures a clip, settings, and torch."""
    settings = [config.steps, config.num_frames, config.seed, config.device, torch.__version__]
    digest = hashlib.sha256(source_digest(model_folder(config.model)).encode())
    digest.update(json.dumps(settings).encode())
    return digest.hexdigest()[:16]


def source_digest(model: Path, more: Sequence[Path] = ()) -> str:
    """Digest of a model's files and of the code that makes and measures its clips."""
    files = sorted(path for path in model.rglob("*") if path.suffix in MODEL_FILES)
    ours = [module for name, module in sys.modules.items() if name.split(".")[0] in ("ardrag", "pipelines")]
    code = sorted({str(module.__file__) for module in ours if getattr(module, "__file__", None)} | {__file__})
    digest = hashlib.sha256()
    for path in [*files, *map(Path, code), *more]:
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


class RowCache:
    """Finished clips of this and earlier runs, one JSON line each; a torn last line is dropped."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        lines = [line for line in self._lines() if line is not None]
        self.rows: dict[int, Row] = {line["row"]["index"]: line["row"] for line in lines if line["key"] == key}
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))

    def _lines(self) -> Iterator[dict[str, Any] | None]:
        for text in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else ():
            try:
                yield json.loads(text)
            except json.JSONDecodeError:
                yield None

    def add(self, row: Row) -> None:
        """Keep one finished clip."""
        self.rows[row["index"]] = row
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": self.key, "row": row}, allow_nan=False) + "\n")


_worker: dict[str, Any] = {}


def _start_worker(config: SuiteConfig) -> None:
    torch.set_num_threads(1)
    _worker.update(config=config, pipeline=load_pipeline(config.model, config.device))


def _work(index: int) -> Row:
    return clip_row(_worker["pipeline"], _worker["config"], index)


def rows_of(config: SuiteConfig, pipeline: ARDragPipeline, indices: Sequence[int]) -> Iterator[Row]:
    """Measure clips as they finish, in this process or in several."""
    if config.workers == 1 or len(indices) < 2:
        yield from (clip_row(pipeline, config, index) for index in indices)
        return
    yield from in_processes(_work, indices, config.workers, _start_worker, (config,))


def in_processes(
    work: Callable[[int], Row],
    indices: Sequence[int],
    workers: int,
    start: Callable[..., None],
    given: tuple[Any, ...],
) -> Iterator[Row]:
    """``work(index)`` in several processes that each begin with ``start(*given)``, as the results come."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=start, initargs=given)
    try:
        for done in as_completed([pool.submit(work, index) for index in indices]):
            yield done.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def run_suite(config: SuiteConfig, record: dict[str, Any]) -> dict[str, Any]:
    """Measure what is not yet measured, write rows, results and report; returns the results."""
    pipeline = load_pipeline(config.model, config.device)
    cache = RowCache(Path(config.output_dir) / "rows.jsonl", run_key(config))
    missing = [index for index in range(config.num_clips) if index not in cache.rows]
    with tqdm(total=config.num_clips, initial=config.num_clips - len(missing), desc="clips", unit="clip") as bar:
        for row in rows_of(config, pipeline, missing):
            cache.add(row)
            bar.update()
    rows = [cache.rows[index] for index in range(config.num_clips)]
    results = {"record": record, "settings": asdict(config), "summary": summarize(rows), "rows": rows}

    def make(index: int) -> tuple[SpriteClip, Pixels]:
        clip = make_clip(SPLIT, index, config.num_frames)
        return clip, generate(pipeline, clip, clip_tracks(clip), config, config.seed + index)

    folder = config.report_folder
    write_json(folder / "sprites.json", results)
    write_text(folder / "sprites.md", markdown(results["summary"], results["settings"], record))
    sheet = contact_sheet(rows, make)
    if sheet is not None:
        sheet.save(folder / "sprites.png", optimize=True)
    return results


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and print its page."""
    (config,) = HfArgumentParser(SuiteConfig).parse_args_into_dataclasses(arguments)
    torch.set_num_threads(1)
    record = run_record("eval.sprite_suite", arguments)
    results = run_suite(config, record)
    print(markdown(results["summary"], results["settings"], record))


if __name__ == "__main__":
    main()
