"""What every control must keep: streamed is whole, nothing settled changes, restored goes on, hidden is nothing."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ardrag.controls.build import CONTROLS, build_control
from ardrag.controls.control import PixelControl, Rows, Scene, segments
from ardrag.outlines.network import discs
from ardrag.streaming_vae import StreamingVAE
from ardrag.tracks.sampling import TrackArrays
from ardrag.tracks.tracks import Tracks
from pipelines.image_input import image_pixels


PIECES = (range(0, 1), range(1, 5), range(5, 9), range(9, 13))


def drawn() -> Tracks:
    """Two tracks from the start, one hidden for a while and then let go; one that begins late."""
    return Tracks.from_points(
        [
            [(0, 0.2, 0.3), (12, 0.8, 0.6)],
            [(0, 0.7, 0.8, 0.6), (4, 0.6, 0.5, 0.6, 0), (8, 0.4, 0.4)],
            [(6, 0.3, 0.7), (12, 0.5, 0.2)],
        ],
        num_frames=13,
    ).with_edit("end", "t2", 9)


@pytest.fixture(scope="module")
def scene(pipeline: Any, picture: Any, outline: Any) -> Scene:
    """With a mask for each of the three tracks: a quarter of the picture."""
    masks = torch.zeros(3, picture.height, picture.width)
    masks[0, 4:16, :16], masks[1, 18:, 16:], masks[2, 12:28, 4:20] = 1, 1, 1
    return replace(pipeline.scene(picture, masks, seed=3), outline=outline)


@pytest.fixture(scope="module")
def film(picture: Any) -> torch.Tensor:
    """Last frames of four latents ``[4, 3, H, W]``: the picture, wandering."""
    pixels = image_pixels(picture)[0, :, 0]
    return torch.stack([pixels.roll(3 * m, dims=2) for m in range(4)])


def streamed(stream: Any, rows: list[Rows], film: torch.Tensor, first: int = 0) -> list[torch.Tensor]:
    """Motion latents, one a piece; before piece m the last frame is that of latent m - 1."""
    return [stream.next(part, lambda m=m: film[max(first + m - 1, 0)]) for m, part in enumerate(rows)]


@pytest.fixture(params=sorted(CONTROLS))
def control(request: pytest.FixtureRequest) -> Any:
    return build_control(request.param)


def test_streamed_is_whole(control: Any, pipeline: Any, scene: Scene, film: torch.Tensor) -> None:
    rows = [Rows.of(drawn(), frames) for frames in PIECES]
    parts = streamed(control.stream(pipeline.vae, scene), rows, film)
    whole = control.clip(pipeline.vae, scene, Rows.of(drawn()), film)
    assert whole.shape == (1, control.width(scene.reference.shape[1]), 4, *scene.reference.shape[3:])
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, rtol=0, atol=1e-5)
    two = control.stream(pipeline.vae, scene)
    joined = [two.next(Rows.of(drawn(), range(start, stop)), lambda: film[0]) for start, stop in ((0, 5), (5, 13))]
    assert torch.cat(joined, dim=2).shape == whole.shape
    torch.testing.assert_close(joined[0], whole[:, :, :2], rtol=0, atol=1e-5)


def test_a_later_row_never_changes_an_earlier_latent(
    control: Any, pipeline: Any, scene: Scene, film: torch.Tensor
) -> None:
    rows = Rows.of(drawn())
    other = Rows(
        TrackArrays(rows.arrays.xy.copy(), rows.arrays.visible.copy(), rows.arrays.force.copy()), rows.brushes
    )
    other.arrays.xy[9:] = 0.9
    other.arrays.visible[9:] = True
    ours, theirs = (control.clip(pipeline.vae, scene, some, film) for some in (rows, other))
    torch.testing.assert_close(ours[:, :, :3], theirs[:, :, :3], rtol=0, atol=1e-6)
    assert not torch.allclose(ours[:, :, 3], theirs[:, :, 3], atol=1e-3)


def test_restored_goes_on_as_if_nothing_had_been(
    control: Any, pipeline: Any, scene: Scene, film: torch.Tensor
) -> None:
    rows = [Rows.of(drawn(), frames) for frames in PIECES]
    stream = control.stream(pipeline.vae, scene)
    first = streamed(stream, rows[:2], film)
    state = stream.state()
    expected = streamed(stream, rows[2:], film, 2)
    elsewhere = Rows.of(Tracks.from_points([[(0, 0.9, 0.9)]] * 3, num_frames=5), range(4))
    fresh = control.stream(pipeline.vae, scene)
    for player in (stream, fresh):
        player.restore(state)
        streamed(player, [elsewhere], film.flip(3), 2)
        player.restore(state)
        for made, before in zip(streamed(player, rows[2:], film, 2), expected, strict=True):
            assert torch.equal(made, before)
    assert len(first) == 2


def test_the_invisible_and_the_unpressed_leave_nothing(
    control: Any, pipeline: Any, scene: Scene, film: torch.Tensor
) -> None:
    xy = np.full((13, 2, 2), np.nan, np.float32)
    hidden = Rows(TrackArrays(xy, np.zeros((13, 2), bool), np.ones((13, 2), np.float32)), (None, 0.2))
    none = control.clip(pipeline.vae, scene, Rows.of(Tracks.empty(13)), film)
    assert torch.equal(control.clip(pipeline.vae, scene, hidden, film), none)
    loose = Tracks.from_points([[(0, 0.2, 0.3, 0.0), (12, 0.8, 0.6, 0.0)]], num_frames=13)
    torch.testing.assert_close(control.clip(pipeline.vae, scene, Rows.of(loose), film), none, rtol=0, atol=1e-6)


def test_clips_side_by_side_do_not_know_of_each_other(
    control: Any, pipeline: Any, scene: Scene, film: torch.Tensor
) -> None:
    rows = [Rows.of(drawn(), frames) for frames in PIECES]
    alone = streamed(control.stream(pipeline.vae, scene), rows, film)
    one, two = control.stream(pipeline.vae, scene), control.stream(pipeline.vae, scene)
    for m, part in enumerate(rows):
        two.next(Rows.of(Tracks.empty(13), PIECES[m]), lambda: film[-1])
        assert torch.equal(one.next(part, lambda m=m: film[max(m - 1, 0)]), alone[m])


class Discs:
    """Takes whatever is grabbed for a disc: an untrained network takes other things for one at every size."""

    def mask(self, picture: torch.Tensor, xy: tuple[float, float], brush: float, lean: float = 0) -> torch.Tensor:
        return discs(picture[None], torch.tensor([xy]), torch.tensor([brush]))[0]


@pytest.mark.parametrize("name", sorted(name for name, kind in CONTROLS.items() if issubclass(kind, PixelControl)))
def test_painted_at_any_size_it_is_the_same_video(name: str, picture: Any) -> None:
    """Four times the size, shrunk again: the same up to what the pixel grid does."""
    control: Any = build_control(name)
    small = image_pixels(picture)[0, :, 0]
    large = torch.nn.functional.interpolate(small[None], scale_factor=4, mode="bilinear")[0]
    rows = Rows.of(drawn(), range(5))
    masks = torch.zeros(3, *small.shape[1:])
    masks[:, 8:24, 8:24] = 1
    ours, theirs = (
        control.paint_clip(
            rows, Scene(size, size, masks.repeat_interleave(k, 1).repeat_interleave(k, 2), outline=Discs())
        )
        for size, k in ((small, 1), (large, 4))
    )
    shrunk = torch.nn.functional.avg_pool2d(theirs.transpose(0, 1), 4).transpose(0, 1)
    assert (ours - shrunk).abs().mean() < 0.025 and ours.std() > 0.02


def test_segments_end_where_a_new_track_begins() -> None:
    assert list(segments(drawn().to_array(), 4)) == [(0, 5), (5, 13)]
    late = Tracks.from_points([[(1, 0.5, 0.5)], [(12, 0.5, 0.5)]], num_frames=13)
    assert list(segments(late.to_array(), 4)) == [(0, 1), (1, 9), (9, 13)]
    assert list(segments(Tracks.empty(1).to_array(), 4)) == [(0, 1)]


def test_a_clip_without_its_film_takes_from_the_picture(pipeline: Any, scene: Scene) -> None:
    rows = Rows.of(drawn())
    still = scene.picture.expand(4, -1, -1, -1)
    for control in map(build_control, CONTROLS):
        torch.testing.assert_close(
            control.clip(pipeline.vae, scene, rows), control.clip(pipeline.vae, scene, rows, still), rtol=0, atol=1e-6
        )


def test_what_is_painted_is_what_is_encoded(pipeline: Any, scene: Scene, film: torch.Tensor) -> None:
    control: Any = build_control("carried")
    video = control.paint_clip(Rows.of(drawn()), scene, film)
    motion = StreamingVAE(pipeline.vae).encode(video[None])
    torch.testing.assert_close(control.clip(pipeline.vae, scene, Rows.of(drawn()), film), motion, rtol=0, atol=1e-6)
