"""Loading from a folder: precision, placement, what is refused, and that our own code is what runs."""

import json

import numpy as np
import pytest
import torch

from ardrag.flow import FewStepScheduler
from ardrag.transformer import CausalWanTransformer
from pipelines import ARDragPipeline
from pipelines.hub.remote_code import write_code


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "pipeline"
    pipeline.save_pretrained(folder)
    return folder


def frames(pipeline, picture):
    generator = torch.Generator().manual_seed(0)
    return pipeline(picture, num_frames=9, output_type="np", generator=generator).frames


@pytest.mark.parametrize(
    ("options", "most"),
    [({"dtype": torch.bfloat16}, 0.05), ({"device_map": "cpu"}, 1e-6), ({"device_map": "balanced"}, 1e-6)],
    ids=["bfloat16", "device map", "balanced"],
)
def test_precision_and_placement(folder, pipeline, picture, options, most):
    loaded = ARDragPipeline.from_pretrained(folder, **options)
    assert loaded.transformer.dtype == options.get("dtype", torch.float32)
    assert np.abs(frames(loaded, picture) - frames(pipeline, picture)).mean() < most


def test_offloading_hooks_move_every_part_in_turn(folder, pipeline, picture):
    """On the CPU itself, where no accelerator is: the hooks run all the same."""
    loaded = ARDragPipeline.from_pretrained(folder)
    loaded.enable_model_cpu_offload(device="cpu")
    assert len(loaded._all_hooks) == 4
    assert np.abs(frames(loaded, picture) - frames(pipeline, picture)).max() <= 1 / 255 + 1e-6


def test_code_beside_the_weights_is_left_alone(folder, pipeline, picture, tmp_path):
    """Our classes, not those of the files that diffusers would prefer; and nothing of theirs is run."""
    pipeline.save_pretrained(tmp_path)
    write_code(tmp_path)
    for name in ("transformer/ardrag.transformer.py", "scheduler/ardrag.flow.py"):
        (tmp_path / name).write_text("raise SystemExit('this must not run')\n")
    loaded = ARDragPipeline.from_pretrained(tmp_path)
    assert type(loaded.transformer) is CausalWanTransformer and type(loaded.scheduler) is FewStepScheduler
    assert np.array_equal(frames(loaded, picture), frames(ARDragPipeline.from_pretrained(folder), picture))
    loaded.save_pretrained(tmp_path / "again")
    index = json.loads((tmp_path / "again" / "model_index.json").read_text())
    assert index["transformer"] == ["ardrag.transformer", "CausalWanTransformer"]


def test_a_part_may_be_given(folder):
    scheduler = FewStepScheduler(eta=0.0)
    loaded = ARDragPipeline.from_pretrained(folder, scheduler=scheduler)
    assert loaded.scheduler is scheduler and loaded.config._name_or_path == str(folder)


@pytest.mark.parametrize(
    ("file", "field", "message"),
    [
        ("transformer/config.json", "depth", "has depth in transformer/config.json, which ardrag .* does not know"),
        ("scheduler/scheduler_config.json", "noise_kind", "has noise_kind in scheduler/scheduler_config.json"),
    ],
)
def test_a_configuration_of_a_later_version_is_refused(pipeline, tmp_path, file, field, message):
    pipeline.save_pretrained(tmp_path)
    path = tmp_path / file
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: 1}))
    with pytest.raises(ValueError, match=message):
        ARDragPipeline.from_pretrained(tmp_path)


def test_pickled_weights_in_a_folder_are_refused(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    (weights,) = (tmp_path / "transformer").glob("*.safetensors")
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ValueError, match="has no safetensors in transformer; pickled weights may run any code"):
        ARDragPipeline.from_pretrained(tmp_path)
