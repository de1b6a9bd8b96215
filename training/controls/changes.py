"""Tracks as people and trackers give them: touched lightly, left out, late, and a little off (AR-Drag B.1)."""

from __future__ import annotations

import numpy as np

from ardrag.tracks.sampling import TrackArrays
from ardrag.worlds.small import FULL_SIDE, smooth_noise
from training.settings.tracks import TrackConfig


LATEST_START = 0.5
"""Of a clip; a track that is late is there by then."""


def pressed(arrays: TrackArrays, weakest: float, rng: np.random.Generator) -> TrackArrays:
    """``arrays`` with a force that changes smoothly between ``weakest`` and 1, for each track its own."""
    frames, count = arrays.visible.shape
    times, knots = np.linspace(0, 3, frames), np.arange(4)
    profiles = [np.interp(times, knots, rng.uniform(weakest, 1, 4)) for _ in range(count)]
    force = arrays.force * np.array(profiles).reshape(count, frames).T
    return arrays._replace(force=force.astype(np.float32))


def left_out(arrays: TrackArrays, share: float, rng: np.random.Generator) -> TrackArrays:
    """``arrays`` where each track is not there with the probability ``share``."""
    return arrays._replace(visible=arrays.visible & (rng.random(arrays.visible.shape[1]) >= share))


def begun_late(arrays: TrackArrays, share: float, rng: np.random.Generator) -> TrackArrays:
    """``arrays`` where each track begins within the first half, not before, with the probability ``share``."""
    frames, count = arrays.visible.shape
    latest = max(int(LATEST_START * frames), 1)
    starts = np.where(rng.random(count) < share, rng.integers(1, latest + 1, count), 0)
    return arrays._replace(visible=arrays.visible & (np.arange(frames)[:, None] >= starts))


def off(arrays: TrackArrays, pixels: float, height: int, width: int, rng: np.random.Generator) -> TrackArrays:
    """``arrays`` smoothly off by ``pixels`` (standard deviation, of a picture of 128x128), exact in frame 0."""
    frames, count = arrays.visible.shape
    wrong = np.stack([smooth_noise(rng, frames) for _ in range(count)], axis=1) if count else 0
    side = pixels / FULL_SIDE * min(height, width)
    xy = arrays.xy + (side * wrong / np.array([width, height])).astype(np.float32)
    return arrays._replace(xy=np.where(arrays.visible[..., None], xy, arrays.xy))


def changed(
    arrays: TrackArrays, config: TrackConfig, height: int, width: int, rng: np.random.Generator
) -> TrackArrays:
    """``arrays`` after all that ``config`` names; what it does not name draws nothing."""
    if config.touch_force < 1:
        arrays = pressed(arrays, config.touch_force, rng)
    if config.dropped_tracks:
        arrays = left_out(arrays, config.dropped_tracks, rng)
    if config.late_tracks:
        arrays = begun_late(arrays, config.late_tracks, rng)
    if config.track_noise:
        arrays = off(arrays, config.track_noise, height, width, rng)
    return arrays
