"""What the constancy reward notices in clips of the small world (fading, weave, blur), and what not: where they go."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ardrag.judges.constancy import SMALLEST, ConstancyReward, background_mask, bels, piece_errors
from ardrag.judges.tracking import Trajectories
from ardrag.tracks.tracks import Tracks
from ardrag.worlds.clip_tracks import clip_tracks
from ardrag.worlds.small import SmallWorld
from ardrag.worlds.sprites import render


FRAMES = 17
INDICES = range(6)


def clip_of(index, **options):
    return SmallWorld(**options).make("test", index, FRAMES)


def as_video(frames):
    return torch.from_numpy(np.asarray(frames)).permute(0, 3, 1, 2)


def drawn(clip, sprites):
    return render(tuple(sprites), clip.background / np.float32(255), FRAMES)


def fading(clip, lost):
    """Sprites that grow paler from frame to frame, up to ``lost``."""
    steps = [1 - lost * t / (FRAMES - 1) for t in range(FRAMES)]
    shown = [
        drawn(clip, [replace(s, rgba=(s.rgba * step).astype(np.float32)) for s in clip.sprites])[t]
        for t, step in enumerate(steps)
    ]
    return np.stack(shown)


def woven(frames, strength):
    """A pattern of two pixels over everything but the first frame."""
    rows, columns = np.indices(frames.shape[1:3])
    pattern = strength * (1 - 2 * ((rows + columns) % 2))[..., None]
    return np.concatenate([frames[:1], np.clip(frames[1:].astype(int) + pattern, 0, 255).astype(np.uint8)])


def blurred(frames):
    video = as_video(frames).float()
    soft = torch.nn.functional.avg_pool2d(video[1:], 5, stride=1, padding=2, count_include_pad=False)
    return torch.cat([video[:1], soft]).byte().permute(0, 2, 3, 1).numpy()


def rewards(clip, *videos):
    """Mean of the latents after the first, one for each video."""
    found = ConstancyReward()(torch.stack([as_video(video) for video in videos]), clip_tracks(clip))
    assert found.shape == (len(videos), 5) and np.isfinite(found).all()
    np.testing.assert_allclose(found[:, 0], -np.log10(SMALLEST))
    return found[:, 1:].mean(1)


def test_it_falls_with_every_fault_and_the_more_the_worse():
    found = []
    for clip in map(clip_of, INDICES):
        true, faint, gone, weave, dense, soft = rewards(
            clip,
            clip.frames,
            fading(clip, 0.3),
            fading(clip, 0.9),
            woven(clip.frames, 8),
            woven(clip.frames, 24),
            blurred(clip.frames),
        )
        assert true > faint > gone and true > soft  # a sprite may look much like its background
        assert true > weave + 0.2 > dense + 0.6
        found.append((true, faint, gone, soft))
    true, faint, gone, soft = np.mean(found, axis=0)
    assert true > faint + 0.15 > gone + 0.4 and true > soft + 0.15


def test_a_weave_is_told_by_its_strength():
    """8 of 255 are a squared error of 0.001: 30 dB, in a background that was without fault before."""
    clip = clip_of(2)
    true, weave = rewards(clip, clip.frames, woven(clip.frames, 8))
    assert true - weave == pytest.approx((-np.log10(SMALLEST) + 2 * np.log10(8 / 255)) / 2, abs=0.03)


def test_no_background_near_a_point_now_or_at_first():
    shown = Trajectories(np.array([[[10.0, 10]], [[30, 10]], [[50, 10]]], np.float32), np.array([[1], [1], [0]], bool))
    marked = background_mask(shown, 20, 64, 5)
    assert marked.shape == (3, 20, 64)
    assert [marked[t, 9, 9].item() for t in range(3)] == [False] * 3
    assert [marked[t, 9, 29].item() for t in range(3)] == [True, False, True]
    assert marked[2, 9, 49] and marked[0, 9, 14 + 1] and not marked[0, 9, 14]


@pytest.mark.parametrize("index", INDICES)
def test_it_does_not_ask_where_things_went(index):
    """Sprites that stay where they were, or go another way at the same speed, keep what they are."""
    clip = clip_of(index)
    stays = [replace(s, xy=np.repeat(s.xy[:1], FRAMES, axis=0)) for s in clip.sprites]
    true, still = rewards(clip, clip.frames, drawn(clip, stays))
    assert abs(true - still) < 0.4
    assert still == pytest.approx(-np.log10(SMALLEST), abs=1e-3)


@pytest.mark.parametrize("index", INDICES)
def test_who_passes_by_is_no_fault(index):
    """What moves by itself covers less than the share that may change."""
    clip = clip_of(index, passers_by=1)
    without = clip_of(index)
    assert rewards(clip, clip.frames)[0] == pytest.approx(rewards(without, without.frames)[0], abs=0.2)
    true, weave = rewards(clip, clip.frames, woven(clip.frames, 16))
    assert true > weave + 0.2


def test_no_tracks_leave_the_background():
    clip = clip_of(0)
    still = np.repeat(clip.frames[:1], FRAMES, axis=0)
    videos = torch.stack([as_video(still), as_video(woven(still, 24))])
    found = ConstancyReward()(videos, Tracks.empty(FRAMES))
    np.testing.assert_allclose(found[0], -np.log10(SMALLEST))
    assert (found[1, 1:] < 2.1).all()


def test_a_piece_is_found_wherever_it_is_and_at_the_border():
    torch.manual_seed(0)
    video = torch.zeros(3, 3, 32, 40)
    piece = torch.rand(3, 8, 8)
    for t, (y, x) in enumerate(((0, 0), (20, 30), (11, 5))):
        video[t, :, y : y + 8, x : x + 8] = piece
    errors = piece_errors(video, (4.0, 4.0), 3.0)
    assert errors[0] < 1e-6 and (errors[1:] < 0.02).all()
    faint = piece_errors(torch.cat([video[:1], 0.5 * video[1:]]), (4.0, 4.0), 3.0)
    assert (faint[1:] > 2 * errors[1:]).all()
    outside = piece_errors(video, (60.0, -5.0), 3.0)
    assert torch.isfinite(outside).all()


def test_bels():
    np.testing.assert_allclose(bels(torch.tensor([0.1, 0.01, 0.0])), [1, 2, -np.log10(SMALLEST)], rtol=1e-6)
