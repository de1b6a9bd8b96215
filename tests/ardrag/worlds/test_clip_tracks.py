"""Tracks of a clip are what a user would have drawn: things with their brush, and pins of the ground."""

from dataclasses import replace

import numpy as np

from ardrag.tracks.schema import GROUND
from ardrag.worlds.clip_tracks import clip_tracks
from ardrag.worlds.photos import PhotoClip
from ardrag.worlds.sprites import make_clip


def a_clip(brush: float | None) -> PhotoClip:
    """Nine frames of 32 by 48 with one mover and two pins; only what tracks are made of is told."""
    drawn = np.full((9, 3, 2), 12, np.float32) + np.arange(9, dtype=np.float32)[:, None, None]
    force = np.tile(np.array([0.5, 1, 1], np.float32), (9, 1))
    known = {"frames": np.zeros((9, 32, 48, 3), np.uint8), "drawn": drawn, "visible": np.ones((9, 3), bool)}
    rest = dict.fromkeys(("background", "items", "xy", "owner", "untouched", "caption", "categories"))
    clip = PhotoClip(**{**rest, **known, "force": force, "brush": brush, "movers": (1,)})
    return replace(clip, xy=drawn)


def test_things_have_the_clips_brush_and_pins_hold_the_ground() -> None:
    for brush in (None, 0.12):
        tracks = clip_tracks(a_clip(brush))
        assert tracks.brushes() == (brush, GROUND, GROUND)
        xy, _, force = tracks.to_array()
        np.testing.assert_allclose(xy[0], [[12 / 48, 12 / 32]] * 3)
        assert (force == [0.5, 1, 1]).all()


def test_of_sprites_there_is_a_track_for_each_drag() -> None:
    clip = make_clip("test", 0, 9, 64, 64)
    assert clip_tracks(clip).to_array().xy.shape == clip.xy.shape and not any(clip_tracks(clip).brushes())
