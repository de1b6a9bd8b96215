"""MagicMotion's videos: centres of masks and of boxes, things that vanish, and a few keys."""

import io
from collections.abc import Callable
from pathlib import Path

import imageio
import numpy as np
import pytest

from ardrag.tracks.tracks import Tracks


RED, GREEN = (128, 0, 0), (0, 128, 0)
HEIGHT, WIDTH = 96, 160


def film(path: Path, paint: Callable[[np.ndarray, int], None], frames: int = 9) -> Path:
    with imageio.get_writer(path, fps=8, codec="libx264", quality=9, macro_block_size=2) as writer:
        for t in range(frames):
            picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            paint(picture, t)
            writer.append_data(picture)
    return path


def box(picture: np.ndarray, x: int, y: int, colour: tuple[int, int, int], hollow: bool = False) -> None:
    """24 x 16 pixels around (x, y)."""
    picture[y - 8 : y + 8, x - 12 : x + 12] = colour
    if hollow:
        picture[y - 6 : y + 6, x - 10 : x + 10] = 0


@pytest.mark.parametrize("hollow", [True, False])
def test_centres(tmp_path: Path, hollow: bool) -> None:
    def paint(picture: np.ndarray, t: int) -> None:
        box(picture, 20 + 10 * t, 30, RED, hollow and t > 0)  # the first frame has the mask
        if t < 5:
            box(picture, 120, 70, GREEN, hollow and t > 0)

    tracks = Tracks.load(film(tmp_path / "a.mp4", paint))
    arrays = tracks.to_array()
    assert (tracks.num_frames, tracks.canvas.width, tracks.canvas.height) == (9, WIDTH, HEIGHT)
    wanted = np.stack([20 + 10 * np.arange(9), np.full(9, 30)], 1)
    assert arrays.xy[:, 0] * [WIDTH, HEIGHT] == pytest.approx(wanted, abs=1)
    assert arrays.visible.sum(0).tolist() == [9, 5]
    assert arrays.xy[0, 1] * [WIDTH, HEIGHT] == pytest.approx([120, 70], abs=1)


def test_a_few_keys_are_joined(tmp_path: Path) -> None:
    def paint(picture: np.ndarray, t: int) -> None:
        if t in (0, 8):
            box(picture, 20 + 10 * t, 30, RED, hollow=True)

    arrays = Tracks.load(film(tmp_path / "a.mp4", paint)).to_array()
    assert arrays.visible.all() and arrays.xy[4, 0] * [WIDTH, HEIGHT] == pytest.approx([60, 30], abs=1)


def test_large_videos_are_measured_as_well(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with imageio.get_writer(path, fps=8, codec="libx264", quality=9, macro_block_size=2) as writer:
        for t in range(5):
            picture = np.zeros((480, 1000, 3), np.uint8)
            picture[100:200, 300 + 20 * t : 420 + 20 * t] = RED
            writer.append_data(picture)
    xy = Tracks.load(path).to_array().xy[:, 0] * [1000, 480]
    assert xy == pytest.approx(np.stack([360 + 20 * np.arange(5), np.full(5, 150)], 1), abs=3)


def test_videos_without_colours_and_broken_ones(tmp_path: Path) -> None:
    black = film(tmp_path / "a.mp4", lambda picture, t: None)
    with pytest.raises(ValueError, match="nothing in this video has a colour"):
        Tracks.load(black)
    with pytest.raises(ValueError, match="it is no video of masks or boxes that can be read"):
        Tracks.load(io.BytesIO(black.read_bytes()[:200]))
