"""A transformer on another VAE's latents: linear maps are found and obeyed, everything else stays as it was."""

import pytest
import torch
from torch import nn

from training.train_vae import build_vae
from training.transplant import (
    TransplantConfig,
    empty_copy,
    main,
    moved_embedding,
    patches,
    quiet_directions,
    solve,
)
from training.vae import batches
from training.vae.config import VAEConfig

from .conftest import random_clips


def test_patches_are_those_of_the_embedding():
    latents, layer = torch.randn(2, 5, 3, 4, 6), nn.Conv3d(5, 7, (1, 2, 2), (1, 2, 2))
    rows = patches(latents) @ layer.weight.flatten(1).T + layer.bias
    torch.testing.assert_close(rows, layer(latents).flatten(2).transpose(1, 2).flatten(0, 1), atol=1e-5, rtol=1e-4)


def test_least_squares_finds_the_map():
    inputs, matrix = torch.randn(400, 12), torch.randn(5, 12)
    torch.testing.assert_close(solve(inputs, inputs @ matrix.T, 1e-6), matrix, atol=1e-3, rtol=1e-3)


def test_where_the_map_is_exact_the_blocks_see_what_they_saw(make_transformer):
    """Old latents that are a linear map of the new ones: the motion slot's embedding does not change."""
    transformer, new_channels = make_transformer(), 6
    to_old = torch.randn(16, 4 * new_channels)
    moved = moved_embedding(transformer, to_old, new_channels)
    assert moved.shape == (24, 3 * new_channels, 1, 2, 2)
    new = torch.randn(50, 4 * new_channels)
    slots = zip(transformer.patch_embedding.weight.split(4, 1), moved.split(new_channels, 1), strict=True)
    for name, (before, after) in zip(("latents", "motion", "image"), slots, strict=True):
        seen = new @ after.flatten(1).T
        same = torch.allclose(seen, new @ to_old.T @ before.flatten(1).T, atol=1e-3)
        assert same == (name != "latents"), name


def test_what_the_map_does_not_see_reaches_the_stream(make_transformer):
    """Of 24 numbers in a patch the old latents hold 16: the rest have directions of their own, as many as fit."""
    transformer = make_transformer()
    weight = moved_embedding(transformer, torch.randn(16, 24), 6)[:, :6].flatten(1)
    assert torch.linalg.matrix_rank(weight, tol=1e-3) == 24


def test_quiet_directions_are_outside_and_orthonormal(make_transformer):
    transformer, used = make_transformer(), torch.randn(24, 10)
    own = quiet_directions(transformer, used, 6)
    torch.testing.assert_close(own.T @ own, torch.eye(6), atol=1e-4, rtol=0)
    assert (used.T @ own).abs().max() < 1e-4


def test_the_blocks_stay(make_transformer):
    transformer = make_transformer()
    copy = empty_copy(transformer, 6)
    assert copy.config.input_layout == {"latents": 6, "motion": 6, "image": 6} and copy.config.out_channels == 6
    for name, tensor in transformer.state_dict().items():
        if not name.startswith(("patch_embedding.weight", "proj_out")):
            assert torch.equal(copy.state_dict()[name], tensor), name


def test_what_was_a_default_may_change(make_transformer):
    """diffusers notes which settings were defaults, and would fall back to them."""
    transformer = make_transformer()
    transformer.register_to_config(_use_default_values=["out_channels", "in_channels", "input_layout"])
    assert empty_copy(transformer, 6).config.out_channels == 6


@pytest.mark.slow
def test_a_pipeline_moves(make_pipeline, tmp_path, monkeypatch):
    from pipelines import ARDragPipeline

    frames = torch.randint(0, 256, (2, 3, 33, 32, 32), dtype=torch.uint8)
    monkeypatch.setattr(batches, "make_clip", None)
    monkeypatch.setattr("training.transplant.sprite_pool", lambda *_: frames)
    make_pipeline().save_pretrained(tmp_path / "old")
    build_vae(VAEConfig(output_dir="", base_dim=8, decoder_base_dim=8, z_dim=6)).save_pretrained(tmp_path / "vae")
    random_clips(8, channels=6).save_to_disk(tmp_path / "data")
    paths = {name: str(tmp_path / name) for name in ("vae", "output_dir")}
    settings = {"photo_clips": 0, "batches": 2, "num_latents": 4, "data": [str(tmp_path / "data")]}
    main(TransplantConfig(pipeline=str(tmp_path / "old"), **paths, **settings))
    moved = ARDragPipeline.from_pretrained(paths["output_dir"])
    assert moved.vae.config.z_dim == 6 and moved.transformer.config.in_channels == 18
