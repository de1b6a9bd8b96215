"""Heat maps are the formula, pixel by pixel; coloured ones are told apart where they cross."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from ardrag.controls.control import Rows
from ardrag.controls.heat import SPOT_COLOURS, Coloured, Heat, heatmap, rasterize
from ardrag.tracks.schema import SCHEMA, SIGMA
from ardrag.tracks.tracks import Tracks


LINE = [(0, 0.2, 0.5), (32, 0.8, 0.5)]
CURVE = [(0, 0.1, 0.2), (9, 0.4, 0.7, 0.5), (20, 0.6, 0.3), (32, 0.9, 0.8)]


def full() -> Tracks:
    """Pins, a group, a camera, two widths, a hidden stretch."""
    tracks = [
        {"points": [{"f": f, "x": x, "y": y, "v": float(f < 20)} for f, x, y in LINE]},
        {"points": [{"f": 3.5, "x": 0.4, "y": 0.3, "p": 0.4}, {"f": 30, "x": 1.2, "y": 0.5}], "sigma": 0.07},
        {"kind": "group", "offsets": [[0, 0], [0.1, 0.05]], "points": [{"f": 0, "x": 0.6, "y": 0.6}]},
    ]
    camera = {"keys": [{"f": 0}, {"f": 32, "pan": [0.2, 0.1], "zoom": 1.2}], "grid": [3, 2]}
    defaults = {"sigma": 0.03}
    return Tracks.from_json(
        {"schema": SCHEMA, "num_frames": 33, "tracks": tracks, "camera": camera, "defaults": defaults}
    )


def paint(control: Any, tracks: Tracks, height: int, width: int, frames: Any = None) -> torch.Tensor:
    return control.paint(Rows.of(tracks, frames), lambda: torch.zeros(3, height, width))[0]


def brute_force(tracks: Tracks, height: int, width: int) -> np.ndarray:
    """The formula of the heat map, pixel by pixel in float64: [T, H, W]."""
    xy, visible, force = tracks.to_array()
    y, x = np.mgrid[0:height, 0:width] + 0.5
    heat = np.zeros((len(xy), height, width))
    for t in range(len(xy)):
        for p, sigma in enumerate(tracks.sigmas()):
            s = sigma * math.sqrt(height * width)
            d2 = (x - float(xy[t, p, 0]) * width) ** 2 + (y - float(xy[t, p, 1]) * height) ** 2
            if visible[t, p]:
                heat[t] = np.maximum(heat[t], force[t, p] * np.exp(-d2 / (2 * s * s)))
    return heat


def test_heatmap_is_the_formula() -> None:
    tracks = Tracks.from_points([CURVE, LINE, [(9, 0.5, 0.5, 0.3)]], num_frames=33)
    heat = heatmap(tracks, 24, 40)
    assert heat.dtype == torch.float32 and heat.min() >= 0 and heat.max() <= 1
    np.testing.assert_allclose(heat.numpy(), brute_force(tracks, 24, 40), atol=1e-6)
    every = full()
    np.testing.assert_allclose(heatmap(every, 20, 32).numpy(), brute_force(every, 20, 32), atol=1e-6)


def test_heat_peaks_at_the_pixel_centre_with_the_force() -> None:
    heat = heatmap(Tracks.from_points([[(0, 5.5 / 32, 3.5 / 16, 0.6)]], num_frames=33), 16, 32)[0]
    assert heat[3, 5] == heat.max() == np.float32(0.6)
    s = SIGMA * math.sqrt(16 * 32)
    assert heat[3, 6] == pytest.approx(0.6 * math.exp(-1 / (2 * s * s)), rel=1e-5)


def test_max_is_order_free() -> None:
    xy, visible, force = Tracks.from_points([CURVE, LINE, CURVE[1:]], num_frames=33).to_array()
    heat = rasterize(xy, visible, force, 24, 24, [0.02, 0.05, 0.03])
    shuffled = rasterize(xy[:, [2, 0, 1]], visible[:, [2, 0, 1]], force[:, [2, 0, 1]], 24, 24, [0.03, 0.02, 0.05])
    assert torch.equal(heat, shuffled)


def test_some_frames_equal_the_slice_bit_for_bit() -> None:
    tracks = full()
    whole = heatmap(tracks, 40, 56)
    for frames in (range(0, 1), range(1, 5), range(29, 33), [7, 3, 20]):
        assert torch.equal(heatmap(tracks, 40, 56, frames), whole[list(frames)])
    assert heatmap(tracks, 40, 56, range(33, 37)).shape == (4, 40, 56)


def test_the_video_is_the_heat_in_three_equal_channels() -> None:
    tracks = full()
    video = paint(Heat(), tracks, 20, 32, range(3, 9))
    assert torch.equal(video, (heatmap(tracks, 20, 32, range(3, 9)) * 2 - 1).expand(3, -1, -1, -1))


def test_coloured_tracks_are_told_apart_where_they_cross() -> None:
    there, back = [(0, 0.1, 0.5), (32, 0.9, 0.5)], [(0, 0.9, 0.5), (32, 0.1, 0.5)]
    plain, coloured = (
        [paint(control, Tracks.from_points(paths, num_frames=33), 16, 32) for paths in ([there, back], [back, there])]
        for control in (Heat(), Coloured())
    )
    assert torch.equal(*plain) and not torch.allclose(*coloured, atol=0.1)
    for video in coloured:
        assert torch.equal(video[0], plain[0][0]), "both tracks are at full strength in red"


def test_colours_of_the_tracks() -> None:
    """Each alone in its picture: white, red, green, blue, white; the faintest heat leaves the ground alone."""
    xy = np.broadcast_to(np.array([0.5, 0.5], np.float32), (5, 5, 2))
    video = paint(Coloured(), Tracks.from_array(xy, np.eye(5, dtype=bool), np.full((5, 5), 0.8)), 9, 9)
    for p in range(5):
        expected = torch.tensor(SPOT_COLOURS[p % 4]) * 0.8 * 2 - 1
        torch.testing.assert_close(video[:, p, 4, 4], expected, rtol=0, atol=1e-6)
        assert (video[:, p, 0, 0] < -0.9).all()
    lone = Tracks.from_points([CURVE], num_frames=33)
    assert torch.equal(paint(Coloured(), lone, 24, 24), paint(Heat(), lone, 24, 24))
    assert (paint(Coloured(), Tracks.empty(5), 8, 8) == -1).all()


def test_rasterize_takes_batches_tensors_and_ignores_hidden_nan() -> None:
    xy = torch.rand(2, 9, 3, 2)
    visible, force = torch.rand(2, 9, 3) < 0.8, torch.rand(2, 9, 3)
    heat = rasterize(torch.where(visible[..., None], xy, torch.nan), visible, force, 12, 16)
    assert heat.shape == (2, 9, 12, 16) and torch.isfinite(heat).all()
    assert torch.equal(heat[1], rasterize(xy[1].numpy(), visible[1].numpy(), force[1].numpy(), 12, 16))
