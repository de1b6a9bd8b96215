"""Where the moved things of a Photo World clip are in any video of it, and how much of the picture is kept.

A thing is looked for as it truly looks in each frame, turned, grown and half hidden as it is then: the visible part of
it in the true video is the template of a masked squared difference over the whole frame. A thing that another place of
the true frame shows nearly as well (a piece of plain sky over sky) is not asked for: nobody could say where it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ardrag.judges.template_match import psnr
from ardrag.worlds.photos import PhotoClip


Pixels = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]
FEWEST_PIXELS = 40
"""Of a thing with fewer visible pixels than this nobody can say where it is."""
DISTINCT, NEAR = 30.0, 8
"""Places further off than `NEAR` pixels must differ from a thing by `DISTINCT` of 255 (root mean square)."""


def piece_offsets(clip: PhotoClip, frames: Pixels) -> Float:
    """How far each moved thing is from where it should be, ``[T, P]`` of ``(x, y)`` in pixels, ``P`` its movers.

    NaN where too little of it is visible, or it looks like other places. Between whole pixels by a parabola's top.
    """
    found = np.full((len(frames), len(clip.movers), 2), np.nan, np.float32)
    for p, mover in enumerate(clip.movers):
        for t, frame in enumerate(frames):
            mask = clip.owner[t] == mover + 1
            if mask.sum() >= FEWEST_PIXELS:
                found[t, p] = offset_of(frame, clip.frames[t], mask)
    return found


def offset_of(frame: Pixels, truth: Pixels, mask: npt.NDArray[np.bool_]) -> Float:
    """Offset ``(x, y)`` at which the masked part of ``truth`` looks most like ``frame``, both ``[H, W, 3]``.

    NaN where ``truth`` itself has places like it.
    """
    score, corner = likeness(truth, truth, mask)
    y, x = np.indices(score.shape)
    far = np.hypot(y - corner[0], x - corner[1]) > NEAR
    if -score[far].max() < DISTINCT**2:
        return np.full(2, np.nan, np.float32)
    score, corner = likeness(frame, truth, mask)
    row, column = np.unravel_index(int(score.argmax()), score.shape)
    around = np.pad(score, 1, mode="edge")
    across, down = _top(around[row + 1, column : column + 3]), _top(around[row : row + 3, column + 1])
    return np.array([column + across - corner[1], row + down - corner[0]], np.float32)


def likeness(frame: Pixels, truth: Pixels, mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float64], list[int]]:
    """Minus the mean squared difference (of 255) of the masked part of ``truth`` at every place of ``frame``.

    Returns it with the row and column of the part's own place. Places a quarter of the picture off it are tried too.
    """
    import cv2

    box = tuple(slice(i[0], i[-1] + 1) for i in (np.flatnonzero(mask.any(axis)) for axis in (1, 0)))
    border = max(truth.shape[:2]) // 4
    padded = cv2.copyMakeBorder(frame, border, border, border, border, cv2.BORDER_REPLICATE).astype(np.float32)
    template, weights = truth[box].astype(np.float32), np.repeat(mask[box][..., None], 3, -1).astype(np.float32)
    squared = cv2.matchTemplate(padded, template, cv2.TM_SQDIFF, mask=weights).astype(np.float64)
    return -squared / weights.sum(), [border + side.start for side in box]


def _top(three: npt.NDArray[Any]) -> float:
    """Top of the parabola through three neighbours, from the middle one."""
    before, best, after = (float(value) for value in three)
    bend = before - 2 * best + after
    return float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0


def region_psnr(clip: PhotoClip, frames: Pixels) -> dict[str, npt.NDArray[np.float64]]:
    """PSNR in dB against the true video, frame by frame ``[T]``: ``piece`` of the moved things' true places, ``rest``.

    NaN where a region has no pixels.
    """
    moved = np.isin(clip.owner[: len(frames)], np.array(clip.movers) + 1)
    regions = {"piece": moved, "rest": ~moved}
    return {
        name: np.concatenate([psnr(frames[t : t + 1], clip.frames[t : t + 1], where[t]) for t in range(len(frames))])
        for name, where in regions.items()
    }
