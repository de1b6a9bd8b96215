"""The folded convolutions and the streaming VAE against diffusers' own `AutoencoderKLWan`, on tiny real models."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, WanRMS_norm

import ardrag.streaming_vae as streaming_vae
from ardrag.convolutions.causal import FoldedCausalConv3d, FusedRMSNorm
from ardrag.streaming_vae import StreamingVAE, StreamState, fold_causal_convs


STATISTICS = {"latents_mean": [0.1, -0.2, 0.3, -0.4], "latents_std": [0.5, 1.5, 2.0, 0.8]}
LAYOUTS: dict[str, dict[str, Any]] = {
    "wan2.1": {
        "base_dim": 8,
        "dim_mult": [1, 1, 1, 1],
        "temperal_downsample": [False, True, True],
    },
    "wan2.2": {
        "base_dim": 8,
        "dim_mult": [1, 2, 2],
        "temperal_downsample": [True, True],
        "is_residual": True,
        "patch_size": 2,
        "in_channels": 12,
        "out_channels": 12,
    },
}


def make_vae(layout: str, **changes: Any) -> AutoencoderKLWan:
    torch.manual_seed(0)
    settings = {"z_dim": 4, "num_res_blocks": 1, **STATISTICS, **LAYOUTS[layout], **changes}
    return AutoencoderKLWan(**settings).eval()


def random_pixels(num_frames: int, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, 3, num_frames, 16, 24, generator=generator) * 2 - 1


def random_latents(num_latents: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 4, num_latents, 2, 3, generator=torch.Generator().manual_seed(2))


def normalise(latents: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in STATISTICS.values())
    return (latents - mean) / std


def stream_encode(stream: StreamingVAE, pixels: torch.Tensor) -> list[torch.Tensor]:
    steps = [pixels[:, :, :1], *pixels[:, :, 1:].split(stream.temporal_factor, dim=2)]
    return [stream.encode_next(step) for step in steps]


def stream_decode(stream: StreamingVAE, latents: torch.Tensor) -> list[torch.Tensor]:
    return [stream.decode_next(latent) for latent in latents.split(1, dim=2)]


@pytest.fixture(params=list(LAYOUTS))
def vae(request: pytest.FixtureRequest) -> AutoencoderKLWan:
    return make_vae(request.param)


@pytest.fixture
def stream(vae: AutoencoderKLWan) -> StreamingVAE:
    return StreamingVAE(vae)


CONVS = {
    "3x3x3": {"kernel_size": 3, "padding": 1},
    "3x3x3 spatial stride": {"kernel_size": 3, "padding": 1, "stride": (1, 2, 2)},
    "temporal": {"kernel_size": (3, 1, 1), "padding": (1, 0, 0)},
    "temporal stride, padded": {"kernel_size": (3, 1, 1), "padding": (1, 0, 0), "stride": (2, 1, 1)},
    "temporal stride": {"kernel_size": (3, 1, 1), "stride": (2, 1, 1)},
    "1x1x1": {"kernel_size": 1},
}


@pytest.mark.parametrize("num_cached", [0, 1, 2, 3])
@pytest.mark.parametrize("num_frames", [1, 2, 4, 5])
@pytest.mark.parametrize("settings", CONVS.values(), ids=CONVS.keys())
def test_folded_conv_and_its_gradients_equal_the_causal_conv(
    settings: dict[str, Any], num_frames: int, num_cached: int
) -> None:
    torch.manual_seed(0)
    native = WanCausalConv3d(5, 7, **settings)
    folded = fold_causal_convs(copy.deepcopy(torch.nn.Sequential(native)))[0]
    assert type(folded) is FoldedCausalConv3d
    if native._padding[4] == 0:
        num_frames += native.kernel_size[0] - 1  # nothing is padded, and a cache is ignored
    inputs = torch.randn(2, 5, num_frames, 6, 8, requires_grad=True)
    cached = torch.randn(2, 5, num_cached, 6, 8, requires_grad=True) if num_cached else None

    results = []
    for conv in (native, folded):
        output = conv(inputs, cached)
        leaves = [inputs, conv.weight, conv.bias] + ([cached] if cached is not None else [])
        gradients = torch.autograd.grad(output.square().sum(), leaves, allow_unused=True)
        results.append((output, *gradients))

    for expected, actual in zip(*results, strict=True):
        assert (expected is None) == (actual is None)
        if expected is not None:
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5 * max(1.0, expected.abs().max().item()))


@torch.no_grad()
@pytest.mark.parametrize("num_cached", [0, 1, 2, 3])
@pytest.mark.parametrize("num_frames", [1, 2, 4, 5])
@pytest.mark.parametrize("settings", CONVS.values(), ids=CONVS.keys())
def test_folded_conv_without_gradients_equals_the_causal_conv(
    settings: dict[str, Any], num_frames: int, num_cached: int
) -> None:
    torch.manual_seed(0)
    native = WanCausalConv3d(5, 7, **settings)
    folded = fold_causal_convs(copy.deepcopy(torch.nn.Sequential(native)))[0]
    if native._padding[4] == 0:
        num_frames += native.kernel_size[0] - 1
    inputs = torch.randn(2, 5, num_frames, 6, 8)
    cached = torch.randn(2, 5, num_cached, 6, 8) if num_cached else None
    torch.testing.assert_close(folded(inputs, cached), native(inputs, cached), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(2, 6, 3, 4, 5), (2, 6, 4, 5)], ids=["video", "images"])
def test_fused_norm_and_its_gradients_equal_the_norm(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    native = WanRMS_norm(6, images=len(shape) == 4, bias=bias)
    for parameter in native.parameters():
        parameter.data.normal_()
    fused = fold_causal_convs(copy.deepcopy(torch.nn.Sequential(native)))[0]
    assert type(fused) is FusedRMSNorm
    inputs = torch.randn(shape, requires_grad=True)
    for expected, actual in zip(*(_with_gradients(norm, inputs) for norm in (native, fused)), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def _with_gradients(norm: torch.nn.Module, inputs: torch.Tensor) -> list[torch.Tensor]:
    output = norm(inputs)
    return [output, *torch.autograd.grad(output.pow(3).sum(), [inputs, *norm.parameters()])]


def test_fold_skips_the_taps_that_see_only_zeros() -> None:
    conv = fold_causal_convs(torch.nn.Sequential(WanCausalConv3d(2, 2, 3, padding=1)))[0]
    conv.weight.data[:, :, :2] = float("nan")
    assert conv(torch.ones(1, 2, 1, 4, 4)).isfinite().all()


def test_fold_reaches_every_causal_conv_and_keeps_parameters_and_keys(vae: AutoencoderKLWan) -> None:
    before = dict(vae.named_parameters())
    assert fold_causal_convs(vae) is vae
    convs = [module for module in vae.modules() if isinstance(module, WanCausalConv3d)]
    assert convs and all(type(conv) is FoldedCausalConv3d for conv in convs)
    after = dict(vae.named_parameters())
    assert list(after) == list(before) and all(after[name] is before[name] for name in before)


@torch.no_grad()
def test_folded_vae_equals_the_original(vae: AutoencoderKLWan) -> None:
    folded = fold_causal_convs(copy.deepcopy(vae))
    pixels, latents = random_pixels(9), random_latents(3)
    expected, actual = (model.encode(pixels).latent_dist.mode() for model in (vae, folded))
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)
    expected, actual = (model.decode(latents).sample for model in (vae, folded))
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_folded_vae_saves_as_a_plain_wan_vae(vae: AutoencoderKLWan, tmp_path: Path) -> None:
    fold_causal_convs(vae).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["_class_name"] == "AutoencoderKLWan"
    loaded = AutoencoderKLWan.from_pretrained(tmp_path)
    assert not any(isinstance(module, FoldedCausalConv3d) for module in loaded.modules())
    saved, read = vae.state_dict(), loaded.state_dict()
    assert list(saved) == list(read) and all(torch.equal(saved[name], read[name]) for name in saved)
    pixels = random_pixels(5)
    torch.testing.assert_close(StreamingVAE(loaded).encode(pixels), StreamingVAE(vae).encode(pixels))


@pytest.mark.parametrize("folded", [False, True])
@torch.no_grad()
def test_streamed_encode_equals_the_whole_clip(vae: AutoencoderKLWan, folded: bool) -> None:
    pixels = random_pixels(13)
    expected = normalise(vae.encode(pixels).latent_dist.mode())
    stream = StreamingVAE(fold_causal_convs(vae) if folded else vae)
    latents = stream_encode(stream, pixels)
    assert [latent.shape for latent in latents] == [(2, 4, 1, 2, 3)] * 4
    torch.testing.assert_close(torch.cat(latents, dim=2), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(stream.encode(pixels), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("folded", [False, True])
@torch.no_grad()
def test_streamed_decode_equals_the_whole_clip(vae: AutoencoderKLWan, folded: bool) -> None:
    latents = random_latents(4)
    expected = vae.decode(latents).sample
    stream = StreamingVAE(fold_causal_convs(vae) if folded else vae)
    frames = stream_decode(stream, normalise(latents))
    assert [frame.shape[2] for frame in frames] == [1, 4, 4, 4]
    torch.testing.assert_close(torch.cat(frames, dim=2), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(stream.decode(normalise(latents)), expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_pixels_are_clamped(stream: StreamingVAE) -> None:
    stream.vae.decoder.conv_out.weight *= 100
    pixels = stream.decode(random_latents(2))
    assert pixels.max() == 1.0 and pixels.min() == -1.0


@torch.no_grad()
def test_factors_come_from_the_config() -> None:
    vae = make_vae("wan2.2", temperal_downsample=[False, True], scale_factor_temporal=2)
    stream = StreamingVAE(vae)
    assert stream.encode(random_pixels(5)).shape == (2, 4, 3, 2, 3)
    latents = random_latents(3)
    pixels = stream.decode(normalise(latents))
    assert pixels.shape == (2, 3, 5, 16, 24)
    torch.testing.assert_close(pixels, vae.decode(latents).sample)


@torch.no_grad()
def test_a_later_frame_never_changes_an_earlier_output(stream: StreamingVAE) -> None:
    pixels, latents = random_pixels(13), random_latents(4)
    changed_pixels, changed_latents = pixels.clone(), latents.clone()
    changed_pixels[:, :, 9:] = 0.5
    changed_latents[:, :, 3:] = 0.5
    first, second = stream.encode(pixels), stream.encode(changed_pixels)
    assert torch.equal(first[:, :, :3], second[:, :, :3]) and not torch.equal(first[:, :, 3:], second[:, :, 3:])
    first, second = stream.decode(latents), stream.decode(changed_latents)
    assert torch.equal(first[:, :, :9], second[:, :, :9]) and not torch.equal(first[:, :, 9:], second[:, :, 9:])


@torch.no_grad()
def test_outputs_and_snapshots_never_change_afterwards(stream: StreamingVAE) -> None:
    """Nothing writes into a tensor that an earlier step returned or cached, so sharing tensors is safe."""
    pixels, latents = random_pixels(13), random_latents(4)
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    for i, latent in enumerate(latents.split(1, dim=2)):
        frames = pixels[:, :, :1] if i == 0 else pixels[:, :, 4 * i - 3 : 4 * i + 1]
        kept += [(output, output.clone()) for output in (stream.encode_next(frames), stream.decode_next(latent))]
        state = stream.state()
        slots = [slot for slot in state.encoder + state.decoder if isinstance(slot, torch.Tensor)]
        assert slots
        kept += [(slot, slot.clone()) for slot in slots]
    assert all(torch.equal(tensor, copied) for tensor, copied in kept)


@pytest.mark.parametrize("num_before", [0, 1, 2, 3])
@torch.no_grad()
def test_restore_is_bit_identical_and_streams_fork(vae: AutoencoderKLWan, num_before: int) -> None:
    stream = StreamingVAE(vae)
    pixels, latents = random_pixels(21), random_latents(6)
    frames = [pixels[:, :, :1], *pixels[:, :, 1:].split(4, dim=2)]
    for i in range(num_before):
        stream.encode_next(frames[i])
        stream.decode_next(latents[:, :, i : i + 1])
    state = stream.state()

    def carry_on(a_stream: StreamingVAE) -> list[torch.Tensor]:
        encoded = [a_stream.encode_next(frame) for frame in frames[num_before:]]
        return encoded + stream_decode(a_stream, latents[:, :, num_before:])

    expected = carry_on(stream)
    stream.restore(state)
    other = StreamingVAE(vae)
    other.restore(state)
    for actual in (carry_on(stream), carry_on(other)):
        assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


@torch.no_grad()
def test_reset_starts_a_new_stream(stream: StreamingVAE) -> None:
    pixels, latents = random_pixels(5), random_latents(2)
    first = stream_encode(stream, pixels) + stream_decode(stream, latents)
    stream.reset()
    again = stream_encode(stream, pixels) + stream_decode(stream, latents)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@torch.no_grad()
def test_whole_clips_and_other_users_of_the_vae_leave_the_stream_alone(
    vae: AutoencoderKLWan, stream: StreamingVAE
) -> None:
    pixels, latents = random_pixels(9), random_latents(3)
    expected = stream.encode(pixels), stream.decode(latents)
    encoded, decoded = [], []
    for i, latent in enumerate(latents.split(1, dim=2)):
        encoded.append(stream.encode_next(pixels[:, :, :1] if i == 0 else pixels[:, :, 4 * i - 3 : 4 * i + 1]))
        decoded.append(stream.decode_next(latent))
        state = stream.state()
        stream.encode(pixels[:1, :, :5, :8])
        stream.decode(latents[:1, :, :2, :1])
        vae.decode(vae.encode(pixels).latent_dist.mode())
        assert stream.state() is state
    assert torch.equal(torch.cat(encoded, dim=2), expected[0])
    assert torch.equal(torch.cat(decoded, dim=2), expected[1])


def test_a_failed_step_leaves_the_stream_alone(stream: StreamingVAE) -> None:
    stream.encode_next(random_pixels(1))
    state = stream.state()
    with pytest.raises(ValueError):
        stream.encode_next(random_pixels(1))
    assert stream.state() is state


def test_gradients_reach_inputs_and_parameters(vae: AutoencoderKLWan) -> None:
    gradients = []
    for model in (vae, fold_causal_convs(copy.deepcopy(vae))):
        pixels = random_pixels(5).requires_grad_()  # one frame alone never runs the temporal convolutions
        stream = StreamingVAE(model)
        decoded = stream.decode(stream.encode(pixels))
        decoded.square().mean().backward()
        missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        assert missing == []
        gradients.append([pixels.grad, *(parameter.grad for parameter in model.parameters())])
    for expected, actual in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-6)


def test_gradients_flow_through_a_stream(stream: StreamingVAE) -> None:
    pixels = random_pixels(5).requires_grad_()
    stream_encode(stream, pixels)[1].sum().backward()
    assert pixels.grad is not None and pixels.grad[:, :, 0].abs().sum() > 0


@torch.no_grad()
def test_model_offload_hook_runs_before_each_step(vae: AutoencoderKLWan) -> None:
    calls: list[Any] = []
    vae._hf_hook = SimpleNamespace(pre_forward=calls.append)
    stream = StreamingVAE(vae)
    stream.decode_next(stream.encode_next(random_pixels(1)))
    assert calls == [vae, vae]


Call = Callable[[StreamingVAE], Any]
BAD_CALLS: dict[str, tuple[Call, str]] = {
    "first chunk too long": (lambda s: s.encode_next(random_pixels(4)), r"pixels has 4 frames, expected 1: .*reset"),
    "later chunk too short": (
        lambda s: (s.encode_next(random_pixels(1)), s.encode_next(random_pixels(1))),
        r"pixels has 1 frames, expected 4: .*reset",
    ),
    "pixel channels": (lambda s: s.encode_next(torch.zeros(1, 4, 1, 16, 16)), r"pixels has 4 channels, expected 3"),
    "pixel height": (lambda s: s.encode_next(torch.zeros(1, 3, 1, 12, 16)), r"pixels is 12x16 .*multiples of 8.*crop"),
    "pixel width": (lambda s: s.encode(torch.zeros(1, 3, 1, 16, 12)), r"pixels is 16x12 .*multiples of 8.*crop"),
    "pixel dimensions": (
        lambda s: s.encode(torch.zeros(3, 1, 16, 16)),
        r"pixels has shape \[3, 1, 16, 16\], expected 5",
    ),
    "no frames": (lambda s: s.encode(torch.zeros(1, 3, 0, 16, 16)), r"pixels has shape .* non-empty"),
    "clip length": (lambda s: s.encode(random_pixels(8)), r"pixels has 8 frames, expected 4k\+1 .*drop or repeat"),
    "clip channels": (lambda s: s.encode(torch.zeros(1, 1, 5, 16, 16)), r"pixels has 1 channels, expected 3"),
    "pixels change": (
        lambda s: (s.encode_next(random_pixels(1)), s.encode_next(random_pixels(4, batch=1))),
        r"pixels changed in mid-stream: .*reset",
    ),
    "two latents": (
        lambda s: s.decode_next(random_latents(2)),
        r"latent has 2 latent frames, expected 1: .*decode\(\)",
    ),
    "latent channels": (lambda s: s.decode_next(torch.zeros(1, 3, 1, 2, 2)), r"latent has 3 channels, expected 4"),
    "clip latent channels": (lambda s: s.decode(torch.zeros(1, 3, 2, 2, 2)), r"latents has 3 channels, expected 4"),
    "latent dimensions": (lambda s: s.decode(torch.zeros(4, 2, 2)), r"latents has shape \[4, 2, 2\], expected 5"),
    "latents change": (
        lambda s: (s.decode_next(random_latents(1)), s.decode_next(torch.zeros(2, 4, 1, 4, 4))),
        r"latent changed in mid-stream: .*reset",
    ),
    "foreign state": (lambda s: s.restore(StreamState((None,), (None,))), r"state holds \[1, 1\] .*same VAE"),
}


@pytest.mark.parametrize(("call", "message"), BAD_CALLS.values(), ids=BAD_CALLS.keys())
def test_errors_name_the_field_and_the_remedy(stream: StreamingVAE, call: Call, message: str) -> None:
    with torch.no_grad(), pytest.raises(ValueError, match=message):
        call(stream)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale_factor_spatial": 16}, "scale_factor_spatial is 16, but .* make 8"),
        ({"scale_factor_temporal": 2}, "scale_factor_temporal is 2, but .* make 4"),
        ({"latents_mean": [0.0]}, "latents_mean has 1 values, expected z_dim = 4"),
        ({"latents_std": [1.0]}, "latents_std has 1 values, expected z_dim = 4"),
    ],
)
def test_config_that_contradicts_the_layers_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StreamingVAE(make_vae("wan2.2", **changes))


@torch.no_grad()
def test_tiling_has_no_effect_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    streaming_vae._say_that_nothing_is_tiled.cache_clear()
    vae, pixels = make_vae("wan2.1"), random_pixels(5)
    expected = StreamingVAE(vae).encode(pixels)
    assert not caplog.records
    vae.enable_tiling(8, 8, 8, 8)
    streams = StreamingVAE(vae), StreamingVAE(vae)
    assert torch.equal(streams[0].encode(pixels), expected)
    assert [record.getMessage().split(";")[0] for record in caplog.records] == ["vae: tiling has no effect"]
