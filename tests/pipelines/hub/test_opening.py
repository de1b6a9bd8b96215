"""Opening a pipeline as commands do: precision, place, adapters; what cannot be had is one line."""

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict

from ardrag.flow import FewStepScheduler
from ardrag.tracks.tracks import Tracks
from ardrag.transformer import CausalWanTransformer
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


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_a_precision_for_each_part(folder, name):
    half, whole = torch.bfloat16, torch.float32
    for precisions in ({"vae": whole, "default": half}, {"transformer": half, "default": whole}, {"vae": half}):
        pipe = ARDragPipeline.from_pretrained(folder / "deep" / "model", **{name: precisions})
        rest = precisions.get("default", whole)
        for part in ("transformer", "vae", "text_encoder", "image_encoder"):
            assert getattr(pipe, part).dtype == precisions.get(part, rest), part
        assert len(list(pipe.stream(picture_of(32), num_frames=5))) == 2


def test_parts_by_their_subfolders(folder, pipeline, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    for place in (folder / "deep" / "model", "~/deep/model"):
        options = {"subfolder": "transformer", "torch_dtype": torch.bfloat16}
        transformer = CausalWanTransformer.from_pretrained(place, **options)
        assert transformer.dtype == torch.bfloat16 and transformer.blocks[0].norm2.weight.dtype == torch.float32
        scheduler = FewStepScheduler.from_pretrained(place, subfolder="scheduler")
        assert scheduler.sigmas == pipeline.scheduler.sigmas
    with pytest.raises(OSError, match="config.json"):
        CausalWanTransformer.from_pretrained(folder / "deep" / "model")


def test_home_is_understood_wherever_a_path_is_given(pipeline, make_pipeline, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    picture, tracks = picture_of(32), Tracks.from_points([[(0, 0.2, 0.3), (4, 0.8, 0.4)]], num_frames=5)
    picture.save(tmp_path / "in.png")
    tracks.save("~/in.json")
    pipeline.scheduler.save_pretrained("~/scheduler")
    transformer = make_pipeline().transformer
    transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    ARDragPipeline.save_lora_weights("~/lora", get_peft_model_state_dict(transformer))
    pipe = make_pipeline()
    pipe.load_lora_weights("~/lora", adapter_name="drag")
    session = pipe.start_session("~/in.png")
    session.step(Tracks.load("~/in.json"))
    session.save_video("~/out.mp4")
    assert Tracks.load("~/in.json") == tracks and pipe.get_active_adapters() == ["drag"]
    assert FewStepScheduler.from_pretrained("~/scheduler").sigmas == pipeline.scheduler.sigmas
    assert {path.name for path in tmp_path.iterdir()} == {"in.png", "in.json", "scheduler", "lora", "out.mp4"}


def test_home_and_subfolders(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert ARDragPipeline.from_pretrained("~/deep", subfolder="model").config._name_or_path == "~/deep"
    assert open_pipeline("~/deep/model", "cpu").vae is not None
    with pytest.raises(ValueError, match="model: ~/deep/other has no model_index.json"):
        ARDragPipeline.from_pretrained("~/deep", subfolder="other")


def test_no_such_device():
    with pytest.raises(ValueError, match="device: quantum cannot be used here .*; use cpu, or leave it out"):
        open_pipeline("nowhere", "quantum")
