"""Finding a known sprite in pixels: the arithmetic against plain convolution, and positions to better than a pixel."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ardrag.judges.template_match import background_psnr, cross_correlation, locate, match_score, path_errors, unhidden
from ardrag.worlds.sprite_drawing import draw_background, draw_sprite
from ardrag.worlds.sprites import Sprite, make_clip, render


def make_sprite(places, size=24, shape="star", colour="red"):
    rgba = draw_sprite(shape, colour, size, has_face=True)
    return Sprite(shape, colour, True, rgba, np.array(places, np.float32), (0.0, 0.0), True)


@pytest.fixture
def background():
    return draw_background("photo", np.random.default_rng(0), 64, 80)


def as_frames(background, count):
    return np.repeat((background * 255 + 0.5).astype(np.uint8)[None], count, axis=0)


@pytest.mark.parametrize("size", [18, 25])
def test_fourier_correlation_is_convolution(size):
    planes, kernel = torch.randn(2, 3, 40, 50), torch.randn(3, size, size)
    expected = F.conv2d(planes, kernel[None], padding=size // 2)
    torch.testing.assert_close(cross_correlation(planes, kernel), expected, rtol=1e-4, atol=1e-3)


def test_score_is_the_normalised_correlation_it_says(background):
    sprite = make_sprite([[30, 30]])
    frames, scene = render((sprite,), background, 1), as_frames(background, 1)
    score = match_score(frames, scene, sprite.rgba)
    assert score.shape == (1, 65, 81)
    frame, without = (x[0, 18:42, 28:52].astype(np.float64) / 255 for x in (frames, scene))  # pasted at (40, 30)
    change = sprite.rgba[..., :3] - sprite.rgba[..., 3:] * without
    expected = ((frame - without) * change).sum() / np.linalg.norm(change)
    assert score[0, 30, 40].item() == pytest.approx(expected, abs=2e-3)


def test_found_where_it_is_painted_faintly(background):
    """Contrast does not matter: a third of it, under noise, is found at the same place."""
    sprite = make_sprite([[30, 30], [44, 25]])
    scene = as_frames(background, 2)
    faint = scene + 0.33 * (render((sprite,), background, 2).astype(np.float32) - scene)
    noisy = (faint + np.random.default_rng(0).normal(0, 6, faint.shape)).clip(0, 255).astype(np.uint8)
    assert np.abs(locate(noisy, scene, sprite.rgba) - [[30, 30], [44, 25]]).max() <= 1


@pytest.mark.parametrize("size", [19, 24, 33, 40])
@pytest.mark.parametrize("shape", ["star", "ring", "heart"])
def test_found_within_a_pixel(background, size, shape):
    places = np.random.default_rng(1).uniform(20, 44, (6, 2))
    sprite = make_sprite(places, size, shape)
    found = locate(render((sprite,), background, 6), as_frames(background, 6), sprite.rgba)
    assert np.abs(found - places).max() <= 0.5 + 0.1


def test_found_on_its_own_colour(background):
    """A sprite that hardly differs from its background is found by what little it changes."""
    grey = np.full_like(background, 0.86)
    sprite = make_sprite([[30.0, 40.0]], colour="white")
    assert np.abs(locate(render((sprite,), grey, 1), as_frames(grey, 1), sprite.rgba) - [30, 40]).max() < 1


def test_found_behind_another(background):
    hidden, front = make_sprite([[30, 30]]), make_sprite([[40, 34]], shape="circle", colour="blue")
    frames = render((hidden, front), background, 1)
    open_view = unhidden((front,), 64, 80, 1)
    assert open_view.shape == (1, 64, 80) and open_view[0, 34, 40] == 0 and open_view[0, 5, 5] == 1
    assert np.abs(locate(frames, as_frames(background, 1), hidden.rgba, open_view) - [30, 30]).max() < 1


def test_true_clips_are_on_their_paths():
    errors = []
    for index in range(12):
        clip = make_clip("test", index, 9)
        errors.append(path_errors(clip, clip.frames))
        assert np.array_equal(np.isnan(errors[-1]), ~clip.visible)
    flat = np.concatenate([error.ravel() for error in errors])
    assert np.nanmean(flat) < 0.5 and np.nanmax(flat) < 1


def test_moved_pixels_are_off_by_as_much():
    clip = make_clip("validation", 1, 9)
    still = np.repeat(clip.frames[:1], 9, axis=0)
    expected = np.linalg.norm(clip.xy - clip.xy[:1], axis=-1)
    seen = clip.visible & clip.visible[:1]
    assert np.abs(path_errors(clip, still) - expected)[seen].max() < 1.5


def test_fewer_frames_than_the_clip():
    clip = make_clip("validation", 1, 9)
    assert path_errors(clip, clip.frames[:5]).shape == (5, len(clip.movers))


def test_background_psnr():
    clip = make_clip("validation", 1, 9)
    assert (background_psnr(clip, clip.frames) > 70).all()
    worse = np.where(clip.frames > 127, clip.frames - 10, clip.frames + 10)
    assert background_psnr(clip, worse) == pytest.approx(20 * np.log10(255 / 10), abs=1e-3)
    painted = clip.frames.copy()
    painted[:, ~clip.untouched] = 0  # what sprites touch does not count
    assert (background_psnr(clip, painted) > 70).all()
