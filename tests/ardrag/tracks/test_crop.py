"""Crops: what stays of a picture, and where its places lie then."""

import numpy as np
import pytest

from ardrag.tracks.crop import WHOLE, Crop, crop_of_canvas
from ardrag.tracks.sampling import TrackArrays
from ardrag.tracks.schema import Canvas
from ardrag.tracks.tracks import Tracks


def test_the_middle_of_a_portrait():
    crop = Crop.covering(256, 512, 128, 128)
    assert crop == Crop(0, 0.25, 1, 0.75) and crop.box(256, 512) == (0, 128, 256, 384)
    assert crop.places(np.array([[0.7, 0.35], [0.5, 0.5], [0.1, 0.9]])).tolist() == pytest.approx(
        np.array([[0.7, 0.2], [0.5, 0.5], [0.1, 1.3]])
    )


@pytest.mark.parametrize("size", [(640, 368), (128, 128), (100, 999)])
def test_only_the_shape_counts(size):
    assert Crop.covering(*size, 2 * size[0], 2 * size[1]) == WHOLE
    crop = Crop.covering(512, 512, *size)
    left, top, right, bottom = crop.box(512, 512)
    assert (right - left) / (bottom - top) == pytest.approx(size[0] / size[1])
    assert max(right - left, bottom - top) == 512 and left == pytest.approx(512 - right)


@pytest.mark.parametrize("own", [(7919, 13), (13, 7919), (333, 1000)])
def test_boxes_stay_inside_the_picture(own):
    left, top, right, bottom = Crop.covering(*own, 128, 112).box(*own)
    assert 0 <= left < right <= own[0] and 0 <= top < bottom <= own[1]


def test_inverse_leads_back():
    crop, xy = Crop(0.1, 0.2, 0.7, 0.9), np.random.default_rng(0).uniform(-1, 2, (9, 3, 2))
    assert crop.inverse.places(crop.places(xy)) == pytest.approx(xy)
    assert WHOLE.inverse == WHOLE


def test_what_is_cut_away_is_not_visible():
    xy = np.array([[[0.5, 0.5], [0.5, 0.1], [0.4, 0.3]]], np.float32)
    arrays = TrackArrays(xy, np.array([[True, True, False]]), np.ones((1, 3), np.float32))
    shown = Crop(0, 0.25, 1, 0.75).arrays(arrays)
    assert shown.visible.tolist() == [[True, False, False]] and shown.xy.dtype == np.float32
    assert WHOLE.arrays(arrays) is arrays


def test_canvas_and_picture():
    assert crop_of_canvas(Canvas(), 256, 512) == WHOLE
    assert crop_of_canvas(Canvas(854, 480), 1920, 1080) == WHOLE  # rounded to whole pixels
    with pytest.raises(ValueError, match="canvas: the tracks were drawn on 512 x 256, .* another shape, 256 x 512"):
        crop_of_canvas(Canvas(512, 256), 256, 512)
    assert crop_of_canvas(Canvas(128, 128, fit="cover"), 256, 512) == Crop(0, 0.25, 1, 0.75)


def test_tracks_drawn_on_the_cut_picture_are_found_on_the_whole_one():
    """And cutting the picture again brings them back."""
    drawn = Tracks.from_json(
        {
            "schema": "ardrag.tracks/v1",
            "num_frames": 5,
            "canvas": {"width": 128, "height": 128, "fit": "cover"},
            "tracks": [{"points": [{"f": 0, "x": 0.7, "y": 0.2}], "sigma": 0.05}],
        }
    )
    arrays = drawn.on_picture(256, 512)
    assert arrays.xy[0, 0] == pytest.approx([0.7, 0.35])
    whole = drawn.cropped(drawn.crop_on(256, 512).inverse)
    assert whole.to_array().xy == pytest.approx(arrays.xy) and whole.tracks[0].sigma == 0.05
    back = whole.cropped(Crop.covering(256, 512, 64, 64))
    assert back.to_array().xy == pytest.approx(drawn.to_array().xy, abs=1e-6)


def test_cropped_tracks_are_the_cropped_arrays():
    """Groups, camera and edits too, and paths that leave the part far behind."""
    tracks = Tracks.from_json(
        {
            "schema": "ardrag.tracks/v1",
            "num_frames": 9,
            "canvas": {"width": 100, "height": 400},
            "tracks": [
                {"id": "a", "points": [{"f": 0, "x": 0.2, "y": 0.4, "p": 0.5}, {"f": 8, "x": 0.6, "y": 0.0}]},
                {
                    "id": "g",
                    "kind": "group",
                    "offsets": [[0, 0], [0.1, 0.1]],
                    "points": [{"f": 0, "x": 0.5, "y": 0.5}],
                },
            ],
            "camera": {"keys": [{"f": 0}, {"f": 8, "pan": [0.1, 0], "roll": 30}], "grid": [2, 2]},
            "edits": [
                {
                    "seq": 1,
                    "op": "replace_tail",
                    "track": "a",
                    "applied_frame": 5,
                    "points": [{"f": 7, "x": 0.3, "y": 0.5}],
                }
            ],
        }
    )
    crop = Crop.covering(100, 400, 100, 100)
    found, wanted = tracks.cropped(crop).to_array(), crop.arrays(tracks.to_array())
    assert (found.visible == wanted.visible).all() and (found.force == wanted.force).all()
    assert (found.xy[found.visible] == wanted.xy[found.visible]).all() and found.visible.any(0).sum() == 3
    assert tracks.cropped(WHOLE) is tracks
