"""The paper's tables by one command: systems make the clips of a suite, everything is measured, a report is written.

    python -m eval.run --suite sprites --systems all                 # Tables 1 and 2 in small, 206 clips
    python -m eval.run --suite sprites --systems all --quick         # the first 24 clips
    python -m eval.run --systems ours=checkpoints/ardrag-tiny theirs=videos:somewhere --num_clips 24
    python -m eval.run --suite counterfactual --systems a=FOLDER     # many tracks on one picture
    python -m eval.run --export_inputs inputs                        # pictures, tracks and prompts, for other systems

Finished clips are kept in ``rows.jsonl`` of the output folder, under a key of the model's files, the code and the
settings: an interrupted run goes on where it stopped. A clip that cannot be made or measured is told, skipped and
listed in the report, and tried again by the next run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import resource
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import HfArgumentParser

from ardrag.judges.trackers import build_tracker
from eval import counterfactual
from eval.benchmark.config import FEWEST_CLIPS, LONG_FRAMES, EvalConfig
from eval.benchmark.measure import Meter
from eval.benchmark.preflight import check_systems
from eval.benchmark.systems import System, expand, maker_of, source_folder
from eval.metrics.aesthetic import load_scorer
from eval.metrics.features import SpriteSpace, StandardSpace
from eval.metrics.latents import LatentError
from eval.metrics.smoothness import load_amt
from eval.model import load_pipeline
from eval.record import run_record
from eval.report.report import write_report
from eval.report.rows import Row, RowCache, code_digest, files_digest, in_processes
from eval.suites.case import Suite, first_readable
from eval.suites.folder import write_case
from eval.suites.open import open_suite


logger = logging.getLogger(__name__)


def make_meter(config: EvalConfig, suite: Suite) -> Meter:
    """The networks and the tracker that the settings name.

    Raises:
        ValueError: if one of them cannot be had.
    """
    sprite = config.space(suite.name) == "sprite"
    return Meter(
        space=SpriteSpace() if sprite else StandardSpace(config.inception, config.i3d, config.device),
        scorer=load_scorer(config.aesthetic_head, config.device),
        tracker=build_tracker(config.tracker.replace("-", "_"), device=config.device),
        interpolate=load_amt(None if config.amt == "hub" else config.amt, config.device) if config.amt else None,
        latent_error=LatentError(load_pipeline(config.vae, config.device).vae) if config.vae else None,
    )


def run_key(system: System, suite: Suite, config: EvalConfig) -> str:
    """Key of a system's finished clips: what it is made of, the code, and the settings that change a number."""
    chosen = (
        "num_frames",
        "seed",
        "features",
        "inception",
        "i3d",
        "aesthetic_head",
        "amt",
        "vae",
        "tracker",
        "device",
    )
    settings = [system.kind, system.steps, suite.digest(), config.long_clips, torch.__version__]
    settings += [getattr(config, name) for name in chosen]
    parts = [files_digest(source_folder(system)), code_digest(), json.dumps(settings)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


class Worker:
    """Makes and measures clips of one system: a model and the networks of the metrics, loaded once."""

    def __init__(self, system: System, config: EvalConfig) -> None:
        self.system, self.config, self.suite = system, config, open_suite(config.suite, config.size)
        self.make, self.meter = maker_of(system, self.suite, config.device), make_meter(config, self.suite)

    def row(self, index: int) -> Row:
        """Everything that is known of one clip; ``broken`` says why it could not be made or measured."""
        try:
            return self._measured(index)
        except (ValueError, OSError) as error:
            return {"index": index, "broken": str(error)}

    def _measured(self, index: int) -> Row:
        case, seed = self.suite.case(index, self.config.num_frames), self.config.seed + index
        made = self.make(case, seed)
        row: Row = {"index": index, "name": case.name, "categories": list(case.categories), "note": case.note}
        row |= {"first_seconds": made.first_seconds, "seconds": made.seconds, "frames": len(made.frames)}
        row |= {"pixels": list(made.frames.shape[1:3]), **self.meter.measure(made.case, made.frames)}
        exact = case.sprites is not None or case.photos is not None
        if self.system.kind == "causal" and index < self.config.long_clips and exact:
            longer = self.suite.case(index, LONG_FRAMES)
            long = self.make(longer, seed)
            row["long"] = self.meter.follow(long.case, long.frames)
        return {**row, "peak_mib": peak_memory(self.config.device)}


def with_truth(systems: list[System], suite: Suite, num_frames: int) -> list[System]:
    """The systems, and the true videos as one more where the suite has them: distances are taken to these."""
    has_it = any(system.kind == "truth" for system in systems)
    if has_it or first_readable(suite, range(len(suite)), num_frames).truth is None:
        return systems
    return [*systems, System("truth", "truth")]


def peak_memory(device: str) -> float:
    """Most memory that this process has held so far, MiB: on the device, or resident for the CPU."""
    if torch.device(device).type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


_worker: list[Worker] = []


def _start_worker(system: System, config: EvalConfig) -> None:
    torch.set_num_threads(1)
    _worker[:] = [Worker(system, config)]


def _work(index: int) -> Row:
    return _worker[0].row(index)


def rows_of_system(
    system: System, suite: Suite, config: EvalConfig, indices: list[int], record: dict[str, Any]
) -> tuple[list[Row], dict[int, str], list[dict[str, Any]]]:
    """Rows of one system, earlier runs included; what went wrong, by clip; records of the runs behind them."""
    cache = RowCache(Path(config.output_dir) / "rows.jsonl", run_key(system, suite, config))
    missing = [index for index in indices if index not in cache.rows]
    broken: dict[int, str] = {}
    if missing:
        cache.begin(record)
    with tqdm(total=len(indices), initial=len(indices) - len(missing), desc=system.name, unit="clip") as bar:
        workers = min(config.workers, len(missing))
        for row in in_processes(_work, missing, workers, _start_worker, (system, config)) if missing else ():
            if "broken" in row:
                broken[row["index"]] = row["broken"]
                logger.warning("%s, clip %s is left out: %s", system.name, row["index"], row["broken"])
            else:
                cache.add(row)
            bar.update()
    return [cache.rows[index] for index in indices if index in cache.rows], broken, cache.records


def main(arguments: list[str] | None = None) -> None:
    """Check everything, make and measure what is missing, write the report."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    (config,) = HfArgumentParser(EvalConfig).parse_args_into_dataclasses(arguments)
    torch.set_num_threads(1)
    if config.suite.split(":")[0] == counterfactual.NAME:
        counterfactual.run(config, run_record("eval.run", arguments))
        return
    suite = open_suite(config.suite, config.size)
    indices = list(range(config.clips(len(suite))))
    if config.export_inputs:
        for index in tqdm(indices, desc="inputs", unit="clip"):
            try:
                write_case(suite.case(index, config.num_frames), Path(config.export_inputs))
            except ValueError as error:
                logger.warning("clip %s is left out: %s", index, error)
        return
    record = run_record("eval.run", arguments)
    systems, absent = expand(config.systems, config.runs)
    if absent:
        logger.warning("there is no model for %s; these rows will be absent", ", ".join(absent))
    systems = with_truth(systems, suite, config.num_frames)
    unusable = check_systems(systems, suite, indices, config.num_frames)
    shortest = make_meter(config, suite).space.shortest  # a network that cannot be had is told here
    if config.num_frames < shortest:
        raise ValueError(f"num_frames: {config.num_frames}; distances between clips need at least {shortest}")
    results: dict[str, Any] = {}
    for system in systems:
        usable = [index for index in indices if index not in unusable[system.name]]
        rows, broken, records = rows_of_system(system, suite, config, usable, record)
        broken |= unusable[system.name]
        if len(rows) < FEWEST_CLIPS:
            raise ValueError(
                f"systems: {system.name}: {len(rows)} clips could be made, {FEWEST_CLIPS} are needed: {broken}"
            )
        folder = source_folder(system)
        digest = files_digest(folder)[:12] if folder is not None else "-"
        results[system.name] = {"system": system, "rows": rows, "broken": broken, "records": records, "digest": digest}
    write_report(config, suite, results, absent, record)


if __name__ == "__main__":
    main()
