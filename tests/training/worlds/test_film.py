"""A world as files, named and captioned, and what is wrong with a request."""

import av
import numpy as np
import pytest

from ardrag.worlds.open import open_world
from training.worlds.film import FilmConfig, main


def test_films_are_the_world_s_clips_under_its_names(tmp_path):
    main(FilmConfig(str(tmp_path), start=3, num_clips=2, num_frames=9))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "train-3.mp4",
        "train-3.txt",
        "train-4.mp4",
        "train-4.txt",
    ]
    clip = open_world("small").make("train", 4, 9, 64, 64)
    assert (tmp_path / "train-4.txt").read_text() == clip.caption
    with av.open(str(tmp_path / "train-4.mp4")) as film:
        assert film.streams.video[0].average_rate == 16
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)])
    assert frames.shape == clip.frames.shape and np.abs(frames.astype(int) - clip.frames).mean() < 5


def test_what_cannot_be_filmed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="world: 'moon' is unknown"):
        FilmConfig(str(tmp_path), world="moon")
    with pytest.raises(ValueError, match="fps: 0 is no rate; use 16"):
        FilmConfig(str(tmp_path), fps=0)
