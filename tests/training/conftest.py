"""A small transformer and conditions for the tests of the stages' mathematics."""

import numpy as np
import pytest
import torch
from datasets import Dataset

from ardrag.conditioning import Conditions, image_slot
from ardrag.transformer import CausalWanTransformer


CHANNELS, SIDE = 4, 4


def build_transformer(chunk_frames=1, **changes):
    """Five latents of window at most two: eviction begins early."""
    torch.manual_seed(0)
    layout = {"latents": CHANNELS, "motion": CHANNELS, "image": CHANNELS}
    settings = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 32, "freq_dim": 16}
    settings |= {"in_channels": 3 * CHANNELS, "out_channels": CHANNELS, "text_dim": 8, "image_dim": 6}
    settings |= {"added_kv_proj_dim": 24, "input_layout": layout, "image_context": "first", "window_frames": 2}
    return CausalWanTransformer(**{**settings, "chunk_frames": chunk_frames, **changes})


def build_conditions(num_latents, batch=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    motion, noise = torch.randn(2, batch, CHANNELS, num_latents, SIDE, SIDE, generator=generator)
    reference = torch.randn(batch, CHANNELS, 1, SIDE, SIDE, generator=generator)
    text, tokens = torch.randn(batch, 5, 8, generator=generator), torch.randn(batch, 3, 6, generator=generator)
    return Conditions(motion, image_slot(reference, noise), text, tokens), reference


@pytest.fixture(scope="session")
def make_transformer():
    return build_transformer


@pytest.fixture(scope="session")
def make_conditions():
    return build_conditions


@pytest.fixture(scope="session")
def run_inputs(pipeline, tmp_path_factory):
    """A folder with what the stages start from: a VAE, a pipeline, and precomputed latents of six random clips."""
    folder = tmp_path_factory.mktemp("inputs")
    pipeline.vae.save_pretrained(folder / "vae")
    pipeline.save_pretrained(folder / "pipeline")
    generator = np.random.default_rng(0)
    rows = {
        "latents": generator.normal(size=(6, 4, 4, 4, 4)).astype(np.float32).tolist(),
        "motion": generator.normal(size=(6, 4, 4, 4, 4)).astype(np.float32).tolist(),
        "reference": generator.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8).tolist(),
        "caption": [f"a star moves {way}" for way in ("up", "down", "left", "right", "around", "away")],
    }
    Dataset.from_dict(rows).save_to_disk(folder / "latents")
    return folder


@pytest.fixture(scope="session")
def interrupt_at():
    """A function that stops the run of a stage's module in the middle of a step, as a power cut would."""

    def interrupt_at(patch, module, step):
        check = module.require_finite

        def stop(loss, now):
            check(loss, now)
            if now == step:
                raise KeyboardInterrupt

        patch.setattr(module, "require_finite", stop)

    return interrupt_at
