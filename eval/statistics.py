"""Means with bootstrap intervals, paired significance, jackknife, and the spread of repeated timings.

Values are plain numbers in any unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


Float = npt.NDArray[np.float64]
NUM_RESAMPLES = 10_000


class Interval(NamedTuple):
    """A point estimate with the ends of its confidence interval, all in the unit of the values."""

    mean: float
    low: float
    high: float


def resampled_means(values: Float, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> Float:
    """Column means of ``values`` ``[N, K]`` over ``num_resamples`` draws of N rows with replacement, ``[R, K]``.

    Rows stay whole, so that quantities measured on the same clip stay paired.
    """
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=num_resamples)
    return np.asarray(counts @ values / len(values))


def bootstrap_interval(values: Sequence[float] | Float, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Mean of ``values`` ``[N]`` with its percentile bootstrap interval.

    Raises:
        ValueError: if there is no value, one is not finite, or ``confidence`` is not inside 0..1.
    """
    column = _checked("values", values)
    return _interval(float(column.mean()), resampled_means(column[:, None], seed=seed)[:, 0], confidence)


def crossed_interval(values: Float, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Mean of ``values`` ``[S, N]``, runs by clips, with its bootstrap interval: runs and clips are both drawn anew.

    With few runs it is rather too narrow: three are all that can be drawn from.

    Raises:
        ValueError: if there is no run or clip, or a value is not finite.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"values: shape {table.shape}; give runs by clips")
    _checked("values", table.ravel())
    rng = np.random.default_rng(seed)
    runs, clips = (
        rng.multinomial(count, np.full(count, 1 / count), size=NUM_RESAMPLES) / count for count in table.shape
    )
    return _interval(float(table.mean()), np.einsum("rs,sn,rn->r", runs, table, clips, optimize=True), confidence)


def ratio_interval(
    numerator: Sequence[float] | Float, denominator: Sequence[float] | Float, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Ratio of the means of two paired columns ``[N]`` with its percentile bootstrap interval.

    Raises:
        ValueError: if the columns differ in length, are empty or not finite, or the denominator is not positive.
    """
    above, below = _checked("numerator", numerator), _checked("denominator", denominator)
    if len(above) != len(below):
        raise ValueError(f"numerator and denominator: {len(above)} and {len(below)} values; give pairs")
    if (below <= 0).any():
        raise ValueError("denominator: it has a value that is not positive; a ratio needs positive values")
    means = resampled_means(np.stack([above, below], axis=1), seed=seed)
    return _interval(float(above.mean() / below.mean()), means[:, 0] / means[:, 1], confidence)


def sign_flip_p(differences: Sequence[float] | Float, num_flips: int = NUM_RESAMPLES, seed: int = 0) -> float:
    """Two-sided p-value of "these paired differences ``[N]`` are as often positive as negative, and as large".

    The share of random sign patterns whose mean is at least as far from 0 as the one that was found, counting itself.

    Raises:
        ValueError: if there is no difference or one is not finite.
    """
    column = _checked("differences", differences)
    signs = np.random.default_rng(seed).integers(0, 2, (num_flips, len(column))) * 2 - 1
    means = np.abs(signs @ column) / len(column)
    return float((1 + (means >= abs(column.mean()) - 1e-12).sum()) / (1 + num_flips))


def jackknife_interval(
    statistic: Callable[[npt.NDArray[np.intp]], float], count: int, groups: int = 20, normal: float = 1.96
) -> Interval:
    """A statistic of ``count`` clips with a 95 % interval by leaving out one group of them after the other.

    For what is no mean: a distance between sets would be biased upwards in sets that are drawn with replacement.

    Args:
        statistic: of the numbers of the clips that are kept.
        count: number of clips.
        groups: how many groups at most; clip i belongs to group ``i mod groups``.
        normal: half width of the interval in standard errors.

    Raises:
        ValueError: if there are fewer than three clips.
    """
    if count < 3:
        raise ValueError(f"count: {count} clips; leaving some out needs at least 3")
    clips, number = np.arange(count), min(groups, count)
    parts = np.array([statistic(clips[clips % number != group]) for group in range(number)])
    error = float(np.sqrt((number - 1) / number * np.square(parts - parts.mean()).sum()))
    whole = statistic(clips)
    return Interval(whole, whole - normal * error, whole + normal * error)


def _checked(name: str, values: Sequence[float] | Float) -> Float:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or len(column) == 0:
        raise ValueError(f"{name}: shape {column.shape}; give a list of at least one number")
    if not np.isfinite(column).all():
        raise ValueError(f"{name}: not all numbers are finite; leave out what could not be measured")
    return column


def _interval(mean: float, samples: Float, confidence: float) -> Interval:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: {confidence} is not between 0 and 1; 0.95 is usual")
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(mean, float(low), float(high))


def spread(samples: Sequence[float]) -> dict[str, float]:
    """Median, quartiles, 95th percentile and number of ``samples``, in their unit; for timings, which are skewed.

    Raises:
        ValueError: if there is no sample or one is not finite.
    """
    column = _checked("samples", samples)
    quartile, median, third, p95 = (float(value) for value in np.quantile(column, [0.25, 0.5, 0.75, 0.95]))
    return {"median": median, "quartile_1": quartile, "quartile_3": third, "p95": p95, "count": len(column)}
