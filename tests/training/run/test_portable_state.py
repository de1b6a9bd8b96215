"""States without pickles: everything comes back as it was, and nothing else gets in."""

import json

import pytest
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel

from training.run.optim import MuonAdamW
from training.run.portable_state import pack_state, put_together, take_apart, unpack_state
from training.run.runtime import load_state, save_state


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b


def test_values_come_back_as_they_were():
    value = {
        "state": {0: {"mean": torch.randn(3, 2), "step": torch.zeros(())}, 1: {}},
        "groups": [{"lr": 0.1 + 0.2, "betas": (0.9, 0.99), "muon": True, "name": None}],
        "halves": torch.arange(6, dtype=torch.bfloat16).view(2, 3).mT,
    }
    tensors = {}
    tree = json.loads(json.dumps(take_apart(value, tensors)))
    assert len(tensors) == 3 and equal(value, put_together(tree, tensors))


def test_what_only_pickle_could_write_is_refused():
    with pytest.raises(ValueError, match="a complex cannot be written without pickle"):
        take_apart({"a": [1j]}, {})


class Run:
    """A small model with all that a stage saves: optimiser, schedule, averages."""

    def __init__(self, seed):
        torch.manual_seed(seed)
        self.accelerator = Accelerator()
        self.model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3))
        optimizer = MuonAdamW(self.model.named_parameters())
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        self.ema = EMAModel(self.model.parameters(), decay=0.9)
        prepared = self.accelerator.prepare(self.model, optimizer, schedule)
        self.model, self.optimizer, self.schedule = prepared
        self.accelerator.register_for_checkpointing(self.ema)

    def train(self, steps):
        for step in range(steps):
            loss = self.model(torch.full((2, 4), float(step))).square().sum()
            self.accelerator.backward(loss)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
            self.ema.step(self.model.parameters())

    def everything(self):
        return [part.state_dict() for part in (self.model, self.optimizer, self.schedule, self.ema)]


def test_a_run_goes_on_from_the_unpickled_state_as_from_its_own(tmp_path):
    run = Run(0)
    run.train(3)
    save_state(run.accelerator, tmp_path, 3)
    pack_state(tmp_path / "state", tmp_path / "packed")
    assert {path.suffix for path in (tmp_path / "packed").iterdir()} == {".json", ".safetensors"}
    other = Run(1)
    unpack_state(tmp_path / "packed", tmp_path / "other" / "state")
    assert load_state(other.accelerator, tmp_path / "other") == 3
    assert all(map(equal, run.everything(), other.everything()))
    run.train(2)
    other.train(2)
    assert all(map(equal, run.everything(), other.everything()))


@pytest.mark.parametrize("name", ["../evil.bin", "evil.py", "/tmp/evil.bin"])
def test_a_state_cannot_write_elsewhere(tmp_path, name):
    (tmp_path / "a.json").write_text(json.dumps({"file": name, "tree": 1}))
    with pytest.raises(ValueError, match="which is no file of a state"):
        unpack_state(tmp_path, tmp_path / "state")


def test_a_state_in_parts_is_refused(tmp_path):
    (tmp_path / "state" / "pytorch_model_fsdp_0").mkdir(parents=True)
    with pytest.raises(ValueError, match="is in parts; a model that is split over processes"):
        pack_state(tmp_path / "state", tmp_path / "packed")
