"""Writes what a run found: Markdown, HTML, JSON, plots, contact sheets and videos.

Tables are in `eval.report.tables`, numbers in `eval.report.summary`, pictures in `eval.report.figures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

from eval.benchmark.config import LONG_FRAMES, EvalConfig, Suffixes
from eval.benchmark.systems import REFERENCES, System, maker_of
from eval.record import page_file, record_lines, write_json, write_text
from eval.report.document import Document
from eval.report.figures import contact_sheet, drawn, error_over_time, latency_quality, side_by_side
from eval.report.paper import ROW_NOTES
from eval.report.summary import control_ratio, summarize, values_of
from eval.report.tables import (
    beside_the_paper,
    category_table,
    cell,
    curve_table,
    definitions,
    difference_table,
    main_table,
    metric_table,
    origin_table,
    speed_table,
)
from eval.suites.case import Suite


CHOSEN = {"best": 0.0, "median": 0.5, "worst": 1.0}
Results = Mapping[str, Mapping[str, Any]]


def write_report(
    config: EvalConfig, suite: Suite, results: Results, absent: Sequence[str], record: dict[str, Any]
) -> dict[str, Any]:
    """Write the report of a run and return its numbers.

    Args:
        config: the settings.
        suite: where the cases come from.
        results: by system: ``system``, ``rows``, ``broken``, ``records`` and ``digest`` of its files.
        absent: rows of the paper's tables that no system stands for.
        record: record of this run.
    """
    target = Path(config.report or Path(config.output_dir) / "report")
    target.parent.mkdir(parents=True, exist_ok=True)
    systems: dict[str, System] = {name: found["system"] for name, found in results.items()}
    truth = next((name for name, system in systems.items() if system.kind == "truth"), None)
    summary = summarize({name: found["rows"] for name, found in results.items()}, truth)
    runs = list[dict[str, Any]]()
    for made_by in [*(record for found in results.values() for record in found["records"]), record]:
        if made_by not in runs:
            runs.append(made_by)
    page = _page(config, suite, results, summary, absent, target)
    page.heading("Where the rows come from")
    page.table(*origin_table(results, runs, config.seed))
    for number, made_by in enumerate(runs, 1):
        page.text(f"Run {number}" + (", which wrote this page:" if made_by == record else ":"))
        page.items([line.removeprefix("- ") for line in record_lines(made_by)])
    numbers = {
        "record": record,
        "settings": asdict(config),
        "systems": {name: asdict(system) for name, system in systems.items()},
        "absent": list(absent),
        "broken": {name: found["broken"] for name, found in results.items()},
        "records": {name: found["records"] for name, found in results.items()},
        "summary": summary,
        "clips": {name: _clip_values(found["rows"]) for name, found in results.items()},
    }
    write_json(page_file(target, ".json"), numbers)
    write_text(page_file(target, ".md"), page.markdown())
    write_text(page_file(target, ".html"), page.html())
    print(page.markdown())
    return numbers


def _clip_values(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Values by clip, rounded, one list for each metric: what another report could start from."""
    keys = sorted({key for row in rows for key in row["values"]})

    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 5)

    columns = {key: [rounded(row["values"].get(key)) for row in rows] for key in keys}
    return {"name": [row["name"] for row in rows], **columns}


def _page(
    config: EvalConfig,
    suite: Suite,
    results: Results,
    summary: dict[str, Any],
    absent: Sequence[str],
    target: Path,
) -> Document:
    systems: dict[str, System] = {name: found["system"] for name, found in results.items()}
    competing = {name: summary[name] for name, system in systems.items() if system.kind not in REFERENCES}
    shown = competing or summary
    suffixes = config.suffixes(suite.name)
    page = Document(config.title or f"Evaluation on {suite.name}")
    page.text(_introduction(config, suite, summary))
    _main_part(page, results, summary, next(iter(shown)), suffixes, absent)
    _paper_part(page, shown, suffixes)
    page.heading("All metrics")
    page.table(*metric_table(summary))
    if len(summary) > 1:
        page.heading(f"Differences to {next(iter(summary))}, clip by clip")
        page.text("Positive: larger. With 95 % interval and the p-value of a sign-flip test, not corrected for many.")
        page.table(*difference_table(summary))
    page.heading("Speed")
    if latency_quality(shown, _beside(target, "_latency.png"), suffixes.distance):
        page.picture(_beside(target, "_latency.png").name, "time to the first pixels against quality", plot=True)
    page.table(*speed_table(shown))
    page.heading("Error over time")
    error_over_time(shown, _beside(target, "_drift.png"))
    page.picture(_beside(target, "_drift.png").name, "path error and identity over latents", plot=True)
    page.text(f"Dashed, and beyond the short clips: clips of {LONG_FRAMES} frames, which are other clips.")
    page.table(*curve_table(shown))
    page.heading("By category")
    page.table(*category_table(shown))
    _clips(page, config, suite, results, shown, target)
    page.heading("Left out")
    page.items(left_out(results) or ["No clip was left out."])
    page.heading("What is measured")
    page.items(definitions(suffixes))
    return page


def _main_part(
    page: Document, results: Results, summary: dict[str, Any], first: str, suffixes: Suffixes, absent: Sequence[str]
) -> None:
    """The main table, what its rows are, and which rows are not there."""
    page.heading("Main table")
    page.table(*main_table(summary, suffixes))
    for name, found in results.items():
        ratio = control_ratio(found["rows"], results[first]["rows"])
        if found["system"].kind == "shuffled" and ratio is not None:
            page.text(f"{name} is {cell(ratio)} times as far off the path as {first}.")
    notes = [f"**{name}**: {ROW_NOTES[name]}" for name in summary if name in ROW_NOTES]
    notes += [f"**{one}** and **{other}** made the same videos." for one, other in twins(results)]
    if notes:
        page.items(notes)
    if absent:
        page.text(f"Rows of the paper's tables that are absent here, for want of a model: {', '.join(absent)}.")


def _paper_part(page: Document, shown: dict[str, Any], suffixes: Suffixes) -> None:
    """Our numbers and the paper's, side by side and apart."""
    header, rows = beside_the_paper(shown, suffixes)
    if not rows:
        return
    page.heading("Beside the paper")
    page.text(
        "The paper's models have 1.3 billion parameters and more, its clips are not published, and its networks look "
        "at photographs: a number of theirs and a number of ours measure different things. What can be compared is "
        "which of two rows is ahead."
    )
    page.table(header, rows)


def _beside(target: Path, ending: str) -> Path:
    return target.with_name(target.name + ending)


def _introduction(config: EvalConfig, suite: Suite, summary: dict[str, Any]) -> str:
    found = next(iter(summary.values()))
    longest = max(entry["long_clips"] for entry in summary.values())
    more = f" (up to {longest} of them again with {LONG_FRAMES} frames)" if longest else ""
    kind = (
        "its test split: seeds, and partly shapes, that no training has seen"
        if suite.name in ("sprites", "small", "crossing")
        else ""
    )
    named = f"FID{config.suffixes(suite.name).distance} and its like"
    return (
        f"{found['clips']} clips of suite `{config.suite}`{': ' + kind if kind else ''}; at most {config.num_frames} "
        f"pixel frames each{more}; seed {config.seed} for the first clip, one more for each following. Tracker: "
        f"{config.tracker}. Means with 95 % bootstrap intervals over clips; {named} are distances to the true videos "
        "of the same clips, with jackknife intervals, and biased upwards at this number of clips (compare rows of "
        "equal number only; the kernel distances are not biased)."
    )


def twins(results: Results) -> list[tuple[str, str]]:
    """Pairs of systems whose every number is the same: two names of one model."""
    values = {name: [(row["index"], row["values"]) for row in found["rows"]] for name, found in results.items()}
    return [(one, other) for one, other in combinations(values, 2) if values[one] == values[other]]


def left_out(results: Results) -> list[str]:
    """What the report must say of clips that were skipped, and of tracks that a reader left out."""
    lines = [
        f"{name}, clip {index}: {why}" for name, found in results.items() for index, why in found["broken"].items()
    ]
    notes = {row["name"]: row["note"] for found in results.values() for row in found["rows"] if row["note"]}
    return lines + [f"{name}: {note}" for name, note in notes.items()]


def _clips(
    page: Document, config: EvalConfig, suite: Suite, results: Results, shown: dict[str, Any], target: Path
) -> None:
    """Best, median and worst clip of the first system, as every system makes them: one sheet, one video each."""
    first = next(iter(shown))
    errors = values_of(results[first]["rows"], "path_error")
    ranked = sorted(errors, key=lambda index: (errors[index], index))
    if not ranked:
        return
    page.heading("Best, median and worst clip")
    page.text(f"By the path error of {first}; the drawn path blue, the commanded point red.")
    makers = {name: maker_of(results[name]["system"], suite, config.device) for name in shown}
    sheets = []
    for word, quantile in CHOSEN.items():
        index = ranked[round(quantile * (len(ranked) - 1))]
        case = suite.case(index, config.num_frames)
        own = [] if case.truth is None else [("truth", drawn(case, case.truth[: case.num_frames]))]
        for name, make in makers.items():
            if index in values_of(results[name]["rows"], "path_error"):
                own.append((name, drawn(case, make(case, config.seed + index).frames)))
        sheets += [(f"{word}, clip {case.name}: {name}", frames) for name, frames in own]
        video = _beside(target, f"_{word}.mp4")
        side_by_side(own, video)
        page.video(video.name, f"{word} clip ({case.name}, {errors[index]:.1f} px)")
    sheet = _beside(target, ".png")
    contact_sheet(sheets).save(sheet, optimize=True)
    page.picture(sheet.name, "every eighth frame of the same clips")
