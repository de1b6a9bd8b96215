"""A small transformer and conditions for the tests of the stages' mathematics."""

import pytest
import torch

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
