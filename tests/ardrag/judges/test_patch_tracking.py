"""The patch tracker: exact on translation, not fooled by blur or by painted texture, honest about what is hidden."""

import cv2
import numpy as np
import pytest
import torch

from ardrag.judges.patch_tracking import PatchTracker
from ardrag.judges.tracking import LucasKanadeTracker, Trajectories
from ardrag.worlds.clip_tracks import clip_tracks
from ardrag.worlds.small import SmallWorld
from ardrag.worlds.sprites import make_clip


HEIGHT, WIDTH = 64, 96


def moving_disc(step=(2.3, -0.7), num_frames=9, start=(30.0, 40.0)):
    """A red disc of 16 pixels on smooth green, moving by `step` pixels a frame; video and true centres."""
    rows, columns = np.indices((HEIGHT, WIDTH)) + 0.5
    centres = np.array(start) + np.arange(num_frames)[:, None] * np.array(step)
    frames = []
    for x, y in centres:
        inside = np.clip(8.5 - np.hypot(columns - x, rows - y), 0, 1)[..., None]
        backdrop = np.stack([40 + 0.3 * columns, 120 + 0.5 * rows, 60 + 0 * rows], -1)
        frames.append(inside * np.array([220, 40, 50]) + (1 - inside) * backdrop)
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).to(torch.uint8), centres


def softened(video, spread=3.0):
    """All frames but the first, blurred as a small model blurs them."""
    frames = video.permute(0, 2, 3, 1).numpy()
    soft = [frames[0], *(cv2.GaussianBlur(frame, (0, 0), spread) for frame in frames[1:])]
    return torch.from_numpy(np.stack(soft)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("step", [(0.0, 0.0), (1.3, -0.7), (-2.5, -2.0), (6.0, 0.5)])
@pytest.mark.parametrize("blurred", [False, True])
def test_translation_within_half_a_pixel(step, blurred):
    start = (24.0, 40.0) if step[0] > 0 else (60.0, 40.0)
    video, centres = moving_disc(step, start=start)
    xy, visible = PatchTracker(31, reach=12).track(softened(video) if blurred else video, torch.tensor([[0, *start]]))
    assert xy.shape == (9, 1, 2) and xy.dtype == np.float32 and visible.dtype == bool and visible.all()
    assert np.abs(xy[:, 0] - centres).max() < 0.5


def test_queries_are_exact_and_followed_both_ways():
    video, centres = moving_disc()
    queries = torch.tensor([[4, *centres[4]], [8, *centres[8]]], dtype=torch.float32)
    xy, visible = PatchTracker(31).track(video, queries)
    assert visible.all() and np.abs(xy - centres[:, None]).max() < 0.5
    np.testing.assert_allclose(xy[4, 0], centres[4], atol=1e-5)


def test_points_on_the_edges_stay_in_the_picture():
    video, _ = moving_disc((3.0, 0.0), start=(0.0, 32.0))
    queries = torch.tensor([[0, 0.0, 32.0], [8, 96.0, 64.0], [2, 0.0, 0.0]])
    xy, _ = PatchTracker(31).track(video, queries)
    assert (xy >= 0).all() and (xy <= [WIDTH, HEIGHT]).all()
    assert [tuple(xy[int(t), p]) for p, (t, _, _) in enumerate(queries)] == [(0, 32), (96, 64), (0, 0)]
    assert np.abs(xy[1, 0] - [3, 32]).max() < 0.5


def test_a_hidden_point_is_told_and_found_again():
    video, centres = moving_disc((1.0, 0.0))
    video[3:6, :, 10:60, 5:80] = torch.tensor([90, 150, 60], dtype=torch.uint8)[:, None, None]
    xy, visible = PatchTracker(31).track(video, torch.tensor([[0, 30.0, 40.0]]))
    assert visible[:3].all() and not visible[3:6].any() and visible[6:].all()
    assert (xy[3:6] == xy[2]).all() and np.abs(xy[6:, 0] - centres[6:]).max() < 0.5


def test_painted_texture_does_not_pay():
    """What cheated Lucas-Kanade: dots that slide along the drawn path while the disc stays behind."""
    video, _ = moving_disc((0.0, 0.0), start=(30.0, 32.0))
    dots = torch.randint(0, 2, (3, 12, 12), generator=torch.Generator().manual_seed(0)) * 200
    for t in range(9):
        left = 24 + 4 * t
        video[t, :, 26:38, left : left + 12] = dots.to(torch.uint8)
    query = torch.tensor([[0, 30.0, 32.0]])
    fooled, _ = LucasKanadeTracker().track(video, query)
    video[0] = moving_disc((0.0, 0.0), 1, (30.0, 32.0))[0][0]  # the user pointed at a clean picture
    xy, visible = PatchTracker(31).track(video, query)
    assert fooled[8, 0, 0] > 55
    assert xy[8, 0, 0] < 40 or not visible[8, 0]


def test_blurred_sprites_are_followed_where_lucas_kanade_loses_them():
    found = {"patch": [], "lucas_kanade": []}
    trackers = {"patch": PatchTracker(), "lucas_kanade": LucasKanadeTracker()}
    for index in range(6):
        clip = make_clip("validation", index, 17)
        assert clip_tracks(clip).num_frames == 17
        video = softened(torch.from_numpy(clip.frames).permute(0, 3, 1, 2))
        shown = clip.visible[0]
        queries = torch.tensor([[0, *point] for point in clip.xy[0][shown]])
        truth = Trajectories(clip.xy[:, shown], clip.visible[:, shown])
        for name, tracker in trackers.items():
            xy, visible = tracker.track(video, queries)
            near = (np.linalg.norm(xy - truth.xy, axis=-1) < 3) & visible
            found[name].append((near & truth.visible)[1:].sum() / truth.visible[1:].sum())
    assert np.mean(found["patch"]) > 0.85
    assert np.mean(found["patch"]) > np.mean(found["lucas_kanade"]) + 0.2


@pytest.mark.parametrize("side", [64, 128])
def test_its_sizes_are_the_picture_s(side):
    """A sprite of the small world is half as large as one of Sprite World, and so is the patch that finds it."""
    errors = []
    for index in range(4):
        clip = SmallWorld().make("validation", index, 9, side, side)
        shown = clip.visible.all(0)
        queries = torch.tensor([[0, *point] for point in clip.xy[0][shown]])
        xy, _ = PatchTracker().track(torch.from_numpy(clip.frames).permute(0, 3, 1, 2), queries)
        errors.append(np.linalg.norm(xy - clip.xy[:, shown], axis=-1).mean())
    assert np.mean(errors) < 1


@pytest.mark.parametrize("settings", [{"window": 30}, {"window": 3}, {"reach": 0}, {"min_correlation": 2}])
def test_settings_that_make_no_sense(settings):
    with pytest.raises(ValueError, match="window, reach, min_correlation"):
        PatchTracker(**settings)


def test_what_cannot_be_tracked():
    with pytest.raises(ValueError, match="video: "):
        PatchTracker().track(torch.zeros(4, 3, 8, 8), torch.zeros(1, 3))
