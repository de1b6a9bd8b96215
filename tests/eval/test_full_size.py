"""The way of the true size, walked in small; what is measured and planned stands beside each other."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ardrag.convert.keys import to_ours
from ardrag.transformer import CausalWanTransformer
from eval import full_size
from eval.full_size import SHARED, SIZES, STAGES, Place, main, markdown, plan, random_state, reloaded, run_stage
from eval.record import run_record


def test_the_full_size_is_that_of_the_public_checkpoint():
    with torch.device("meta"):
        model = CausalWanTransformer(**SHARED, **SIZES["full"].transformer)
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_564_502_336


def test_the_checkpoint_has_original_keys():
    state = random_state(SIZES["small"])
    assert {"head.head.weight", "blocks.1.cross_attn.k_img.bias", "img_emb.proj.4.weight"} <= set(state)
    with torch.device("meta"):
        model = CausalWanTransformer(**SHARED, **SIZES["small"].transformer)
    assert {to_ours(key): value.shape for key, value in state.items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }
    assert all(value.dtype == torch.bfloat16 for value in state.values())


def test_plans_are_read_off_the_table_of_the_command(monkeypatch):
    said = "Wan: 2 latents\n\n| phase | all | one |\n|---|---|---|\n| vae, causal | 1.25 | 0.50 |\n| sum | 3.00 |\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=said))
    assert plan("--stage", "inference") == {"vae, causal": 1.25, "sum": 3.0}


def test_a_page_has_every_stage_and_its_plan():
    found = [{"stage": name, "said": name.upper(), "seconds": 2.0, "gib": 1.5} for name in STAGES]
    page = markdown(found, {"train": 1.25}, run_record("eval.full_size", []))
    assert "| train | TRAIN | 2 | 1.500 | 1.250 |" in page and "| load | LOAD | 2 | 1.500 |  |" in page
    assert page.count("\n| ") == 1 + len(STAGES) and "- hardware: " in page


def test_a_folder_that_holds_something_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine").touch()
    with pytest.raises(SystemExit):
        main(["--folder", str(tmp_path)])
    assert "is not empty; give the name of a new one" in capsys.readouterr().err


@pytest.mark.slow
def test_all_stages_in_small(tmp_path, monkeypatch, capsys):
    """In one process here, whose memory is then not each stage's own; the plans are the command's."""
    folder, stages = tmp_path / "small", []

    def in_this_process(command, **options):
        if "eval.full_size" not in command:
            return called(command, **options)
        stages.append(command[-1])
        return SimpleNamespace(stdout="noise\n" + json.dumps(run_stage(command[-1], folder, "small")) + "\n")

    called = subprocess.run
    monkeypatch.setattr(full_size.subprocess, "run", in_this_process)
    main(["--folder", str(folder), "--size", "small"])
    assert stages == list(STAGES)
    page = (folder / "full_size.md").read_text()
    assert "2,056,944 parameters" in page and "bit for bit" in page and page in capsys.readouterr().out
    plans = {row.split(" | ")[0][2:]: row.split(" | ")[4][:-2] for row in page.splitlines() if row.count(" | ") == 4}
    assert float(plans["convert"]) == 0.004 and float(plans["load"]) == 0.008 and float(plans["generate"]) > 0
    assert float(plans["train"]) >= float(plans["load"])
    adapter = next(Path(folder / "adapter").glob("*.safetensors"))
    adapter.write_bytes(adapter.read_bytes()[:-8] + b"\0\0\x80?\0\0\x80?")
    with pytest.raises(SystemExit, match="the adapter read again is off by"):
        reloaded(Place(folder, SIZES["small"]))
