"""Photo World: the same clip for the same number, sources apart, tracks that are what the pixels show."""

import numpy as np
import pytest

from ardrag.tracks import Tracks
from ardrag.worlds.clip_tracks import clip_tracks
from ardrag.worlds.photo_background import MARGIN, camera_matrices, filmed
from ardrag.worlds.photos import make_photo_clip
from ardrag.worlds.sprites import SPLITS


COUNT = 24


@pytest.fixture(scope="module")
def clips(library):
    """Some 9-frame clips of each split, in another shape than square."""
    return {split: [make_photo_clip(split, i, 9, 64, 80, library) for i in range(COUNT)] for split in SPLITS}


def of_kind(clips, name):
    found = [clip for part in clips.values() for clip in part if name in clip.categories]
    assert found, f"no clip is {name}"
    return found


def test_same_number_same_clip(clips, library):
    for split, made in clips.items():
        again = make_photo_clip(split, 7, 9, 64, 80, library)
        for name in ("frames", "background", "xy", "visible", "drawn", "force", "owner", "untouched"):
            assert np.array_equal(getattr(again, name), getattr(made[7], name)), name
        assert (again.caption, again.categories, again.brush) == (made[7].caption, made[7].categories, made[7].brush)


def test_no_two_clips_are_alike(clips):
    assert len({clip.frames.tobytes() for part in clips.values() for clip in part}) == 3 * COUNT


def test_held_out_pictures_are_in_the_test_split_only(clips):
    """Training pictures are reddish, held-out ones bluish, background and items alike."""
    for split, made in clips.items():
        own, other = (2, 0) if split == "test" else (0, 2)
        for clip in made:
            assert clip.background[..., own].mean() > clip.background[..., other].mean() + 40
            for item in clip.items:
                assert item.rgba[..., own].mean() > item.rgba[..., other].mean()


def test_records_have_the_shapes_they_say(clips):
    for clip in of_kind(clips, "two paths"):
        tracks = clip.xy.shape[1]
        assert clip.frames.shape == (9, 64, 80, 3) and clip.frames.dtype == np.uint8
        assert clip.xy.shape == clip.drawn.shape == (9, tracks, 2)
        assert clip.visible.shape == clip.force.shape == (9, tracks)
        assert 2 <= len(clip.movers) <= tracks and clip.owner.max() <= len(clip.items)


def test_a_visible_point_lies_on_its_item(clips):
    seen = 0
    for clip in [clip for part in clips.values() for clip in part]:
        for track, mover in enumerate(clip.movers):
            for frame in np.flatnonzero(clip.visible[:, track]):
                x, y = np.floor(clip.xy[frame, track]).astype(int)
                assert clip.owner[frame, y, x] == mover + 1
                seen += 1
    assert seen > 500


def test_untouched_pixels_never_change(clips):
    for clip in clips["train"]:
        assert (clip.frames[:, clip.untouched] == clip.background[clip.untouched]).all()
        assert clip.untouched.any() or "camera" in clip.categories


def test_still_clips_stand_still(clips):
    for clip in of_kind(clips, "still"):
        if "camera" not in clip.categories:
            assert (clip.frames == clip.frames[:1]).all() and not np.ptp(clip.xy, 0).any()
            assert clip.caption.startswith("nothing moves")


def test_part_of_the_force_is_part_of_the_way(clips):
    for clip in of_kind(clips, "partly"):
        share = clip.force[0, 0]
        assert 0.3 <= share < 0.9
        way, drag = (path - path[:1] for path in (clip.xy, clip.drawn))
        moved = slice(0, len(clip.movers))
        turned = np.abs(way - share * drag)[:, moved].max()
        assert turned < 0.01


def test_elsewhere_a_drag_is_followed_exactly(clips):
    for clip in clips["train"]:
        if not {"partly", "still"} & set(clip.categories):
            assert np.allclose(clip.drawn, clip.xy, atol=1e-3) and (clip.force == 1).all()


def test_a_moving_camera_is_pinned(clips):
    for clip in of_kind(clips, "camera"):
        assert clip.xy.shape[1] > len(clip.movers) and not clip.untouched.any()
        assert (clip.force[:, len(clip.movers) :] == 1).all()


def test_the_camera_moves_what_the_pins_say():
    """A soft spot on a large picture is filmed where the camera's transform takes it."""
    rng = np.random.default_rng(4)
    camera = camera_matrices(rng, 9, 64, 80, True)
    y, x = np.mgrid[: round(64 * MARGIN), : round(80 * MARGIN)] + 0.5
    start = np.array([36.0, 30.0])
    corner = np.array([80, 64]) * (MARGIN - 1) / 2
    spot = 250 * np.exp(-((x - start[0] - corner[0]) ** 2 + (y - start[1] - corner[1]) ** 2) / (2 * 3.0**2))
    frames = filmed(spot[..., None].repeat(3, -1).astype(np.uint8), camera, 64, 80)
    rows, columns = np.mgrid[:64, :80] + 0.5
    for frame, matrix in zip(frames, camera, strict=True):
        weights = frame[..., 0].astype(float)
        found = np.array([(columns * weights).sum(), (rows * weights).sum()]) / weights.sum()
        assert np.abs(found - (matrix[:, :2] @ start + matrix[:, 2])).max() < 0.12
    assert np.allclose(camera[0], np.eye(2, 3)) and not np.allclose(camera[-1], camera[0])


def test_tracks_are_what_a_user_would_have_drawn(clips):
    for clip in clips["train"]:
        tracks = clip_tracks(clip)
        assert isinstance(tracks, Tracks)
        arrays = tracks.to_array()
        assert np.allclose(arrays.xy * [80, 64], clip.drawn, atol=1e-3)
        assert np.allclose(arrays.force, clip.force, atol=1e-6)
        assert not (arrays.visible & ~clip.visible).any()
        if clip.brush is not None:
            assert set(tracks.sigmas()) == {clip.brush}
    assert {clip.brush is None for clip in clips["train"]} == {True, False}


@pytest.mark.parametrize(
    ("request_", "message"),
    [(("dev", 0, 9), "split"), (("train", -1, 9), "index"), (("train", 0, 8), "num_frames")],
)
def test_bad_requests(request_, message, library):
    with pytest.raises(ValueError, match=message):
        make_photo_clip(*request_, library=library)
