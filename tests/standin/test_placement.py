"""Where tensors are: on an accelerator, under every way of offloading, the pipeline makes what it makes on the CPU."""

import numpy as np
import pytest
import torch

from ardrag.convolutions.causal import FoldedCausalConv3d, FusedRMSNorm
from ardrag.tracks.tracks import Tracks
from pipelines.bidirectional import generate_bidirectional


pytestmark = pytest.mark.standin
FRAMES = 9
TRACKS = Tracks.from_points([[(0, 0.2, 0.3), (8, 0.8, 0.4)]], num_frames=FRAMES)


def call(pipeline, picture, generator=None, **options):
    generator = generator or torch.Generator().manual_seed(0)
    options = {"guidance_scale": 2.0, "num_frames": FRAMES, "output_type": "np", **options}
    return pipeline(picture, "a red star", tracks=TRACKS, generator=generator, **options).frames[0]


def close(frames, expected):
    """Equal but for the order of sums in the VAE's convolutions, which are the folded ones on a CPU alone."""
    return np.abs(frames.astype(np.float32) - expected).max() <= 1.01 / 255


@pytest.fixture(scope="module")
def expected(pipeline, picture):
    return call(pipeline, picture)


MODES = {
    "moved": lambda pipe, device: pipe.to(device),
    "model offload": lambda pipe, device: pipe.enable_model_cpu_offload(device=device),
    "sequential offload": lambda pipe, device: pipe.enable_sequential_cpu_offload(device=device),
    "leaves offloaded": lambda pipe, device: pipe.enable_group_offload(device, offload_type="leaf_level"),
    "blocks offloaded": lambda pipe, device: pipe.enable_group_offload(
        device, offload_type="block_level", num_blocks_per_group=1
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_makes_the_same(accelerator, make_pipeline, picture, expected, mode):
    pipe = make_pipeline()
    MODES[mode](pipe, accelerator)
    assert pipe._execution_device.type == "hpu"
    assert close(call(pipe, picture), expected)
    assert close(call(pipe, picture), expected)  # and again, when everything has been moved once


@pytest.mark.parametrize("mode", MODES)
def test_sessions_streams_and_whole_clips(accelerator, make_pipeline, pipeline, picture, mode):
    pipe = make_pipeline()
    MODES[mode](pipe, accelerator)
    for ours, theirs in zip(pipe.stream(picture, tracks=TRACKS), pipeline.stream(picture, tracks=TRACKS), strict=True):
        assert close(np.stack(ours) / 255, np.stack(theirs) / 255)
    session, other = pipe.start_session(picture), pipeline.start_session(picture)
    for step in ([(0.5, 0.5)], [(0.6, 0.5)], [(0.7, 0.5)]):
        session.step(step), other.step(step)
    session.rewind(1), other.rewind(1)
    twin = session.fork()
    frames = np.stack(other.step([(0.1, 0.5)])) / 255
    assert close(np.stack(session.step([(0.1, 0.5)])) / 255, frames)
    assert close(np.stack(twin.step([(0.1, 0.5)])) / 255, frames)
    clips = [generate_bidirectional(each, picture, "a star", TRACKS) / 255 for each in (pipe, pipeline)]
    assert close(*clips)


def test_the_offloaded_models_are_off_the_device_afterwards(accelerator, make_pipeline, picture):
    pipe = make_pipeline()
    pipe.enable_model_cpu_offload(device=accelerator)
    for use in (lambda: call(pipe, picture), lambda: list(pipe.stream(picture, num_frames=5))):
        use()
        assert {p.device.type for part in (pipe.transformer, pipe.vae) for p in part.parameters()} == {"cpu"}


def test_the_vae_leaves_its_convolutions_for_the_cpu_behind(accelerator, make_pipeline, picture, monkeypatch):
    pipe = make_pipeline()
    for kind, name in ((FoldedCausalConv3d, "_gather_taps"), (FoldedCausalConv3d, "_onednn_conv")):
        monkeypatch.setattr(kind, name, lambda *_: pytest.fail("the CPU's way"))
    with pytest.raises(pytest.fail.Exception):
        call(pipe, picture)
    assert any(isinstance(module, FusedRMSNorm) for module in pipe.vae.modules())
    call(pipe.to(accelerator), picture)


@pytest.mark.parametrize("half", ["transformer", "vae"])
def test_two_precisions(accelerator, make_pipeline, picture, expected, half):
    pipe = make_pipeline()
    getattr(pipe, half).to(torch.bfloat16)
    frames = call(pipe.to(accelerator), picture)
    assert np.isfinite(frames).all() and np.abs(frames - expected).mean() < 0.05
