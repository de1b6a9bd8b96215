"""Motion error measured from pixels against the truth, on 200 rendered clips in which the true error is known."""

from dataclasses import replace

import numpy as np
import pytest

from ardrag.worlds.sprites import make_clip, render
from eval.benchmark.measure import sprite_curves
from eval.metrics.paths import track_errors


NUM_CLIPS, FRAMES = 200, 9


def displaced(clip, offset):
    """The clip rendered with its moved sprites ``offset`` [2] pixels beside their paths; nothing else changes."""
    sprites = tuple(
        replace(sprite, xy=sprite.xy + offset) if index in clip.movers else sprite
        for index, sprite in enumerate(clip.sprites)
    )
    return render(sprites, clip.background.astype(np.float32) / 255, len(clip.frames))


def measured(clip, offset):
    """Found minus true error, and found minus true place, of every point that the tracks show."""
    found, wanted, _ = sprite_curves(clip, displaced(clip, offset))
    errors = track_errors(found, wanted) - np.linalg.norm(offset)
    return errors[clip.visible], (found.xy - wanted.xy - offset)[clip.visible]


def check(indices):
    errors, places = [], []
    for index in indices:
        rng = np.random.default_rng(index)
        length, angle = rng.uniform(0, 8), rng.uniform(0, 2 * np.pi)
        offset = (length * np.array([np.cos(angle), np.sin(angle)])).astype(np.float32)
        error, place = measured(make_clip("test", index, FRAMES), offset)
        errors.append(error.mean())
        places.append(place.mean(0))
    return np.array(errors), np.array(places)


def test_bias_on_a_few_clips():
    """The median, for one sprite that is pushed behind another decides a mean of eight."""
    errors, places = check(range(8))
    assert np.median(np.abs(errors)) < 0.15 and np.abs(np.median(places, axis=0)).max() < 0.15


@pytest.mark.slow
def test_bias_on_200_clips():
    """Occluded sprites, sprites at the border and look-alikes included; errors from 0 to 8 pixels."""
    errors, places = check(range(NUM_CLIPS))
    assert abs(np.mean(errors)) < 0.3 and np.abs(places.mean(0)).max() < 0.3
    assert np.median(np.abs(errors)) < 0.15
