"""Does what should stay as it is stay as it is? Flicker; the PSNR beside it is `ardrag.judges.template_match.psnr`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


Pixels = npt.NDArray[np.uint8]


def flicker(frames: Pixels, where: npt.NDArray[np.bool_] | None = None) -> float | None:
    """Mean absolute change from frame to frame, of 255, over the pixels of ``where`` (None: all)."""
    marked = np.ones(frames.shape[1:3], bool) if where is None else where
    if not marked.any() or len(frames) < 2:
        return None
    return float(np.abs(np.diff(frames[:, marked].astype(np.float32), axis=0)).mean(dtype=np.float64))
