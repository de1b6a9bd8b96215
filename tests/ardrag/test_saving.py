"""Saving over anything: exactly the new model is there afterwards, or exactly what was there before."""

import errno
import hashlib
import os
from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from ardrag.saving import save_model, whole_folder
from ardrag.transformer import CausalWanTransformer
from pipelines import ARDragPipeline


def build_transformer(seed=0, num_layers=2):
    torch.manual_seed(seed)
    return CausalWanTransformer(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=8,
        freq_dim=16,
        ffn_dim=32,
        num_layers=num_layers,
    ).eval()


def contents(folder):
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def equal(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("sizes", [("10GB", "20KB"), ("20KB", "10GB"), ("20KB", "60KB")])
def test_other_shards_and_their_index_go(tmp_path, sizes):
    for seed, size in enumerate(sizes):
        build_transformer(seed).save_pretrained(tmp_path / "over", max_shard_size=size)
    build_transformer(1).save_pretrained(tmp_path / "fresh", max_shard_size=sizes[1])
    assert contents(tmp_path / "over") == contents(tmp_path / "fresh")
    assert equal(CausalWanTransformer.from_pretrained(tmp_path / "over"), build_transformer(1))


def test_what_is_no_part_of_the_model_stays(tmp_path):
    for name in ("README.md", "model_of_mine.txt", "pytorch_lora_weights.safetensors"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "pytorch_model.bin").write_text("old")
    build_transformer(0).save_pretrained(tmp_path, variant="fp16", max_shard_size="20KB")
    build_transformer(1).save_pretrained(tmp_path)
    build_transformer(2).save_pretrained(tmp_path, variant="fp16")
    assert set(contents(tmp_path)) == {
        "README.md",
        "model_of_mine.txt",
        "pytorch_lora_weights.safetensors",
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.fp16.safetensors",
    }
    assert equal(CausalWanTransformer.from_pretrained(tmp_path), build_transformer(1))
    assert equal(CausalWanTransformer.from_pretrained(tmp_path, variant="fp16"), build_transformer(2))


def test_files_and_folders_in_the_way_go(tmp_path):
    (tmp_path / "config.json").mkdir()
    (tmp_path / "config.json" / "inside").write_text("x")
    (tmp_path / "part").write_text("a file where a folder must be")
    with whole_folder(tmp_path) as fresh:
        (fresh / "config.json").write_text("{}")
        (fresh / "part").mkdir()
        (fresh / "part" / "model.safetensors").write_text("w")
    assert set(contents(tmp_path)) == {"config.json", "part/model.safetensors"}


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="save_directory: .*file is a file; name a folder"):
            build_transformer().save_pretrained(target)
    assert (tmp_path / "file").read_text() == "mine"


def test_home_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    build_transformer().save_pretrained("~/model")
    assert (tmp_path / "model" / "config.json").is_file()


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, there):
    folder = tmp_path / "deep" / "model"
    if there:
        build_transformer(0).save_pretrained(folder, max_shard_size="20KB")
    before = contents(tmp_path)
    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(ValueError, match="cannot be written .*No space left.* nothing there has changed"):
        build_transformer(1).save_pretrained(folder)
    assert contents(tmp_path) == before and (tmp_path / "deep").exists() == there


@pytest.mark.parametrize("moves", [0, 1, 3])
@pytest.mark.parametrize("error", [KeyboardInterrupt, PermissionError])
def test_a_move_that_fails_is_undone(tmp_path, monkeypatch, moves, error):
    build_transformer(0).save_pretrained(tmp_path, max_shard_size="40KB")
    before, real, calls = contents(tmp_path), os.replace, []

    def replace(source, target):
        if len(calls) == moves and not any("undo" in call for call in calls):
            calls.append("undo")
            raise error
        calls.append("move")
        real(source, target)

    monkeypatch.setattr("os.replace", replace)
    with pytest.raises((ValueError, KeyboardInterrupt)):
        build_transformer(1).save_pretrained(tmp_path)
    assert contents(tmp_path) == before and len(calls) == 2 * moves + 1


def test_classes_that_are_not_ours(pipeline, tmp_path):
    for size in ("10KB", "10GB"):
        save_model(pipeline.vae, tmp_path, max_shard_size=size)
    assert set(contents(tmp_path)) == {"config.json", "diffusion_pytorch_model.safetensors"}


def test_a_pipeline_over_another(make_pipeline, pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path, max_shard_size="20KB")
    (tmp_path / "README.md").write_text("a card")
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "clip.mp4").write_text("a video")
    small = make_pipeline(image_encoder=False, transformer={"image_dim": None, "added_kv_proj_dim": None})
    small.save_pretrained(tmp_path)
    assert not (tmp_path / "image_encoder").exists() and not list(tmp_path.rglob("*.index.json"))
    assert {"README.md", "samples/clip.mp4"} <= set(contents(tmp_path))
    loaded = ARDragPipeline.from_pretrained(tmp_path)
    assert loaded.image_encoder is None and equal(loaded.transformer, small.transformer)


def adapted(fused=False):
    model = build_transformer()
    model.add_adapter(LoraConfig(r=2, target_modules=["to_q", "ffn.net.2"], init_lora_weights=False), "drag")
    if fused:
        model.fuse_lora()
    return model


def test_of_a_model_with_an_adapter_the_base_is_saved(tmp_path, caplog):
    model = adapted()
    keys = set(model.state_dict())
    model.save_pretrained(tmp_path)
    assert "the adapters ['drag'] are not saved with the model; save them with save_lora_weights" in caplog.text
    assert equal(CausalWanTransformer.from_pretrained(tmp_path), build_transformer())
    assert set(model.state_dict()) == keys and any("lora_A" in key for key in keys)  # the model itself is as it was


def test_a_fused_adapter_is_in_the_numbers(tmp_path, caplog):
    adapted(fused=True).save_pretrained(tmp_path)
    loaded = CausalWanTransformer.from_pretrained(tmp_path)
    assert "not saved" not in caplog.text and not equal(loaded, build_transformer())
    inputs = torch.randn(1, 4, 2, 4, 4), torch.tensor([500.0]), torch.randn(1, 3, 8)
    with torch.no_grad():
        torch.testing.assert_close(loaded(*inputs).sample, adapted()(*inputs).sample, atol=1e-5, rtol=1e-4)
