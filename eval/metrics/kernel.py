"""Kernel distance (KID of single frames, KVD of clips): squared maximum mean discrepancy, unbiased at any set size.

The kernel is that of KID (Binkowski et al. 2018): ``k(x, y) = (x . y / D + 1)^3``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eval.metrics.frechet import checked_features


Float = npt.NDArray[np.float64]


def polynomial_kernel(first: Float, second: Float) -> Float:
    """Kernel values ``[N, M]`` of features ``[N, D]`` and ``[M, D]``."""
    return np.asarray((first @ second.T / first.shape[1] + 1) ** 3)


def kernel_distance(first: Float, second: Float, groups: npt.NDArray[np.intp] | None = None) -> float:
    """Unbiased estimate of the squared discrepancy between two sets of features ``[N, D]`` and ``[M, D]``.

    The mean over pairs within each set leaves out each feature with itself, which is what takes the bias away; sets
    from one distribution give values around 0, half of them negative.

    Args:
        first, second: the sets.
        groups: where row i of both sets belongs to clip ``groups[i]`` ``[N]``: rows of one clip are never compared,
            neither within a set nor between them, for a video and the truth behind it are not independent. Equal
            sets are then exactly 0 apart.

    Raises:
        ValueError: as for the Fréchet distance; if ``groups`` does not number the rows of both sets, or is but one.
    """
    one, other = checked_features(first, second)
    if groups is None:
        within = sum(_mean_of_pairs(polynomial_kernel(values, values)) for values in (one, other))
        return float(within - 2 * polynomial_kernel(one, other).mean())
    apart = groups[:, None] != groups[None]
    if not len(one) == len(other) == len(groups) or not apart.any():
        raise ValueError(f"groups: {len(groups)} numbers for {len(one)} and {len(other)} rows of at least two clips")
    parts = [polynomial_kernel(*pair)[apart].mean() for pair in ((one, one), (other, other), (one, other))]
    return float(parts[0] + parts[1] - 2 * parts[2])


def _mean_of_pairs(kernel: Float) -> float:
    """Mean over pairs of different rows."""
    count = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))
