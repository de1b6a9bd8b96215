"""Fréchet distance between the Gaussians fitted to two sets of features: the formula of FID and FVD.

It is biased upwards for small sets, the more the wider the features: 206 clips in 64 numbers are few, 206 in the 2,048
of Inception do not even determine the covariance. Compare only numbers of equal set sizes, and read the unbiased
companion (`eval.metrics.kernel`) beside it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


Float = npt.NDArray[np.float64]


def frechet_distance(first: Float, second: Float) -> float:
    """Squared Fréchet distance of the Gaussians fitted to two sets of features ``[N, D]``, in float64.

    ``|mean1 - mean2|^2 + trace(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2)``, both roots by symmetric eigendecomposition,
    which stays real where a general matrix root does not.

    Raises:
        ValueError: if a set has fewer than two rows, the widths differ, or a number is not finite.
    """
    sets = checked_features(first, second)
    means = [values.mean(0) for values in sets]
    covariances = [np.atleast_2d(np.cov(values, rowvar=False)) for values in sets]
    root = _symmetric_root(covariances[0])
    cross = _symmetric_root(root @ covariances[1] @ root)
    trace = np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.trace(cross)
    return float(max(0.0, np.square(means[0] - means[1]).sum() + trace))


def checked_features(first: Float, second: Float) -> tuple[Float, Float]:
    """Two sets of features ``[N, D]`` in float64.

    Raises:
        ValueError: as `frechet_distance` says.
    """
    one, other = (np.asarray(values, np.float64) for values in (first, second))
    for name, values in (("first", one), ("second", other)):
        if values.ndim != 2 or len(values) < 2 or not np.isfinite(values).all():
            raise ValueError(f"{name}: shape {values.shape}; give at least two rows of finite features")
    if one.shape[1] != other.shape[1]:
        raise ValueError(f"first and second: {one.shape[1]} and {other.shape[1]} features; they must agree")
    return one, other


def _symmetric_root(matrix: Float) -> Float:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray((vectors * np.sqrt(values.clip(0))) @ vectors.T)
