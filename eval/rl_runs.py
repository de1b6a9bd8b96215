"""Runs of stage 3 side by side, from their logs: how much the return varies within a group, and what was gained.

    python -m eval.rl_runs --runs "one step=runs/crn" "all steps=runs/sde" --report docs/results/rl_ablation

Runs of one seed ask for the same prompts in the same order, so rollout by rollout they can be paired. What is compared
is the mean reward of the group that a policy made *before* it learnt from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import HfArgumentParser

from eval.record import page_file, record_lines, run_record, write_json, write_text
from eval.report.document import table
from eval.report.summary import interval_of
from eval.report.tables import cell


Log = Sequence[Mapping[str, float]]


@dataclass
class RunsConfig:
    """Which runs, and what of them."""

    runs: list[str] = field(metadata={"help": "name=folder of runs of training.grpo; the first is compared with."})
    reward: str = field(default="motion", metadata={"help": "Name of the reward."})
    window: int = field(default=20, metadata={"help": "Rollouts at the end of which the reward is compared."})
    title: str = field(default="Stage 3: runs side by side", metadata={"help": "Headline."})
    report: str = field(default="outputs/rl_runs", metadata={"help": "Path of the report without suffix."})

    def __post_init__(self) -> None:
        pairs = [text.partition("=") for text in self.runs]
        if not pairs or not all(name and folder for name, _, folder in pairs):
            raise ValueError(f"runs: {self.runs} must be name=folder")
        if self.window < 2:
            raise ValueError(f"window: {self.window} rollouts are none; use 20")


def read_log(folder: Path, reward: str) -> list[dict[str, float]]:
    """The rows of a run that tell of ``reward``.

    Raises:
        ValueError: if there is no log, or no such reward in it.
    """
    path = folder / "log.jsonl"
    if not path.is_file():
        raise ValueError(f"runs: {folder} holds no log.jsonl; give the output_dir of training.grpo")
    rows = [json.loads(line) for line in path.read_text().splitlines() if line]
    rows = [row for row in rows if f"reward/{reward}" in row]
    if not rows:
        raise ValueError(f"reward: {reward!r} is in no row of {path}")
    return rows


def summarize(logs: Mapping[str, Log], reward: str, window: int) -> dict[str, Any]:
    """Per run: variance of the return within a group, the mean reward, and that of the last ``window`` rollouts less
    that of the first run on the same prompts; all with intervals over rollouts, as many as the shortest run has."""
    length = min(len(log) for log in logs.values())
    base = np.array([row[f"reward/{reward}"] for row in next(iter(logs.values()))[:length]])
    summary = {}
    for name, log in logs.items():
        spread = np.array([row["reward/group_spread"] for row in log[:length]])
        values = np.array([row[f"reward/{reward}"] for row in log[:length]])
        apart = (values - base)[-window:]
        summary[name] = {
            "rollouts": length,
            "variance": interval_of(list(spread[np.isfinite(spread)] ** 2)),
            "reward": interval_of(list(values[np.isfinite(values)])),
            "difference": interval_of(list(apart[np.isfinite(apart)])),
            "divergence": log[length - 1].get("policy/kl"),
        }
    return summary


def markdown(summary: Mapping[str, Any], config: RunsConfig, record: dict[str, Any]) -> str:
    """The page."""
    first = next(iter(summary))
    header = ["run", "rollouts", "variance of the return in a group", "mean reward"]
    header += [f"reward of the last {config.window}, less {first}", "divergence at the end"]
    rows = [
        [
            name,
            str(found["rollouts"]),
            f"{found['variance']['mean']:.4f} [{found['variance']['low']:.4f}, {found['variance']['high']:.4f}]",
            cell(found["reward"]),
            "-" if name == first else _fine(found["difference"]),
            "-" if found["divergence"] is None else f"{found['divergence']:.5f}",
        ]
        for name, found in summary.items()
    ]
    lines = [
        f"# {config.title}",
        "",
        f"Reward: {config.reward}. Means with 95 % bootstrap intervals over rollouts; the runs ask for the same "
        "prompts in the same order, and differences are taken prompt by prompt.",
        "",
        *table(header, rows),
        "",
        *(f"- {text}" for text in config.runs),
        "",
        *record_lines(record),
    ]
    return "\n".join(lines) + "\n"


def _fine(found: Mapping[str, float]) -> str:
    return f"{found['mean']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]"


def main(arguments: list[str] | None = None) -> None:
    """Read the logs, write page and numbers."""
    (config,) = HfArgumentParser(RunsConfig).parse_args_into_dataclasses(arguments)
    record = run_record("eval.rl_runs", arguments)
    pairs = [text.partition("=") for text in config.runs]
    logs = {name: read_log(Path(folder), config.reward) for name, _, folder in pairs}
    summary = summarize(logs, config.reward, config.window)
    target = Path(config.report)
    write_json(page_file(target, ".json"), {"record": record, "settings": asdict(config), "summary": summary})
    page = markdown(summary, config, record)
    write_text(page_file(target, ".md"), page)
    print(page)


if __name__ == "__main__":
    main()
