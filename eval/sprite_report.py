"""From the rows of the sprite benchmark to its summary, its Markdown page and its contact sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ardrag.sprite_tracks import clip_tracks
from ardrag.sprites import SpriteClip
from eval.record import record_lines
from eval.statistics import Interval, bootstrap_interval, ratio_interval
from pipelines.video import draw_paths


Pixels = npt.NDArray[np.uint8]
Row = dict[str, Any]
VARIANTS = {
    "generated": "generated, own tracks",
    "shuffled": "generated, tracks of another clip (control)",
    "still": "still picture: the reference repeated",
    "reconstruction": "true video through the VAE (ceiling of the model)",
    "truth": "true video (floor of the measure)",
}
LATENTS = (2, 4, 8)
"""Latent frames at which the error is also reported, to see drift."""
PSNR_LATENT = 8
"""Latent frame at which the background is compared."""
METRICS = ("path_error", *(f"path_error_latent_{latent}" for latent in LATENTS), "background_psnr")
QUANTILES = {"best": 0.0, "median": 0.5, "worst": 1.0}
TARGETS = {
    "path error, px, at most": ("path_error", 4.0, "most"),
    "control over generated, at least": ("control_ratio", 5.0, "least"),
    f"background PSNR at latent {PSNR_LATENT}, dB, at least": ("background_psnr", 25.0, "least"),
}


def column(rows: Sequence[Row], variant: str, metric: str) -> list[float]:
    """One metric of one variant over all clips where it could be measured."""
    values = (row["results"][variant][metric] for row in rows)
    return [value for value in values if value is not None]


def interval_of(values: Sequence[float]) -> dict[str, float] | None:
    """Mean with 95 % bootstrap interval over clips and their number, or None where nothing was measured."""
    return {**bootstrap_interval(values)._asdict(), "clips": len(values)} if values else None


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """All numbers of the benchmark: per variant and metric, per category, the control ratio, the targets."""
    variants = {name: {metric: interval_of(column(rows, name, metric)) for metric in METRICS} for name in VARIANTS}
    categories = {}
    for name in sorted({category for row in rows for category in row["categories"]}):
        members = [row for row in rows if name in row["categories"]]
        errors = {variant: interval_of(column(members, variant, "path_error")) for variant in VARIANTS}
        categories[name] = {"clips": len(members), **errors}
    summary = {
        "clips": len(rows),
        "seconds_per_clip": float(np.mean([row["seconds"] for row in rows])),
        "variants": variants,
        "categories": categories,
        "control_ratio": _control_ratio(rows),
    }
    return {**summary, "targets": _targets(summary)}


def _control_ratio(rows: Sequence[Row]) -> dict[str, float] | None:
    """How many times farther off the path the control is, over the clips where both were measured."""
    pairs = [[row["results"][name]["path_error"] for name in ("shuffled", "generated")] for row in rows]
    known = [pair for pair in pairs if None not in pair]
    if not known:
        return None
    shuffled, own = zip(*known, strict=True)
    return {**ratio_interval(shuffled, np.maximum(own, 1e-3))._asdict(), "clips": len(known)}


def _targets(summary: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, (key, limit, kind) in TARGETS.items():
        found = summary[key] if key in summary else summary["variants"]["generated"][key]
        measured = None if found is None else found["mean"]
        met = measured is not None and (measured <= limit if kind == "most" else measured >= limit)
        rows.append({"name": name, "target": limit, "measured": measured, "met": met})
    return rows


def markdown(summary: dict[str, Any], settings: dict[str, Any], record: dict[str, Any]) -> str:
    """The page that `docs/results/sprites.md` holds."""
    steps = settings["steps"] or "the checkpoint's own number of"
    lines = [
        "# Control on Sprite World",
        "",
        f"{summary['clips']} clips of the test split (seeds, and partly shapes, that no training has seen), "
        f"{settings['num_frames']} frames of 128x128, model `{settings['model']}`, "
        f"{steps} denoising steps per latent, seed {settings['seed']}.",
        "",
        "Path error: distance in pixels between the drawn path and the place where the known sprite matches the frame "
        "best, mean over visible points of all frames after the first. The control is driven by another clip's "
        "tracks and measured against its own path. Means over clips with 95 % bootstrap intervals.",
        "",
        *table(["target", "wanted", "measured", "met"], [_target_cells(row) for row in summary["targets"]]),
        "",
        *_variant_table(summary),
        "",
        *_category_table(summary),
        "",
        "![best, median and worst clip: truth above, generated below](sprites.png)",
        "",
        *record_lines(record),
    ]
    return "\n".join(lines) + "\n"


def _variant_table(summary: dict[str, Any]) -> list[str]:
    header = ["video", "path error, px", *(f"at latent {latent}" for latent in LATENTS)]
    header.append(f"background PSNR at latent {PSNR_LATENT}, dB")
    found = summary["variants"]
    rows = [[label, *(interval_cell(found[name][metric]) for metric in METRICS)] for name, label in VARIANTS.items()]
    ratio = (
        f"The control is {interval_cell(summary['control_ratio'])} times as far off the path as the generated video."
    )
    return [*table(header, rows), "", ratio]


def _category_table(summary: dict[str, Any]) -> list[str]:
    shown = ("generated", "shuffled", "truth")
    header = ["category (path error, px)", "clips", *shown]
    rows = [
        [name, str(found["clips"]), *(interval_cell(found[variant]) for variant in shown)]
        for name, found in summary["categories"].items()
    ]
    return table(header, rows)


def _target_cells(row: dict[str, Any]) -> list[str]:
    measured = "-" if row["measured"] is None else f"{row['measured']:.2f}"
    return [row["name"], f"{row['target']:g}", measured, "yes" if row["met"] else "no"]


def interval_cell(found: dict[str, float] | None) -> str:
    """Mean and interval as a cell of a table; a dash where nothing was measured."""
    if found is None:
        return "-"
    interval = Interval(found["mean"], found["low"], found["high"])
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, line by line."""
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def chosen_clips(rows: Sequence[Row]) -> dict[str, Row]:
    """The rows with the best, median and worst path error of the generated video, where there is any."""
    ranked = sorted(
        (row for row in rows if row["results"]["generated"]["path_error"] is not None),
        key=lambda row: (row["results"]["generated"]["path_error"], row["index"]),
    )
    return {name: ranked[round(q * (len(ranked) - 1))] for name, q in QUANTILES.items()} if ranked else {}


def contact_sheet(
    rows: Sequence[Row], make: Callable[[int], tuple[SpriteClip, Pixels]], every: int = 4
) -> Image.Image | None:
    """Best, median and worst clip: truth above the generated video, paths drawn, every ``every``-th pixel frame.

    Args:
        rows: rows of the benchmark.
        make: gives the clip of an index and its generated frames ``[T, H, W, 3]``.
        every: pixel frames between two tiles.
    """
    strips = []
    for name, row in chosen_clips(rows).items():
        clip, frames = make(row["index"])
        arrays = clip_tracks(clip).to_array(len(frames))
        for video, label in ((clip.frames, "truth"), (frames, f"{row['results']['generated']['path_error']:.1f} px")):
            drawn = [draw_paths(video[t], arrays, t) for t in range(0, len(frames), every)]
            strip = Image.fromarray(np.concatenate(drawn, axis=1))
            ImageDraw.Draw(strip).text(
                (3, 2), f"{name} (clip {row['index']}): {label}", "white", stroke_width=1, stroke_fill="black"
            )
            strips.append(np.asarray(strip))
    return Image.fromarray(np.concatenate(strips, axis=0)) if strips else None
