"""Things that are cut out: whole, along their outline, asked for once, late ones from what is there then."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from ardrag.controls.carried import Collage, Cutout
from ardrag.controls.control import Rows, Scene
from ardrag.outlines.network import LEAN, discs
from ardrag.tracks.schema import GROUND
from ardrag.tracks.tracks import Tracks


BLUE, RED = torch.tensor([-0.5, -0.5, 0.9]), torch.tensor([0.9, -0.5, -0.5])


class Red:
    """Knows that things are red, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[float, float], float]] = []

    def mask(self, picture: torch.Tensor, xy: tuple[float, float], brush: float, lean: float = LEAN) -> torch.Tensor:
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


class Coloured(Red):
    """Knows things by their colour; on blue ground it gives back the disc, as a network does that knows no thing."""

    def mask(self, picture: torch.Tensor, xy: tuple[float, float], brush: float, lean: float = LEAN) -> torch.Tensor:
        colour = picture[:, int(xy[1] * 48), int(xy[0] * 48)]
        if colour[2] > 0.5:
            return discs(picture[None], torch.tensor([xy]), torch.tensor([brush]))[0]
        return ((picture - colour[:, None, None]).abs().amax(0) < 0.3).float()


def behind_a_post() -> tuple[torch.Tensor, torch.Tensor]:
    """Red on blue and a green post over columns 28 to 38: the picture, and it with the thing 14 pixels further."""
    frames = []
    for left in (4, 18):
        frame = red_on_blue(left)
        frame[:, :, 28:38] = torch.tensor([-0.5, 0.9, -0.5])[:, None, None]
        frames.append(frame)
    return frames[0], frames[1]


def pushed(visible: list[bool], force: float = 1.0, ends: float = 30 / 48) -> Tracks:
    """The red thing is grabbed at column 16 and pushed to the right within a latent."""
    xy = np.full((len(visible), 1, 2), 0.5, np.float32)
    xy[:, 0, 0] = np.linspace(16 / 48, ends, len(visible))
    return Tracks.from_array(xy, np.array(visible)[:, None], np.full((len(visible), 1), force, np.float32))


def test_behind_a_thing_one_sees_what_sticks_out() -> None:
    frame, wanted = behind_a_post()
    video = painted(pushed([True, True, True, True, False]), Coloured(), frame)
    torch.testing.assert_close(video[:, 4, :, 6:], wanted[:, :, 6:], rtol=0, atol=0.02)
    on_top = painted(pushed([True] * 5), Coloured(), frame)
    torch.testing.assert_close(on_top[:, 4, 22, 30], RED, rtol=0, atol=1e-3)


def test_a_light_touch_pushes_as_far_behind_a_thing_as_beside_it() -> None:
    """Half of 28 pixels; the place is hidden on the way, and seen again at the end."""
    frame, wanted = behind_a_post()
    video = painted(pushed([True, False, False, False, False], force=0.5, ends=44 / 48), Coloured(), frame)
    torch.testing.assert_close(video[:, 4, :, 6:], wanted[:, :, 6:], rtol=0, atol=0.02)


def test_where_nothing_can_hide_it_a_hidden_thing_is_gone() -> None:
    video = painted(pushed([True, True, True, True, False]), Coloured(), red_on_blue(4))
    assert (video[0, 3] > 0.5).any() and not (video[0, 4] > 0).any()


def test_out_of_the_picture_a_thing_goes_bit_by_bit() -> None:
    video = painted(pushed([True, True, True, False, False], ends=52 / 48), Coloured(), red_on_blue(4))
    torch.testing.assert_close(video[:, 4, :, 6:], red_on_blue(40)[:, :, 6:48], rtol=0, atol=1e-3)


def test_a_thing_that_is_pushed_behind_another_that_moves_too() -> None:
    """The post is carried to the left over the thing; the later track need not be the one on top."""
    frame, _ = behind_a_post()
    for post in (0, 1):
        xy = np.full((5, 2, 2), 0.5, np.float32)
        xy[:, post, 0], xy[:, 1 - post, 0] = np.linspace(33, 19, 5) / 48, 16 / 48
        visible = np.ones((5, 2), bool)
        visible[2:, 1 - post] = False
        video = painted(Tracks.from_array(xy, visible), Coloured(), frame)
        assert (video[1, 4, 20:26, 14:24] > 0.5).all() and (video[0, 4, 20:26, 5:13] > 0.5).all()


def test_let_go_behind_a_thing_it_stays_there_and_streamed_is_whole() -> None:
    frame, _ = behind_a_post()
    held = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0], np.float32)[:, None]
    xy = np.full((9, 1, 2), 0.5, np.float32)
    xy[:5, 0, 0], xy[5:, 0, 0] = np.linspace(16, 30, 5) / 48, 30 / 48
    rows = Rows.of(Tracks.from_array(xy, held * (np.arange(9) < 4)[:, None], held))
    first = Cutout().begin(Scene(frame, frame[:, None], outline=Coloured()))
    whole, _ = Cutout().paint(rows, lambda: frame, first)
    torch.testing.assert_close(whole[:, 8], whole[:, 4], rtol=0, atol=1e-3)
    memory, parts = first, []
    for start, stop in ((0, 1), (1, 5), (5, 9)):
        part, memory = Cutout().paint(rows.part(start, stop), lambda: frame, memory)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-6)


def two_hands(ends: Sequence[tuple[float, float]], count: int = 5, stop: int | None = None) -> Tracks:
    """Hands at both ends of the red thing, columns 11 and 25 of line 23, are drawn to two places by frame 4.

    The first lets go before frame ``stop``.
    """
    starts = np.array([(11, 23), (25, 23)]) / 48
    share = np.minimum(np.arange(count) / 4, 1)[:, None, None]
    xy = (starts + share * (np.array(ends) / 48 - starts)).astype(np.float32)
    held = np.ones((count, 2), np.float32)
    held[stop or count :, 0] = 0
    return Tracks.from_array(xy, held > 0, held)


def test_two_hands_that_go_alike_are_as_one() -> None:
    video = painted(two_hands([(23, 23), (37, 23)]), Red(), red_on_blue())
    one = Tracks.from_points([[(0, 18 / 48, 23 / 48), (4, 30 / 48, 23 / 48)]], num_frames=5)
    torch.testing.assert_close(video, painted(one, Red(), red_on_blue()), rtol=0, atol=1e-3)


def test_two_hands_turn_what_they_hold() -> None:
    """A quarter turn about its middle; and as far apart as half as much again, half as large again."""
    video = painted(two_hands([(18, 16), (18, 30)]), Red(), red_on_blue())
    red = video[0, 4] > 0.5
    assert red[13:33, 15:21].all() and red.sum() == pytest.approx(120, abs=4)
    larger = painted(two_hands([(7.5, 23), (28.5, 23)]), Red(), red_on_blue())[0, 4] > 0.2
    assert larger[19:27, 3:33].all() and larger.sum() == pytest.approx(1.5 * 1.5 * 120, rel=0.15)


def test_who_lets_go_leaves_it_to_the_other_as_it_is() -> None:
    tracks = two_hands([(18, 16), (18, 30)], count=9, stop=5)
    video = painted(tracks, Red(), red_on_blue())
    torch.testing.assert_close(video[:, 8], video[:, 4], rtol=0, atol=1e-3)
    rows, frame, parts = Rows.of(tracks), red_on_blue(), []
    memory = Cutout().begin(Scene(frame, frame[:, None], outline=Red()))
    for start, stop in ((0, 1), (1, 5), (5, 9)):
        part, memory = Cutout().paint(rows.part(start, stop), lambda: frame, memory)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), video, rtol=0, atol=1e-5)


def test_when_both_let_go_it_stays_as_it_is_turned() -> None:
    tracks = two_hands([(18, 16), (18, 30)], count=9, stop=5)
    xy, visible, force = tracks.to_array()
    force[6:] = 0
    video = painted(Tracks.from_array(xy, force > 0, force), Red(), red_on_blue())
    torch.testing.assert_close(video[:, 8], video[:, 4], rtol=0, atol=1e-3)


def test_hands_on_two_things_hold_two_things() -> None:
    frame = red_on_blue()
    frame[:, 34:40, 8:28] = torch.tensor([-0.5, 0.9, -0.5])[:, None, None]
    xy = np.full((5, 2, 2), 18 / 48, np.float32)
    xy[:, 0, 1], xy[:, 1, 1] = np.linspace(23, 11, 5) / 48, 37 / 48
    video = painted(Tracks.from_array(xy), Coloured(), frame)
    assert (video[0, 4, 8:14, 8:28] > 0.5).all() and torch.equal(video[:, 4, 34:40], frame[:, 34:40])


def test_a_hand_that_comes_later_takes_what_is_there_then() -> None:
    """It holds its own piece: nobody knows what the first has made of the thing by then."""
    tracks = Tracks.from_points([[(0, 0.3, 0.5), (8, 0.6, 0.5)], [(6, 0.4, 0.5), (8, 0.4, 0.2)]], num_frames=9)
    frames = torch.stack([red_on_blue(), red_on_blue(12), red_on_blue(16)])
    video = painted(tracks, Red(), red_on_blue(), frames)
    assert (video[0, 8] > 0.5).sum() > 1.5 * 120


def test_a_thing_that_hardly_is_there_does_no_harm() -> None:
    tracks = Tracks.from_points([[(0, 0.5, 0.5), (4, 0.9, 0.9)]], num_frames=5)
    blue = BLUE[:, None, None].repeat(1, 48, 48)
    video = painted(tracks, Red(), blue)
    torch.testing.assert_close(video, blue[:, None].expand(-1, 5, -1, -1), rtol=0, atol=1e-5)


def test_without_what_knows_outlines_it_says_so() -> None:
    frame = red_on_blue()
    with pytest.raises(ValueError, match=r"outline: the control cutout asks .* or use the control collage"):
        Cutout().begin(Scene(frame, frame[:, None]))
