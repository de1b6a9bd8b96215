"""Prompts of stage 3: deterministic, from Sprite World's training split or from any dataset with the columns."""

import numpy as np
import pytest
import torch
from datasets import Dataset

from ardrag.tracks.tracks import Tracks
from training.rollouts.prompts import load_prompts


def test_sprites_are_drawn_by_the_generator_alone():
    draw = load_prompts("sprites", 9, 64, 64)
    one, same, other = (draw(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert np.array_equal(one.image, same.image) and one.caption == same.caption
    assert one.tracks.to_json() == same.tracks.to_json() and not np.array_equal(one.image, other.image)
    assert one.image.shape == (64, 64, 3) and one.tracks.num_frames == 9


def test_rows_of_a_dataset(tmp_path):
    tracks = Tracks.from_points([[(0, 0.2, 0.5), (8, 0.6, 0.5)]], num_frames=9)
    rows = {
        "image": np.zeros((2, 8, 8, 3), np.uint8).tolist(),
        "caption": ["a", "b"],
        "tracks": [tracks.to_json()] * 2,
    }
    Dataset.from_dict(rows).save_to_disk(tmp_path / "good")
    draw = load_prompts(str(tmp_path / "good"), 9, 8, 8)
    drawn = [draw(torch.Generator().manual_seed(seed)) for seed in range(8)]
    assert {prompt.caption for prompt in drawn} == {"a", "b"} and drawn[0].image.shape == (8, 8, 3)
    assert drawn[0].tracks.to_json() == tracks.to_json()
    Dataset.from_dict({"image": rows["image"], "caption": rows["caption"]}).save_to_disk(tmp_path / "bad")
    with pytest.raises(ValueError, match=r"prompts: .*bad lacks column\(s\) tracks"):
        load_prompts(str(tmp_path / "bad"), 9, 8, 8)
