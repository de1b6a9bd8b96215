"""Muon's orthogonalisation, AdamW against torch's own, who gets which, and going on from a saved state."""

import copy
import math

import pytest
import torch
from torch import nn

from training.run.optim import MuonAdamW, orthogonalize, split_parameters, warmup_cosine


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 40), (2, 40, 8)])
def test_singular_values_come_near_1(shape):
    result = orthogonalize(torch.randn(shape))
    assert result.shape == shape
    values = torch.linalg.svdvals(result)
    assert values.max() < 1.3 and values.min() > 0.3 and abs(values.mean() - 1) < 0.2


def test_orthogonalising_keeps_the_singular_vectors():
    matrix = torch.randn(1, 6, 9)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    turned = left.mT @ orthogonalize(matrix) @ right.mT
    assert (turned - torch.diag_embed(turned.diagonal(dim1=-2, dim2=-1))).abs().max() < 1e-3


def test_size_does_not_matter_and_zero_stays():
    matrix = torch.randn(1, 6, 9)
    torch.testing.assert_close(orthogonalize(matrix), orthogonalize(1000 * matrix), rtol=1e-3, atol=1e-4)
    assert orthogonalize(torch.zeros(1, 4, 4)).eq(0).all()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, 4, 1)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.wide = nn.Linear(4, 12)
        self.norm = nn.LayerNorm(12)
        self.proj_out = nn.Linear(12, 2)

    def forward(self, x):
        return self.proj_out(self.norm(self.wide(self.conv(self.patch_embedding(x)).mean((2, 3)))))


def train(net, optimizer, steps, first=0):
    for step in range(first, first + steps):
        data = torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (net(data) - data.mean((2, 3))[:, :2]).square().mean().backward()
        optimizer.step()


def test_matrices_go_to_muon_edges_and_vectors_to_adamw():
    net = Net()
    net.wide.bias.requires_grad_(False)
    matrices, rest = split_parameters(net.named_parameters())
    assert {id(p) for p in matrices} == {id(net.conv.weight), id(net.wide.weight)}
    named = (net.patch_embedding, net.norm, net.proj_out)
    assert {id(p) for p in rest} == {id(p) for m in named for p in m.parameters()} | {id(net.conv.bias)}


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw_part_is_torchs(weight_decay):
    torch.manual_seed(0)
    net = nn.Sequential(nn.LayerNorm(6), nn.LayerNorm(6)).double()
    other = copy.deepcopy(net)
    ours = MuonAdamW(net.named_parameters(), adamw_lr=0.01, betas=(0.8, 0.95), weight_decay=weight_decay)
    theirs = torch.optim.AdamW(other.parameters(), lr=0.01, betas=(0.8, 0.95), weight_decay=weight_decay)
    for step in range(20):
        data = torch.randn(4, 6, generator=torch.Generator().manual_seed(step)).double()
        for model, optimizer in ((net, ours), (other, theirs)):
            optimizer.zero_grad()
            (model(data) - data.flip(1)).square().mean().backward()
            optimizer.step()
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (6, 2, 3, 3)])
def test_muon_step_is_its_formula(shape):
    """Nesterov momentum by `lerp`, orthogonalised, times lr sqrt(max(1, rows / columns)), decay beside it."""
    parameter = nn.Parameter(torch.randn(shape))
    optimizer = MuonAdamW([("w", parameter)], muon_lr=0.1, momentum=0.9, weight_decay=0.5)
    momentum, expected = torch.zeros(shape), parameter.detach().clone()
    for _ in range(3):
        parameter.grad = torch.randn(shape)
        momentum = 0.9 * momentum + 0.1 * parameter.grad
        update = orthogonalize((0.1 * parameter.grad + 0.9 * momentum).flatten(1)[None])[0].view(shape)
        scale = 0.1 * math.sqrt(max(1, shape[0] / math.prod(shape[1:])))
        expected = expected * (1 - 0.1 * 0.5) - scale * update
        optimizer.step()
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-4, atol=1e-5)


def test_it_learns():
    net = Net()
    optimizer = MuonAdamW(net.named_parameters())

    def error():
        data = torch.randn(64, 3, 5, 5, generator=torch.Generator().manual_seed(99))
        return float((net(data).detach() - data.mean((2, 3))[:, :2]).square().mean())

    before = error()
    train(net, optimizer, 60)
    assert error() < 0.3 * before


def test_state_survives_saving(tmp_path):
    whole, parts = Net(), Net()
    parts.load_state_dict(whole.state_dict())
    optimizer = MuonAdamW(whole.named_parameters())
    train(whole, optimizer, 6)
    first = MuonAdamW(parts.named_parameters())
    train(parts, first, 4)
    torch.save({"net": parts.state_dict(), "optimizer": first.state_dict()}, tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = Net()
    resumed.load_state_dict(saved["net"])
    second = MuonAdamW(resumed.named_parameters(), muon_lr=7.0)
    second.load_state_dict(saved["optimizer"])
    train(resumed, second, 2, first=4)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_parameters_without_gradient_stay():
    net = Net()
    before = copy.deepcopy(net.state_dict())
    MuonAdamW(net.named_parameters()).step()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_nothing_to_train_is_refused():
    net = Net().requires_grad_(False)
    with pytest.raises(ValueError, match="named_parameters: nothing to train; every parameter is frozen"):
        MuonAdamW(net.named_parameters())


def test_warmup_and_cosine():
    factors = [warmup_cosine(step, 10, 110) for step in range(130)]
    assert factors[:10] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert factors[10] == pytest.approx(1) and factors[60] == pytest.approx(0.525, abs=1e-6)
    assert factors[10:110] == sorted(factors[10:110], reverse=True)
    assert factors[110:] == pytest.approx([0.05] * 20)
    assert warmup_cosine(0, 0, 10) == pytest.approx(1)
