"""From rows to numbers: gaps, pairs, distances that are 0 between equal sets, curves and categories."""

import numpy as np
import pytest

from eval.metrics.features import pack
from eval.report.columns import BY_KEY, DISTANCES, HISTORIES, LATE, METRICS
from eval.report.summary import (
    categories_of,
    control_ratio,
    curves_of,
    difference,
    distances_of,
    interval_of,
    speed_of,
    summarize,
)


def row(index, error, seed=None, shift=0.0, **more):
    rng = np.random.default_rng(index if seed is None else seed)
    features = {"frames": pack(rng.normal(size=(8, 5)) + shift), "clip": pack(rng.normal(size=5) + shift)}
    found = {"index": index, "name": f"{index:03d}", "categories": ["fast"] if index % 2 else ["slow"], "note": ""}
    found |= {"values": {"path_error": error}, "latents": {"path_error": [0, error, None]}, "features": features}
    return found | {"first_seconds": 0.1, "seconds": 0.5, "frames": 10, "peak_mib": 100.0 + index} | more


def rows(offset=0.0, count=12, **more):
    return [row(i, None if i == 5 else offset + 0.1 * i, **more) for i in range(count)]


def test_differences_are_taken_clip_by_clip():
    found = difference(rows(3.0), rows(1.0), "path_error")
    assert (found["mean"], found["low"], found["high"], found["clips"]) == pytest.approx((2, 2, 2, 11))
    assert found["p"] < 0.01
    assert difference(rows(1.0)[:4], rows(1.0)[6:], "path_error") is None
    assert difference(rows(1.0), rows(1.0), "path_error")["p"] == 1


def test_the_control_is_so_many_times_as_far_off():
    near = [row(i, 2.0) for i in range(6)]
    assert control_ratio([row(i, 20.0) for i in range(6)], near)["mean"] == pytest.approx(10)
    assert control_ratio([row(9, 20.0)], near) is None


def test_distances_to_the_same_clips_are_zero():
    found = distances_of(rows(), rows())
    assert set(found) == set(DISTANCES)
    assert found["fid"]["mean"] == pytest.approx(0, abs=1e-6) and found["fvd"]["mean"] == pytest.approx(0, abs=1e-6)
    assert found["kid"]["mean"] == pytest.approx(0, abs=1e-9) and found["kvd"]["mean"] == pytest.approx(0, abs=1e-9)
    assert found["fvd"]["clips"] == 12


def test_a_shift_of_all_features_is_its_square():
    """A shift of 2 in each of 5 features: 20."""
    found = distances_of(rows(shift=2.0), rows())
    assert found["fid"]["mean"] == pytest.approx(20, rel=1e-5) and found["fvd"]["mean"] == pytest.approx(20, rel=1e-5)
    assert found["fid"]["low"] <= found["fid"]["mean"] <= found["fid"]["high"] and found["kid"]["mean"] > 1
    assert distances_of(rows()[:2], rows())["fid"] is None and distances_of(rows(), None)["kvd"] is None


def test_only_common_clips_are_compared():
    assert distances_of(rows(), rows()[3:])["fid"]["clips"] == 9


def test_curves_leave_gaps():
    made = rows(1.0, 3)
    assert curves_of(made, "latents") == {"path_error": [0, pytest.approx(1.1), None]}
    assert curves_of(made, "long") == {}
    made[1]["long"] = {"path_error": [0, 7.0]}
    assert curves_of(made, "long") == {"path_error": [0, 7.0]}


def test_categories_and_speed():
    found = categories_of(rows(1.0))
    assert found["slow"]["path_error"]["clips"] == 6 and found["fast"]["path_error"]["clips"] == 5
    assert found["fast"]["identity"] is None
    speed = speed_of(rows())
    assert speed["first_seconds"]["median"] == pytest.approx(0.1) and speed["peak_mib"] == 111
    assert speed["frames_per_second"]["median"] == pytest.approx(20)
    assert speed_of(rows(first_seconds=None, seconds=None))["frames_per_second"] is None


def test_summary_of_three_systems():
    summary = summarize({"ours": rows(1.0), "theirs": rows(2.0, shift=1.0), "truth": rows(0.0)}, "truth")
    assert summary["ours"]["differences"] == {} and summary["theirs"]["differences"]["path_error"]["mean"] == 1
    assert summary["truth"]["distances"]["fid"] is None
    assert summary["theirs"]["distances"]["fid"]["mean"] > summary["ours"]["distances"]["fid"]["mean"]
    assert summary["ours"]["values"]["flicker"] is None and summary["ours"]["long_clips"] == 0


def test_columns_are_named_once():
    assert len(BY_KEY) == len((*METRICS, *HISTORIES, *LATE)) and len(HISTORIES) == len(LATE)
    assert {metric.better for metric in METRICS} == {"lower", "higher"}
    assert interval_of([]) is None
