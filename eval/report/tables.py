"""The tables of a report: each a header and rows of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.benchmark.config import Suffixes
from eval.report.columns import BY_KEY, CATEGORY_METRICS, DISTANCES, MAIN, METRICS
from eval.report.paper import COLUMNS, PAPER, paper_row


Table = tuple[list[str], list[list[str]]]
Summary = Mapping[str, Mapping[str, Any]]
CURVE_LATENTS = (1, 2, 4, 8, 12, 16, 20)
DISTANCE_DIGITS = {"fid": 2, "fvd": 2, "kid": 4, "kvd": 2}


def cell(found: Mapping[str, float] | None, digits: int = 2) -> str:
    """Mean and interval; a dash where nothing was measured."""
    if found is None:
        return "-"
    mean, low, high = (f"{found[name]:.{digits}f}" for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def distance_label(name: str, suffixes: Suffixes) -> str:
    """``FID-sprite`` and so on."""
    return name.upper() + suffixes.distance


def milliseconds(found: Mapping[str, float] | None) -> str:
    """Median and 95th percentile in milliseconds."""
    return "-" if found is None else f"{1000 * found['median']:.0f} ({1000 * found['p95']:.0f})"


def _measured(summary: Summary, keys: Sequence[str]) -> list[str]:
    """Those metrics that at least one system has."""
    return [key for key in keys if any(found["values"][key] is not None for found in summary.values())]


def main_table(summary: Summary, suffixes: Suffixes) -> Table:
    """The columns of the paper's tables, as far as they can be had, and the path error."""
    keys = _measured(summary, MAIN)
    header = ["system", "first pixels, ms", *(distance_label(name, suffixes) for name in DISTANCES)]
    header += [_label(key, suffixes) for key in keys]
    rows = [
        [
            name,
            milliseconds(found["speed"]["first_seconds"]),
            *(cell(found["distances"][key], DISTANCE_DIGITS[key]) for key in DISTANCES),
            *(cell(found["values"][key], BY_KEY[key].digits) for key in keys),
        ]
        for name, found in summary.items()
    ]
    return header, rows


def _label(key: str, suffixes: Suffixes) -> str:
    """The sprite scorer gives another score than LAION's, and is named so."""
    return BY_KEY[key].label + (suffixes.aesthetic if key == "aesthetic" else "")


def metric_table(summary: Summary) -> Table:
    """Everything that was measured of single clips; metrics are rows, systems columns."""
    keys = _measured(summary, [metric.key for metric in METRICS])
    rows = [
        [
            f"{BY_KEY[key].label} ({BY_KEY[key].better})",
            *(cell(found["values"][key], BY_KEY[key].digits) for found in summary.values()),
        ]
        for key in keys
    ]
    return ["metric (what is better)", *summary], rows


def difference_table(summary: Summary) -> Table:
    """Paired differences to the first system with p-values."""
    others = list(summary)[1:]
    keys = _measured(summary, [metric.key for metric in METRICS])

    def paired(found: Mapping[str, float] | None, digits: int) -> str:
        return "-" if found is None else f"{cell(found, digits)}, p {found['p']:.2g}"

    rows = [
        [BY_KEY[key].label, *(paired(summary[name]["differences"][key], BY_KEY[key].digits) for name in others)]
        for key in keys
    ]
    return ["metric", *others], rows


def beside_the_paper(summary: Summary, suffixes: Suffixes) -> Table:
    """The paper's six columns, ours and theirs apart."""
    ours = {
        "latency": ("first generated pixels, s", _latency),
        "fid": (distance_label("fid", suffixes), lambda found: cell(found["distances"]["fid"])),
        "fvd": (distance_label("fvd", suffixes), lambda found: cell(found["distances"]["fvd"])),
        "aesthetic": (_label("aesthetic", suffixes), lambda found: cell(found["values"]["aesthetic"])),
        "smoothness": ("smoothness", _smoothness),
        "consistency": ("motion consistency", _consistency),
    }
    rows = [
        [name if row == name else f"{name} ({row})", label, measure(found), COLUMNS[key], f"{PAPER[row][key]:g}"]
        for name, found in summary.items()
        if (row := paper_row(name)) is not None
        for key, (label, measure) in ours.items()
    ]
    return ["system", "measured here", "here", "the paper's metric", "paper (1.3B, one H20, other clips)"], rows


def _latency(found: Mapping[str, Any]) -> str:
    first = found["speed"]["first_seconds"]
    return "-" if first is None else f"{first['median']:.3f}"


def _consistency(found: Mapping[str, Any]) -> str:
    """By the exact template match where there is one."""
    if found["values"]["consistency_template"] is not None:
        return cell(found["values"]["consistency_template"])
    return f"{cell(found['values']['consistency'])} (tracker)"


def _smoothness(found: Mapping[str, Any]) -> str:
    if found["values"]["smoothness"] is not None:
        return cell(found["values"]["smoothness"], 4)
    return f"{cell(found['values']['midpoint_smoothness'], 4)} (midpoint)"


def speed_table(summary: Summary) -> Table:
    """Latency, rate and memory while the clips were made."""
    rows = []
    for name, found in summary.items():
        speed = found["speed"]
        rate = speed["frames_per_second"]
        frames = "-" if rate is None else f"{rate['median']:.1f}"
        rows.append([name, milliseconds(speed["first_seconds"]), frames, f"{speed['peak_mib']:.0f}"])
    header = ["system", "first generated pixels, ms: median (p95)", "frames per second", "peak memory, MiB"]
    return header, rows


def curve_table(summary: Summary) -> Table:
    """Path error in some latents; beyond the short clips from the long ones."""
    rows = []
    for name, found in summary.items():
        short, longer = (found[part].get("path_error", []) for part in ("latents", "long"))
        cells = []
        for latent in CURVE_LATENTS:
            curve = short if latent < len(short) else longer
            value = curve[latent] if latent < len(curve) else None
            cells.append("-" if value is None else f"{value:.2f}")
        rows.append([name, *cells])
    return ["path error in px, at latent", *map(str, CURVE_LATENTS)], rows


def category_table(summary: Summary) -> Table:
    """Some metrics by category and system."""
    names = sorted({category for found in summary.values() for category in found["categories"]})
    rows = []
    for category in names:
        for name, found in summary.items():
            members = found["categories"].get(category)
            if members is not None and members["path_error"] is not None:
                values = [cell(members[key], BY_KEY[key].digits) for key in CATEGORY_METRICS]
                rows.append([category, name, str(members["path_error"]["clips"]), *values])
    return ["category", "system", "clips", *(BY_KEY[key].label for key in CATEGORY_METRICS)], rows


def definitions(suffixes: Suffixes) -> list[str]:
    """What each metric is."""
    lines = [f"**{distance_label(name, suffixes)}** (lower): {meaning}" for name, meaning in DISTANCES.items()]
    return lines + [f"**{_label(m.key, suffixes)}** ({m.better}): {m.meaning}" for m in METRICS]


def origin_table(results: Mapping[str, Mapping[str, Any]], runs: Sequence[Mapping[str, Any]], seed: int) -> Table:
    """What every row was made from, and in which of the ``runs`` (their numbers from 1)."""
    rows = []
    for name, found in results.items():
        system = found["system"]
        source = system.kind + (f" `{system.source}`" if system.source else "")
        source += f", {system.steps} steps" if system.steps else ""
        numbers = ", ".join(str(1 + runs.index(record)) for record in found["records"])
        commits = ", ".join((record["commit"] or "none")[:12] for record in found["records"])
        rows.append([name, source, found["digest"], str(len(found["rows"])), str(seed), numbers, commits])
    return ["system", "made from", "digest of its files", "clips", "seed", "run", "commit"], rows
