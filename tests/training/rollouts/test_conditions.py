"""Conditions of precomputed clips are those that a session has of the same picture."""

import pytest
import torch

from ardrag.known.still_video import grey_after
from ardrag.streaming_vae import StreamingVAE
from training.rollouts.conditions import clip_conditions, grey_latents
from training.run.data import LatentBatch


@pytest.fixture
def batch():
    """Two clips of three latents, whose pictures differ."""
    generator = torch.Generator().manual_seed(0)
    latents, motion = torch.randn(2, 2, 4, 3, 4, 4, generator=generator)
    pictures = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return LatentBatch(latents, motion, pictures, ["a star", ""])


def pixels(batch):
    return batch.reference.permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def test_grey_after_each_picture(make_pipeline, batch):
    """As the VAE encodes the whole video; also under autocast, and in whatever batch."""
    pipe = make_pipeline(transformer={"image_fill": "grey"})
    made = grey_latents(pipe, batch)
    for picture, latents in zip(pixels(batch), made, strict=True):
        video = torch.cat([picture[:, None], torch.zeros(3, 8, 32, 32)], dim=1)[None]
        assert torch.equal(latents[None], StreamingVAE(pipe.vae).encode(video))
        assert torch.equal(latents[None], grey_after(pipe.vae, picture)(0, 3))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(grey_latents(pipe, batch), made)


def test_the_image_slot_is_the_picture_and_then_what_the_model_was_trained_with(make_pipeline, batch):
    pipe, noise = make_pipeline(), torch.randn(2, 4, 3, 4, 4)
    for fill in ("noise", "zeros", "grey", "picture"):
        pipe.transformer.register_to_config(image_fill=fill)
        image = clip_conditions(pipe, batch, batch.motion, noise, batch.captions).image
        grey = grey_latents(pipe, batch)
        rest = {"noise": noise, "zeros": 0 * noise, "grey": grey, "picture": batch.latents[:, :, :1].expand_as(noise)}
        assert torch.equal(image[:, :, :1], batch.latents[:, :, :1])
        assert torch.equal(image[:, :, 1:], rest[fill][:, :, 1:])
