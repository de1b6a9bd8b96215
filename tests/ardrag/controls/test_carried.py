"""The carried piece: where it lies, how it fades, what a late, hidden or released track takes up."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from ardrag.controls.carried import Carried, Collage
from ardrag.controls.control import LateLook, Rows
from ardrag.tracks.tracks import Tracks


def noise(height: int = 32, width: int = 48, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def paint(tracks: Tracks, frame: torch.Tensor, control: Carried | None = None, memory: Any = None) -> torch.Tensor:
    return (control or Carried()).paint(Rows.of(tracks), lambda: frame, memory)[0]


def formula(frame: torch.Tensor, start: tuple[float, float], now: tuple[float, float], s: float, force: float):
    """The docstring's formula, pixel by pixel, for a shift of whole pixels."""
    _, height, width = frame.shape
    picture = torch.zeros_like(frame)
    for i in range(height):
        for j in range(width):
            y, x = i + 0.5 - now[1] * height, j + 0.5 - now[0] * width
            alpha = force * math.exp(-(((x * x + y * y) / (2 * s * s)) ** 2))
            row, column = round(i + (start[1] - now[1]) * height), round(j + (start[0] - now[0]) * width)
            if 0 <= row < height and 0 <= column < width:
                picture[:, i, j] = alpha * frame[:, row, column]
    return picture


@pytest.mark.parametrize(("brush", "force"), [(None, 1.0), (0.2, 0.5)])
def test_it_is_the_formula(brush: float | None, force: float) -> None:
    frame, start, end = noise(), (0.25, 0.5), (0.25 + 12 / 48, 0.5 + 6 / 32)
    tracks = Tracks.from_points([[(0, *start, force), (4, *end, force)]], num_frames=5, sigma=brush)
    s = (0.11 if brush is None else brush) * math.sqrt(32 * 48)
    video = paint(tracks, frame)
    torch.testing.assert_close(video[:, 0], formula(frame, start, start, s, force), rtol=0, atol=2e-4)
    torch.testing.assert_close(video[:, 4], formula(frame, start, end, s, force), rtol=0, atol=2e-4)


def test_between_pixels_it_is_interpolated() -> None:
    ramp = torch.linspace(-1, 1, 64).expand(3, 64, 64)
    tracks = Tracks.from_points([[(0, 0.4, 0.5), (4, 0.4 + 2.5 / 64, 0.5)]], num_frames=5, sigma=0.5)
    video = paint(tracks, ramp)
    inside = slice(20, 40)
    moved = ramp[:, 32, inside] - 2.5 * (ramp[0, 0, 1] - ramp[0, 0, 0])
    edge = torch.exp(-((((torch.arange(64) + 0.5 - 28.1)[inside] ** 2 + 0.25) / (2 * 32**2)) ** 2))
    torch.testing.assert_close(video[:, 4, 32, inside], moved * edge, rtol=0, atol=1e-3)


def test_later_tracks_lie_on_top_and_the_rest_is_grey() -> None:
    frame = torch.zeros(3, 40, 40)
    frame[:, :, :20], frame[:, :, 20:] = 0.9, -0.9
    meeting = Tracks.from_points([[(0, 0.2, 0.5), (4, 0.5, 0.5)], [(0, 0.8, 0.5), (4, 0.5, 0.5)]], num_frames=5)
    video = paint(meeting, frame)
    assert (video[:, 4, 20, 20] + 0.9).abs().max() < 0.01, "track 1 lies on track 0"
    assert (video[:, 0, 20, 8] - 0.9).abs().max() < 0.01 and (video[:, 0, 20, 31] + 0.9).abs().max() < 0.01
    assert not video[:, :, :3].any() and not video[:, 2:, :, :4].any()


def test_a_track_that_begins_later_takes_what_is_there_then() -> None:
    before, then = noise(seed=1), noise(seed=2)
    late = Tracks.from_points([[(2, 0.5, 0.5), (4, 0.6, 0.5)]], num_frames=5)
    control = Carried()
    video, held = control.paint(Rows.of(late), lambda: then, (None,))
    assert not video[:, :2].any()
    s = 0.11 * math.sqrt(32 * 48)
    torch.testing.assert_close(video[:, 2], formula(then, (0.5, 0.5), (0.5, 0.5), s, 1), rtol=0, atol=2e-4)
    onward = control.paint(Rows.of(late, range(3, 5)), lambda: before, held)[0]
    assert torch.equal(onward, video[:, 3:]), "and keeps it"


def test_hidden_it_keeps_its_piece_released_it_takes_another() -> None:
    first, second = noise(seed=1), noise(seed=2)
    xy = np.full((4, 1, 2), 0.5, np.float32)
    visible = np.array([[True], [False], [False], [True]])
    for force, expected in (([1, 1, 1, 1], first), ([1, 1, 0, 1], second)):
        memory, seen = None, []
        for t, frame in enumerate([first, second, second, second]):
            rows = Rows.of(Tracks.from_array(xy[t : t + 1], visible[t : t + 1], np.array([[force[t]]])))
            video, memory = Carried().paint(rows, lambda frame=frame: frame, memory)
            seen.append(video[:, 0])
        assert not seen[1].any() and not seen[2].any()
        torch.testing.assert_close(seen[3][:, 16, 24], expected[:, 16, 24], rtol=0, atol=0.4)
        assert torch.equal(seen[3], paint(Tracks.from_array(xy[:1]), expected)[:, 0])


def test_half_off_the_canvas_only_what_there_is_is_carried() -> None:
    frame = torch.ones(3, 32, 32)
    corner = Tracks.from_points([[(0, 0.0, 0.0), (4, 0.5, 0.5)]], num_frames=5, sigma=0.2)
    video = paint(corner, frame)
    assert video[:, 4, 18, 18].min() > 0.9 and video[:, 4, 14, 14].max() < 0.1, "beyond the edge there was nothing"
    away = Tracks.from_points([[(0, 0.5, 0.5), (4, 1.0, 1.0)]], num_frames=5, sigma=0.2)
    assert paint(away, frame)[:, 4, -1, -1].min() > 0.9


def test_radius_and_brush_are_checked() -> None:
    for radius in (0, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"control\.radius.*use 0\.11"):
            Carried(radius)


def alpha(shape: tuple[int, int], place: tuple[float, float], s: float) -> torch.Tensor:
    """The soft edge round a place, ``[H, W]``."""
    height, width = shape
    y = torch.arange(height) + 0.5 - place[1] * height
    x = torch.arange(width) + 0.5 - place[0] * width
    return torch.exp(-(((x[None] ** 2 + y[:, None] ** 2) / (2 * s * s)) ** 2))


def closed_over(frame: torch.Tensor, taken: torch.Tensor, s: float) -> torch.Tensor:
    """Means of what is round each pixel, weighted by a Gaussian and by how little of it was taken."""
    height, width = frame.shape[1:]
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    apart = (y.flatten()[:, None] - y.flatten()) ** 2 + (x.flatten()[:, None] - x.flatten()) ** 2
    near = torch.exp(-apart / (2 * s * s)) * ((1 - taken) ** 4 + 1e-6).flatten()
    return (frame.flatten(1) @ near.T / near.sum(1)).view_as(frame)


def test_a_collage_is_the_picture_closed_over_and_the_piece() -> None:
    frame, start, end = noise(), (0.25, 0.5), (0.25 + 12 / 48, 0.5 + 6 / 32)
    tracks = Tracks.from_points([[(0, *start, 0.8), (4, *end, 0.8)]], num_frames=5)
    s = 0.11 * math.sqrt(32 * 48)
    video = paint(tracks, frame, Collage())
    hole = alpha((32, 48), start, s)
    ground = frame * (1 - 0.8 * hole) + 0.8 * hole * closed_over(frame, hole, s)
    moved = ground * (1 - 0.8 * alpha((32, 48), end, s)) + formula(frame, start, end, s, 0.8)
    torch.testing.assert_close(video[:, 4], moved, rtol=0, atol=0.02)
    assert torch.equal(paint(Tracks.empty(5), frame, Collage()), frame[:, None].expand(-1, 5, -1, -1))


def test_what_is_taken_together_leaves_nothing_of_each_other() -> None:
    """Two halves of a red thing on a blue ground, grabbed at once: what closes over is blue."""
    frame = torch.tensor([-0.5, -0.5, 0.9])[:, None, None].repeat(1, 48, 48)
    frame[:, 18:30, 16:32] = torch.tensor([0.9, -0.5, -0.5])[:, None, None]
    away = Tracks.from_points([[(0, 0.42, 0.5), (4, 0.42, 0.05)], [(0, 0.58, 0.5), (4, 0.58, 0.05)]], num_frames=5)
    left = paint(away, frame, Collage())[:, 4, 21:27, 18:30]
    assert left[0].max() < 0 and left[2].min() > 0.4


def test_what_is_let_go_stays_and_can_be_taken_again() -> None:
    frame, xy = noise(40, 40), np.full((9, 1, 2), 0.5, np.float32)
    xy[1:, :, 0] = 0.75
    held = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0], bool)
    tracks = Tracks.from_array(xy, held[:, None], held[:, None].astype(np.float32))
    video = paint(tracks, frame, Collage())
    torch.testing.assert_close(video[:, 8], video[:, 2], rtol=0, atol=1e-6)
    memory, parts = None, []
    for start, stop in ((0, 1), (1, 5), (5, 9)):
        part, memory = Collage().paint(Rows.of(tracks, range(start, stop)), lambda: frame, memory)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), video, rtol=0, atol=1e-6)
    again = Tracks.from_points([[(0, 0.75, 0.5), (4, 0.25, 0.5)]], num_frames=5, sigma=0.1)
    onward = Collage().paint(Rows.of(again), lambda: torch.full_like(frame, -0.5), memory)[0]
    torch.testing.assert_close(onward[:, 4, 20, 10], torch.full((3,), -0.5), rtol=0, atol=0.02)
    assert torch.equal(onward[:, 4, 2, 2], frame[:, 2, 2])


@pytest.mark.parametrize("control", [Carried(), Collage()])
def test_nobody_waits_for_a_frame_from_which_nothing_is_taken(control: Carried) -> None:
    def never() -> torch.Tensor:
        raise AssertionError("still in the making")

    tracks = Tracks.from_points([[(0, 0.3, 0.5), (8, 0.6, 0.5)]], num_frames=9)
    whole, memory = control.paint(Rows.of(tracks, range(0, 1)), noise, None)
    onward, _ = control.paint(Rows.of(tracks, range(1, 9)), LateLook((32, 48), never), memory)
    expected, _ = control.paint(Rows.of(tracks, range(1, 9)), noise, memory)
    assert torch.equal(onward, expected) and whole.shape[1] == 1
