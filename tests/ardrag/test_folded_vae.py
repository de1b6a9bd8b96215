"""The folded resampling blocks against diffusers' own, piece by piece."""

import copy

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import DupUp3D, WanResample
from torch import nn

from ardrag.folded_vae import FoldedDupUp, FoldedUpBlock, FoldedUpsample, fold_resampling, phase_kernels


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def channels_last(video: torch.Tensor) -> torch.Tensor:
    return video.contiguous(memory_format=torch.channels_last_3d)


def test_phase_kernels_of_one_tap():
    """A tap at the top left of the large kernel is seen by one of two rows and columns of the small picture."""
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 0, 0] = 1
    even_even, even_odd, odd_even, odd_odd = phase_kernels(weight)[:, 0]
    assert even_even.tolist() == [[1, 0], [0, 0]]  # row 2i - 1 is row i - 1 of the small picture, column likewise
    assert even_odd.tolist() == [[1, 0], [0, 0]]  # column 2j is column j, the first of the two seen from 2j + 1
    assert odd_even.tolist() == odd_odd.tolist() == [[1, 0], [0, 0]]
    middle = phase_kernels(torch.ones(1, 1, 3, 3))
    assert middle[:, 0].tolist() == [[[1, 2], [2, 4]], [[2, 1], [4, 2]], [[2, 4], [1, 2]], [[4, 2], [2, 1]]]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 5), (6, 4)])
def test_upsampling_convolution_is_that_of_the_doubled_picture(height, width):
    convolution = nn.Conv2d(3, 5, 3, padding=1).double()
    folded = FoldedUpsample(nn.Identity(), convolution)
    images = torch.randn(2, 3, height, width, dtype=torch.float64)
    expected = convolution(F.interpolate(images, scale_factor=2, mode="nearest-exact"))
    torch.testing.assert_close(folded(images), expected, rtol=0, atol=1e-12)
    assert folded(images).is_contiguous(memory_format=torch.channels_last)


def test_upsampling_convolution_has_the_same_gradients():
    convolution = nn.Conv2d(2, 2, 3, padding=1).double()
    folded = FoldedUpsample(nn.Identity(), convolution)
    images = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    target = torch.randn(1, 2, 6, 6, dtype=torch.float64)
    inputs = [images, convolution.weight, convolution.bias]
    ours = torch.autograd.grad(((folded(images) - target) ** 2).sum(), inputs)
    doubled = F.interpolate(images, scale_factor=2, mode="nearest-exact")
    expected = torch.autograd.grad(((convolution(doubled) - target) ** 2).sum(), inputs)
    for ours_, expected_ in zip(ours, expected, strict=True):
        torch.testing.assert_close(ours_, expected_)


@pytest.mark.parametrize("first_chunk", [False, True])
@pytest.mark.parametrize(("channels", "outputs", "factor_t"), [(4, 4, 2), (4, 4, 1), (4, 2, 2), (2, 4, 2), (6, 3, 1)])
def test_repeated_values(channels, outputs, factor_t, first_chunk):
    plain = DupUp3D(channels, outputs, factor_t, factor_s=2)
    folded = copy.deepcopy(plain)
    folded.__class__ = FoldedDupUp
    video = channels_last(torch.randn(2, channels, 3, 4, 2))
    assert torch.equal(folded(video, first_chunk), plain(video, first_chunk))
    assert folded(video).is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("mode", ["upsample2d", "upsample3d"])
def test_resampling_of_a_stream(mode):
    plain = WanResample(4, mode, upsample_out_dim=6)
    folded = copy.deepcopy(plain)
    fold_resampling(folded)
    caches = [None], [None]
    for frames in (1, 1, 1, 2, 1, 4):  # the first alone, one after another, several at once
        video = channels_last(torch.randn(2, 4, frames, 3, 5))
        ours, expected = (module(video, cache, [0]) for module, cache in zip((folded, plain), caches, strict=True))
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
        assert type(caches[0][0]) is type(caches[1][0])
        if isinstance(caches[1][0], torch.Tensor):
            assert torch.equal(*(cache[0] for cache in caches))
    assert ours.is_contiguous(memory_format=torch.channels_last_3d)


def test_downsampling_stays_what_it_is():
    plain = WanResample(4, "downsample3d")
    fold_resampling(plain)
    assert type(plain) is WanResample


def test_blocks_of_a_vae_are_folded_and_their_names_stay():
    vae = AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        is_residual=True,
        patch_size=2,
        in_channels=12,
        out_channels=12,
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    names = list(vae.state_dict())
    block = copy.deepcopy(vae.decoder.up_blocks[0])
    fold_resampling(vae)
    assert list(vae.state_dict()) == names
    assert all(type(block) is FoldedUpBlock for block in vae.decoder.up_blocks)
    video = torch.randn(1, 4, 1, 4, 4)
    given = video.clone()
    torch.testing.assert_close(vae.decoder.up_blocks[0](video), block(video), rtol=0, atol=1e-5)
    assert torch.equal(video, given), "the block changed its input"
