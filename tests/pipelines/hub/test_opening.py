"""Opening a pipeline as commands do: precision, place, adapters; what cannot be had is one line."""

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict

from pipelines import ARDragPipeline
from pipelines.hub.opening import open_pipeline


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    pipeline.save_pretrained(folder / "deep" / "model")
    return folder


def test_half_precision_leaves_the_vae(folder):
    pipe = open_pipeline(str(folder / "deep" / "model"), "cpu", "bfloat16")
    assert pipe.transformer.dtype == pipe.text_encoder.dtype == torch.bfloat16 and pipe.vae.dtype == torch.float32
    assert len(list(pipe.stream(picture_of(32), num_frames=5))) == 2


def picture_of(side):
    from PIL import Image

    return Image.new("RGB", (side, side), (40, 90, 200))


def test_adapters_are_used_together(make_pipeline, folder, tmp_path):
    for name in ("one", "two"):
        transformer = make_pipeline().transformer
        transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
        ARDragPipeline.save_lora_weights(tmp_path / name, get_peft_model_state_dict(transformer))
    one, two = tmp_path / "one", tmp_path / "two" / "pytorch_lora_weights.safetensors"
    pipe = open_pipeline(str(folder / "deep" / "model"), "cpu", lora=[str(one), str(two)])
    assert sorted(pipe.get_active_adapters()) == ["a0", "a1"]


def test_home_and_subfolders(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert ARDragPipeline.from_pretrained("~/deep", subfolder="model").config._name_or_path == "~/deep"
    assert open_pipeline("~/deep/model", "cpu").vae is not None
    with pytest.raises(ValueError, match="model: ~/deep/other has no model_index.json"):
        ARDragPipeline.from_pretrained("~/deep", subfolder="other")


def test_no_such_device():
    with pytest.raises(ValueError, match="device: quantum cannot be used here .*; use cpu, or leave it out"):
        open_pipeline("nowhere", "quantum")
