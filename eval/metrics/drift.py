"""How a measure changes along a clip: its mean in each latent frame, and its slope.

Latent 0 is pixel frame 0; latent m >= 1 is pixel frames 4m-3..4m.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ardrag.judges.rewards import mean_per_latent


def per_latent(values: npt.NDArray[np.floating], temporal_factor: int = 4) -> list[float | None]:
    """Mean of ``values`` ``[T]`` or ``[T, P]`` over the pixel frames and points of each latent; None where unknown."""
    columns = np.atleast_2d(np.asarray(values, np.float64).T)  # [P, T]
    if not len(columns):
        return [None] * (1 + (len(values) - 1) // temporal_factor)
    latents = mean_per_latent(columns, temporal_factor)  # [P, F]
    known = np.isfinite(latents)
    sums, counts = np.where(known, latents, 0).sum(0), known.sum(0)
    return [float(total / count) if count else None for total, count in zip(sums, counts, strict=True)]


def slope(latents: Sequence[float | None]) -> float | None:
    """Change per latent of a least-squares line through the values of latents 1, 2, ...; None below two of them."""
    known = [(m, value) for m, value in enumerate(latents) if m and value is not None]
    if len(known) < 2:
        return None
    places, values = zip(*known, strict=True)
    return float(np.polyfit(places, values, 1)[0])
