"""The recipes of the small world, at the size at which one sees that they run: from clips to the page."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from pipelines import ARDragPipeline


ROOT = Path(__file__).parents[3]
STUDENTS = ("starts/forcing_0", "starts/ode_0", "starts/consistency_0", "table2/self_forcing", "table2/ardrag")


def follow(python, recipe, runs, **variables):
    """Run a recipe's ``debug`` size in ``runs``."""
    path = f"{Path(python).parent}:{os.environ['PATH']}"
    own = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PATH": path, "RUNS": str(runs)}
    command = ["bash", str(ROOT / "training" / "recipes" / recipe), "debug"]
    done = subprocess.run(command, env={**own, **variables}, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, (done.stdout[-1000:], done.stderr[-4000:])


def systems(page):
    return list(json.loads(page.read_text())["summary"])


@pytest.mark.slow
def test_table_1(python, tmp_path):
    """A control with a module of its own, bidirectional and causal."""
    follow(python, "controls.sh", tmp_path, CONTROLS="track_ids", CAUSAL="track_ids")
    assert systems(tmp_path / "controls.json") == ["track_ids", "causal, track_ids", "start", "truth"]
    made = [ARDragPipeline.from_pretrained(tmp_path / name / "pipeline") for name in ("track_ids", "causal_track_ids")]
    assert [pipe.control.name for pipe in made] == ["track_ids"] * 2


@pytest.mark.slow
@pytest.mark.skipif("ARDRAG_RECIPES" not in os.environ, reason="a minute and a half; ARDRAG_RECIPES=1 runs it")
def test_curated_tracks_beside_true_ones(python, tmp_path):
    follow(python, "curated.sh", tmp_path)
    assert systems(tmp_path / "report.json")[:3] == ["true, seed 0", "curated, seed 0", "start"]


@pytest.mark.slow
@pytest.mark.skipif("ARDRAG_RECIPES" not in os.environ, reason="six minutes of a core; ARDRAG_RECIPES=1 runs it")
def test_every_table_by_one_command(python, tmp_path):
    """From nothing to the pages: what is shown, and that each row is what its name says."""
    follow(python, "tables.sh", tmp_path)
    table = json.loads((tmp_path / "table2" / "table2.json").read_text())["summary"]
    assert list(table["path_error"])[:7] == [
        "AR-Drag", "w/o RL", "w/o Self-Rollout", "Self-Forcing", "before stage 2", "initial model", "teacher model"
    ]  # fmt: skip
    said = (tmp_path / "table2" / "self_forcing" / "config.yaml").read_text()
    assert "cache_update: collapse" in said and "chunk_frames: 3" in said
    made = [ARDragPipeline.from_pretrained(tmp_path / name / "pipeline") for name in STUDENTS]
    assert [pipe.scheduler.config.num_inference_steps for pipe in made] == [3] * len(made)
    seeds = json.loads((tmp_path / "starts" / "starts.json").read_text())["summary"]
    assert list(seeds["path_error"])[:3] == ["causal fine-tune", "ODE regression", "consistency"]
    assert systems(tmp_path / "small_grpo" / "grpo_runs.json") == ["true, seed 0", "exact, seed 0"]
    log = [json.loads(line) for line in (tmp_path / "small_grpo" / "true_0" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log if "reward/motion" in row] == [0, 1]
    histories = json.loads((tmp_path / "small_histories" / "histories.json").read_text())["summary"]
    assert list(histories["passer_off"]) == ["true history", "student", "teacher", "truth"]
    kept = (tmp_path / "small_histories" / "truth_0" / "config.yaml").read_text()
    assert "cache_update: truth" in kept and "data_weight: 0.0" in kept
