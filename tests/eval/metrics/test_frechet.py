"""The Fréchet distance where its value is known."""

import numpy as np
import pytest

from eval.metrics.frechet import frechet_distance


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(size=(300, 6)) @ np.random.default_rng(1).normal(size=(6, 6))


def test_equal_sets_have_none(features):
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(features, features[::-1]) == pytest.approx(0, abs=1e-9)


def test_a_shift_is_its_square(features):
    shift = np.array([3.0, 0, 0, 0, 4.0, 0])
    assert frechet_distance(features, features + shift) == pytest.approx(25, rel=1e-9)


def test_gaussians_with_common_axes_in_closed_form():
    """Means d apart and standard deviations s1, s2 on each axis: sum d^2 + (s1 - s2)^2."""
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(5000, 3))
    whitened = (raw - raw.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False))).T
    one, two = np.array([1.0, 2.0, 0.5]), np.array([3.0, 2.0, 0.1])
    found = frechet_distance(whitened * one, whitened * two + 0.5)
    assert found == pytest.approx(3 * 0.25 + np.square(one - two).sum(), rel=1e-6)


def test_it_is_symmetric_and_survives_a_singular_covariance(features):
    flat = features.copy()
    flat[:, 5] = flat[:, 0]
    assert frechet_distance(features, flat) == pytest.approx(frechet_distance(flat, features), rel=1e-6)
    assert frechet_distance(flat[:3], features) > 0


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "first: shape .1, 3.; give at least two rows"),
        (np.zeros((5, 3)), np.full((5, 3), np.nan), "second: shape .5, 3.; give at least two rows of finite"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "first and second: 3 and 4 features; they must agree"),
    ],
)
def test_errors(first, second, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(first, second)


def test_the_number_of_pytorch_fid():
    """`pytorch_fid.fid_score.calculate_frechet_distance` (0.3.0, SciPy 1.17) on the same features."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=(120, 16)) @ rng.normal(size=(16, 16))
    second = rng.normal(size=(150, 16)) @ rng.normal(size=(16, 16)) + 0.3
    assert frechet_distance(first, second) == pytest.approx(129.33101808361835, rel=1e-10)
