"""The command that makes a pipeline folder of a public checkpoint: what it writes, and what it refuses to begin."""

import errno
import json
import os

import pytest
import torch

from pipelines import convert
from pipelines.pipeline_ardrag import ARDragPipeline
from tests import wan_files


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A repository as Wan2.1-Fun-1.3B-Control is published: everything beside each other."""
    folder = wan_files.save_originals(tmp_path_factory.mktemp("fun"))
    state = wan_files.original_state(48, image=True, dtype=torch.bfloat16)
    wan_files.save(state, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text('{"_class_name": "WanModel", "model_type": "i2v"}')
    return folder


@pytest.fixture(scope="module")
def converted(originals):
    folder = originals.parent / "converted"
    assert convert.main([str(originals), "--output_dir", str(folder)]) == 0
    return folder


def test_the_folder_is_a_pipeline_that_keeps_the_numbers(converted, originals):
    index = json.loads((converted / "model_index.json").read_text())
    assert index["_class_name"] == "ARDragPipeline" and index["transformer"][0] == "ardrag.transformer"
    pipeline = ARDragPipeline.from_pretrained(converted)
    state = wan_files.original_state(48, image=True, dtype=torch.bfloat16)
    assert torch.equal(pipeline.transformer.proj_out.weight, state["head.head.weight"].float())
    assert pipeline.scheduler.config.mode == "bidirectional" and pipeline.scheduler.config.guidance_scale == 6.0
    assert pipeline.transformer.config.image_fill == "zeros"
    assert pipeline.image_processor.size["height"] == 28
    saved = json.loads((converted / "transformer" / "config.json").read_text())
    assert saved["input_order"] == ["latents", "motion", "image"]
    assert not list(converted.parent.glob(".ardrag-*"))


def test_the_parts_of_a_diffusers_repository_are_taken_as_they_are(converted, tmp_path):
    source = wan_files.save(wan_files.original_state(36, image=True), tmp_path / "inp.safetensors")
    command = [
        str(source),
        "--output_dir",
        str(tmp_path / "inp"),
        "--components",
        str(converted),
        "--dtype",
        "bfloat16",
    ]
    assert convert.main([*command, "--max_shard_size", "1MB"]) == 0
    shards = list((tmp_path / "inp" / "transformer").glob("*.safetensors"))
    assert len(shards) > 1
    for part in convert.PARTS:
        names = {path.name for path in (converted / part).iterdir()}
        assert names == {path.name for path in (tmp_path / "inp" / part).iterdir()}
    pipeline = ARDragPipeline.from_pretrained(tmp_path / "inp")
    assert list(pipeline.transformer.config.input_order) == ["latents", "mask", "image", "motion"]


def refused(capsys, *command):
    assert convert.main([str(part) for part in command]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ") and "Traceback" not in said
    return said


def test_what_is_refused_before_anything_is_written(converted, originals, tmp_path, capsys, monkeypatch):
    def forbid(*_, **__):
        raise AssertionError("began to convert")

    monkeypatch.setattr(convert, "convert", forbid)
    out = tmp_path / "out"
    assert "is there already" in refused(capsys, originals, "--output_dir", converted)
    assert "create it first" in refused(capsys, originals, "--output_dir", tmp_path / "a" / "b")
    assert "source: ./x does not exist" in refused(capsys, "./x", "--output_dir", out)
    assert "is this project's already" in refused(capsys, converted, "--output_dir", out)
    bare = wan_files.save(wan_files.original_state(16, image=False), tmp_path / "t2v.safetensors")
    assert "components: " in refused(capsys, bare, "--output_dir", out, "--components", tmp_path)
    state = {**wan_files.original_state(48, image=True), "ref_conv.weight": torch.zeros(2)}
    other = wan_files.save(state, tmp_path / "v1.1.safetensors")
    assert "ref_conv.weight" in refused(capsys, other, "--output_dir", out, "--components", converted)
    assert not out.exists()


def test_names_that_are_not_on_the_hub(hub_process, tmp_path):
    said = hub_process.run(f"""
        import contextlib, sys
        from pipelines import convert
        with contextlib.redirect_stderr(sys.stdout):
            for name in ("alice/nothing", "alice/nothing/model.pt"):
                assert convert.main([name, "--output_dir", {str(tmp_path / "out")!r}]) == 2
    """)
    lines = said.splitlines()
    assert len(lines) == 2 and not (tmp_path / "out").exists()
    for name, line in zip(("alice/nothing", "alice/nothing/model.pt"), lines, strict=True):
        assert line.startswith(f"error: source: {name} is not on the Hub, or is private; check the name")


def test_a_disk_that_is_full_half_way_leaves_nothing(converted, originals, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(convert, "link_or_copy", full)
    source = originals / "diffusion_pytorch_model.safetensors"
    said = refused(capsys, source, "--output_dir", tmp_path / "out", "--components", converted)
    assert "No space left on device" in said and "nothing was left behind" in said
    assert list(tmp_path.iterdir()) == []


def test_interrupted_work_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), convert.written_whole(tmp_path / "out") as folder:
        (folder / "part").write_text("x")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
