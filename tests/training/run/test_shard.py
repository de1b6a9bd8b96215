"""A split model is the same model: rollouts, gradients, updates, averages, states, on two (slow: four) processes."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.run import shard_process
from tests.training.run.shard_process import STEPS, Training
from training.run.runtime import add_lora, halve_base
from training.run.shard import blocks_of, inner, rollout_precision


ROOT = Path(__file__).parents[3]


def launch(python, processes, *work):
    """Run `shard_process` on so many processes: kinds and folders, one after the other; returns what each found."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}
    arguments = [python, *several, shard_process.__file__, *(f"{kind}={folder}" for kind, folder in work)]
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return [load_file(folder / f"{kind} on {processes}") for kind, folder in work]


def here(kind, folder):
    """What one process finds: this one."""
    shard_process.found_by(kind, folder)
    return load_file(folder / f"{kind} on 1")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return folder, here("all", folder)


@pytest.fixture(scope="module")
def split(python, tmp_path_factory):
    folder = tmp_path_factory.mktemp("split")
    return folder, *launch(python, 2, ("all", folder))


def require_same(one, other):
    """Rollouts to the bit; all that is summed over processes to a millionth of the largest value of its kind."""
    assert one.keys() == other.keys()
    largest = {}
    for name, value in one.items():
        kind = name.split("/")[0]
        largest[kind] = max(largest.get(kind, 0.0), value.abs().max().item())
    for name, value in one.items():
        kind = name.split("/")[0]
        if kind == "rollout":
            assert torch.equal(value, other[name]), name
        elif kind == "half":
            torch.testing.assert_close(other[name], value, rtol=1e-2, atol=0)
        else:
            assert (other[name] - value).abs().max().item() <= 1e-6 * largest[kind], name


def test_two_processes_are_as_one(alone, split):
    require_same(alone[1], split[1])


def test_a_state_of_two_processes_goes_on_alone(split):
    folder, found = split
    assert Training(folder).state.load() == STEPS
    torch.testing.assert_close(here("resume", folder)["losses"], found["losses"], rtol=1e-6, atol=0)
    parts = sorted(path.name for path in (folder / "state" / f"{STEPS:06d}").iterdir())
    assert parts == [*(f"shard-0000{part}-model-00001-of-00001.safetensors" for part in (1, 2)), "state.json"]


@pytest.mark.slow
def test_a_state_goes_on_on_any_number_of_processes(python, alone, tmp_path):
    of_four = tmp_path / "four"
    four, *found = launch(python, 4, ("all", of_four), ("resume", alone[0]))
    require_same(alone[1], four)
    found += [here("resume", of_four), *launch(python, 2, ("resume", of_four), ("resume", alone[0]))]
    for one in found:
        torch.testing.assert_close(one["losses"], four["losses"], rtol=1e-6, atol=0)


def test_accumulating_is_a_larger_batch(tmp_path):
    training = Training(tmp_path)
    (many, one), (few, other) = training.gradients(1), (training.optimizer.zero_grad(), training.gradients(4))[1]
    assert one == pytest.approx(other, rel=1e-6)
    for name, value in many.items():
        torch.testing.assert_close(few[name], value, rtol=1e-5, atol=1e-7)


def test_blocks_are_what_holds_most(make_transformer):
    transformer = make_transformer()
    assert blocks_of(transformer) == list(transformer.blocks)
    assert blocks_of(torch.nn.Linear(2, 2)) == []


def test_halved_matrices_are_what_autocast_makes_of_them(make_transformer):
    inputs = torch.randn(1, 12, 2, 4, 4), torch.tensor([500.0]), torch.randn(1, 5, 8), torch.randn(1, 3, 6)
    models = [make_transformer(), make_transformer()]
    for model in models:
        add_lora(model, 2, alpha=2)
        for name, p in model.named_parameters():
            if "lora" in name:
                p.data.fill_(0.1)
    halve_base(models[1])
    with torch.autocast("cpu", torch.bfloat16):
        whole, half = (model(*inputs, return_dict=False)[0] for model in models)
        assert torch.equal(whole, half)
        with rollout_precision(models[0]):
            exact = models[0](*inputs, return_dict=False)[0]
        with rollout_precision(models[1]):
            assert torch.equal(models[1](*inputs, return_dict=False)[0], half)
    assert torch.equal(exact, models[0](*inputs, return_dict=False)[0]) and not torch.equal(exact, whole)


def test_inner_product():
    one, other = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    expected = (one * other).sum().item()
    assert inner(zip(one, other, strict=True)) == pytest.approx(expected, rel=1e-5) and inner([]) == 0
