"""Is it still the same thing that moves? Alikeness of patches around followed points."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


Pixels = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float64]


def patch(picture: npt.NDArray[np.generic], centre: npt.NDArray[np.floating], reach: int) -> Float | None:
    """Square ``[2 reach + 1, 2 reach + 1, C]`` around ``centre`` ``(x, y)``; None where it leaves the picture."""
    x, y = (int(np.floor(value)) for value in centre)
    height, width = picture.shape[:2]
    if not (reach <= x < width - reach and reach <= y < height - reach):
        return None
    return picture[y - reach : y + reach + 1, x - reach : x + reach + 1].astype(np.float64)


def alikeness(one: Float, other: Float) -> float:
    """Correlation of two patches over pixels and colours, in -1..1; 1 for two flat ones of the same colour."""
    deviations = [values - values.mean() for values in (one, other)]
    norms = [float(np.linalg.norm(values)) for values in deviations]
    if min(norms) < 1e-6:
        return float(max(norms) < 1e-6 and np.abs(one - other).max() < 1)
    return float((deviations[0] * deviations[1]).sum() / (norms[0] * norms[1]))


def identity(
    frames: Pixels,
    places: npt.NDArray[np.floating],
    shown: npt.NDArray[np.bool_],
    reference: Pixels,
    reference_places: npt.NDArray[np.floating],
    reach: int,
) -> Float:
    """Alikeness ``[T, P]`` of what is around a point with what should be around it.

    Args:
        frames: uint8 ``[T, H, W, 3]`` of the measured video.
        places: ``[T, P, 2]`` px, where the points are in it.
        shown: ``[T, P]``, where it can be asked; NaN elsewhere, and where a patch leaves its picture.
        reference: ``[T, H, W, 3]`` of the true video, or the first frame repeated where there is none.
        reference_places: ``[T, P, 2]`` px in the reference.
        reach: half of the patch's side, pixels.
    """
    found = np.full(shown.shape, np.nan)
    for t, p in zip(*np.nonzero(shown), strict=True):
        own = patch(frames[t], places[t, p], reach)
        true = patch(reference[t], reference_places[t, p], reach)
        if own is not None and true is not None:
            found[t, p] = alikeness(own, true)
    return found
