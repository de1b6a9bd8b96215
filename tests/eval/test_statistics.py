"""Bootstrap intervals and spreads against closed forms."""

import math

import numpy as np
import pytest

from eval.statistics import (
    bootstrap_interval,
    crossed_interval,
    jackknife_interval,
    ratio_interval,
    resampled_means,
    sign_flip_p,
    spread,
)


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


def test_runs_and_clips_are_both_drawn() -> None:
    rng = np.random.default_rng(0)
    clips, runs = rng.normal(size=(1, 40)), 3 * rng.normal(size=(30, 1))
    assert crossed_interval(clips) == pytest.approx(bootstrap_interval(clips[0]), abs=0.03)
    assert crossed_interval(runs) == pytest.approx(bootstrap_interval(runs[:, 0]), abs=0.1)
    both = crossed_interval(clips + runs)
    assert both.mean == pytest.approx(clips.mean() + runs.mean())
    widths = [found.high - found.low for found in (crossed_interval(clips), crossed_interval(runs), both)]
    assert widths[2] == pytest.approx(math.hypot(*widths[:2]), rel=0.05)  # their variances add
    with pytest.raises(ValueError, match="values: shape"):
        crossed_interval(clips[0])


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


def test_sign_flip_p_in_closed_form() -> None:
    """Four equal differences: two of sixteen sign patterns are as far from 0, so about 1 in 8."""
    assert sign_flip_p([1.0, 1.0, 1.0, 1.0]) == pytest.approx(2 / 16, abs=0.02)
    assert sign_flip_p([1.0, -1.0]) == 1
    assert sign_flip_p([0.0, 0.0, 0.0]) == 1
    assert sign_flip_p(np.random.default_rng(0).normal(1, 0.5, 30)) < 0.001


def test_sign_flip_p_is_uniform_under_no_difference() -> None:
    rng = np.random.default_rng(0)
    found = [sign_flip_p(rng.normal(size=20), num_flips=500) for _ in range(300)]
    assert np.mean(np.array(found) < 0.1) == pytest.approx(0.1, abs=0.05)


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=15)
    found = jackknife_interval(lambda kept: float(values[kept].mean()), 15)
    error = values.std(ddof=1) / np.sqrt(15)
    assert found == pytest.approx((values.mean(), values.mean() - 1.96 * error, values.mean() + 1.96 * error))
    grouped = jackknife_interval(lambda kept: float(np.tile(values, 20)[kept].mean()), 300)
    assert grouped.high - grouped.low < found.high - found.low
    with pytest.raises(ValueError, match="count: 2 clips"):
        jackknife_interval(lambda kept: 0.0, 2)
