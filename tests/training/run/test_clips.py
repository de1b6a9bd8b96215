"""The schema of encoded clips: what is packed comes back, at the precision that docs/data.md states."""

import numpy as np
import pytest
import torch
from datasets import Dataset

from ardrag.controls.control import Rows
from ardrag.tracks.sampling import TrackArrays
from ardrag.tracks.schema import GROUND
from ardrag.tracks.tracks import Tracks
from training.run.clips import (
    FEATURES,
    SCHEMA,
    pack_clip,
    pack_half,
    pack_tracks,
    unpack_half,
    unpack_rows,
    unpack_tracks,
)


def arrays(frames=13, count=3):
    rng = np.random.default_rng(0)
    xy = rng.uniform(-0.2, 1.2, (frames, count, 2)).astype(np.float32)
    inside = ((xy >= 0) & (xy <= 1)).all(2)
    return TrackArrays(xy, inside & (rng.random(inside.shape) < 0.7), rng.random(inside.shape).astype(np.float32))


def test_places_are_good_to_a_fiftieth_of_a_pixel_at_1280():
    given = arrays(81, 40)
    found = unpack_tracks({"frames": 81, **pack_tracks(given)})
    seen = given.visible
    assert np.array_equal(found.visible, seen) and seen.any() and not seen.all()
    assert np.abs(found.xy - given.xy)[seen].max() * 1280 < 0.02
    assert np.abs(found.force - given.force).max() <= 0.5 / 255 + 1e-6
    assert found.xy.dtype == found.force.dtype == np.float32
    assert len(pack_tracks(given)["visible"]) == 81 * 40 / 8


def test_corners_are_exact_and_stay_in_sight():
    xy = np.array([[[0, 0], [1, 1]]], np.float32)
    given = TrackArrays(xy, np.ones((1, 2), bool), np.ones((1, 2), np.float32))
    found = unpack_tracks({"frames": 1, **pack_tracks(given)})
    assert np.array_equal(found.xy, xy) and found.visible.all() and (found.force == 1).all()


def test_a_clip_without_tracks():
    found = unpack_tracks({"frames": 5, **pack_tracks(Tracks.empty(5).to_array())})
    assert found.xy.shape == (5, 0, 2) and found.visible.shape == (5, 0)


def test_half_precision_and_its_limits():
    values = torch.randn(4, 3, 2, 5)
    assert torch.equal(unpack_half(pack_half(values), values.shape), values.half().float())
    with pytest.raises(ValueError, match="latents: they are not finite in half precision"):
        pack_half(torch.tensor([1e6]))


def test_a_row_survives_the_disk(tmp_path):
    picture = np.random.default_rng(1).integers(0, 256, (24, 48, 3), dtype=np.uint8)
    latents, motion = torch.randn(2, 4, 4, 3, 6)
    brushes = (None, 0.25, GROUND)
    told = "a-1", "film.mp4", "a red star", picture, Rows(arrays(), brushes), 24.0, latents
    row = pack_clip(*told, "heat", motion)
    Dataset.from_list([row], features=FEATURES).save_to_disk(tmp_path)
    (kept,) = Dataset.load_from_disk(tmp_path)
    assert (
        set(kept) == set(FEATURES) and kept["schema"] == SCHEMA and (kept["id"], kept["source"]) == ("a-1", "film.mp4")
    )
    assert (kept["height"], kept["width"], kept["frames"], kept["fps"]) == (24, 48, 13, 24.0)
    assert np.array_equal(np.asarray(kept["reference"]), picture)
    assert torch.equal(unpack_half(kept["latents"], kept["latent_shape"]), latents.half().float())
    assert torch.equal(unpack_half(kept["motion"], kept["latent_shape"]), motion.half().float())
    assert np.array_equal(unpack_tracks(kept).xy, unpack_tracks(row).xy)
    assert unpack_rows(kept).brushes == brushes and np.array_equal(unpack_rows(kept).arrays.xy, unpack_tracks(row).xy)
