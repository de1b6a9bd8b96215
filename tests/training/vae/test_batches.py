"""Batches of the VAE stage: crops of both worlds, heat maps, carried pieces; the same for the same step."""

import pytest
import torch

from ardrag.controls.heat import rasterize
from training.vae.batches import (
    SPOT_PIXELS,
    Sources,
    batch_counts,
    open_held_out,
    open_sources,
    sample_heatmaps,
    sample_pixels,
    training_batch,
)
from training.vae.config import VAEConfig


SMALL = {"z_dim": 4, "clip_start": 2, "batch_size": 2, "clip_batch_size": 2, "clip_frames": 5, "pool_frames": 5}
SMALL |= {"crop": 16, "pool_clips": 2, "held_out_clips": 1, "heatmap_share": 0.4}


def test_heatmaps_are_those_of_the_tracks():
    """One spot, drawn by the project's own rasteriser, has the same shape and size."""
    heat = sample_heatmaps(40, 5, 64, torch.Generator().manual_seed(0))
    assert heat.shape == (40, 3, 5, 64, 64) and heat.min() >= -1 and heat.max() <= 1
    white = [bool(torch.equal(row[0], row[1]) and torch.equal(row[0], row[2])) for row in heat]
    assert 10 < sum(white) < 35
    axis = torch.arange(128) + 0.5
    spot = torch.exp(-((axis[:, None] - 60) ** 2 + (axis[None] - 70) ** 2) / (2 * SPOT_PIXELS**2))
    ours = rasterize(torch.tensor([[[70 / 128, 60 / 128]]]), torch.tensor([[True]]), torch.ones(1, 1), 128, 128)[0]
    torch.testing.assert_close(ours, spot, rtol=0, atol=1e-5)


def test_crops_come_from_the_pool():
    pool = torch.arange(2 * 3 * 9 * 6 * 6).reshape(2, 3, 9, 6, 6).remainder(251).byte()
    crops = sample_pixels(pool, 30, 5, 4, torch.Generator().manual_seed(0))
    assert crops.shape == (30, 3, 5, 4, 4) and crops.min() >= -1 and crops.max() <= 1
    values = set(((crops + 1) * 127.5).round().int().flatten().tolist())
    assert values <= set(pool.int().flatten().tolist())


def test_batches_depend_on_seed_step_and_rank():
    config = VAEConfig(output_dir="", **SMALL)
    sources = Sources(torch.zeros(2, 3, 5, 32, 32, dtype=torch.uint8), None, None)
    for step, frames, latents in ((0, 1, 1), (2, 5, 2)):
        pixels, noise = training_batch(sources, config, step, 0)
        assert pixels.shape == (2, 3, frames, 16, 16) and noise.shape == (2, 4, latents, 2, 2)
        again = training_batch(sources, config, step, 0)
        assert torch.equal(pixels, again[0]) and torch.equal(noise, again[1])
        assert not torch.equal(noise, training_batch(sources, config, step, 1)[1])


def test_photographs_keep_their_colours():
    pool = torch.tensor([200, 100, 0], dtype=torch.uint8).view(1, 3, 1, 1, 1).expand(1, 3, 5, 20, 20)
    crops = sample_pixels(pool, 20, 5, 16, torch.Generator().manual_seed(1), permute=False)
    assert (crops[:, 0] > crops[:, 1]).all() and (crops[:, 1] > crops[:, 2]).all()


def test_shares_are_kept():
    config = VAEConfig(output_dir="", heatmap_share=0.1, carried_share=0.2, photo_share=0.5)
    counts = torch.tensor(batch_counts(20_000, config, torch.Generator().manual_seed(0))) / 20_000
    torch.testing.assert_close(counts, torch.tensor([0.35, 0.35, 0.1, 0.2]), atol=0.015, rtol=0)


@pytest.fixture
def both_worlds(picture_folder, monkeypatch):
    """A configuration with photographs."""
    monkeypatch.setenv("ARDRAG_PHOTOS", picture_folder)
    changes = {"photo_share": 0.6, "carried_share": 0.3, "heatmap_share": 0.05, "photo_pool_clips": 2}
    return VAEConfig(output_dir="", **{**SMALL, **changes, "batch_size": 12, "clip_batch_size": 6})


def test_batches_of_both_worlds(both_worlds):
    sources = open_sources(both_worlds)
    assert sources.photos.shape == (2, 3, 5, 128, 128)
    for step, count, frames in ((0, 12, 1), (2, 6, 5)):
        pixels, _ = training_batch(sources, both_worlds, step, 0)
        assert pixels.shape == (count, 3, frames, 16, 16) and pixels.abs().max() <= 1
        assert torch.equal(pixels, training_batch(sources, both_worlds, step, 0)[0])


def test_validation_is_on_held_out_pictures(both_worlds):
    """Training pictures are reddish, held-out ones bluish."""
    held_out = open_held_out(both_worlds)
    assert set(held_out.parts()) == {"validation", "validation_photo_clips", "validation_photos"}
    for part in (held_out.photo_clips, held_out.photos):
        means = part.float().mean((0, 2, 3, 4))
        assert means[2] > means[0] + 40
    assert len(held_out.clips()) == 2
