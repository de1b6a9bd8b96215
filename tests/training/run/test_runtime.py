"""The tools of every loop: generators by step, a log that tells one story, states whole or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from PIL import Image

from pipelines.video import to_frames
from training.run import runtime
from training.run.runtime import (
    RunLog,
    averaged,
    contact_sheet,
    load_state,
    require_finite,
    save_state,
    smoothed,
    step_generator,
)


def test_generators_depend_on_seed_step_and_rank_alone():
    def draw(*key):
        return torch.randn(4, generator=step_generator(*key)).tolist()

    assert draw(1, 2, 3) == draw(1, 2, 3)
    keys = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 0, 1), (0, 1, 1), (2, 0)]
    assert len({tuple(draw(*key)) for key in keys}) == len(keys)


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


@pytest.fixture
def prepared():
    accelerator = Accelerator()
    return accelerator, accelerator.prepare(torch.nn.Linear(2, 2))


def test_state_round_trip(tmp_path, prepared):
    accelerator, model = prepared
    assert load_state(accelerator, tmp_path) == 0
    weight = model.weight.detach().clone()
    save_state(accelerator, tmp_path, 7)
    torch.nn.init.zeros_(model.weight)
    assert load_state(accelerator, tmp_path) == 7 and torch.equal(model.weight, weight)
    save_state(accelerator, tmp_path, 9)
    assert load_state(accelerator, tmp_path) == 9
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("place", ["save_state", "first replace", "second replace"])
def test_a_crash_leaves_the_old_state(tmp_path, prepared, monkeypatch, place):
    accelerator, model = prepared
    save_state(accelerator, tmp_path, 7)
    weight, calls, replace = model.weight.detach().clone(), [], runtime.os.replace

    def crash(*arguments):
        calls.append(arguments)
        if len(calls) == 2 or place != "second replace":
            raise KeyboardInterrupt
        replace(*arguments)

    with monkeypatch.context() as patch:
        target = (accelerator, "save_state") if place == "save_state" else (runtime.os, "replace")
        patch.setattr(*target, crash)
        torch.nn.init.zeros_(model.weight)
        with pytest.raises(KeyboardInterrupt):
            save_state(accelerator, tmp_path, 9)
    assert load_state(accelerator, tmp_path) == 7 and torch.equal(model.weight, weight)
    save_state(accelerator, tmp_path, 11)
    assert load_state(accelerator, tmp_path) == 11


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("file write failed")])
def test_a_full_disk_leaves_the_old_state_and_says_what_to_do(tmp_path, prepared, monkeypatch, error):
    accelerator, model = prepared
    save_state(accelerator, tmp_path, 7)
    weight = model.weight.detach().clone()

    def full(folder):
        Path(folder).mkdir()
        (Path(folder) / "half").write_text("half a file")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(accelerator, "save_state", full)
        torch.nn.init.zeros_(model.weight)
        with pytest.raises(
            OSError, match="state of step 9 cannot be written .* the last whole state is intact. Make room"
        ):
            save_state(accelerator, tmp_path, 9)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    assert load_state(accelerator, tmp_path) == 7 and torch.equal(model.weight, weight)


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
