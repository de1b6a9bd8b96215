"""From the rows of several systems to a table with intervals, paired differences and one contact sheet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from eval.frechet import frechet_distance
from eval.record import record_lines
from eval.sprite_report import interval_cell, interval_of, table


Rows = Sequence[Mapping[str, Any]]
FRECHET_RESAMPLES = 200
COLUMNS = {
    "path error, px": ("short", "path_error"),
    "latent 2": ("short", "path_error_latent_2"),
    "latent 8": ("short", "path_error_latent_8"),
    "latent 20": ("long", "path_error_latent_20"),
    "background PSNR at latent 8, dB": ("short", "background_psnr_latent_8"),
    "colour error at latent 8, of 255": ("short", "colour_error_latent_8"),
    "at latent 20": ("long", "colour_error_latent_20"),
    "flicker, of 255": ("short", "flicker"),
}


def values_of(rows: Rows, part: str, metric: str) -> dict[int, float]:
    """One metric by clip, where it could be measured."""
    found = {row["index"]: row[part][metric] for row in rows if part in row}
    return {index: value for index, value in found.items() if value is not None}


def summarize(rows: Mapping[str, Rows]) -> dict[str, Any]:
    """Per system: all columns with intervals, differences to the first system clip by clip, Fréchet, latency."""
    first = next(iter(rows))
    summary = {}
    for name, own in rows.items():
        columns, differences = {}, {}
        for label, (part, metric) in COLUMNS.items():
            values, base = values_of(own, part, metric), values_of(rows[first], part, metric)
            columns[label] = interval_of(list(values.values()))
            both = sorted(set(values) & set(base))
            differences[label] = interval_of([values[i] - base[i] for i in both]) if name != first else None
        latency = float(np.median([row["latency"] for row in own]))
        summary[name] = {"columns": columns, "differences": differences, "frechet": frechet_of(own)}
        summary[name] |= {"clips": len(own), "first_latent_seconds": latency}
    return summary


def frechet_of(rows: Rows, seed: int = 0) -> dict[str, float]:
    """Fréchet distance to the true clips with a bootstrap interval over clips (resampled sets are biased upwards)."""
    made, true = (np.array([row[key] for row in rows]) for key in ("features", "true_features"))
    scale = true.std(0).clip(1e-6)
    made, true = made / scale, true / scale
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(FRECHET_RESAMPLES):
        chosen = rng.integers(len(rows), size=len(rows))
        samples.append(frechet_distance(made[chosen], true[chosen]))
    low, high = np.quantile(samples, [0.025, 0.975])
    return {"mean": frechet_distance(made, true), "low": float(low), "high": float(high)}


def markdown(title: str, summary: dict[str, Any], settings: dict[str, Any], record: dict[str, Any], sheet: str) -> str:
    """The page of a comparison."""
    first, clips = next(iter(summary)), next(iter(summary.values()))["clips"]
    header = ["system", *COLUMNS, "Fréchet (latent statistics)", "first latent, ms"]
    rows = [
        [
            name,
            *(interval_cell(found["columns"][label]) for label in COLUMNS),
            interval_cell(found["frechet"]),
            f"{1000 * found['first_latent_seconds']:.0f}",
        ]
        for name, found in summary.items()
    ]
    apart = [
        [name, *(interval_cell(found["differences"][label]) for label in COLUMNS)]
        for name, found in summary.items()
        if name != first
    ]
    lines = [
        f"# {title}",
        "",
        f"{clips} clips of the test split, 33 frames (up to {settings['num_long_clips']} of them again with 81 frames "
        "for latent 20, which is beyond what any system was trained on), the checkpoint's own number of steps. Means "
        "with 95 % bootstrap intervals over clips.",
        "",
        "Path error: distance between the drawn path and the place where the known sprite matches best (template "
        "match, which no training uses). Colour error: mean of 5x5 pixels at the sprite's centre against the truth. "
        "Flicker: mean absolute change from frame to frame of background that no sprite touches (the truth has 0). "
        "Fréchet: distance of Gaussians fitted to per-clip statistics of VAE latents (mean, spread, change per "
        "channel, over their spread in the true clips); no FVD, it compares rows of this table only. First latent: "
        "median "
        "over clips from the call to the first generated pixels, or to the whole clip of a bidirectional system.",
        "",
        *table(header, rows),
        "",
        f"Differences to {first}, clip by clip (positive: larger than {first}):",
        "",
        *table(["system", *COLUMNS], apart),
        "",
        f"![the same clips by every system]({sheet})",
        "",
        "Systems:",
        "",
        *(f"- {text}" for text in settings["systems"]),
        "",
        *record_lines(record),
    ]
    return "\n".join(lines) + "\n"


def contact_sheet(
    rows: Mapping[str, Rows],
    make: Callable[[int, int], list[tuple[str, npt.NDArray[np.uint8]]]],
    num_frames: int,
    every: int = 4,
) -> Image.Image:
    """Best, median and worst clip of the first system, as every system makes them, every ``every``-th pixel frame."""
    errors = values_of(next(iter(rows.values())), "short", "path_error")
    ranked = sorted(errors, key=lambda index: errors[index])
    strips = []
    for index in dict.fromkeys((ranked[0], ranked[len(ranked) // 2], ranked[-1])):
        for name, video in make(index, num_frames):
            strip = Image.fromarray(np.concatenate(list(video[::every]), axis=1))
            ImageDraw.Draw(strip).text((3, 2), f"{name}, clip {index}", "white", stroke_width=1, stroke_fill="black")
            strips.append(np.asarray(strip))
    return Image.fromarray(np.concatenate(strips, axis=0))
