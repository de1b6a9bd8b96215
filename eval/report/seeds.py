"""Systems that were trained with several seeds, side by side, from a report of `eval.run`.

    python -m eval.report.seeds runs/starts/eval/report.json --report docs/results/starts --title "Starts of stage 2"

Systems called ``NAME, seed N`` are runs of NAME. Intervals draw seeds and clips anew, both; differences to the first
name are taken seed by seed and clip by clip.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.gate import read_report
from eval.record import page_file, record_lines, run_record, write_json, write_text
from eval.report.columns import BY_KEY
from eval.report.document import table
from eval.report.tables import cell
from eval.statistics import Float, crossed_interval


Runs = Mapping[str, Mapping[str, Float]]
"""By name and seed one value for each clip, NaN where nothing was measured."""


def runs_of(clips: Mapping[str, Mapping[str, Sequence[float | None]]], metric: str) -> Runs:
    """One metric of all systems that measured it.

    Raises:
        ValueError: if none of them did.
    """
    found: dict[str, dict[str, Float]] = {}
    for system, columns in clips.items():
        name, _, seed = system.partition(", seed ")
        values = np.array(columns.get(metric, []), dtype=np.float64)
        if np.isfinite(values).any():
            found.setdefault(name, {})[seed] = values
    if not found:
        raise ValueError(f"metrics: the report has no {metric}; choose one of its own")
    return found


def measured(values: Float) -> Float:
    """Runs by clips ``[S, N]`` without clips that one of the runs did not measure."""
    return values[:, np.isfinite(values).all(axis=0)]


def summarize(runs: Runs) -> dict[str, dict[str, Any]]:
    """Mean and interval of each name, the mean of each seed, and the difference to the first name.

    Raises:
        ValueError: if a name has other seeds than the first one, and is no single run.
    """
    base = next(iter(runs.values()))
    summary = {}
    for name, seeds in runs.items():
        if len(seeds) > 1 and seeds.keys() != base.keys():
            raise ValueError(f"systems: {name} has seeds {', '.join(seeds)}, not {', '.join(base)}; give all the same")
        own, first = (np.stack(list(columns.values())) for columns in (seeds, base))
        summary[name] = {
            "all": crossed_interval(measured(own))._asdict(),
            "seeds": {seed: float(np.nanmean(column)) for seed, column in seeds.items()},
            "difference": None if seeds is base else crossed_interval(measured(own - first))._asdict(),
        }
    return summary


def page_lines(summaries: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Tables of means, of differences to the first name, and of single seeds."""
    names = list(dict.fromkeys(name for found in summaries.values() for name in found))
    header = [f"{BY_KEY[key].label} ({BY_KEY[key].better})" for key in summaries]

    def rows(part: str, these: Sequence[str]) -> list[list[str]]:
        return [
            [name, *(cell(found.get(name, {}).get(part), BY_KEY[key].digits) for key, found in summaries.items())]
            for name in these
        ]

    seeds = [
        [
            name,
            *(
                ", ".join(f"{value:.{BY_KEY[key].digits}f}" for value in found[name]["seeds"].values())
                if name in found
                else "-"
                for key, found in summaries.items()
            ),
        ]
        for name in names
    ]
    return [
        *table(["system", *header], rows("all", names)),
        "",
        f"## Differences to {names[0]}",
        "",
        *table(["system", *header], rows("difference", names[1:])),
        "",
        "## Each seed",
        "",
        *table(["system", *header], seeds),
        "",
        *(f"- {BY_KEY[key].label}: {BY_KEY[key].meaning}" for key in summaries),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the report, write page and numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="report.json of python -m eval.run")
    parser.add_argument("--metrics", nargs="+", default=["path_error", "identity", "flicker"], choices=list(BY_KEY))
    parser.add_argument("--title", default="Several seeds")
    parser.add_argument("--text", nargs="*", default=[], help="paragraphs above the tables")
    parser.add_argument("--report", required=True, help="path of the page without suffix")
    options = parser.parse_args(arguments)
    record = run_record("eval.report.seeds", arguments)
    try:
        report = read_report(options.source)
        summaries = {metric: summarize(runs_of(report["clips"], metric)) for metric in options.metrics}
    except ValueError as error:
        raise SystemExit(str(error)) from None
    how = (
        f"{report['settings']['num_clips']} clips of suite `{report['settings']['suite']}`. Means with 95 % bootstrap "
        "intervals over seeds and clips; differences seed by seed and clip by clip."
    )
    lines = [f"# {options.title}", "", *(part for text in options.text for part in (text, "")), how, ""]
    lines += [*page_lines(summaries), "", "## What was run", "", "The clips:", "", *record_lines(report["record"])]
    lines += ["", "This page:", "", *record_lines(record)]
    target = Path(options.report)
    write_json(page_file(target, ".json"), {"record": record, "source": report["record"], "summary": summaries})
    write_text(page_file(target, ".md"), "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
