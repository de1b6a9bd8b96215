"""One picture, many tracks: does a model follow what is drawn, or show again what it has seen?

    python -m eval.run --suite counterfactual --systems ours=checkpoints/ardrag-tiny          # on Sprite World
    python -m eval.run --suite counterfactual:DIR --systems ours=FOLDER                       # pictures and videos
    python -m eval.run --suite counterfactual:movebench:LIST --systems ours=FOLDER            # another suite

| control | what is drawn |
|---|---|
| true | the case's own tracks; on a plain video, points of a grid as the tracker finds them in it |
| none | nothing |
| pan | a grid of points over the picture that all go right by a sixth of it |
| zoom | the grid, away from the centre by a quarter |
| other | the true tracks of another case |
| sparse | the first of the true tracks alone |
| dense | the true tracks, and pins on the grid where none of them comes near |

A model that only shows again what such pictures do in its training data has a small error under ``true`` and a large
one under the others. Errors are end-point errors in pixels of the video, by a point tracker, to the tracks that were
given; beside them those to the true ones. Motion is how far the points of the grid have gone at most, on average, in
percent of the diagonal. The default tracker loses soft things that a model makes; better is `--tracker patch`.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ardrag.judges.rewards import first_queries, pixel_trajectories
from ardrag.judges.template_match import psnr
from ardrag.judges.trackers import build_tracker
from ardrag.judges.tracking import PointTracker, Trajectories
from ardrag.tracks.sampling import TrackArrays
from ardrag.tracks.tracks import Tracks
from eval.benchmark.config import EvalConfig
from eval.benchmark.systems import System, donor_of, expand, maker_of
from eval.metrics.paths import epe, percent_of_diagonal, track_errors
from eval.record import page_file, record_lines, write_text
from eval.statistics import bootstrap_interval
from eval.suites.case import Case, Pixels, Suite, fit_case
from eval.suites.open import open_suite
from eval.suites.plain import PlainSuite


logger = logging.getLogger(__name__)
NAME = "counterfactual"
GRID = 5
"""Points of the grid in each direction."""
PAN, ZOOM, NEAR = 1 / 6, 1.25, 0.15
"""Of the picture: the way of a pan, the scale of a zoom, and how far a pin keeps from tracks."""
CONTROLS = ("true", "none", "pan", "zoom", "other", "sparse", "dense")
METRICS = {
    "first_frame": "first frame, dB",
    "given_error": "EPE to the given tracks, px",
    "true_error": "EPE to the true tracks, px",
    "motion": "motion, % of diagonal",
}
Row = dict[str, Any]


def grid_points() -> np.ndarray:
    """``[P, 2]`` in 0..1, inside of the picture."""
    places = (np.arange(GRID) + 0.5) / GRID
    return np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2).astype(np.float32)


def moved(goals: np.ndarray, num_frames: int) -> Tracks:
    """The grid on straight ways to ``goals`` ``[P, 2]``."""
    start, share = grid_points(), np.linspace(0, 1, num_frames, dtype=np.float32)[:, None, None]
    xy = (1 - share) * start + share * goals.astype(np.float32)
    return Tracks.from_array(xy, np.ones(xy.shape[:2], bool))


def true_tracks(case: Case, tracker: PointTracker) -> Tracks:
    """The case's own, or what the points of the grid do in its video; none for a picture alone."""
    if case.tracks.to_array(frames=range(1)).xy.shape[1] or case.truth is None:
        return case.tracks
    height, width = case.truth.shape[1:3]
    found = followed(case.truth, tracker)
    xy = found.xy / np.array([width, height], np.float32)
    return Tracks.from_array(xy, found.visible)


def followed(frames: Pixels, tracker: PointTracker) -> Trajectories:
    """The points of the grid through a video, pixels."""
    height, width = frames.shape[1:3]
    queries = np.column_stack([np.zeros(GRID**2), grid_points() * (width, height)]).astype(np.float32)
    return tracker.track(torch.from_numpy(frames).permute(0, 3, 1, 2), torch.from_numpy(queries))


def pinned(tracks: Tracks, num_frames: int) -> Tracks:
    """``tracks``, and points of the grid that hold still where none of them comes near."""
    xy, visible, force = tracks.to_array(frames=range(num_frames))
    ways = np.where(visible[..., None], xy, np.inf).reshape(-1, 1, 2)
    points = grid_points()
    near = np.linalg.norm(ways - points, axis=-1).min(0, initial=np.inf) < NEAR
    pins = np.repeat(points[~near][None], num_frames, axis=0)
    ones = np.ones(pins.shape[:2], bool)
    parts = TrackArrays(xy, visible, force), TrackArrays(pins, ones, ones.astype(np.float32))
    return Tracks.from_array(*(np.concatenate(columns, axis=1) for columns in zip(*parts, strict=True)))


def drawings(case: Case, other: Case, tracker: PointTracker) -> dict[str, Tracks]:
    """What is drawn for each of `CONTROLS`; those that need true tracks are left out where there are none."""
    count, start = case.num_frames, grid_points()
    found = {"true": true_tracks(case, tracker), "none": Tracks.empty(count)}
    found["pan"] = moved(start + (PAN, 0), count)
    found["zoom"] = moved(0.5 + ZOOM * (start - 0.5), count)
    found["other"] = true_tracks(other, tracker)
    arrays = found["true"].to_array(frames=range(count))
    if arrays.xy.shape[1]:
        found["sparse"] = Tracks.from_array(*(column[:, :1] for column in arrays))
        found["dense"] = pinned(found["true"], count)
    empty = {name for name in ("true", "other") if not found[name].to_array(frames=range(1)).xy.shape[1]}
    return {name: found[name] for name in CONTROLS if name in found and name not in empty}


def error_to(tracks: Tracks, frames: Pixels, tracker: PointTracker) -> float | None:
    """End-point error of a video to ``tracks``, pixels; None where they show nothing."""
    wanted = pixel_trajectories(tracks, len(frames), *frames.shape[1:3])
    queries, rows = first_queries(wanted)
    if not len(rows):
        return None
    found = tracker.track(torch.from_numpy(frames).permute(0, 3, 1, 2), queries)
    return epe(track_errors(found, Trajectories(wanted.xy[:, rows], wanted.visible[:, rows])))


def measured(case: Case, frames: Pixels, true: Tracks | None, tracker: PointTracker) -> dict[str, float | None]:
    """`METRICS` of one video of ``case``, whose tracks are the given ones; ``true`` is on the same canvas."""
    grid = followed(frames, tracker).xy.astype(np.float64)
    reach = np.linalg.norm(grid - grid[:1], axis=-1).max(0).mean()
    return {
        "first_frame": float(psnr(frames[:1], case.picture[None])[0]),
        "given_error": error_to(case.tracks, frames, tracker),
        "true_error": None if true is None else error_to(true, frames, tracker),
        "motion": percent_of_diagonal(float(reach), *frames.shape[1:3]),
    }


def source_suite(name: str, size: str) -> Suite:
    """The suite behind ``counterfactual``, ``counterfactual:SUITE`` or ``counterfactual:FOLDER``.

    Raises:
        ValueError: if there is no such suite or folder.
    """
    rest = name.partition(":")[2]
    return PlainSuite(rest) if Path(rest).is_dir() and rest else open_suite(rest or "sprites", size)


def rows_of(system: System, suite: Suite, config: EvalConfig, indices: list[int]) -> list[Row]:
    """A row for each case and control that could be made."""
    tracker = build_tracker(config.tracker.replace("-", "_"), device=config.device)
    make, rows = maker_of(system, suite, config.device), []
    for index in tqdm(indices, desc=system.name, unit="picture"):
        case = suite.case(index, config.num_frames)
        bare = replace(case, truth=None, sprites=None, photos=None)
        drawn = drawings(case, suite.case(donor_of(index, suite), case.num_frames), tracker)
        own = drawn.get("true")
        for control, tracks in drawn.items():
            made = make(replace(bare, tracks=tracks), config.seed + index)
            true = None if own is None else on_canvas(bare, own, made.case)
            values = measured(made.case, made.frames, true, tracker)
            rows.append({"system": system.name, "name": case.name, "control": control, **values})
    return rows


def on_canvas(case: Case, tracks: Tracks, shown: Case) -> Tracks:
    """``tracks`` of a case on the canvas of ``shown``, which is the case with other tracks."""
    return fit_case(replace(case, tracks=tracks), *shown.picture.shape[:2]).tracks


def table(rows: list[Row], system: str) -> list[str]:
    """Means with their intervals over pictures, Markdown."""
    lines = [f"| control | pictures | {' | '.join(METRICS.values())} |", "|---" * (2 + len(METRICS)) + "|"]
    for control in CONTROLS:
        own = [row for row in rows if (row["system"], row["control"]) == (system, control)]
        cells = []
        for key in METRICS:
            known = [row[key] for row in own if row[key] is not None and np.isfinite(row[key])]
            cells.append("{:.2f} [{:.2f}, {:.2f}]".format(*bootstrap_interval(known)) if known else "-")
        if own:
            lines.append(f"| {control} | {len(own)} | {' | '.join(cells)} |")
    return lines


def page(rows: list[Row], systems: list[System], config: EvalConfig, record: dict[str, Any]) -> str:
    """The report, Markdown."""
    lines = [f"# {config.title or 'Counterfactual controls'}", ""]
    lines += [f"One picture, many tracks (`eval/counterfactual.py`); suite {config.suite}, tracker {config.tracker}."]
    for system in systems:
        lines += ["", f"## {system.name}", "", *table(rows, system.name)]
    return "\n".join([*lines, "", *record_lines(record)]) + "\n"


def run(config: EvalConfig, record: dict[str, Any]) -> None:
    """Make and measure everything; write rows and page.

    Raises:
        ValueError: if the suite or a system is none, or a system takes no tracks.
    """
    suite = source_suite(config.suite, config.size)
    systems, absent = expand(config.systems, config.runs)
    if absent:
        logger.warning("there is no model for %s; these are left out", ", ".join(absent))
    for system in systems:
        if system.kind not in ("causal", "bidirectional"):
            raise ValueError(f"systems: {system.name} is {system.kind}, which takes no tracks; give name=folder")
    count = min(config.num_clips or len(suite), len(suite))
    if len(suite) < 2:
        raise ValueError("suite: one picture has no other's tracks to be driven by; give two or more")
    rows = [row for system in systems for row in rows_of(system, suite, config, list(range(count)))]
    target = Path(config.report or Path(config.output_dir) / NAME)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(page_file(target, ".json"), json.dumps({"record": record, "rows": rows}, indent=1) + "\n")
    write_text(page_file(target, ".md"), page(rows, systems, config, record))
