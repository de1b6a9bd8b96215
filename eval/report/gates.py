"""The gate's table: several models and worlds side by side, from what `eval.headroom` wrote of each.

python -m eval.headroom runs/noisy/pipeline --world small:label_noise=6 --num_latents 7 --report outputs/noisy
python -m eval.headroom checkpoints/ardrag-tiny --report outputs/sprites
python -m eval.report.gates outputs/noisy.json outputs/sprites.json --report docs/results/headroom
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ardrag.worlds.open import open_world
from eval.benchmark.headroom import ClipHeadroom
from eval.headroom import (
    BEST_GAIN,
    SATURATED,
    VARIANCE_SHARE,
    WORSE,
    histories_differ,
    median_share,
    summarize,
    what_grpo_means,
)
from eval.record import page_file, record_lines, run_record, write_json, write_text
from eval.report.document import table
from eval.statistics import Interval


COLUMNS = {
    "three-step error, px": ("path error, px", 1.0),
    "one step worse by": ("one step worse by, %", 100.0),
    "one step shows less by": ("one step shows less of free sprites by, %", 100.0),
    "share of variance": ("variance in the error, %", 100.0),
    "best of the group better by": ("best of a group better by, %", 100.0),
    "reward, share of the most": ("reward, % of the most", 100.0),
}
"""What `eval.headroom.summarize` calls it, how the table does, and its scale."""


def read_gate(path: str) -> dict[str, Any]:
    """What `eval.headroom` wrote, with its clips.

    Raises:
        ValueError: if it is not there, or is none.
    """
    try:
        found: dict[str, Any] = json.loads(Path(path).read_text())
        clips = [ClipHeadroom(**clip) for clip in found["clips"]]
        return {**{name: found[name] for name in ("record", "settings")}, "clips": clips}
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"gates: {path} is nothing that python -m eval.headroom wrote; give its .json") from None


def cells(found: Mapping[str, Interval]) -> list[str]:
    """Means with intervals; a dash for what this world does not have."""
    shown = []
    for name, (_, scale) in COLUMNS.items():
        values = [f"{scale * value:.3g}" for value in found[name]] if name in found else []
        shown.append(f"{values[0]} [{values[1]}, {values[2]}]" if values else "-")
    return shown


def row_of(gate: Mapping[str, Any]) -> list[str]:
    """One row: model, world, the numbers, and what they mean."""
    settings, found = gate["settings"], summarize(gate["clips"])
    word, _ = what_grpo_means(found, median_share(gate["clips"]))
    how = f"{settings['num_clips']} x {settings['members']}"
    histories = "something" if histories_differ(found) else "nothing"
    return [settings["model"], open_world(settings["world"]).title, how, *cells(found), histories, word]


def page_lines(gates: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the columns mean, the table, and how each row was measured."""
    header = ["model", "world", "clips x members", *(label for label, _ in COLUMNS.values())]
    lines = [
        "Means over clips with 95 % bootstrap intervals; ratios by clip. An ablation of histories means something "
        f"where one step is worse than three, or shows less of sprites that no track moves, by {WORSE:.0%} or more; "
        f"one of GRPO where {VARIANCE_SHARE:.0%} of the error is variance, the best of a group is better by "
        f"{BEST_GAIN:.0%}, and the median clip earns less than {SATURATED:.0%} of the reward.",
        "",
        *table([*header, "histories, it means", "GRPO, it means"], [row_of(gate) for gate in gates]),
        "",
    ]
    for gate in gates:
        lines += [f"{gate['settings']['model']} in {open_world(gate['settings']['world']).title}:", ""]
        lines += [*record_lines(gate["record"]), ""]
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Read what was measured, write page and numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", help="what eval.headroom wrote, .json")
    parser.add_argument("--title", default="The gate: where an ablation can mean something")
    parser.add_argument("--report", required=True, help="path of the page without suffix")
    options = parser.parse_args(arguments)
    record = run_record("eval.report.gates", arguments)
    try:
        gates = [read_gate(path) for path in options.sources]
    except ValueError as error:
        raise SystemExit(str(error)) from None
    numbers = [
        {
            **{name: gate[name] for name in ("settings", "record")},
            "summary": {name: interval._asdict() for name, interval in summarize(gate["clips"]).items()},
        }
        for gate in gates
    ]
    lines = [f"# {options.title}", "", *page_lines(gates), "This page:", "", *record_lines(record)]
    target = Path(options.report)
    write_json(page_file(target, ".json"), {"record": record, "gates": numbers})
    write_text(page_file(target, ".md"), "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
