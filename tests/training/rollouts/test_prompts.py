"""Prompts of stage 3: deterministic, from Sprite World's training split or from any dataset with the columns."""

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets

from ardrag.tracks.tracks import Tracks
from training.rollouts.prompts import load_prompts
from training.run.clips import unpack_tracks


def drawn(draw, seed, shape=0):
    return draw(torch.Generator().manual_seed(seed), torch.Generator().manual_seed(shape))


def test_sprites_are_drawn_by_the_generator_alone():
    draw = load_prompts("sprites", 9, [[64, 64]])
    one, same, other = (drawn(draw, seed, shape) for seed, shape in ((0, 0), (0, 1), (1, 0)))
    assert np.array_equal(one.image, same.image) and one.caption == same.caption
    assert one.tracks.to_json() == same.tracks.to_json() and not np.array_equal(one.image, other.image)
    assert one.image.shape == (64, 64, 3) and one.tracks.num_frames == 9


def test_the_small_world_asks_for_what_is_true_unless_its_labels_shall_be_noisy():
    exact, noisy = (drawn(load_prompts(name, 25, [[64, 64]]), 3) for name in ("small", "small:label_noise=6"))
    assert np.array_equal(exact.image, noisy.image)
    places, wrong = (prompt.tracks.to_array().xy for prompt in (exact, noisy))
    assert np.array_equal(places[0], wrong[0]) and np.abs(places - wrong).max() > 0.02
    with pytest.raises(ValueError, match="the small world has no option 'fog'"):
        load_prompts("small:fog=1", 25, [[64, 64]])


def test_rows_of_a_dataset(tmp_path):
    tracks = Tracks.from_points([[(0, 0.2, 0.5), (8, 0.6, 0.5)]], num_frames=9)
    rows = {
        "image": np.zeros((2, 8, 8, 3), np.uint8).tolist(),
        "caption": ["a", "b"],
        "tracks": [tracks.to_json()] * 2,
    }
    Dataset.from_dict(rows).save_to_disk(tmp_path / "good")
    draw = load_prompts(str(tmp_path / "good"), 9, [[8, 8]])
    prompts = [drawn(draw, seed) for seed in range(8)]
    assert {prompt.caption for prompt in prompts} == {"a", "b"} and prompts[0].image.shape == (8, 8, 3)
    assert prompts[0].tracks.to_json() == tracks.to_json()
    Dataset.from_dict({"image": rows["image"], "caption": rows["caption"]}).save_to_disk(tmp_path / "bad")
    with pytest.raises(ValueError, match=r"prompts: .*bad lacks column\(s\) tracks"):
        load_prompts(str(tmp_path / "bad"), 9, [[8, 8]])


def test_the_shape_s_generator_alone_chooses_the_size():
    draw = load_prompts("sprites", 9, [[64, 64], [64, 96]])
    sizes = [{drawn(draw, seed, shape).image.shape for seed in range(3)} for shape in range(6)]
    assert all(len(size) == 1 for size in sizes) and set.union(*sizes) == {(64, 64, 3), (64, 96, 3)}


def test_encoded_clips_are_prompts(make_clips, tmp_path):
    """The reference and the first frames of the tracks; clips that are too short are left out."""
    rows = concatenate_datasets([make_clips(4), make_clips(2, 3, 24, 48, seed=1), make_clips(1, 2, seed=2)])
    rows.save_to_disk(tmp_path)
    draw = load_prompts(str(tmp_path), 9, [])
    known = {np.asarray(row["reference"]).tobytes(): row for row in rows}
    seen = set()
    for shape in range(8):
        prompts = [drawn(draw, seed, shape) for seed in range(9)]
        assert len({prompt.image.shape for prompt in prompts}) == 1
        for prompt in prompts:
            row = known[prompt.image.tobytes()]
            seen.add(row["id"])
            arrays, whole = prompt.tracks.to_array(), unpack_tracks(row)
            assert prompt.caption == row["caption"] and prompt.tracks.num_frames == 9
            assert np.array_equal(arrays.visible, whole.visible[:9])
            assert np.array_equal(arrays.xy[arrays.visible], whole.xy[:9][arrays.visible])
            assert np.allclose(arrays.force, whole.force[:9])
    assert len(seen) == 6 and not any(name.startswith("2x") for name in seen)
    with pytest.raises(ValueError, match=r"num_latents: clips of 17 frames are longer .* at most 13"):
        load_prompts(str(tmp_path), 17, [])
