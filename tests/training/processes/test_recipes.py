"""The recipes of the small world, at the size at which one sees that they run: from clips to the page."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from pipelines import ARDragPipeline


ROOT = Path(__file__).parents[3]
KINDS = ("forcing", "ode", "consistency")


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
def test_the_tables_of_controls(python, tmp_path):
    """A control with a module of its own, bidirectional and causal."""
    follow(python, "tables.sh", tmp_path, CONTROLS="track_ids", CAUSAL="track_ids")
    assert systems(tmp_path / "controls.json") == ["track_ids", "causal, track_ids", "start", "truth"]
    made = [ARDragPipeline.from_pretrained(tmp_path / name / "pipeline") for name in ("track_ids", "causal_track_ids")]
    assert [pipe.control.name for pipe in made] == ["track_ids"] * 2


@pytest.mark.slow
@pytest.mark.skipif("ARDRAG_RECIPES" not in os.environ, reason="a minute and a half; ARDRAG_RECIPES=1 runs it")
def test_starts_of_stage_2(python, tmp_path):
    """From the tables' clips and a model of theirs to the page of seeds."""
    follow(python, "tables.sh", tmp_path, CONTROLS="track_ids", CAUSAL="track_ids")
    of_tables = {
        "TEACHER": str(tmp_path / "track_ids" / "pipeline"),
        "DATA": f"{tmp_path / 'clips'} {tmp_path / 'two'}",
    }
    follow(python, "starts.sh", tmp_path / "starts", **of_tables)
    starts = ["causal fine-tune", "ODE regression", "consistency"]
    assert systems(tmp_path / "starts" / "eval" / "report.json")[:3] == [f"{name}, seed 0" for name in starts]
    numbers = json.loads((tmp_path / "starts" / "starts.json").read_text())["summary"]
    assert list(numbers["path_error"])[:3] == starts
    made = [ARDragPipeline.from_pretrained(tmp_path / "starts" / f"{name}_0" / "pipeline") for name in KINDS]
    assert [pipe.scheduler.config.num_inference_steps for pipe in made] == [3, 3, 3]


@pytest.mark.slow
@pytest.mark.skipif("ARDRAG_RECIPES" not in os.environ, reason="a minute and a half; ARDRAG_RECIPES=1 runs it")
def test_stage_3_where_labels_are_noisy(python, tmp_path):
    """The arm of the paper, with its page of both the runs and their clips."""
    follow(python, "small_grpo.sh", tmp_path, ARMS="true")
    assert systems(tmp_path / "grpo.json") == ["before", "true, seed 0", "still", "VAE", "truth"]
    assert systems(tmp_path / "grpo_runs.json") == ["true, seed 0"]
    log = [json.loads(line) for line in (tmp_path / "true_0" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log if "reward/motion" in row] == [0, 1]


@pytest.mark.slow
@pytest.mark.skipif("ARDRAG_RECIPES" not in os.environ, reason="a minute and a half; ARDRAG_RECIPES=1 runs it")
def test_curated_tracks_beside_true_ones(python, tmp_path):
    follow(python, "curated.sh", tmp_path)
    assert systems(tmp_path / "report.json")[:3] == ["true, seed 0", "curated, seed 0", "start"]


@pytest.mark.slow
@pytest.mark.skipif("ARDRAG_RECIPES" not in os.environ, reason="a minute and a half; ARDRAG_RECIPES=1 runs it")
def test_histories_where_the_future_is_open(python, tmp_path):
    """From clips with passers-by to the page of seeds, with one of the three histories."""
    follow(python, "small_histories.sh", tmp_path, ARMS="truth")
    numbers = json.loads((tmp_path / "histories.json").read_text())["summary"]
    assert list(numbers["passer_off"]) == ["true history", "student", "teacher", "truth"]
    kept = (tmp_path / "truth_0" / "config.yaml").read_text()
    assert "cache_update: truth" in kept and "data_weight: 0.0" in kept
