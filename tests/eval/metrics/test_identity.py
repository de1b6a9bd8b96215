"""Alikeness of patches: the same thing elsewhere is 1, its negative -1, another thing less."""

import numpy as np
import pytest

from eval.metrics.identity import alikeness, identity, patch


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def test_patch_is_centred_and_inside(picture):
    assert (patch(picture, np.array([10.9, 5.1]), 2) == picture[3:8, 8:13]).all()
    assert patch(picture, np.array([1.0, 10.0]), 2) is None
    assert patch(picture, np.array([10.0, 30.0]), 2) is None


def test_alikeness(picture):
    one = picture[:9, :9].astype(float)
    assert alikeness(one, one) == pytest.approx(1)
    assert alikeness(one, 0.5 * one + 20) == pytest.approx(1)
    assert alikeness(one, 255 - one) == pytest.approx(-1)
    assert abs(alikeness(one, picture[15:24, 15:24].astype(float))) < 0.3
    flat = np.full((5, 5, 3), 7.0)
    assert alikeness(flat, flat) == 1 and alikeness(flat, flat + 9) == 0 and alikeness(flat, one[:5, :5]) == 0


def test_identity_follows_the_points(picture):
    frames = np.stack([picture, np.roll(picture, 4, axis=1), 255 - picture])
    reference = np.repeat(picture[None], 3, axis=0)
    home = np.full((3, 1, 2), 12.0)
    places = home + np.array([[[0, 0]], [[4, 0]], [[0, 0]]])
    found = identity(frames, places, np.array([[True], [True], [True]]), reference, home, 3)
    assert found[:, 0] == pytest.approx([1, 1, -1])
    assert np.isnan(identity(frames, places, np.zeros((3, 1), bool), reference, home, 3)).all()
