"""The kernel distance where its value is known, and that it has no bias where the Fréchet distance has."""

import numpy as np
import pytest

from eval.metrics.frechet import frechet_distance
from eval.metrics.kernel import kernel_distance, polynomial_kernel


def test_kernel_in_closed_form():
    one, other = np.array([[1.0, 2.0]]), np.array([[3.0, -1.0], [0.0, 0.0]])
    assert polynomial_kernel(one, other) == pytest.approx(np.array([[1.5**3, 1.0]]))


def test_two_pairs_by_hand():
    """Features 0 and 1 against 2 and 3 in one dimension: the mean over different pairs within, over all between."""
    first, second = np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]])
    between = np.mean([1, 1, 27, 64])
    assert kernel_distance(first, second) == pytest.approx(1 + 343 - 2 * between)


def test_a_larger_shift_is_farther():
    features = np.random.default_rng(0).normal(size=(200, 8))
    distances = [kernel_distance(features[:100], features[100:] + shift) for shift in (0, 0.5, 1, 2)]
    assert distances == sorted(distances) and distances[1] > 5 * abs(distances[0])


def test_small_sets_of_one_distribution_are_0_on_average():
    rng = np.random.default_rng(1)
    sets = [(rng.normal(size=(10, 4)), rng.normal(size=(10, 4))) for _ in range(300)]
    unbiased = [kernel_distance(*pair) for pair in sets]
    assert abs(np.mean(unbiased)) < 3 * np.std(unbiased) / np.sqrt(len(unbiased))
    assert 0.3 < np.mean(np.array(unbiased) < 0) < 0.8
    assert np.mean([frechet_distance(*pair) for pair in sets[:50]]) > 0.5


def test_pairs_of_one_clip_are_left_out():
    rng = np.random.default_rng(2)
    features, groups = rng.normal(size=(24, 4)), np.repeat(np.arange(6), 4)
    assert kernel_distance(features, features, groups) == pytest.approx(0, abs=1e-12)
    assert kernel_distance(features, features) < -0.1
    assert kernel_distance(features, features + 2, groups) > 5
    shifted = [
        kernel_distance(part, part + 0.01 * rng.normal(size=(20, 4)), np.arange(20))
        for part in rng.normal(size=(200, 20, 4))
    ]
    assert abs(np.mean(shifted)) < 0.01
    with pytest.raises(ValueError, match="groups: 24 numbers for 24 and 23 rows"):
        kernel_distance(features, features[1:], groups)
    with pytest.raises(ValueError, match="groups: 24 numbers"):
        kernel_distance(features, features, 0 * groups)


def test_errors_name_the_set():
    with pytest.raises(ValueError, match="second: shape .1, 3."):
        kernel_distance(np.zeros((4, 3)), np.zeros((1, 3)))
