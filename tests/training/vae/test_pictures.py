"""Crops of photographs, cut-outs on them, and carried pieces that stay pieces of their picture."""

import numpy as np
import torch

from training.vae.pictures import held_out_photos, paste_cutout, photo_crop, sample_carried, sample_photos


def test_crops_come_from_training_photographs(library):
    rng = np.random.default_rng(0)
    for _ in range(20):
        picture = photo_crop(library, 32, rng)
        assert picture.shape == (32, 32, 3) and picture.min() >= 0 and picture.max() <= 1
        assert picture[..., 0].mean() > picture[..., 2].mean()


def test_a_cutout_covers_a_part(library):
    rng = np.random.default_rng(1)
    canvas = np.zeros((64, 64, 3), np.float32)
    for _ in range(30):
        paste_cutout(canvas, library, rng)
    covered = float((canvas.sum(-1) > 0).mean())
    assert 0.3 < covered <= 1 and canvas.max() <= 1


def test_photographs_are_the_same_for_the_same_generator(library):
    one, other = (sample_photos(library, 5, 24, torch.Generator().manual_seed(3)) for _ in range(2))
    assert one.shape == (5, 3, 1, 24, 24) and torch.equal(one, other)


def test_a_carried_piece_moves_unchanged_over_grey():
    """Of an even picture only the edge is seen, which goes to grey; where it is whole, it has the picture's colour."""
    pictures = torch.tensor([0.8, -0.4, 0.2]).view(1, 3, 1, 1, 1).expand(4, 3, 1, 64, 64)
    video = sample_carried(pictures, 9, torch.Generator().manual_seed(0))
    assert video.shape == (4, 3, 9, 64, 64)
    strength = video[:, 0] / 0.8
    assert strength.min() >= -1e-6 and strength.max() <= 1 + 1e-6 and strength.max() > 0.99
    torch.testing.assert_close(video[:, 1], -0.4 * strength, atol=1e-5, rtol=0)


def test_held_out_photographs_are_whole(library):
    photos = held_out_photos(library)
    assert photos.shape == (3, 3, 1, 128, 128) and photos.dtype == torch.uint8
    assert photos[:, 2].float().mean() > photos[:, 0].float().mean() + 40
