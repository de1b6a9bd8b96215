"""States: whole or not at all, without pickles, of this run or refused, and everything comes back as it was."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel

from training.run import checkpoint
from training.run.checkpoint import RunState, find_state, step_of
from training.run.optim import MuonAdamW


ROOT = Path(__file__).parents[3]


@dataclass
class Config:
    output_dir: str
    width: int = 3
    rate: float = 0.1


class Run:
    """A small model with all that a stage saves: optimizer, schedule, averages; its bias does not learn."""

    def __init__(self, folder, seed=0, optimizer=MuonAdamW, **changes):
        torch.manual_seed(seed)
        config = Config(str(folder), **changes)
        self.model = torch.nn.Sequential(torch.nn.Linear(4, config.width), torch.nn.LayerNorm(config.width))
        self.model[0].bias.requires_grad_(False)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        if optimizer is MuonAdamW:
            self.optimizer = MuonAdamW(self.model.named_parameters(), config.rate, config.rate)
        else:
            self.optimizer = optimizer(self.trained, config.rate)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 / (1 + step))
        average = EMAModel(self.trained, decay=0.9, use_ema_warmup=True)
        models, optimizers = {"model": self.model}, {"model": self.optimizer}
        self.state = RunState(Accelerator(), config, models, optimizers, average, [self.schedule])

    def train(self, first, last):
        for step in range(first, last):
            self.model(torch.full((2, 4), float(step))).square().sum().backward()
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
            self.state.average.step(self.trained)

    def everything(self):
        tensors = self.state.weights() | self.state.memories()
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return {name: value.clone() for name, value in tensors.items()}, rates, self.state.average.optimization_step


def equal(one, other):
    same = one[0].keys() == other[0].keys() and all(torch.equal(one[0][name], other[0][name]) for name in one[0])
    return same and one[1:] == other[1:]


@pytest.mark.parametrize("optimizer", [MuonAdamW, torch.optim.AdamW])
def test_resumed_goes_on_as_uninterrupted(tmp_path, optimizer):
    run = Run(tmp_path, optimizer=optimizer)
    assert run.state.load() == 0
    run.train(0, 3)
    run.state.save(3)
    names = {path.name for path in find_state(tmp_path).iterdir()}
    assert names == {"state.json", "shard-00001-model-00001-of-00001.safetensors"}
    other = Run(tmp_path, seed=1, optimizer=optimizer)
    other.model[0].bias.data.copy_(run.model[0].bias)  # what does not learn comes from elsewhere
    assert other.state.load() == 3 and equal(run.everything(), other.everything())
    for one in (run, other):
        one.train(3, 6)
    assert equal(run.everything(), other.everything())


def test_what_was_never_moved_has_no_memory_and_keeps_none(tmp_path):
    run = Run(tmp_path)
    run.state.save(0)
    run.train(0, 2)
    assert run.state.load() == 0 and not run.state.memories()


def test_a_lower_learning_rate_is_taken_up_and_named(tmp_path, caplog):
    run = Run(tmp_path)
    run.train(0, 3)
    run.state.save(3)
    other = Run(tmp_path, rate=0.02)
    with caplog.at_level("INFO"):
        other.state.load()
    assert {group["lr"] for group in other.optimizer.param_groups} == {0.02 / 4}
    assert "resumed at step 3; changed: rate was 0.1, is 0.02" in caplog.text


def test_a_state_of_another_run_is_refused_with_the_difference_and_nothing_is_changed(tmp_path):
    run = Run(tmp_path)
    run.state.save(3)
    for message, other in {
        "does not fit this run .width was 3, is 5.; give it the old values": Run(tmp_path, width=5),
        "does not fit this run .another optimizer.": Run(tmp_path, optimizer=torch.optim.AdamW),
    }.items():
        before = other.everything()
        with pytest.raises(ValueError, match=message):
            other.state.load()
        assert equal(before, other.everything())


def test_a_model_that_changed_under_the_same_configuration_is_named_too(tmp_path):
    run = Run(tmp_path)
    run.state.save(3)
    run.state.learned["model"]["0.weight"] = run.model[0].bias
    with pytest.raises(ValueError, match=r"model/model/0.weight was \(3, 4\), is \(3,\)"):
        run.state.load()


def test_a_state_of_an_earlier_version_is_refused(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "step.json").write_text('{"step": 3}')
    with pytest.raises(ValueError, match="output_dir: the state in .* is of an earlier version"):
        find_state(tmp_path)


def calls_of(module):
    """The places of a save at which a run may be killed: each call that touches the disk."""
    return [(module.dcp, "save"), (module, "write_whole"), (module.os, "replace"), (module.shutil, "rmtree")]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(first, second, marks=[] if first == (second + 1) % 4 else pytest.mark.slow)
        for first in range(4)
        for second in range(4)
    ],
)
def test_two_kills_in_a_row_leave_a_whole_state(tmp_path, monkeypatch, first, second, after):
    run = Run(tmp_path)
    run.train(0, 2)
    run.state.save(2)
    found, whole = 2, {2: run.everything()}
    for place in (first, second):
        run.train(found, step := found + 2)
        whole[step] = run.everything()
        with monkeypatch.context() as patch:
            module, name = calls_of(checkpoint)[place]
            original = getattr(module, name)

            def kill(*arguments, original=original, **options):
                if after:
                    original(*arguments, **options)
                raise KeyboardInterrupt

            patch.setattr(module, name, kill)
            with pytest.raises(KeyboardInterrupt):
                run.state.save(step)
        found = run.state.load()
        assert equal(run.everything(), whole[found])
    run.state.save(8)
    assert {path.name for path in (tmp_path / "state").iterdir()} == {"000008", "latest.json"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("file write failed")])
def test_a_full_disk_leaves_the_old_state_and_says_what_to_do(tmp_path, monkeypatch, error):
    run = Run(tmp_path)
    run.train(0, 7)
    run.state.save(7)
    before = run.everything()

    def full(*_, storage_writer, **options):
        (Path(storage_writer.path) / "half").write_text("half a file")
        raise error

    run.train(7, 9)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.dcp, "save", full)
        with pytest.raises(OSError, match="state of step 9 cannot be written .*is intact. Make room"):
            run.state.save(9)
    assert {path.name for path in (tmp_path / "state").iterdir()} == {"000007", "latest.json"}
    assert run.state.load() == 7 and equal(run.everything(), before)


SAVES = """
import os, sys
from tests.training.run.test_checkpoint import Run

def save_for_ever():
    run = Run(sys.argv[1], width=400)
    first = run.state.load()
    print(first, flush=True)
    for step in range(first, 10**6):
        run.train(step, step + 1)
        run.state.save(step + 1)
        print(step + 1, flush=True)

for _ in sys.stdin:  # a process for each line: forked, so that importing torch is paid for once
    pid = os.fork()
    if not pid:
        print(os.getpid(), flush=True)
        save_for_ever()
    os.waitpid(pid, 0)
    print("gone", flush=True)
"""


@pytest.mark.slow
def test_kills_at_random_moments_leave_the_last_whole_state(tmp_path):
    """Ten kills of a process that saves all the time: what it said it had saved is there, and goes on."""
    generator, last = random.Random(0), 0
    command = [sys.executable, "-c", SAVES, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes) as parent:
        for _ in range(10):
            parent.stdin.write("again\n")
            pid, first = int(parent.stdout.readline()), int(parent.stdout.readline())
            assert first >= last
            time.sleep(generator.uniform(0, 0.5))
            os.kill(pid, signal.SIGKILL)
            last = max([last, *map(int, iter(lambda: parent.stdout.readline().strip(), "gone"))])
            assert step_of(find_state(tmp_path)) in (last, last + 1)
        parent.stdin.close()
    resumed, whole = Run(tmp_path, width=400), Run(tmp_path / "whole", width=400)
    whole.train(0, resumed.state.load())
    assert last > 10 and json.dumps(resumed.everything()[1:]) == json.dumps(whole.everything()[1:])
    assert equal(resumed.everything(), whole.everything())
