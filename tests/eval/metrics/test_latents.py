"""The latent error: nothing between equals, damage counts where tracks go and hardly elsewhere."""

import numpy as np
import pytest

from ardrag.tracks.tracks import Tracks
from eval.metrics.latents import LatentError


TRACKS = Tracks.from_points([[(0, 0.2, 0.2), (8, 0.3, 0.2)]], num_frames=9)


@pytest.fixture(scope="module")
def error(pipeline):
    return LatentError(pipeline.vae)


@pytest.fixture(scope="module")
def truth():
    return np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)


def damaged(truth, rows, columns, frames=slice(1, None)):
    video = truth.copy()
    video[frames, rows, columns] = 255 - video[frames, rows, columns]
    return video


def test_equal_videos_have_none(error, truth):
    assert error(truth, truth, TRACKS) == 0
    assert error(truth[:5], truth, TRACKS) == 0


def test_it_looks_where_the_tracks_go(error, truth):
    near = error(damaged(truth, slice(4, 20), slice(4, 28)), truth, TRACKS)
    far = error(damaged(truth, slice(44, 60), slice(36, 60)), truth, TRACKS)
    assert near > 10 * far > 0  # the VAE's attention sees the whole picture


def test_without_tracks_there_is_nothing_to_say(error, truth):
    assert error(truth, truth, Tracks.empty(9)) is None
