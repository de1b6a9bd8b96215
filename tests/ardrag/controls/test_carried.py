"""The carried piece: where it lies, how it fades, what a late, hidden or released track takes up."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from ardrag.collage.pieces import filled
from ardrag.controls.carried import Carried, Collage
from ardrag.controls.control import LateLook, Rows
from ardrag.tracks.schema import GROUND
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


def test_a_collage_is_the_picture_closed_over_and_the_piece() -> None:
    """Where the piece is, the ground under it stays; its old place closes over as far as it has left it."""
    frame, start, end = noise(), (0.25, 0.5), (0.25 + 12 / 48, 0.5 + 6 / 32)
    tracks = Tracks.from_points([[(0, *start), (4, *end)]], num_frames=5)
    s = 0.11 * math.sqrt(32 * 48)
    video = paint(tracks, frame, Collage())
    before, now = alpha((32, 48), start, s), alpha((32, 48), end, s)
    wider, left = (torch.nn.functional.max_pool2d(cover[None], 3, 1, 1)[0] for cover in (before, now))
    gone = torch.maximum(before - now, wider - left).clamp_min(0)
    hole = (gone / (1 - now).clamp_min(1e-3)).clamp_max(1)
    ground = frame * (1 - hole) + hole * filled(frame, (1 - wider[None]) ** 2)
    moved = ground * (1 - now) + formula(frame, start, end, s, 1)
    torch.testing.assert_close(video[:, 4], moved, rtol=0, atol=0.02)
    assert torch.equal(paint(Tracks.empty(5), frame, Collage()), frame[:, None].expand(-1, 5, -1, -1))


def test_what_is_held_and_not_moved_changes_nothing() -> None:
    """Neither does what comes back to its place; where a soft edge lay on its own hole there was a ring."""
    frame = noise()
    tracks = Tracks.from_points([[(0, 0.3, 0.5), (4, 0.6, 0.5), (8, 0.3, 0.5)]], num_frames=9, sigma=0.2)
    video = paint(tracks, frame, Collage())
    assert (video[:, 4] - frame).abs().max() > 0.3
    torch.testing.assert_close(video[:, 0], frame, rtol=0, atol=1e-5)
    torch.testing.assert_close(video[:, 8], frame, rtol=0, atol=1e-5)


@pytest.mark.parametrize("force", [0.5, 0.25])
def test_a_collage_follows_a_light_touch_a_part_of_each_step(force: float) -> None:
    """As Photo World's things do: the piece is whole, on a share of its way."""
    frame = noise()
    light = Tracks.from_points([[(0, 0.2, 0.5, force), (8, 0.8, 0.5, force)]], num_frames=9, interp="linear")
    firm = Tracks.from_points([[(0, 0.2, 0.5), (8, 0.2 + 0.6 * force, 0.5)]], num_frames=9, interp="linear")
    whole = paint(firm, frame, Collage())
    torch.testing.assert_close(paint(light, frame, Collage()), whole, rtol=0, atol=1e-4)
    memory, parts = None, []
    for frames in (range(0, 1), range(1, 5), range(5, 9)):
        part, memory = Collage().paint(Rows.of(light, frames), lambda: frame, memory)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-4)
    firmer = Tracks.from_points(
        [[(0, 0.2, 0.5, 1), (4, 0.4, 0.5, 1), (5, 0.45, 0.5, 0), (8, 0.9, 0.5, 0)]], num_frames=9
    )
    stopped = paint(firmer, frame, Collage())
    torch.testing.assert_close(stopped[:, 8], stopped[:, 5], rtol=0, atol=1e-5)


def smooth(height: int = 48, width: int = 48) -> torch.Tensor:
    """A picture without edges, so that sampling between pixels is exact enough to compare."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([torch.sin(x / 5), torch.cos(y / 6), torch.sin((x + y) / 9)])


def pinned(*tracks: list[tuple[float, float, float]], things: int = 0) -> Tracks:
    """The last tracks pin the ground; ``things`` first ones do not."""
    drawn = Tracks.from_points(list(tracks), num_frames=5, interp="linear")
    return drawn.with_brushes([None] * things + [GROUND] * (len(tracks) - things))


def test_pins_pan_the_ground_and_what_comes_in_is_a_mirror() -> None:
    frame = smooth()
    video = paint(pinned([(0, 0.5, 0.5), (4, 0.5 + 8 / 48, 0.5)]), frame, Collage())
    torch.testing.assert_close(video[:, 4, :, 8:], frame[:, :, :-8], rtol=0, atol=1e-4)
    torch.testing.assert_close(video[:, 4, :, :8], frame[:, :, :8].flip(2), rtol=0, atol=1e-4)
    torch.testing.assert_close(video[:, 2, :, 4:], frame[:, :, :-4], rtol=0, atol=1e-4)
    still = paint(pinned([(0, 0.2, 0.5), (4, 0.2, 0.5)], [(0, 0.7, 0.5), (4, 0.7, 0.5)]), frame, Collage())
    assert torch.equal(still, frame[:, None].expand(-1, 5, -1, -1))


def test_pins_that_leave_the_picture_still_say_where_the_ground_is() -> None:
    """Unless they are let go, or hidden where they could be seen: nobody knows where those are."""
    frame, xy = smooth(), np.full((5, 1, 2), 0.5, np.float32)
    xy[:, 0, 0] = 0.9 + np.arange(5) * 2 / 48
    for force, shift in ((1.0, 8), (0.0, 4)):
        held = np.array([1, 1, 1, force, force], np.float32)[:, None]
        tracks = Tracks.from_array(xy, held > 0, held).with_brushes([GROUND])
        video = paint(tracks, frame, Collage())
        torch.testing.assert_close(video[:, 4, :, shift:], frame[:, :, :-shift], rtol=0, atol=1e-4)
    seen = np.array([1, 1, 0, 0, 0], bool)[:, None]
    hidden = Tracks.from_array(xy - np.array([0.4, 0], np.float32), seen).with_brushes([GROUND])
    torch.testing.assert_close(paint(hidden, frame, Collage())[:, 4, :, 2:], frame[:, :, :-2], rtol=0, atol=1e-4)


def test_a_piece_whose_place_has_left_the_picture_does_no_harm() -> None:
    frame = smooth()
    ways = [[(0, 0.1, 0.5), (4, 0.5, 0.5)], [(0, 0.5, 0.5), (4, 0.5 - 40 / 48, 0.5)]]
    video = paint(pinned(*ways, things=1), frame, Collage())
    assert torch.isfinite(video).all()
    torch.testing.assert_close(video[:, 4, :8, :6], frame[:, :8, 40:46], rtol=0, atol=1e-3)


def test_a_camera_zooms_and_a_piece_is_as_large_as_what_is_round_it() -> None:
    """A camera's own pins; the piece lies where it would lie if it were part of the picture."""
    frame = smooth()
    camera = {"keys": [{"f": 0}, {"f": 4, "zoom": 1.5, "pan": [0.1, 0]}], "interp": "linear", "grid": [3, 3]}
    entry = {"id": "a", "points": [{"f": 0, "x": 0.6, "y": 0.5}, {"f": 4, "x": 0.5 + 0.1 * 1.5 + 0.1, "y": 0.5}]}
    document = {"schema": "ardrag.tracks/v1", "num_frames": 5, "camera": camera}
    only = paint(Tracks.from_json({**document, "tracks": []}), frame, Collage())
    size = np.arange(48) + 0.5
    rest = (size - 24 - 0.1 * 48 * np.array([[1], [0]])) / 1.5 + 24  # x, y
    y, x = torch.meshgrid(*torch.from_numpy(rest[::-1].copy()).float(), indexing="ij")
    wanted = torch.stack([torch.sin(x / 5), torch.cos(y / 6), torch.sin((x + y) / 9)])
    torch.testing.assert_close(only[:, 4, 4:-4, 8:-4], wanted[:, 4:-4, 8:-4], rtol=0, atol=0.02)
    held = paint(Tracks.from_json({**document, "tracks": [entry]}), frame, Collage())
    torch.testing.assert_close(held[:, 4], only[:, 4], rtol=0, atol=0.03)


def test_what_is_grabbed_after_the_ground_has_moved_is_taken_as_it_is_seen() -> None:
    frame, control, memory = smooth(), Collage(), None
    way = [(0, 0.3, 0.5), (4, 0.5, 0.5)]
    video, memory = control.paint(Rows.of(pinned(way)), lambda: frame, memory)
    seen = video[:, 4]
    both = pinned([(0, 0.6, 0.5), (4, 0.6, 0.75)], [(0, 0.5, 0.5), (4, 0.5, 0.5)], things=1)
    swapped = Rows.of(both)
    rows = Rows(
        type(swapped.arrays)(*(column[:, ::-1] for column in swapped.arrays)), swapped.brushes[::-1]
    )  # the pin was there first
    onward, memory = control.paint(rows, lambda: seen, memory)
    torch.testing.assert_close(onward[:, 0], seen, rtol=0, atol=1e-3)
    torch.testing.assert_close(onward[:, 4, 36, 28], seen[:, 24, 28], rtol=0, atol=0.02)
    torch.testing.assert_close(onward[:, 4, :8], seen[:, :8], rtol=0, atol=1e-3)


def test_a_carried_piece_knows_no_ground() -> None:
    way = [(0, 0.3, 0.5), (4, 0.5, 0.5)]
    as_thing = Tracks.from_points([way], num_frames=5, interp="linear")
    assert torch.equal(paint(pinned(way), noise()), paint(as_thing, noise()))


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
