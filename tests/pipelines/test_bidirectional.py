"""A whole clip at once: what it is made of, and that it looks ahead where the causal pipeline cannot."""

import numpy as np
import pytest
from PIL import Image

from ardrag.tracks.tracks import Tracks
from pipelines.bidirectional import generate_bidirectional


def tracks_to(x):
    """One track over nine frames that is the same in the first five whatever ``x``."""
    xy = np.full((9, 1, 2), 0.5, np.float32)
    xy[:5, 0, 0] = np.linspace(0.2, 0.3, 5)
    xy[5:, 0, 0] = x
    return Tracks.from_array(xy, np.ones((9, 1), bool))


def test_shape_and_seed(pipeline, picture):
    clip = generate_bidirectional(pipeline, picture, "a star", tracks_to(0.8), num_inference_steps=3, seed=1)
    assert clip.shape == (9, 32, 32, 3) and clip.dtype == np.uint8
    again = generate_bidirectional(pipeline, picture, "a star", tracks_to(0.8), num_inference_steps=3, seed=1)
    assert np.array_equal(clip, again)
    other = generate_bidirectional(pipeline, picture, "a star", tracks_to(0.8), num_inference_steps=3, seed=2)
    assert not np.array_equal(clip, other)


def test_tracks_go_through_the_crop_of_their_picture(pipeline, picture):
    tall = Image.new("RGB", (32, 64))
    tall.paste(picture, (0, 16))
    whole, middle = ([[(0, 0.5, y)]] for y in (0.4, 0.3))
    clips = [
        generate_bidirectional(pipeline, image, tracks=Tracks.from_points(path, num_frames=9))
        for image, path in ((tall, whole), (picture, middle))
    ]
    assert np.abs(clips[0].astype(int) - clips[1]).max() <= 1


def test_the_first_frame_is_the_reference(pipeline, picture):
    (first,) = next(iter(pipeline.stream(picture, num_frames=5)))
    assert np.array_equal(generate_bidirectional(pipeline, picture, num_frames=5)[0], first)


def test_it_sees_what_is_still_to_come(pipeline, picture):
    """The last point of a track changes earlier frames here, and never in the stream."""
    early = slice(1, 5)
    here, there = (generate_bidirectional(pipeline, picture, tracks=tracks_to(x))[early] for x in (0.4, 0.9))
    assert not np.array_equal(here, there)
    streams = [[f for part in pipeline.stream(picture, tracks=tracks_to(x)) for f in part][early] for x in (0.4, 0.9)]
    assert np.array_equal(*streams)


def test_errors_are_those_of_the_pipeline(pipeline, picture):
    with pytest.raises(ValueError, match="num_frames: 8 is not 4k"):
        generate_bidirectional(pipeline, picture, num_frames=8)
