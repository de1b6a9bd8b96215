"""Lengths, rates and sizes of clips."""

import numpy as np
import pytest

from training.curate.bucket import Window, choose_bucket, fitted, nearest_frames, windows


def test_the_longest_that_fits_and_then_the_rest():
    found = windows(1.0, 1.0 + 5.3, 30.0, (17, 33, 49), 16.0)
    assert [window.frames for window in found] == [49, 33] and found[0].start == 1.0
    assert found[1].start == found[0].stop + 1 / 16 and found[1].stop <= 6.3
    assert windows(0.0, 0.9, 30.0, (17,), 16.0) == []
    assert [window.frames for window in windows(0.0, 1.0, 30.0, (17,), 16.0)] == [17]


def test_no_frame_is_made_up():
    (window,) = windows(0.0, 2.0, 10.0, (17,), 16.0)
    assert window.fps == 10.0
    assert nearest_frames(np.arange(21) / 10, window).tolist() == list(range(17))


def test_sixty_frames_become_sixteen_and_uneven_ones_too():
    times = np.arange(61) / 60
    chosen = nearest_frames(times, Window(0.0, 17, 16.0))
    assert np.abs(times[chosen] - np.arange(17) / 16).max() <= 0.5 / 60 + 1e-9
    uneven = np.array([0.0, 0.3, 0.34, 0.5])
    assert nearest_frames(uneven, Window(0.0, 3, 4.0)).tolist() == [0, 1, 3]


@pytest.mark.parametrize(
    ("size", "bucket"), [((640, 480), (96, 160)), ((130, 128), (128, 128)), ((300, 900), (160, 96)), ((90, 90), None)]
)
def test_nearest_bucket_unless_the_picture_is_too_small(size, bucket):
    buckets = ((128, 128), (96, 160), (160, 96))
    if bucket is None:
        assert choose_bucket(80, 80, buckets) is None
    else:
        assert choose_bucket(*size, buckets) == bucket


def test_fitted_is_what_the_pipeline_does(scene):
    from PIL import Image

    from pipelines.image_input import fit_image

    frame = scene(131, 97).draw(0)
    assert np.array_equal(fitted(frame, 96, 160), np.asarray(fit_image(Image.fromarray(frame), 96, 160)))
