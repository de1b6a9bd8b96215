"""What generating takes, from shapes, against tensors that are really there."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from PIL import Image

from pipelines import ARDragPipeline
from pipelines.memory import OFFLOADS, PeakMemory, Work, cache_bytes, layer_bytes, pass_bytes, table, weight_bytes
from pipelines.pipeline_ardrag import BUNDLED_CHECKPOINT


SIDE, FRAMES, ROWS = 128, 33, 2
TRACKS = [(0.5, 0.5)]


@pytest.fixture(scope="module")
def native():
    """The tiny model as on an accelerator: not folded and laid out for a CPU."""
    pipe = ARDragPipeline.from_pretrained(BUNDLED_CHECKPOINT)
    pipe.vae = AutoencoderKLWan.from_config(pipe.vae.config).eval().requires_grad_(False)
    pipe.transformer.unrolls = False
    return pipe


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))


def work_of(rows=1):
    return Work(SIDE, SIDE, 1 + (FRAMES - 1) // 4, rows, 4)


def parts_of(pipe):
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def test_counting():
    weight = torch.ones(1000, 10)
    with PeakMemory() as memory:
        view = weight.t()  # was there before
        assert memory.alive == 0
        made = view @ weight
        assert memory.alive == memory.peak == made.nbytes == 400
        again = made.view(-1)[5:]
        del made
        assert memory.alive == 400
        del again
        assert memory.alive == 0 and memory.peak == 400


def test_weights_are_those_of_the_models(native):
    for model in parts_of(native).values():
        assert weight_bytes(model, 4) == sum(p.nbytes for p in model.parameters())
        assert 0 < layer_bytes(model, 4) <= weight_bytes(model, 4)
    kept = sum(p.numel() for n, p in native.transformer.named_parameters() if "norm2" in n)
    half = weight_bytes(native.transformer, 2)
    assert half > weight_bytes(native.transformer, 4) / 2 + kept  # norms stay in float32


@pytest.mark.slow
def test_a_pass_over_a_whole_clip(native, picture):
    clip = native.start_clip(picture, "a star", num_frames=FRAMES)
    with PeakMemory() as memory:
        clip.step()
    computed = pass_bytes(native.transformer.config, work_of(), work_of().num_latents, 1)
    assert memory.peak == pytest.approx(computed, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, ROWS])
def test_a_session(native, picture, rows):
    """The worst moment of all phases, with what cache and VAE remember."""
    scale = 1.0 if rows == 1 else 3.0
    with PeakMemory() as memory:
        session = native.start_session(picture, "a star", guidance_scale=scale, history_latents=0)
        for _ in range(3):
            session.step(TRACKS)
    context = native.tokenizer.model_max_length + 5
    rows_of = table(parts_of(native), work_of(rows), context)
    weights = sum(weight_bytes(part, 4) for part in parts_of(native).values())
    computed = max(sizes[0] for name, sizes in rows_of.items() if "causal" in name) - weights
    assert memory.peak == pytest.approx(computed, rel=0.15)
    assert cache_bytes(native.transformer.config, work_of(rows), context) < computed


def test_offloading_leaves_less(native):
    for sizes in table(parts_of(native), work_of(), 20).values():
        assert len(sizes) == len(OFFLOADS) and sizes[0] > sizes[1] >= sizes[2] > 0
