"""Changes of pictures so that the cut of a pasted thing does not give it away: photographs have no such cut."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from training.outlines.things import Floats, Grab, Shown


ANOTHER_GROUND, NEARER_COLOURS, SOFT_SEAM = 0.3, 0.4, 0.6
"""How often things lie on the ground of another picture, look more like what is round them, lose their sharp edge."""
GREY, BLUR, NOISE = 0.15, 0.3, 0.3
"""How often a picture has no colours, is blurred, is noisy."""


def disguised(shown: Shown, grab: Grab, other: Shown, rng: np.random.Generator) -> Floats:
    """The picture with less of a cut round what is grabbed, float32 ``[H, W, 3]`` in 0..255."""
    picture: Any = shown.picture.astype(np.float32)
    if grab.mask is None:
        return picture
    things = (shown.owner > 0).astype(np.float32)
    if other.empty is not None and rng.random() < ANOTHER_GROUND:
        alpha = cv2.GaussianBlur(things, (0, 0), 0.7)[..., None]
        picture = picture * alpha + other.empty * (1 - alpha)
    if rng.random() < NEARER_COLOURS:
        picture = picture + grab.mask[..., None] * rng.uniform(0.2, 0.8) * colour_step(picture, grab.mask)
    if rng.random() < SOFT_SEAM:
        mask = things if rng.random() < 0.5 else grab.mask
        seam = cv2.GaussianBlur(cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)), (0, 0), 1)
        share = np.minimum(1.5 * seam, 1)[..., None]
        picture = picture * (1 - share) + cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.6, 1.8)) * share
    return picture.astype(np.float32)


def colour_step(picture: Floats, mask: Floats) -> Floats:
    """From the mean colour within ``mask`` to that of a ring round it, ``[3]``; 0 where there is no ring."""
    ring = cv2.dilate(mask, np.ones((15, 15), np.uint8)) - mask
    if not ring.any():
        return np.zeros(3, np.float32)
    means = [(picture * part[..., None]).sum((0, 1)) / part.sum() for part in (mask, ring)]
    return means[1] - means[0]


def turned(picture: Floats, grab: Grab, rng: np.random.Generator) -> tuple[Floats, Grab]:
    """Both turned, scaled and perhaps mirrored, if what is grabbed stays in the picture."""
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.normal(0, 10), math.exp(rng.uniform(-0.25, 0.4)))
    if rng.random() < 0.5:
        matrix = matrix @ np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]])
    place = (matrix @ np.array([*(grab.xy - 0.5), 1]) + 0.5).astype(np.float32)
    if not (2 < place[0] < width - 2 and 2 < place[1] < height - 2):
        return picture, grab
    size = (width, height)
    moved: Any = cv2.warpAffine(picture, matrix, size, borderMode=cv2.BORDER_REFLECT)
    mask: Any = None if grab.mask is None else cv2.warpAffine(grab.mask, matrix, size)
    return moved, Grab(mask, place)


def coloured(picture: Floats, rng: np.random.Generator) -> Floats:
    """Another light, perhaps no colours, blur or noise; 0..255."""
    changed: Any = (picture - 128) * rng.uniform(0.6, 1.3) + 128 + rng.normal(0, 20) + rng.normal(0, 10, 3)
    if rng.random() < GREY:
        changed = changed.mean(-1, keepdims=True).repeat(3, -1)
    if rng.random() < BLUR:
        changed = cv2.GaussianBlur(changed, (0, 0), rng.uniform(0.3, 1.2))
    if rng.random() < NOISE:
        changed = changed + rng.normal(0, rng.uniform(1, 10), changed.shape)
    return np.clip(changed, 0, 255).astype(np.float32)
