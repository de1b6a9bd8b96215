"""Stops a recipe where a stage has not reached what the next one needs (gates of the presets for the large model).

    python -m eval.gate runs/gate_causal/report.json --system causal --control "tracks of another clip" \
        --before runs/gate_teacher/report.json --before_system teacher --at_most 1.2
    python -m eval.gate runs/small_histories/eval/report.json --system teacher --better_than student

Tracks that are not followed and pictures that are not kept cost a whole run of the next stage, and show in a report of
two dozen clips. A teacher that is no better than its student teaches nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.report.columns import BY_KEY


Report = Mapping[str, Any]


def read_report(path: str) -> Report:
    """What `eval.run` wrote.

    Raises:
        ValueError: if it is not there, or is none.
    """
    try:
        report: Report = json.loads(Path(path).read_text())
        report["summary"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"report: {path} is no report.json of python -m eval.run") from None
    return report


def mean_of(report: Report, system: str, metric: str) -> float:
    """Mean of a metric over the clips of a system.

    Raises:
        ValueError: if the report does not have it.
    """
    try:
        return float(report["summary"][system]["values"][metric]["mean"])
    except (KeyError, TypeError):
        raise ValueError(f"system: the report has no {metric} of {system!r}") from None


def failures(
    report: Report, system: str, control: str, least_ratio: float, least_psnr: float, most: float | None = None
) -> list[str]:
    """What of ``system`` is not good enough, in one sentence each.

    Args:
        control: the same model, given the tracks of other clips; it should be far off the path of these.
        least_ratio: its path error over that of ``system``.
        least_psnr: of the first frame, dB.
        most: path error, pixels.
    """
    error, other = (mean_of(report, name, "path_error") for name in (system, control))
    psnr, found = mean_of(report, system, "first_frame_psnr"), []
    if not other >= least_ratio * error:
        found.append(
            f"path error is {error:.2f} px with its own tracks and {other:.2f} px with those of another clip, not "
            f"{least_ratio:g} times as much: tracks do not steer"
        )
    if not psnr >= least_psnr:
        found.append(f"PSNR of the first frame is {psnr:.2f} dB, less than {least_psnr:g} dB: the picture is not kept")
    if most is not None and not error <= most:
        found.append(f"path error is {error:.2f} px, above {most:.2f} px: the stage before followed tracks better")
    return found


def not_better(report: Report, system: str, other: str, metrics: Sequence[str]) -> list[str]:
    """In which of ``metrics`` the mean of ``system`` is no better than that of ``other``, in one sentence each."""
    found = []
    for key in metrics:
        metric = BY_KEY[key]
        own, theirs = (mean_of(report, name, key) for name in (system, other))
        worse = {"lower": own - theirs, "higher": theirs - own}.get(metric.better, abs(own - 1) - abs(theirs - 1))
        if not worse < 0:
            found.append(
                f"{metric.label} is {own:.{metric.digits}f}, no better than {theirs:.{metric.digits}f} of {other}: "
                "train it longer, or leave out what it should teach"
            )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Say how a stage did; exit with its failures where there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", help="report.json of python -m eval.run")
    parser.add_argument("--system", required=True)
    parser.add_argument("--control", help="the same model with the tracks of other clips")
    parser.add_argument("--better_than", help="a system of the report that it must surpass in all --metrics")
    parser.add_argument("--metrics", nargs="+", default=["path_error"], choices=list(BY_KEY))
    parser.add_argument("--least_ratio", type=float, default=2.0)
    parser.add_argument("--least_psnr", type=float, default=24.0, help="of the first frame, dB")
    parser.add_argument("--before", help="report of the stage before")
    parser.add_argument("--before_system", help="its name there")
    parser.add_argument("--at_most", type=float, default=1.0, help="path error, as a multiple of the stage before")
    options = parser.parse_args(arguments)
    try:
        if not (options.control or options.better_than):
            raise ValueError("control or better_than: name a system to compare with")
        report, most, found = read_report(options.report), None, []
        if options.before:
            most = options.at_most * mean_of(read_report(options.before), options.before_system, "path_error")
        if options.control:
            found = failures(report, options.system, options.control, options.least_ratio, options.least_psnr, most)
        if options.better_than:
            found += not_better(report, options.system, options.better_than, options.metrics)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    if found:
        raise SystemExit("\n".join(f"gate: {options.system}: {line}" for line in found))
    print(f"gate: {options.system} may go on")


if __name__ == "__main__":
    main()
