"""Passers-by in made-up videos: the true one, and blurred, faint, frozen, jumping and vanishing ones; coverage."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ardrag.worlds.small import SmallWorld
from ardrag.worlds.sprites import render
from eval.benchmark.measure import sprite_curves
from eval.benchmark.passers import coverage, follow_passers, nearest_path, passers_of
from eval.metrics.paths import track_errors


FRAMES = 25
INDICES = (1, pytest.param(3, marks=pytest.mark.slow))


def clip_of(index, frames=FRAMES, **options):
    return SmallWorld(**{"passers_by": 1, **options}).make("test", index, frames)


def with_passer(clip, sprite):
    """The clip's video with ``sprite`` in the place of its passer-by; None: with none."""
    own = () if sprite is None else (sprite,)
    return render((*own, *clip.sprites[1:]), clip.background / np.float32(255), len(clip.frames))


def blurred(clip):
    """The passer-by alone is blurred: what lies in front stays."""
    plate = with_passer(replace(clip, sprites=clip.sprites[:1]), clip.sprites[0])
    video = torch.from_numpy(plate).permute(0, 3, 1, 2).float()
    soft = torch.nn.functional.avg_pool2d(video, 7, stride=1, padding=3, count_include_pad=False)
    video = soft.byte().permute(0, 2, 3, 1).numpy()
    return np.stack(
        [
            render(tuple(replace(s, xy=s.xy[t:]) for s in clip.sprites[1:]), video[t] / np.float32(255), 1)[0]
            for t in range(len(video))
        ]
    )


def told(clip, frames):
    (found,), _ = follow_passers(clip, frames)
    return np.nanmean(found.sharpness[1:]), np.nanmean(found.off[1:])


@pytest.mark.parametrize("index", INDICES)
def test_every_fault_is_told_by_its_own_measure(index):
    clip = clip_of(index)
    sprite = clip.sprites[0]
    assert passers_of(clip) == (sprite,) and not sprite.moves
    sharp, off = told(clip, clip.frames)
    assert sharp == pytest.approx(0.95, abs=0.05) and off < 0.3  # not all of it: it lies between the pixels
    faint = replace(sprite, rgba=0.5 * sprite.rgba)
    assert told(clip, with_passer(clip, faint)) == pytest.approx((0.5, off), abs=0.2)
    soft, soft_off = told(clip, blurred(clip))
    assert soft < 0.75 and soft_off < 1.5
    frozen, frozen_off = told(clip, with_passer(clip, replace(sprite, xy=np.repeat(sprite.xy[:1], FRAMES, axis=0))))
    assert frozen > 0.9 and frozen_off > 3
    jumps = np.random.default_rng(0).uniform(sprite.size / 2, 64 - sprite.size / 2, (FRAMES, 2)).astype(np.float32)
    jumping, jumping_off = told(clip, with_passer(clip, replace(sprite, xy=jumps)))
    assert jumping > 0.85 and jumping_off > 8
    gone, gone_off = told(clip, with_passer(clip, None))
    assert abs(gone) < 0.1 and gone_off > 3


def test_one_that_vanishes_is_told_from_then_on():
    clip = clip_of(1)
    half = np.concatenate([clip.frames[:13], with_passer(clip, None)[13:]])
    (found,), _ = follow_passers(clip, half)
    assert np.nanmean(found.sharpness[1:13]) > 0.9 and np.nanmean(found.sharpness[13:]) < 0.1
    assert np.nanmean(found.off[13:]) > np.nanmean(found.off[1:13])


@pytest.mark.parametrize("index", INDICES[:1])
def test_heading_and_path_are_those_of_the_world_also_in_long_clips(index):
    clip = clip_of(index, 81)
    step = np.diff(clip.sprites[0].xy[:2], axis=0)[0]
    (found,), errors = follow_passers(clip, clip.frames)
    assert np.nanmean(errors) < 0.3
    assert np.nanmean(found.off[60:]) < 0.5
    turn = (found.heading - math.atan2(step[1], step[0]) + math.pi) % (2 * math.pi) - math.pi
    assert abs(turn) < math.radians(3)


def test_a_controlled_sprite_elsewhere_is_not_taken_for_the_passer_by():
    clip = clip_of(2)
    mover = clip.movers[0]
    away = replace(clip.sprites[mover], xy=64 - clip.sprites[mover].xy)
    moved = render(
        (*clip.sprites[:mover], away, *clip.sprites[mover + 1 :]), clip.background / np.float32(255), FRAMES
    )
    (found,), errors = follow_passers(clip, moved)
    assert np.nanmean(found.sharpness) > 0.8 and np.nanmean(found.off) < 1 and np.nanmean(errors) > 5


def test_one_that_has_faded_does_not_draw_the_controlled_one_to_it():
    """What is missing of it looks like something of the opposite colour, and the controlled one is faint too."""
    for index in (1, 3):
        clip = clip_of(index)
        sprite, front = clip.sprites[0], [replace(one, rgba=0.5 * one.rgba) for one in clip.sprites[1:]]
        faint = replace(sprite, rgba=0.1 * sprite.rgba, xy=np.repeat(sprite.xy[:1], FRAMES, axis=0))
        frames = render((faint, *front), clip.background / np.float32(255), FRAMES)
        assert np.nanmean(follow_passers(clip, frames)[1]) < 0.5
        assert np.nanmean(track_errors(*sprite_curves(clip, frames)[:2])) < 0.5


def test_slow_and_curved_paths_are_not_allowed():
    clip = clip_of(0)
    sprite, view = clip.sprites[0], np.ones((FRAMES, 64, 64), np.float32)
    assert nearest_path(sprite.xy.astype(np.float64), sprite, view)[0].mean() < 0.05
    slow = sprite.xy[:1] + 0.4 * (sprite.xy - sprite.xy[:1]) * 0.8 / 1.5
    assert nearest_path(slow.astype(np.float64), sprite, view)[0].mean() > 1.5


def test_coverage():
    rng = np.random.default_rng(0)
    uniform = [coverage(rng.uniform(0, 2 * math.pi, 4)) for _ in range(2000)]
    assert np.mean(uniform) == pytest.approx(1, abs=0.02)
    assert coverage([1.0, 1.0, 1.0]) == 0 and coverage([0.0]) is None
    assert coverage([0.1, 2 * math.pi - 0.1]) == pytest.approx(0.2 / (math.pi / 2))
    assert coverage([0.0, math.pi]) == pytest.approx(2)


def test_a_fork_is_no_passer_by():
    clip = clip_of(0, two_futures=True)
    assert len(clip.free) == 2 and passers_of(clip) == clip.sprites[:1]
    assert passers_of(SmallWorld().make("test", 0, 5)) == ()
