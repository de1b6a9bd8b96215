"""Runs of several seeds: grouped by name, paired by seed and clip, and a page that says so."""

import json

import numpy as np
import pytest

from eval.report.seeds import main, runs_of, summarize


def columns(values, **more):
    return {"name": [f"{i:03d}" for i in range(len(values))], "path_error": values, **more}


CLIPS = {
    "slow, seed 0": columns([4.0, 6.0, None]),
    "slow, seed 1": columns([5.0, 9.0, 2.0]),
    "fast, seed 0": columns([3.0, 5.0, 1.0], identity=[0.5, 0.7, 0.9], flicker=[1, 2, 3]),
    "fast, seed 1": columns([4.0, 8.0, 1.0], identity=[0.1, 0.3, 0.5], flicker=[1, 2, 3]),
    "still": columns([10.0, 10.0, 10.0]),
}


def test_runs_are_grouped_and_paired():
    runs = runs_of(CLIPS, "path_error")
    assert {name: list(seeds) for name, seeds in runs.items()} == {
        "slow": ["0", "1"],
        "fast": ["0", "1"],
        "still": [""],
    }
    found = summarize(runs)
    assert found["slow"]["all"]["mean"] == pytest.approx(np.mean([4, 6, 5, 9]))  # the third clip is not in both
    assert found["slow"]["seeds"] == {"0": 5.0, "1": pytest.approx(16 / 3)} and found["slow"]["difference"] is None
    assert found["fast"]["all"]["mean"] == pytest.approx(22 / 6)
    assert found["fast"]["difference"] == {"mean": -1.0, "low": -1.0, "high": -1.0}
    assert found["still"]["difference"]["mean"] == pytest.approx(10 - np.mean([4, 6, 5, 9]))
    assert list(runs_of(CLIPS, "identity")) == ["fast"]
    with pytest.raises(ValueError, match="metrics: the report has no jitter"):
        runs_of(CLIPS, "jitter")


def test_other_seeds_are_refused():
    with pytest.raises(ValueError, match="systems: fast has seeds 0, 2, not 0, 1; give all the same"):
        summarize(runs_of({**CLIPS, "fast, seed 2": columns([1.0, 1.0, 1.0])} | {"fast, seed 1": {}}, "path_error"))


def report(clips):
    record = {"command": "python -m eval.run", "commit": "abc", "dirty": False, "date": "now", "versions": {}}
    record["hardware"] = {"processor": "P", "cores": 2, "memory_gib": 4, "accelerators": [], "load_average": 0.0}
    return {"summary": {}, "clips": clips, "settings": {"num_clips": 3, "suite": "small"}, "record": record}


def test_page(tmp_path, capsys):
    (tmp_path / "report.json").write_text(json.dumps(report(CLIPS)))
    target = tmp_path / "docs" / "starts"
    options = [str(tmp_path / "report.json"), "--report", str(target), "--title", "Starts", "--text", "Equal time."]
    main(options)
    page = target.with_suffix(".md").read_text()
    assert page.startswith("# Starts\n\nEqual time.\n\n3 clips of suite `small`.") and page in capsys.readouterr().out
    assert "| fast | 3.67 [" in page and "| fast | -1.00 [-1.00, -1.00] | - | - |" in page
    assert "| slow | 5.00, 5.33 | - | - |" in page and "flicker, of 255 (lower)" in page
    numbers = json.loads(target.with_suffix(".json").read_text())
    assert numbers["summary"]["path_error"]["fast"]["difference"]["mean"] == -1.0
    (tmp_path / "report.json").write_text(json.dumps(report({**CLIPS, "odd, seed 0": columns([1.0, 2.0, 3.0])})))
    main(options)
    (tmp_path / "report.json").write_text("[]")
    with pytest.raises(SystemExit, match="is no report.json"):
        main(options)
