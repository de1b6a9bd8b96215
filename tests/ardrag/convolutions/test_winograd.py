"""Winograd's products in time against the plain sum, by exact arithmetic and beside the convolution of a stream."""

import copy

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

import ardrag.convolutions.causal as causal
from ardrag.convolutions.causal import FoldedCausalConv3d
from ardrag.convolutions.winograd import PRODUCTS, convolve, mixed_taps


@pytest.mark.parametrize("count", PRODUCTS)
def test_products_are_the_sum_over_three_taps(count):
    before, taps, after = (matrix.double() for matrix in PRODUCTS[count])
    frames, kernel = torch.randn(count + 2, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    expected = torch.stack([(frames[t : t + 3] * kernel).sum() for t in range(count)])
    exact = copy.deepcopy(taps).mul(24).round().div(24)  # the entries are 24ths
    torch.testing.assert_close(after @ ((before @ frames) * (exact @ kernel)), expected, rtol=0, atol=1e-12)
    assert (taps - exact).abs().max() < 1e-8
    assert len(before) == count + 2 < 3 * count  # fewer than a product for each tap and frame


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("count", "batch", "kernel"), [(2, 1, 3), (4, 1, 3), (4, 2, 3), (2, 3, 1)])
def test_convolution_of_a_video(count, batch, kernel, with_bias):
    past, frames = torch.randn(batch, 3, 2, 5, 4), torch.randn(batch, 3, count, 5, 4)
    weight, bias = torch.randn(6, 3, 3, kernel, kernel), torch.randn(6) if with_bias else None
    padding = (kernel // 2, kernel // 2)
    seen = convolve(past, frames, mixed_taps(weight, count), bias, padding)
    expected = F.conv3d(torch.cat([past, frames], dim=2), weight, bias, padding=(0, *padding))
    torch.testing.assert_close(seen, expected, rtol=0, atol=5e-5)
    assert seen.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.fixture
def layers():
    plain = WanCausalConv3d(4, 6, 3, padding=1)
    folded = copy.deepcopy(plain)
    folded.__class__ = FoldedCausalConv3d
    return plain, folded


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@torch.no_grad()
def test_a_stream_takes_fewer_products_where_it_can(layers, count, monkeypatch):
    plain, folded = layers
    taken = []
    monkeypatch.setattr(causal, "convolve", lambda *given: taken.append(given) or convolve(*given))
    x, past = torch.randn(1, 4, count, 6, 5), torch.randn(1, 4, 2, 6, 5)
    for known in (2, 1):  # the second step of a stream knows one frame, before which there are zeros
        seen = past[:, :, -known:]
        torch.testing.assert_close(folded(x, seen), plain(x, seen), rtol=0, atol=5e-5)
    assert len(taken) == 2 * (count in PRODUCTS)
    folded(x)  # the first step: all zeros, the other way
    assert len(taken) == 2 * (count in PRODUCTS)


@torch.no_grad()
def test_under_autocast_the_plain_way(layers, monkeypatch):
    """There past frames and new ones may differ in their format."""
    monkeypatch.setattr(causal, "convolve", None)
    plain, folded = layers
    x, past = torch.randn(1, 4, 4, 6, 5), torch.randn(1, 4, 2, 6, 5)
    with torch.autocast("cpu"):
        torch.testing.assert_close(folded(x, past.bfloat16()).float(), plain(x, past).float(), rtol=0.1, atol=0.2)


@torch.no_grad()
def test_a_strided_convolution_keeps_to_the_plain_way(monkeypatch):
    monkeypatch.setattr(causal, "convolve", None)
    plain = WanCausalConv3d(2, 2, 3, stride=(2, 1, 1), padding=1)
    folded = copy.deepcopy(plain)
    folded.__class__ = FoldedCausalConv3d
    x, past = torch.randn(1, 2, 4, 4, 4), torch.randn(1, 2, 2, 4, 4)
    torch.testing.assert_close(folded(x, past), plain(x, past), rtol=0, atol=5e-5)


@torch.no_grad()
def test_autocast_keeps_to_the_plain_way(layers, monkeypatch):
    monkeypatch.setattr(causal, "convolve", None)
    plain, folded = layers
    x, past = torch.randn(1, 4, 4, 6, 5), torch.randn(1, 4, 2, 6, 5)
    with torch.autocast("cpu", torch.bfloat16):
        seen = folded(x, past)
    torch.testing.assert_close(seen.float(), plain(x, past), rtol=0, atol=0.05)


def test_gradients_go_the_plain_way(layers):
    plain, folded = layers
    x, past = torch.randn(1, 4, 4, 6, 5, requires_grad=True), torch.randn(1, 4, 2, 6, 5)
    (ours,) = torch.autograd.grad(folded(x, past).square().sum(), x)
    (expected,) = torch.autograd.grad(plain(x, past).square().sum(), x)
    torch.testing.assert_close(ours, expected)


@torch.no_grad()
def test_a_changed_weight_counts_at_once(layers):
    plain, folded = layers
    x, past = torch.randn(1, 4, 4, 6, 5), torch.randn(1, 4, 2, 6, 5)
    folded(x, past)
    for layer in layers:
        layer.weight.mul_(-3)
    torch.testing.assert_close(folded(x, past), plain(x, past), rtol=0, atol=1e-4)
