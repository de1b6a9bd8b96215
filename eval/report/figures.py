"""Pictures of a report: latency against quality, error over time, and clips side by side with their paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from eval.suites.case import Case, Pixels
from pipelines.video import draw_paths, write_video


FPS = 16.0
LABEL_HEIGHT = 14


def latency_quality(summary: Mapping[str, Any], path: Path, suffix: str) -> bool:
    """Time to the first generated pixels against FVD and path error, as in Figure 1c; False if nothing was timed."""
    from matplotlib import pyplot as plt

    points = {name: found for name, found in summary.items() if found["speed"]["first_seconds"] is not None}
    if not points:
        return False
    panels = {f"FVD{suffix}": ("distances", "fvd"), "path error, px": ("values", "path_error")}
    figure, axes = plt.subplots(1, len(panels), figsize=(11, 4.2), constrained_layout=True)
    for axis, (label, (part, key)) in zip(axes, panels.items(), strict=True):
        for name, found in points.items():
            value = found[part][key]
            if value is None:
                continue
            seconds = found["speed"]["first_seconds"]["median"]
            above, below = max(0.0, value["high"] - value["mean"]), max(0.0, value["mean"] - value["low"])
            axis.errorbar(seconds, value["mean"], [[below], [above]], fmt="o", capsize=3, label=name)
        axis.set_xscale("log")
        axis.set_xlabel("first generated pixels, s")
        axis.set_ylabel(f"{label} (lower is better)")
        axis.grid(alpha=0.3, which="both")
    axes[-1].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def error_over_time(summary: Mapping[str, Any], path: Path) -> None:
    """Path error, and identity, in each latent: short clips drawn through, long ones dashed."""
    from matplotlib import pyplot as plt

    panels = {"path error, px": "path_error", "identity": "identity"}
    figure, axes = plt.subplots(1, len(panels), figsize=(11, 4.2), constrained_layout=True)
    for axis, (label, key) in zip(axes, panels.items(), strict=True):
        for number, (name, found) in enumerate(summary.items()):
            for part, style in (("latents", "-"), ("long", "--")):
                curve = found[part].get(key)
                if curve is None:
                    continue
                known = [(m, value) for m, value in enumerate(curve) if m and value is not None]
                title = name if part == "latents" else None
                axis.plot(*zip(*known, strict=True), style, color=f"C{number}", label=title)
        axis.set_xlabel("latent frame (4 pixel frames each)")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def drawn(case: Case, frames: Pixels) -> list[Pixels]:
    """Frames with the case's paths on them."""
    arrays = case.tracks.to_array(len(frames))
    return [draw_paths(frame, arrays, index) for index, frame in enumerate(frames)]


def labelled(picture: Pixels, text: str) -> Pixels:
    """A picture with a line of text above it."""
    canvas = Image.new("RGB", (picture.shape[1], picture.shape[0] + LABEL_HEIGHT), "black")
    canvas.paste(Image.fromarray(picture), (0, LABEL_HEIGHT))
    ImageDraw.Draw(canvas).text((3, 1), text, "white")
    return np.asarray(canvas)


def contact_sheet(clips: Sequence[tuple[str, list[Pixels]]], every: int = 8) -> Image.Image:
    """Clips under one another, every ``every``-th pixel frame from left to right."""
    strips = [labelled(np.concatenate(frames[::every], axis=1), label) for label, frames in clips]
    return Image.fromarray(np.concatenate(strips, axis=0))


def side_by_side(clips: Sequence[tuple[str, list[Pixels]]], path: Path) -> None:
    """Clips beside one another as one mp4."""
    columns = [[labelled(frame, label) for frame in frames] for label, frames in clips]
    write_video([np.concatenate(row, axis=1) for row in zip(*columns, strict=True)], path, FPS)
