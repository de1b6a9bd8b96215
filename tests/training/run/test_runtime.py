"""The tools of every loop: generators by step, a log that tells one story, exports whole or not at all."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers.training_utils import EMAModel
from PIL import Image

from ardrag.convolutions.remembered import remembered
from pipelines.video import to_frames
from training.run import runtime
from training.run.runtime import (
    RunLog,
    averaged,
    clip_generators,
    contact_sheet,
    exported_step,
    mark_exported,
    require_finite,
    run_stage,
    smoothed,
    start_log,
    step_generator,
    swapped_folder,
)


ROOT = Path(__file__).parents[3]


def test_generators_depend_on_seed_step_and_rank_alone():
    def draw(*key):
        return torch.randn(4, generator=step_generator(*key)).tolist()

    assert draw(1, 2, 3) == draw(1, 2, 3)
    keys = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 0, 1), (0, 1, 1), (2, 0)]
    assert len({tuple(draw(*key)) for key in keys}) == len(keys)


def test_the_clips_of_an_update_are_the_same_on_any_number_of_processes():
    def clips(processes, parts, batch):
        config = SimpleNamespace(seed=3, batch_size=batch)
        drawn = [
            clip_generators(SimpleNamespace(num_processes=processes, process_index=rank), config, 5, part)
            for part in range(parts)
            for rank in range(processes)
        ]
        return [float(torch.rand((), generator=generator)) for batch in drawn for generator in batch]

    expected = [float(torch.rand((), generator=step_generator(3, 5, clip))) for clip in range(8)]
    for split in ((1, 1, 8), (1, 8, 1), (2, 2, 2), (8, 1, 1), (4, 2, 1)):
        assert clips(*split) == expected


def test_log_drops_what_comes_after_the_resumed_step(tmp_path):
    log = RunLog(tmp_path / "run")
    for step in range(5):
        log.write(step, loss=1 / (step + 1))
    assert [row["step"] for row in log.rows()] == [0, 1, 2, 3, 4]
    resumed = RunLog(tmp_path / "run", first_step=3)
    assert [row["step"] for row in resumed.rows()] == [0, 1, 2]
    resumed.write(3, loss=0.5)
    assert resumed.rows()[-1] == {"step": 3, "loss": 0.5}
    assert RunLog(tmp_path / "run").rows() == []


def test_log_survives_a_line_cut_off_by_a_crash(tmp_path):
    log = RunLog(tmp_path)
    log.write(0, loss=1.0)
    with log.path.open("a") as file:
        file.write('{"step": 1, "lo')
    assert RunLog(tmp_path, first_step=5).rows() == [{"step": 0, "loss": 1.0}]


def test_curves(tmp_path):
    log = RunLog(tmp_path)
    for step in range(3):
        log.write(step, loss=1.0, other=2.0)
    assert log.plot() == tmp_path / "curves.png"
    assert Image.open(tmp_path / "curves.png").size[0] > 100


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "pipeline"
    for text in ("first", "second"):
        with swapped_folder(folder) as target:
            target.mkdir()
            (target / "weights").write_text(text)
    with pytest.raises(KeyboardInterrupt), swapped_folder(folder) as target:
        target.mkdir()
        (target / "weights").write_text("half")
        raise KeyboardInterrupt
    assert (folder / "weights").read_text() == "second"


@pytest.mark.parametrize("place", [0, 1])
def test_a_kill_while_a_folder_is_replaced_leaves_no_mixture(tmp_path, monkeypatch, place):
    folder, replace, calls = tmp_path / "pipeline", runtime.os.replace, []

    def write(text):
        with swapped_folder(folder) as target:
            target.mkdir()
            for part in ("one", "two"):
                (target / part).write_text(text)

    def kill(*arguments):
        calls.append(arguments)
        if len(calls) == 1 + place:
            raise KeyboardInterrupt
        replace(*arguments)

    write("first")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runtime.os, "replace", kill)
        write("second")
    assert [path.read_text() for path in folder.glob("*")] == (["first", "first"] if place == 0 else [])
    write("third")
    assert [path.read_text() for path in folder.iterdir()] == ["third", "third"]
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline"]


def test_an_export_is_of_the_step_that_was_noted(tmp_path):
    assert exported_step(tmp_path) == 0
    for step in (3, 7):
        mark_exported(tmp_path, step)
        assert exported_step(tmp_path) == step


def test_only_the_process_that_writes_touches_log_and_configuration(tmp_path):
    @dataclass
    class Config:
        output_dir: str

    RunLog(tmp_path).write(5, loss=1.0)
    start_log(SimpleNamespace(is_main_process=False, log_with=[]), Config(str(tmp_path)), 0)
    assert [row["step"] for row in RunLog(tmp_path, 9).rows()] == [5] and not (tmp_path / "config.yaml").exists()
    start_log(SimpleNamespace(is_main_process=True, log_with=[]), Config(str(tmp_path)), 0)
    assert RunLog(tmp_path, 9).rows() == [] and (tmp_path / "config.yaml").read_text() == f"output_dir: {tmp_path}\n"


def test_a_tracker_is_told_the_settings_and_every_row(tmp_path):
    @dataclass
    class Config:
        output_dir: str

    class Tracked(SimpleNamespace):
        def init_trackers(self, name, settings):
            self.told = [(name, settings)]

        def log(self, row, step):
            self.told.append((step, row))

    accelerator = Tracked(is_main_process=True, log_with=["any"], trackers=[])
    log = start_log(accelerator, Config(str(tmp_path)), 0)
    log.write(3, loss=0.5)
    assert accelerator.told == [("ardrag", {"output_dir": str(tmp_path)}), (3, {"step": 3, "loss": 0.5})]
    assert log.rows() == [{"step": 3, "loss": 0.5}]


def test_smoothing_begins_at_the_first_value_and_forgets_it():
    assert smoothed([4.0]) == [4.0] and smoothed([]) == []
    found = smoothed([10.0] + [0.0] * 50)
    assert found[0] == 10 and found == sorted(found, reverse=True) and found[-1] < 0.2
    assert smoothed([3.0] * 5) == pytest.approx([3.0] * 5)


def test_averages_are_there_within_only():
    layer = torch.nn.Linear(2, 2)
    ema = EMAModel(list(layer.parameters()), decay=0.5)
    first = layer.weight.detach().clone()
    ema.step(list(layer.parameters()))
    torch.nn.init.zeros_(layer.weight)
    ema.step(list(layer.parameters()))
    with pytest.raises(KeyboardInterrupt), averaged(ema, list(layer.parameters())):
        assert 0 < layer.weight.abs().sum() < first.abs().sum()
        raise KeyboardInterrupt
    assert (layer.weight == 0).all()


@torch.no_grad()
def test_what_is_remembered_of_weights_follows_their_averages():
    layer = torch.nn.Linear(2, 2)
    ema = EMAModel(list(layer.parameters()))
    layer.weight.add_(1)
    seen = [remembered(layer, layer.weight, torch.neg).clone()]
    with averaged(ema, list(layer.parameters())):
        seen.append(remembered(layer, layer.weight, torch.neg).clone())
        assert torch.equal(seen[1], -layer.weight)
    seen.append(remembered(layer, layer.weight, torch.neg))
    assert torch.equal(seen[0], seen[2]) and not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_no_number_stops_the_run(value):
    with pytest.raises(FloatingPointError, match=f"loss is {value} at step 12; the last saved state is intact"):
        require_finite(torch.tensor(value), 12)
    require_finite(torch.tensor(1.0), 12)


def test_contact_sheet(tmp_path):
    rows = [np.full((9, 4, 6, 3), 10 * row, np.uint8) for row in range(3)]
    contact_sheet(rows, tmp_path / "sheets" / "a.png")
    sheet = np.asarray(Image.open(tmp_path / "sheets" / "a.png"))
    assert sheet.shape == (12, 18, 3) and sheet[5, 0, 0] == 10


def test_to_frames():
    pixels = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).view(1, 1, 5, 1, 1).expand(2, 3, 5, 1, 1)
    frames = to_frames(pixels)
    assert frames.shape == (2, 5, 1, 1, 3) and frames.dtype == np.uint8
    assert frames[0, :, 0, 0, 0].tolist() == [0, 0, 128, 255, 255]


def test_rows_are_json(tmp_path):
    log = RunLog(tmp_path)
    log.write(4, **{"loss/total": torch.tensor(0.123456789)})
    assert json.loads(log.path.read_text()) == {"step": 4, "loss/total": 0.123457}


LEAVE = """
import atexit, sys, torch.distributed as dist
from training.run.runtime import leave

class Late:
    def __del__(self):
        print("taken down")

late = Late()
atexit.register(print, "finished")
if sys.argv[1:]:
    dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=0, world_size=1)
leave()
print("alone")
"""


@pytest.mark.slow
def test_one_of_several_processes_leaves_before_python_is_taken_down(tmp_path):
    def said(*arguments):
        command = [sys.executable, "-c", LEAVE, *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]

    assert said(str(tmp_path / "meeting")) == ["finished"]
    assert said() == ["alone", "finished", "taken down"]


def told(config):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)


def lost(config):
    raise RuntimeError("[gloo] Connection closed by peer")


@pytest.mark.parametrize("stage", [told, lost])
def test_a_stage_that_ends_early_says_so_once(stage):
    """Whoever ends the job tells all of its processes, also one that is on its way out."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit, match=r"runs/a: the run has stopped .*; its last whole state is intact"):
            run_stage(stage, SimpleNamespace(output_dir="runs/a"))
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
