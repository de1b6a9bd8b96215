"""What is made of a weight follows the weight, however that changes."""

import copy
import gc

import pytest
import torch
from torch import nn

from ardrag.convolutions.remembered import _remembered, remembered


@pytest.fixture
def counted():
    calls = []

    def double(weight, factor=2):
        calls.append(factor)
        return weight * factor

    return double, calls


@torch.no_grad()
def test_made_once_until_the_weight_changes(counted):
    make, calls = counted
    layer = nn.Linear(2, 2)
    first = remembered(layer, layer.weight, make)
    assert remembered(layer, layer.weight, make) is first and len(calls) == 1
    layer.weight.add_(1)
    torch.testing.assert_close(remembered(layer, layer.weight, make), 2 * layer.weight)
    layer.load_state_dict(nn.Linear(2, 2).state_dict())
    torch.testing.assert_close(remembered(layer, layer.weight, make), 2 * layer.weight)
    assert len(calls) == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.to(torch.float64),
        lambda layer: layer.half().float(),
        lambda layer: layer.load_state_dict(nn.Linear(2, 2).state_dict(), assign=True),
        lambda layer: setattr(layer, "weight", nn.Parameter(torch.ones(2, 2))),
    ],
    ids=["other format", "rounded", "assigned", "replaced"],
)
@torch.no_grad()
def test_a_weight_in_another_place_is_another(counted, change):
    make, _ = counted
    layer = nn.Linear(2, 2)
    for _ in range(5):
        remembered(layer, layer.weight, make)
        change(layer)
        made = remembered(layer, layer.weight, make)
        assert made.dtype == layer.weight.dtype and torch.equal(made, 2 * layer.weight)


@torch.no_grad()
def test_arguments_and_modules_are_told_apart(counted):
    make, calls = counted
    layer = nn.Linear(2, 2)
    twin = copy.deepcopy(layer)
    made = [remembered(module, module.weight, make, factor) for module in (layer, twin) for factor in (2, 3)]
    assert calls == [2, 3, 2, 3] and torch.equal(made[1], 3 * layer.weight) and made[0] is not made[2]


def test_with_gradients_it_is_made_every_time(counted):
    make, calls = counted
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        remembered(layer, layer.weight, make)
    assert remembered(layer, layer.weight, make).requires_grad and len(calls) == 2


def test_of_inference_weights_it_is_made_every_time(counted):
    make, calls = counted
    with torch.inference_mode():
        layer = nn.Linear(2, 2)
        remembered(layer, layer.weight, make)
        layer.weight.add_(1)
        assert torch.equal(remembered(layer, layer.weight, make), 2 * layer.weight)


@torch.no_grad()
def test_nothing_is_kept_of_a_module_that_is_gone(counted):
    make, _ = counted
    layer = nn.Linear(2, 2)
    remembered(layer, layer.weight, make)
    before = len(_remembered)
    del layer
    gc.collect()
    assert len(_remembered) == before - 1
