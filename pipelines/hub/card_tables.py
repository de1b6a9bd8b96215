"""Tables of a model card that are read, not written: what a checkpoint holds, and what was measured of it."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult
from safetensors import safe_open


@dataclass(frozen=True)
class Measured:
    """One row: what was measured, its ``value`` with 95 % interval ``low`` to ``high``, and its name as a metric."""

    text: str
    value: float
    unit: str
    digits: int
    low: float | None = None
    high: float | None = None
    metric: str | None = None

    def line(self) -> str:
        """The row in Markdown."""
        interval = "" if self.low is None else f"{self.low:.{self.digits}f} to {self.high:.{self.digits}f}"
        return f"| {self.text} | {f'{self.value:.{self.digits}f} {self.unit}'.strip()} | {interval} |"


def read_measured(rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> list[Measured]:
    """The rows of a card's facts with their numbers from a results file.

    A row has ``text``, ``unit``, ``digits``, optionally ``metric``, and says where its number is: ``mean`` is the path
    of an entry with mean, low and high; ``median`` a path through a list, of which the median is taken; ``given`` a
    number from elsewhere.

    Raises:
        ValueError: naming the row whose path leads nowhere.
    """
    found = []
    for row in rows:
        text, unit, digits = str(row["text"]), str(row["unit"]), int(row.get("digits", 1))
        try:
            if "given" in row:
                found.append(Measured(text, float(row["given"]), unit, digits))
            elif "median" in row:
                known = [value for value in follow(results, row["median"]) if value is not None]
                found.append(Measured(text, statistics.median(known), unit, digits))
            else:
                entry = follow(results, row["mean"])
                numbers = (float(entry[name]) for name in ("mean", "low", "high"))
                value, low, high = numbers
                found.append(Measured(text, value, unit, digits, low, high, row.get("metric")))
        except (KeyError, TypeError) as error:
            raise ValueError(f"card: the row {text!r} names no number of the results file ({error})") from error
    return found


def follow(value: Any, path: str) -> Any:
    """What lies at ``a/b/c`` in nested mappings; through a list, the list of what lies there in each entry."""
    for i, name in enumerate(parts := path.split("/")):
        if isinstance(value, list):
            return [follow(entry, "/".join(parts[i:])) for entry in value]
        value = value[name]
    return value


def eval_results(rows: Sequence[Measured], dataset: str, record: Mapping[str, Any]) -> list[EvalResult]:
    """The rows that are metrics, as the Hub's ``model-index`` has them."""
    return [
        EvalResult(
            task_type="image-to-video",
            dataset_type="sprite-world",
            dataset_name=dataset,
            metric_type=row.metric,
            metric_name=f"{row.text} ({row.unit})" if row.unit else row.text,
            metric_value=round(row.value, 4),
            metric_args={"command": record["command"], "commit": record["commit"]},
        )
        for row in rows
        if row.metric is not None
    ]


def parts_table(folder: Path) -> list[str]:
    """Components of a saved pipeline with class, layout and number of parameters, as rows of Markdown."""
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    rows = []
    for name, value in index.items():
        config_file = folder / name / "config.json"
        if not isinstance(value, list) or not config_file.is_file():
            continue
        config = json.loads(config_file.read_text(encoding="utf-8"))
        layout = describe(name, config)
        millions = count_parameters(folder / name) / 1e6
        shown = f"{millions:.{2 if millions < 1 else 1}f} M"
        rows.append(f"| {name.replace('_', ' ')} | `{value[1]}`{layout and ', ' + layout} | {shown} |")
    return rows


def describe(component: str, config: Mapping[str, Any]) -> str:
    """Layout of a component in a few words, from its configuration."""
    if component == "transformer":
        sink = f" and the first {config['sink_frames']}" if config["sink_frames"] else ""
        return (
            f"{config['num_layers']} layers, {config['num_attention_heads']} heads of {config['attention_head_dim']}, "
            f"window of {config['window_frames']} latents{sink}, chunk of {config['chunk_frames']}"
        )
    if component == "vae":
        layout = "residual layout, " if config["is_residual"] else ""
        factors = (
            f"{config['scale_factor_spatial']}x{config['scale_factor_spatial']}x{config['scale_factor_temporal']}"
        )
        return f"{layout}{factors}, {config['z_dim']} channels"
    layers, width = (
        config.get("num_hidden_layers", config.get("num_layers")),
        config.get("hidden_size", config.get("d_model")),
    )
    return f"{layers} layers of {width}"


def count_parameters(folder: Path) -> int:
    """Numbers in the safetensors files of ``folder``, read from their headers."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="np") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total
