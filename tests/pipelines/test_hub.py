"""To and from the Hub with its own client: two ways of loading, revisions, the cache, broken uploads, refusals."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub_server import HubProcess


MAKE = """
import hashlib, logging, torch
import numpy as np
from PIL import Image

torch.set_num_threads(1)

def make(pipe):
    picture = Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3))
    tracks = pipe.tracks_class.from_points([[(0, 0.2, 0.3), (8, 0.8, 0.4)]], num_frames=9)
    made = pipe(picture, "a star", tracks=tracks, output_type="np", generator=torch.Generator().manual_seed(0))
    return hashlib.sha256(made.frames.tobytes()).hexdigest()
"""
OURS = (
    MAKE + "from pipelines import ARDragPipeline\nprint(make(ARDragPipeline.from_pretrained({name!r}, **{options})))"
)
DIFFUSERS = MAKE + (
    "import importlib.util\nassert importlib.util.find_spec('ardrag') is None\n"
    "from diffusers import DiffusionPipeline\n"
    "pipe = DiffusionPipeline.from_pretrained({name!r}, custom_pipeline={code!r}, trust_remote_code=True)\n"
    "print(make(pipe))\n{more}"
)


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory):
    """The tiny pipeline, saved."""
    folder = tmp_path_factory.mktemp("saved") / "pipeline"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pushed(hub, hub_process, folder):
    """alice/tiny on the Hub; what its pipeline makes for the seed before it was pushed."""
    code = OURS.format(name=str(folder), options={}) + (
        f"\npipe = ARDragPipeline.from_pretrained({str(folder)!r})\npipe.push_to_hub('alice/tiny')"
    )
    return hub_process.run(code).strip()


@pytest.fixture
def fresh(hub, tmp_path):
    """Starts processes with an empty cache."""
    processes = []

    def start(token="hf_alice", home=None):
        (tmp_path / f"home{len(processes)}").mkdir()
        processes.append(HubProcess(hub, home or tmp_path / f"home{len(processes)}", tmp_path, token))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()


@pytest.fixture(autouse=True)
def well(hub):
    """The Hub forgets its moods after every test."""
    yield
    hub.before, hub.quota, hub.part_size = None, None, None


def without_package(code, hub, home, tmp_path, **variables):
    """Run ``code`` in a new process that cannot import this package."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {**hub.environment(home), "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


def test_pushed_and_loaded_with_this_package_makes_the_same_pixels(hub, hub_process, pushed):
    assert hub_process.run(OURS.format(name="alice/tiny", options={})).strip() == pushed
    files = hub.repository("alice/tiny").files
    weights = {path for path in files if path.endswith(".safetensors")}
    assert {path.split("/")[0] for path in weights} == {"transformer", "vae", "text_encoder", "image_encoder"}
    code = {"pipeline.py", "transformer/ardrag.transformer.py", "scheduler/ardrag.flow.py"}
    assert code | {"README.md", "model_index.json"} < files.keys()
    assert not [path for path in files if Path(path).suffix in (".bin", ".pt", ".pkl")]
    assert len(hub.repository("alice/tiny").commits) == 2  # the first is the Hub's own


def test_loaded_without_this_package_makes_the_same_pixels(hub, pushed, tmp_path):
    saved = f"pipe.save_pretrained({str(tmp_path / 'copy')!r})"
    code = DIFFUSERS.format(name="alice/tiny", code="pipeline", more=saved)
    printed, errors = without_package(code, hub, tmp_path / "home", tmp_path)
    assert printed == [pushed]
    assert "not found in your environment" not in errors and "Expected types" not in errors
    index = json.loads((tmp_path / "copy" / "model_index.json").read_text())
    assert index["transformer"] == ["ardrag.transformer", "CausalWanTransformer"]
    assert index["scheduler"] == ["ardrag.flow", "FewStepScheduler"]
