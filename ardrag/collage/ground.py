"""The ground of a collage moves as its pins say: panned, zoomed and turned like a picture under a camera.

Pins are tracks that hold no thing but what lies behind all things (`ardrag.tracks.schema.GROUND`). The picture moves
by the similarity that brings the pins from where they were to where they are, by least squares: places are complex
numbers ``x + i y`` in pixels, and ``place = turn * rest + shift``. One pin pans, two or more also zoom and turn.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ardrag.collage.pieces import Places


class View(NamedTuple):
    """Where places of the first picture are seen now, ``turn`` and ``shift`` ``[T]`` or single numbers."""

    turn: Places
    shift: Places

    def of(self, rest: Places) -> Places:
        """Places of the first picture, where they are seen."""
        return np.asarray(self.turn * rest + self.shift)

    def rest(self, seen: Places) -> Places:
        """Places that are seen, where they lie in the first picture."""
        return np.asarray((seen - self.shift) / self.turn)


STILL = View(np.array(1 + 0j), np.array(0j))


class Ground(NamedTuple):
    """The pins of a clip so far: where each track's lies in the first picture (NaN: unseen), and the last view."""

    pins: Places = np.zeros(0, complex)
    view: View = STILL

    def follow(self, places: Places, pinned: np.ndarray) -> tuple[View, Ground]:
        """The views of the next frames ``[T]``, and what is known after them.

        Args:
            places: the tracks in these frames, ``[T, P]``.
            pinned: which of them are seen and pin the ground, ``[T, P]``.
        """
        pins = np.full(places.shape[1], np.nan, complex)
        pins[: len(self.pins)] = self.pins
        view, views = self.view, []
        for seen, here in zip(places, pinned, strict=True):
            view = best_view(pins, seen, here & ~np.isnan(pins), view)
            new = here & np.isnan(pins)
            pins[new] = view.rest(seen[new])
            views.append(view)
        turns, shifts = (np.array(column, complex) for column in zip(*views, strict=True))
        return View(turns, shifts), Ground(pins, view)


def best_view(pins: Places, seen: Places, known: np.ndarray, before: View) -> View:
    """The view in which ``pins`` ``[P]`` are where they are ``seen`` ``[P]``; what nobody says is as ``before``."""
    if not known.any():
        return before
    rest, now = pins[known], seen[known]
    middle, target = rest.mean(), now.mean()
    wide = float((abs(rest - middle) ** 2).sum())
    turn = ((rest - middle).conj() * (now - target)).sum() / wide if wide > 1 else before.turn
    return View(turn, target - turn * middle) if abs(turn) > 0 else before


def filmed(pictures: Tensor, view: View) -> Tensor:
    """Pictures ``[3, T, H, W]`` as they are seen; what comes in from beyond an edge is its mirror image."""
    if (view.turn == 1).all() and (view.shift == 0).all():
        return pictures
    height, width = pictures.shape[2:]
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    rest = ((x[None] + 1j * y[:, None]) - view.shift[:, None, None]) / view.turn[:, None, None]
    grid = torch.from_numpy(np.stack([2 * rest.real / width - 1, 2 * rest.imag / height - 1], 3)).to(pictures)
    seen = F.grid_sample(pictures.movedim(1, 0), grid, padding_mode="reflection", align_corners=False)
    return seen.movedim(0, 1)
