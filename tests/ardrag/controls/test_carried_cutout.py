"""Things that are cut out: whole, along their outline, asked for once, late ones from what is there then."""

from typing import Any

import numpy as np
import pytest
import torch

from ardrag.controls.carried import Collage, Cutout
from ardrag.controls.control import Rows, Scene
from ardrag.tracks.schema import GROUND
from ardrag.tracks.tracks import Tracks


BLUE, RED = torch.tensor([-0.5, -0.5, 0.9]), torch.tensor([0.9, -0.5, -0.5])


class Red:
    """Knows that things are red, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[float, float], float]] = []

    def mask(self, picture: torch.Tensor, xy: tuple[float, float], brush: float) -> torch.Tensor:
        self.asked.append((xy, brush))
        return (picture[0] > 0).float()


def red_on_blue(left: int = 8) -> torch.Tensor:
    """A red thing of 6 by 20 pixels on a blue ground of 48 by 48."""
    frame = BLUE[:, None, None].repeat(1, 48, 48)
    frame[:, 20:26, left : left + 20] = RED[:, None, None]
    return frame


def painted(tracks: Tracks, outline: Any, frame: torch.Tensor, keyframes: torch.Tensor | None = None) -> torch.Tensor:
    return Cutout().paint_clip(Rows.of(tracks), Scene(frame, frame[:, None], outline=outline), keyframes)


def test_a_thing_moves_as_a_whole_and_leaves_the_ground() -> None:
    """A brush of a fifth of its width: the disc would have torn it."""
    tracks = Tracks.from_points([[(0, 12 / 48, 0.5, 1), (4, 24 / 48, 0.5, 1)]], num_frames=5, sigma=0.05)
    video = painted(tracks, outline := Red(), red_on_blue())
    torch.testing.assert_close(video[:, 0], red_on_blue(), rtol=0, atol=1e-5)
    torch.testing.assert_close(video[:, 4], red_on_blue(20), rtol=0, atol=1e-3)
    assert outline.asked == [((12 / 48, 0.5), pytest.approx(0.05))]


def test_half_a_force_is_half_a_way() -> None:
    tracks = Tracks.from_points([[(0, 12 / 48, 0.5, 0.5), (4, 36 / 48, 0.5, 0.5)]], num_frames=5)
    torch.testing.assert_close(painted(tracks, Red(), red_on_blue())[:, 4], red_on_blue(20), rtol=0, atol=1e-3)


def test_a_pin_asks_for_no_outline_and_takes_the_ground_along() -> None:
    way = [(0, 0.5, 0.5), (4, 0.5 + 6 / 48, 0.5)]
    tracks = Tracks.from_points([way], num_frames=5).with_brushes([GROUND])
    video = painted(tracks, outline := Red(), red_on_blue())
    torch.testing.assert_close(video[:, 4], red_on_blue(14), rtol=0, atol=1e-3)
    assert not outline.asked


def test_a_wide_brush_means_its_disc() -> None:
    """Then it is a collage."""
    tracks = Tracks.from_points([[(0, 0.4, 0.5), (4, 0.7, 0.5)]], num_frames=5, sigma=0.21)
    frame = torch.nn.functional.avg_pool2d(red_on_blue(), 5, stride=1, padding=2)
    video = painted(tracks, outline := Red(), frame)
    wanted = Collage().paint_clip(Rows.of(tracks), Scene(frame, frame[:, None]))
    moved = (frame[:, None] - wanted).abs().mean()
    assert not outline.asked and (video - wanted).abs().mean() < 0.2 * moved


def test_a_late_grab_takes_what_is_there_then() -> None:
    tracks = Tracks.from_points([[(6, 0.7, 0.5), (8, 0.7, 0.2)]], num_frames=9)
    frames = torch.stack([red_on_blue(), red_on_blue(24), red_on_blue(24)])
    video = painted(tracks, Red(), red_on_blue(), frames)
    assert torch.equal(video[:, 0], red_on_blue())
    line = round((0.2 - 0.5) * 48) + 22
    torch.testing.assert_close(video[:, 8, line, 34], RED, rtol=0, atol=0.02)


def test_it_is_asked_once_a_grab_and_streamed_is_whole() -> None:
    xy = np.full((9, 1, 2), 0.5, np.float32)
    xy[:, 0, 0] = np.linspace(0.3, 0.6, 9)
    held = np.array([1, 1, 1, 0, 1, 1, 1, 1, 1], bool)[:, None]
    rows = Rows.of(Tracks.from_array(xy, held, held.astype(np.float32)))
    outline, frame = Red(), red_on_blue()
    memory = Cutout().begin(Scene(frame, frame[:, None], outline=outline))
    parts = []
    for start, stop in ((0, 1), (1, 9)):
        part, memory = Cutout().paint(rows.part(start, stop), lambda: frame, memory)
        parts.append(part)
    assert [xy for xy, _ in outline.asked] == [tuple(rows.arrays.xy[t, 0].tolist()) for t in (0, 4)]
    assert [brush for _, brush in outline.asked] == [0.11, 0.11]
    whole, _ = Cutout().paint(rows, lambda: frame, Cutout().begin(Scene(frame, frame[:, None], outline=Red())))
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-6)


def test_a_thing_that_hardly_is_there_does_no_harm() -> None:
    tracks = Tracks.from_points([[(0, 0.5, 0.5), (4, 0.9, 0.9)]], num_frames=5)
    blue = BLUE[:, None, None].repeat(1, 48, 48)
    video = painted(tracks, Red(), blue)
    torch.testing.assert_close(video, blue[:, None].expand(-1, 5, -1, -1), rtol=0, atol=1e-5)


def test_without_what_knows_outlines_it_says_so() -> None:
    frame = red_on_blue()
    with pytest.raises(ValueError, match=r"outline: the control cutout asks .* or use the control collage"):
        Cutout().begin(Scene(frame, frame[:, None]))
