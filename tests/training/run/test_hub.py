"""Runs and the Hub, through its own client: pushed in the middle, resumed to the same bits, adapters, refusals."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.hub_process import ROOT
from tests.hub_server import refusal
from training.finetune import FinetuneConfig
from training.run.checkpoint import find_state, step_of
from training.run.config import config_lines


RUN = """
import logging
from training.finetune import FinetuneConfig, main

class Messages(logging.Handler):
    def emit(self, record):
        print(record.getMessage())

logging.getLogger("training.run.hub").addHandler(Messages())
logging.getLogger("training.run.hub").setLevel(logging.INFO)
config = FinetuneConfig(**{settings})
"""


@pytest.fixture
def code(run_inputs, tmp_path):
    """Python of a short run with the given changes of its configuration; ``before`` comes just before it starts."""

    def code(folder, before="", **changes):
        settings = {"vae": str(run_inputs / "vae"), "data": [str(run_inputs / "latents")], "num_layers": 1}
        settings |= {"num_heads": 2, "head_dim": 12, "ffn_dim": 16, "num_latents": 3, "steps": 4, "batch_size": 2}
        settings |= {"warmup": 1, "log_every": 1, "save_every": 2, "validate": False, "num_inference_steps": 2}
        settings |= {"output_dir": str(tmp_path / folder), **changes}
        return RUN.format(settings=settings) + f"{before}\nmain(config)\n"

    return code


@pytest.fixture(autouse=True)
def well(hub):
    yield
    hub.before = None


STOP = """
import training.finetune as module
check = module.require_finite
def stop(loss, step):
    check(loss, step)
    if step == 3:
        module.require_finite = check
        raise RuntimeError("power cut")
module.require_finite = stop
"""


def same(a, b):
    first, second = load_file(a), load_file(b)
    return first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)


def test_pushed_in_the_middle_and_resumed_elsewhere_is_the_same_run(hub, hub_process, code, tmp_path):
    exec(compile(code("whole"), "whole", "exec"), {"__name__": "whole"})
    options = {"push_to_hub": True, "hub_model_id": "alice/run", "resume_from_hub": True, "hub_private": True}
    with pytest.raises(RuntimeError, match="power cut"):
        hub_process.run(code("first", before=STOP, **options))
    repository = hub.repository("alice/run")
    assert [commit.title for commit in repository.commits[1:]] == ["Step 2"] and repository.private
    assert not [path for path in repository.files if Path(path).suffix in (".bin", ".pkl", ".pt")]
    assert {"model_index.json", "pipeline.py", "README.md", "training_state/state.json"} < repository.files.keys()
    assert "resumed alice/run at step 2" in hub_process.run(code("second", **options))
    assert [commit.title for commit in repository.commits[2:]] == ["Step 4"]
    for part in ("pipeline/transformer", "pipeline/text_encoder", "state/000004"):
        paths = [next((tmp_path / run / part).glob("*.safetensors")) for run in ("whole", "second")]
        assert same(*paths), part
    logs = [(tmp_path / run / "log.jsonl").read_text().splitlines() for run in ("whole", "second")]
    rows = [[json.loads(line) for line in lines] for lines in logs]
    rows = [[{name: row[name] for name in row if "time/" not in name} for row in run] for run in rows]
    assert rows[0] == rows[1]


def test_the_repository_of_a_run_loads_and_says_how_it_was_made(hub, hub_process, code):
    hub_process.run(code("card", steps=2, push_to_hub=True, hub_model_id="alice/run-card"))
    printed = hub_process.run(
        "from pipelines import ARDragPipeline\nfrom huggingface_hub import ModelCard\n"
        "pipe = ARDragPipeline.from_pretrained('alice/run-card')\nprint(pipe.scheduler.config.num_inference_steps)\n"
        "print(ModelCard.load('alice/run-card').text)"
    )
    assert printed.startswith("2\n") and "| finetune, 2 of 2 steps | `python -m training.finetune" in printed
    assert 'ARDragPipeline.from_pretrained("alice/run-card")' in printed


def test_an_adapter_is_pushed_as_diffusers_has_it(hub, hub_process, code, run_inputs):
    base = str(run_inputs / "pipeline")
    hub_process.run(code("lora", init_from=base, steps=2, lora_rank=2, push_to_hub=True, hub_model_id="alice/lora"))
    hub_process.run(
        f"""
        import torch
        from pipelines import ARDragPipeline
        from safetensors.torch import load_file
        from huggingface_hub import hf_hub_download
        keys = load_file(hf_hub_download("alice/lora", "pytorch_lora_weights.safetensors"))
        assert all(key.startswith("transformer.blocks.") for key in keys), list(keys)[:3]
        pipe = ARDragPipeline.from_pretrained({base!r})
        pipe.load_lora_weights("alice/lora")
        (adapter,) = pipe.transformer.peft_config.values()
        assert (adapter.r, adapter.lora_alpha) == (2, 2), adapter
        loaded = pipe.transformer.state_dict()
        for key, value in keys.items():
            place, _, end = key.removeprefix("transformer.").rpartition(".")
            assert torch.equal(loaded[f"{{place}}.default_0.{{end}}"], value), key
        assert any(value.abs().sum() > 0 for key, value in keys.items() if "lora_B" in key)
        """
    )
    assert "model_index.json" not in hub.repository("alice/lora").files


@pytest.mark.slow
def test_a_push_that_fails_does_not_stop_the_run_but_its_end_says_so(hub, hub_process, code, tmp_path):
    def refuse(method, path):
        if "/preupload/" in path:
            raise refusal(403, "Private repository storage limit reached")

    hub.before = refuse
    run = code("refused", save_every=1, steps=2, push_to_hub=True, hub_model_id="alice/refused")
    with pytest.raises(RuntimeError, match="hub: alice/refused has no room left .* local files are as they were"):
        hub_process.run(run)
    assert (tmp_path / "refused" / "pipeline" / "model_index.json").is_file()
    assert step_of(find_state(tmp_path / "refused")) == 2
    hub.before = None
    hub_process.run(run)  # nothing left to train: it pushes what is there
    assert [commit.title for commit in hub.repository("alice/refused").commits[1:]] == ["Step 2"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"push_to_hub": True, "hub_model_id": "bob/run"}, "hub: bob/run may not be written to with this token"),
        ({"resume_from_hub": True, "hub_model_id": "alice/nothing"}, "alice/nothing is not there to resume from"),
    ],
)
def test_what_the_hub_refuses_is_known_before_the_first_step(hub_process, code, tmp_path, changes, message):
    with pytest.raises(RuntimeError, match=message):
        hub_process.run(code("early", **changes))
    assert not (tmp_path / "early" / "log.jsonl").exists()


def test_a_state_of_an_earlier_version_is_refused(hub, hub_process, code):
    hub_process.run(
        """
        from huggingface_hub import HfApi
        HfApi().create_repo("alice/earlier")
        HfApi().upload_file(path_or_fileobj=b"{}", path_in_repo="training_state/step.json", repo_id="alice/earlier")
        """
    )
    with pytest.raises(RuntimeError, match="hub_model_id: the state in alice/earlier is of an earlier version"):
        hub_process.run(code("earlier", resume_from_hub=True, hub_model_id="alice/earlier"))


@pytest.mark.slow
def test_a_new_repository_is_begun_at_the_beginning(hub_process, code):
    options = {"push_to_hub": True, "resume_from_hub": True, "hub_model_id": "alice/new", "steps": 1}
    assert "alice/new has no state yet" in hub_process.run(code("new", **options))


@pytest.mark.slow
def test_two_processes_both_resume_and_push_once(hub, hub_process, run_inputs, code, tmp_path):
    settings = {"init_from": str(run_inputs / "pipeline"), "data": [str(run_inputs / "latents")], "num_latents": 3}
    settings |= {"save_every": 2, "log_every": 1, "validate": False, "hub_model_id": "alice/two"}
    settings |= {"push_to_hub": True, "resume_from_hub": True}
    hub_process.run(code("first", **settings, batch_size=2, steps=2))
    config = FinetuneConfig(output_dir=str(tmp_path / "second"), steps=4, batch_size=1, **settings)
    (tmp_path / "second.yaml").write_text(config_lines(config))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    variables = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", **hub.environment(tmp_path / "home")}
    done = subprocess.run(
        [*command, "training.finetune", str(tmp_path / "second.yaml")],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-9000:]
    assert [commit.title for commit in hub.repository("alice/two").commits[1:]] == ["Step 2", "Step 4"]
    rows = [json.loads(line)["step"] for line in (tmp_path / "second" / "log.jsonl").read_text().splitlines()]
    assert rows == [0, 1, 2, 3]


@pytest.mark.slow
def test_clips_are_pushed_streamed_and_trained_on_by_their_name(hub, hub_process, code, run_inputs, tmp_path):
    """The same rows from the disk, from the Hub and streamed from there; the same training of either."""
    rows, sizes = str(tmp_path / "rows"), {"num_clips": 3, "num_frames": 9, "height": 64, "width": 64}
    printed = hub_process.run(
        f"""
        from datasets import load_dataset, load_from_disk
        from training.precompute import PrecomputeConfig, main
        there = {{"world": "small", "push_to_hub": "alice/clips"}}
        main(PrecomputeConfig({str(run_inputs / "vae")!r}, {rows!r}, **there, **{sizes}))
        streamed, written = list(load_dataset("alice/clips", split="train", streaming=True)), load_from_disk({rows!r})
        assert len(streamed) == 3 and streamed[0].keys() == written[0].keys()
        for ours, theirs in zip(streamed, written, strict=True):
            assert list(ours.pop("reference").getdata()) == list(theirs.pop("reference").getdata())
            assert ours == theirs
        print(*(row["id"] for row in streamed))
        """
    )
    assert printed.split() == ["train-0", "train-1", "train-2"]
    assert any(path.endswith(".parquet") for path in hub.repository("alice/clips", "dataset").files)
    found = []
    for name, source in (("named", "alice/clips"), ("written", rows)):
        hub_process.run(code(name, data=[source], steps=2))
        found.append(tmp_path / name / "pipeline" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert same(*found)


@pytest.mark.slow
def test_a_push_of_clips_that_fails_says_where_they_are(hub_process, run_inputs, tmp_path):
    rows = str(tmp_path / "rows")
    with pytest.raises(RuntimeError, match=f"push_to_hub: bob/clips .*; the clips are in {rows}"):
        hub_process.run(
            f"""
            from training.precompute import PrecomputeConfig, main
            sizes = {{"num_clips": 1, "num_frames": 5, "height": 64, "width": 64}}
            main(PrecomputeConfig({str(run_inputs / "vae")!r}, {rows!r}, push_to_hub="bob/clips", **sizes))
            """
        )
    assert (tmp_path / "rows" / "state.json").is_file()
