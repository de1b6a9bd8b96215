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


def kernel_distance(first: Float, second: Float) -> float:
    """Unbiased estimate of the squared discrepancy between two sets of features ``[N, D]`` and ``[M, D]``.

    The mean over pairs within each set leaves out each feature with itself, which is what takes the bias away; sets
    from one distribution give values around 0, half of them negative.

    Raises:
        ValueError: as for the Fréchet distance.
    """
    one, other = checked_features(first, second)
    within = 0.0
    for values in (one, other):
        kernel = polynomial_kernel(values, values)
        within += (kernel.sum() - np.trace(kernel)) / (len(values) * (len(values) - 1))
    return float(within - 2 * polynomial_kernel(one, other).mean())
