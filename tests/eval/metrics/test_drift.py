"""Means per latent and their slope."""

import numpy as np
import pytest

from eval.metrics.drift import per_latent, slope


def test_latents_are_one_frame_and_then_four():
    values = np.array([9, 1, 2, 3, 4, 10, 10, 10, 30.0])
    assert per_latent(values) == [9, 2.5, 15]
    pair = np.stack([values, np.full(9, np.nan)], axis=1)
    pair[5:, 1] = 5
    assert per_latent(pair) == [9, 2.5, 10]


def test_unknown_latents_are_none():
    assert per_latent(np.array([np.nan, 1, np.nan, 3, np.nan])) == [None, 2]
    assert per_latent(np.zeros((9, 0))) == [None, None, None]


def test_slope_of_a_line():
    assert slope([100, 1, 1.5, 2, 2.5]) == pytest.approx(0.5)
    assert slope([0, 3, None, 3]) == pytest.approx(0)
    assert slope([0, 3, None]) is None
