"""Bootstrap intervals and spreads against closed forms."""

import math

import numpy as np
import pytest

from eval.statistics import bootstrap_interval, ratio_interval, resampled_means, spread


def test_constant_values_have_no_width() -> None:
    assert bootstrap_interval([2.5] * 7) == (2.5, 2.5, 2.5)
    assert bootstrap_interval([4.0]) == (4.0, 4.0, 4.0)


def test_two_values_follow_the_binomial() -> None:
    means = resampled_means(np.array([[0.0], [1.0]]), num_resamples=40_000)[:, 0]
    shares = [float((means == value).mean()) for value in (0.0, 0.5, 1.0)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.01)
    assert bootstrap_interval([0.0, 1.0]) == (0.5, 0.0, 1.0)
    assert bootstrap_interval([0.0, 1.0], confidence=0.4) == (0.5, 0.5, 0.5)


def test_large_sample_follows_the_normal_law() -> None:
    values = np.array([0.0] * 300 + [1.0] * 100)
    found = bootstrap_interval(values)
    half = 1.96 * math.sqrt(0.25 * 0.75 / 400)
    assert found.mean == 0.25
    assert found.low == pytest.approx(0.25 - half, abs=0.004)
    assert found.high == pytest.approx(0.25 + half, abs=0.004)


def test_seed_decides() -> None:
    values = np.random.default_rng(1).normal(size=50)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_ratio_keeps_pairs_together() -> None:
    below = np.random.default_rng(0).uniform(1, 9, 30)
    assert ratio_interval(5 * below, below) == pytest.approx((5, 5, 5))


def test_spread_of_known_samples() -> None:
    found = spread([float(value) for value in range(101)])
    assert found == {"median": 50, "quartile_1": 25, "quartile_3": 75, "p95": 95, "count": 101}


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [[1.0]]])
def test_refuses_what_has_no_mean(values: list[float]) -> None:
    with pytest.raises(ValueError, match="values"):
        bootstrap_interval(values)


def test_refuses_bad_settings() -> None:
    with pytest.raises(ValueError, match="confidence"):
        bootstrap_interval([1.0], confidence=95)
    with pytest.raises(ValueError, match="denominator"):
        ratio_interval([1.0], [0.0])
    with pytest.raises(ValueError, match="pairs"):
        ratio_interval([1.0], [1.0, 2.0])
