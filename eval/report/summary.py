"""From the rows of several systems to the numbers of a report: means, distances, differences, curves, categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval.metrics.features import unpack
from eval.metrics.frechet import frechet_distance
from eval.metrics.kernel import kernel_distance
from eval.report.columns import CATEGORY_METRICS, METRICS
from eval.report.rows import Row
from eval.statistics import bootstrap_interval, jackknife_interval, ratio_interval, sign_flip_p, spread


Rows = Sequence[Row]
Found = dict[str, float] | None
SMALLEST_ERROR = 1e-3
"""Path error in pixels that a ratio counts at least."""


def values_of(rows: Rows, key: str) -> dict[int, float]:
    """One metric by clip, where it could be measured."""
    found = {row["index"]: row["values"].get(key) for row in rows}
    return {index: value for index, value in found.items() if value is not None}


def interval_of(values: Sequence[float]) -> Found:
    """Mean with 95 % bootstrap interval over clips and their number, or None where nothing was measured."""
    return {**bootstrap_interval(values)._asdict(), "clips": len(values)} if values else None


def difference(rows: Rows, base: Rows, key: str) -> Found:
    """Mean difference to ``base`` over the clips that both have, its interval, and the p-value of the sign flip."""
    own, other = values_of(rows, key), values_of(base, key)
    pairs = [own[index] - other[index] for index in sorted(set(own) & set(other))]
    found = interval_of(pairs)
    return None if found is None else {**found, "p": sign_flip_p(pairs)}


def control_ratio(control: Rows, rows: Rows) -> Found:
    """How many times farther off the path ``control`` is than ``rows``, over the clips that both have."""
    own, other = values_of(rows, "path_error"), values_of(control, "path_error")
    both = sorted(set(own) & set(other))
    if not both:
        return None
    ratio = ratio_interval([other[i] for i in both], [max(own[i], SMALLEST_ERROR) for i in both])
    return {**ratio._asdict(), "clips": len(both)}


class FeatureSets:
    """Features of one system's clips and of the true ones: ``frames [N, K, D]``, ``clips [N, D]``."""

    def __init__(self, rows: Rows, true_rows: Rows) -> None:
        true = {row["index"]: row for row in true_rows}
        pairs = [(row, true[row["index"]]) for row in rows if row["index"] in true]
        self.count = len(pairs)
        stacks = [
            [np.stack([unpack(pair[side]["features"][part]) for pair in pairs]).astype(np.float64) for side in (0, 1)]
            for part in ("frames", "clip")
        ]
        (self.frames, self.true_frames), (self.clips, self.true_clips) = stacks

    def distance(self, name: str, kept: np.ndarray) -> float:
        """One of the distances over the clips that are ``kept``."""
        if name.endswith("vd"):
            pair, each = (self.clips[kept], self.true_clips[kept]), 1
        else:
            each, width = self.frames.shape[1:]
            pair = (self.frames[kept].reshape(-1, width), self.true_frames[kept].reshape(-1, width))
        if name.startswith("f"):
            return frechet_distance(*pair)
        return kernel_distance(*pair, groups=np.repeat(kept, each))


def distances_of(rows: Rows, true_rows: Rows | None) -> dict[str, Found]:
    """FID, KID, FVD and KVD to the true clips with jackknife intervals; None without true clips or with too few."""
    names = ("fid", "kid", "fvd", "kvd")
    if true_rows is None or len(rows) < 3:
        return dict.fromkeys(names)
    sets = FeatureSets(rows, true_rows)
    if sets.count < 3:
        return dict.fromkeys(names)

    def found(name: str) -> Found:
        interval = jackknife_interval(lambda kept: sets.distance(name, kept), sets.count)
        return {**interval._asdict(), "clips": sets.count}

    return {name: found(name) for name in names}


def curves_of(rows: Rows, part: str) -> dict[str, list[float | None]]:
    """Mean over clips of each measure in each latent frame; ``part`` is ``latents`` or ``long``."""
    curves: dict[str, list[list[float | None]]] = {}
    for row in rows:
        for name, curve in row.get(part, {}).items():
            curves.setdefault(name, []).append(curve)
    return {
        name: [
            float(np.mean(known)) if (known := [value for value in column if value is not None]) else None
            for column in zip(*found, strict=False)
        ]
        for name, found in curves.items()
    }


def categories_of(rows: Rows) -> dict[str, dict[str, Any]]:
    """Some metrics over the clips of each category."""
    found = {}
    for name in sorted({category for row in rows for category in row["categories"]}):
        members = [row for row in rows if name in row["categories"]]
        found[name] = {key: interval_of(list(values_of(members, key).values())) for key in CATEGORY_METRICS}
    return found


def speed_of(rows: Rows) -> dict[str, Any]:
    """First pixels, pixel frames per second, and memory; None for systems that generate nothing here."""
    first = [row["first_seconds"] for row in rows if row["first_seconds"] is not None]
    rates = [row["frames"] / row["seconds"] for row in rows if row["seconds"]]
    return {
        "first_seconds": spread(first) if first else None,
        "frames_per_second": spread(rates) if rates else None,
        "peak_mib": max(row["peak_mib"] for row in rows),
    }


def summarize(rows: Mapping[str, Rows], truth: str | None) -> dict[str, Any]:
    """All numbers of a report, by system.

    Args:
        rows: by system, the first one is what the others are compared with.
        truth: name of the system that is the true video, if there is one.
    """
    base = next(iter(rows.values()))
    true_rows = rows[truth] if truth is not None else None
    summary = {}
    for name, own in rows.items():
        summary[name] = {
            "clips": len(own),
            "values": {metric.key: interval_of(list(values_of(own, metric.key).values())) for metric in METRICS},
            "distances": distances_of(own, true_rows) if name != truth else distances_of(own, None),
            "differences": {metric.key: difference(own, base, metric.key) for metric in METRICS if own is not base},
            "latents": curves_of(own, "latents"),
            "long": curves_of(own, "long"),
            "long_clips": sum("long" in row for row in own),
            "categories": categories_of(own),
            "speed": speed_of(own),
        }
    return summary
