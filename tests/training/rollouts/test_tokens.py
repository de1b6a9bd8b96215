"""Tokens that are stored beside clips: what the encoders said, and training that loads no encoder."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import load_from_disk
from transformers import CLIPVisionModel, UMT5EncoderModel

from ardrag.conditioning import encode_image_tokens, encode_text
from pipelines import ARDragPipeline
from training import consistency, distill, finetune, precompute
from training.consistency import ConsistencyConfig
from training.distill import DistillConfig
from training.finetune import FinetuneConfig
from training.grpo import GrpoConfig
from training.precompute import PrecomputeConfig
from training.rollouts.tokens import TokenMaker, encoders_digest, stored_tokens
from training.run import tiny
from training.run.data import load_latents
from training.run.runtime import read_rows


@pytest.fixture(scope="module")
def told(run_inputs):
    """The clips of `run_inputs` with the tokens of its pipeline, as rows."""
    make = TokenMaker(str(run_inputs / "pipeline"))
    return [make(row) for row in load_from_disk(run_inputs / "latents")]


@pytest.fixture
def kept(run_inputs, told, tmp_path):
    """The same, as a folder."""
    rows = load_from_disk(run_inputs / "latents")
    rows = rows.remove_columns(["encoders", "text", "no_text", "image_tokens"])
    for name in ("encoders", "text", "no_text", "image_tokens"):
        rows = rows.add_column(name, [row[name] for row in told])
    rows.save_to_disk(tmp_path / "told")
    return str(tmp_path / "told")


def test_stored_tokens_are_the_encoders_own_and_those_of_an_empty_text(pipeline, told):
    captions = [row["caption"] for row in told[:3]]
    captions[1] = ""
    text, image = stored_tokens(told[:3], captions)
    pixels = tiny.pixel_values(pipeline.image_processor, [np.asarray(row["reference"]) for row in told[:3]])
    with torch.no_grad():
        expected = encode_text(pipeline.tokenizer, pipeline.text_encoder, captions)
        pictures = encode_image_tokens(pipeline.image_encoder, pixels)
    torch.testing.assert_close(text, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(image, pictures, rtol=1e-3, atol=1e-3)
    assert (text[1] == text[1][:1] * (torch.arange(len(text[1])) < 1)[:, None]).all(), "an empty text is its end alone"
    assert len(told[0]["text"]) < text[0].numel() * 2, "what lies beyond the end takes no room"


def configure(run_inputs, folder, build=FinetuneConfig, **changes):
    settings = {"init_from": str(run_inputs / "pipeline"), "num_latents": 3, "steps": 3, "batch_size": 2, "warmup": 1}
    settings |= {"log_every": 1, "save_every": 2, "validate": False, "output_dir": str(folder)}
    return build(**{**settings, **changes})


def logged(config):
    """All that a run wrote down, but for times."""
    rows = read_rows(Path(config.output_dir) / "log.jsonl")
    return [value for row in rows for name, value in sorted(row.items()) if not name.startswith("time/")]


STAGES = {
    "finetune": (finetune.main, FinetuneConfig, {"text_dropout": 0.5}, {"train_encoders": False}),
    "consistency": (consistency.main, ConsistencyConfig, {"text_guidance": 1.0, "solver_steps": 6}, {}),
    "distill": (distill.main, DistillConfig, {"teacher": "", "text_guidance": 1.0}, {}),
}
"""Of each stage how it is run, and what its run with encoders is told: not to train them."""


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_training_is_the_same_and_loads_no_encoder(stage, run_inputs, kept, tmp_path, monkeypatch):
    main, build, settings, more = STAGES[stage]
    settings |= {"teacher": str(run_inputs / "pipeline")} if "teacher" in settings else {}
    with_them = configure(run_inputs, tmp_path / "with", build, data=[kept], **settings, **more)
    main(with_them)
    without = configure(run_inputs, tmp_path / "without", build, data=[kept], stored_tokens=True, **settings)
    with monkeypatch.context() as patch:
        for encoder in (UMT5EncoderModel, CLIPVisionModel):
            patch.setattr(encoder, "from_pretrained", lambda *_, **__: pytest.fail("an encoder was loaded"))
        main(without)
    assert logged(without) == pytest.approx(logged(with_them), rel=1e-2, abs=1e-4) and len(logged(without)) >= 9
    made = ARDragPipeline.from_pretrained(tmp_path / "without" / "pipeline")
    before = ARDragPipeline.from_pretrained(run_inputs / "pipeline")
    for name in ("text_encoder", "image_encoder"):
        ours, theirs = getattr(made, name).state_dict(), getattr(before, name).state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours), name
    clip = made(load_from_disk(kept)[0]["reference"], "a star", num_frames=5, output_type="np").frames
    assert np.isfinite(np.asarray(clip)).all()


def test_clips_without_tokens_or_with_others_are_refused(run_inputs, kept, tmp_path):
    plain = configure(run_inputs, tmp_path / "run", data=[str(run_inputs / "latents")], stored_tokens=True)
    with pytest.raises(ValueError, match="stored_tokens: clip 4x32x32-0 has no tokens; run training.precompute"):
        finetune.main(plain)
    shutil.copytree(run_inputs / "pipeline", tmp_path / "other")
    weights = tmp_path / "other" / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert encoders_digest(tmp_path / "other") != encoders_digest(run_inputs / "pipeline")
    other = dataclasses.replace(plain, data=[kept], init_from=str(tmp_path / "other"))
    with pytest.raises(ValueError, match="stored_tokens: clip 4x32x32-0 has those of other encoders"):
        finetune.main(other)


def test_what_would_need_an_encoder_is_refused(run_inputs):
    for build in (FinetuneConfig, ConsistencyConfig, partial(DistillConfig, teacher="t")):
        with pytest.raises(ValueError, match="stored_tokens: a sheet's clips would have to be encoded; set"):
            configure(run_inputs, "run", build, stored_tokens=True, validate=True)
    for changes in ({"train_encoders": True}, {"init_from": "", "vae": "vae"}):
        with pytest.raises(ValueError, match="stored_tokens: encoders are not there to be trained; name init_from"):
            configure(run_inputs, "run", stored_tokens=True, **changes)
    with pytest.raises(ValueError, match="stored_tokens: stage 3 makes clips of pictures and texts; leave it out"):
        GrpoConfig(init_from="a", output_dir="b", prompts=["c"], stored_tokens=True)


@pytest.mark.slow
def test_tokens_are_stored_with_new_clips_and_added_to_old_ones(run_inputs, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    sizes = {"num_clips": 2, "num_frames": 5, "height": 64, "width": 64, "world": "small"}
    files = {"vae": str(run_inputs / "vae"), "tokens": str(run_inputs / "pipeline")}
    precompute.main(PrecomputeConfig(output_dir=str(tmp_path / "new"), **files, **sizes))
    precompute.main(PrecomputeConfig(output_dir=str(tmp_path / "bare"), **{**files, "tokens": ""}, **sizes))
    precompute.main(PrecomputeConfig(output_dir=str(tmp_path / "old"), clips=str(tmp_path / "bare"), **files))
    new, bare, old = (load_latents([str(tmp_path / name)]) for name in ("new", "bare", "old"))
    for name in ("encoders", "text", "no_text", "image_tokens"):
        assert list(new[name]) == list(old[name]) and set(bare[name]) in ({""}, {b""})
    assert json.loads(new[0]["encoders"])["digest"] == encoders_digest(run_inputs / "pipeline")
    joined = load_latents([str(tmp_path / name) for name in ("new", "bare")])
    assert [bool(name) for name in joined["encoders"]] == [True, True, False, False]


def test_a_dataset_of_before_there_were_tokens_is_read_on(run_inputs, tmp_path):
    rows = load_from_disk(run_inputs / "latents")
    rows.remove_columns(["encoders", "text", "no_text", "image_tokens"]).save_to_disk(tmp_path / "older")
    found = load_latents([str(tmp_path / "older"), str(run_inputs / "latents")])
    assert len(found) == 2 * len(rows) and set(found["encoders"]) == {""} and set(found["text"]) == {b""}
