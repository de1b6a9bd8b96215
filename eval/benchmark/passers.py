"""What a model makes of a sprite that it does not control: is it sharp, may it go there, does it go everywhere?

A passer-by of the small world keeps a hidden speed and direction, and the borders throw it back. Its picture and place
in frame 0 are known, so every video can be asked, frame by frame:

- *sharpness*: how much of its outline is there where it is found, by projection on the one that it should have; 1 is
  true, 0 is gone. A blur over all that could have happened keeps the colour and loses the outline. What a mean over
  `SOFT` of the picture takes away is left out: a small VAE loses it for everybody.
- *path*: the distance in pixels to the nearest path that the world allows from frame 0, over all headings and speeds.
  A sprite that stands still, jumps, or is lost (then it is found anywhere) is far from all of them.
- *coverage*: of several videos of one picture, the mean angle between the headings of these paths over that of the
  world, where headings are uniform; 1 is as varied as the world, 0 is always the same. It is one minus the energy
  distance to the world in units of that of a single heading, and says nothing of paths that are not valid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ardrag.judges.template_match import locate, path_errors, sprite_centres, unhidden
from ardrag.worlds.small import FULL_SIDE, PASSING_SPEEDS, SmallClip, passing_paths
from ardrag.worlds.sprites import Sprite, SpriteClip, render


Pixels = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float64]
HEADINGS, SPEEDS = 360, 15
"""Grid of the paths that are tried first; the best is made finer between its neighbours."""
SOFT = 10 / 128
"""Width of the mean before edges are taken, of the shorter side."""
LEAST_EDGES = 1e-3
"""Squared edges, of 1, of a sprite that is not hidden, all its pixels together."""


class Passing(NamedTuple):
    """One passer-by in one video: by frame ``[T]`` its sharpness and how far off it is, and its heading in radians.

    NaN where it is, or on the nearest path would be, hidden by what moves in front of it.
    """

    sharpness: Float
    off: Float
    heading: float


def passers_of(clip: SmallClip) -> tuple[Sprite, ...]:
    """The sprites that pass by: all free ones but the one at a fork."""
    return clip.sprites[: len(clip.free) - (clip.futures is not None)]


def follow_passers(clip: SmallClip, frames: Pixels) -> tuple[list[Passing], Float]:
    """Every passer-by of ``clip`` in ``frames`` uint8 ``[T, H, W, 3]``; path errors ``[T, P]`` of what tracks move."""
    seen = look_for_all(clip, frames)
    errors = path_errors(clip, frames, centres_of_movers(clip, seen))
    followed = []
    for number, sprite in enumerate(passers_of(clip)):
        found = seen[number]
        off, heading = nearest_path(found.layer.sprite.xy.astype(np.float64), sprite, found.open_view)
        kept = edges_kept(frames, found.scene, found.shown)
        followed.append(Passing(np.where(np.isfinite(off), kept, np.nan), off, heading))
    return followed, errors.astype(np.float64)


def moved_centres(clip: SpriteClip, frames: Pixels) -> npt.NDArray[np.float32]:
    """Where each sprite that a track moves is ``[T, P, 2]``, whatever became of those that none does."""
    if not isinstance(clip, SmallClip) or not clip.free:
        return sprite_centres(clip, frames)
    return centres_of_movers(clip, look_for_all(clip, frames))


class Layer(NamedTuple):
    """A sprite where it is thought to be, and how much of it shows, by frame ``[T]``."""

    sprite: Sprite
    strength: Float


class Seen(NamedTuple):
    """A sprite that was found; the scene without and with all of it; how much nothing hides of each pixel."""

    layer: Layer
    scene: Pixels
    shown: Pixels
    open_view: npt.NDArray[np.float32]


def centres_of_movers(clip: SmallClip, seen: Mapping[int, Seen]) -> npt.NDArray[np.float32]:
    """Where what tracks move was found, ``[T, P, 2]``."""
    return np.stack([seen[mover].layer.sprite.xy for mover in clip.movers], axis=1)


def look_for_all(clip: SmallClip, frames: Pixels) -> dict[int, Seen]:
    """Every sprite of ``clip`` that moves, by its number, in a video of the clip's picture.

    What a track moves lies in front and may be elsewhere than in the true video, so it is looked for beside the free
    ones: they where it should be, it where they are, they where it is. Each counts for as much as it shows: one that
    has faded, taken for whole, would leave its negative.
    """
    count, whole = len(clip.free), np.ones(len(frames))
    layers = [Layer(sprite, whole * (k >= count)) for k, sprite in enumerate(clip.sprites)]
    seen: dict[int, Seen] = {}
    for number in (*range(count), *clip.movers, *range(count)):
        seen[number] = look_for(frames, layers, number, clip, open_above=max(number + 1, count))
        layers[number] = seen[number].layer
    return seen


def look_for(frames: Pixels, layers: Sequence[Layer], number: int, clip: SmallClip, open_above: int) -> Seen:
    """One of the ``layers`` in ``frames``, the others as they are; those from ``open_above`` on hide it."""
    sprite, background = layers[number].sprite, clip.background / np.float32(255)
    scene = painted([*layers[:number], *layers[number + 1 :]], background, len(frames))
    front = tuple(layer.sprite for layer in layers[open_above:])
    open_view = unhidden(front, *frames.shape[1:3], len(frames))
    sprite = replace(sprite, xy=locate(frames, scene, sprite.rgba, open_view))
    whole = Layer(sprite, np.ones(len(frames)))
    shown = painted([*layers[:number], whole, *layers[number + 1 :]], background, len(frames))
    change, wanted = (video.astype(np.float64) - scene for video in (frames, shown))
    strength = (change * wanted).sum((1, 2, 3)) / np.maximum(np.square(wanted).sum((1, 2, 3)), 1)
    return Seen(Layer(sprite, strength.clip(0, 1)), scene, shown, open_view.numpy())


def painted(layers: Sequence[Layer], background: npt.NDArray[np.float32], num_frames: int) -> Pixels:
    """``layers`` (back to front) over ``background``, each as strong as it is."""
    return np.concatenate(
        [
            render(
                tuple(
                    replace(sprite, rgba=(sprite.rgba * strength[t]).astype(np.float32), xy=sprite.xy[t : t + 1])
                    for sprite, strength in layers
                ),
                background,
                1,
            )
            for t in range(num_frames)
        ]
    )


def edges_kept(frames: Pixels, scene: Pixels, shown: Pixels) -> Float:
    """Edges ``[T]`` of ``frames`` less ``scene``, projected on those of ``shown`` less ``scene``; NaN for no edges."""
    made, wanted = (_edges(video.astype(np.float64) - scene) for video in (frames, shown))
    energy = np.square(wanted).sum(1)
    return np.where(energy > LEAST_EDGES, (made * wanted).sum(1) / np.maximum(energy, LEAST_EDGES), np.nan)


def _edges(change: Float) -> Float:
    size = round(SOFT * min(change.shape[1:3])) // 2 * 2 + 1
    planes = torch.from_numpy(change / 255).permute(0, 3, 1, 2)
    soft = F.avg_pool2d(planes, size, stride=1, padding=size // 2, count_include_pad=False)
    return torch.cat([soft.diff(dim=dim).flatten(1) for dim in (2, 3)], dim=1).numpy()


def nearest_path(places: Float, sprite: Sprite, open_view: npt.NDArray[np.float32]) -> tuple[Float, float]:
    """Distances ``[T]`` of ``places`` ``[T, 2]`` to the nearest allowed path, and its heading.

    Frames in which half of ``sprite`` would be hidden on a path (``open_view`` ``[T, H, W]``) do not count for it.
    """
    size = sprite.size // 2 * 2 + 1
    view = torch.from_numpy(open_view)[:, None]
    open_view = F.avg_pool2d(view, size, stride=1, padding=size // 2, count_include_pad=False)[:, 0].numpy()
    scale = min(open_view.shape[1:]) / FULL_SIDE
    headings = np.linspace(0, 2 * math.pi, HEADINGS, endpoint=False)
    speeds = scale * np.linspace(*PASSING_SPEEDS, SPEEDS)
    _, heading, speed = _best(places, sprite, open_view, headings, speeds)
    around, beside = 2 * math.pi / HEADINGS, speeds[1] - speeds[0]
    finer = np.clip(speed + beside * np.linspace(-1, 1, 9), speeds[0], speeds[-1])
    off, heading, _ = _best(places, sprite, open_view, heading + around * np.linspace(-1, 1, 9), finer)
    return off, heading % (2 * math.pi)


def _best(
    places: Float, sprite: Sprite, open_view: npt.NDArray[np.float32], headings: Float, speeds: Float
) -> tuple[Float, float, float]:
    """Distances ``[T]``, heading and speed of the best path of the grid of both."""
    heading, speed = (values.ravel() for values in np.meshgrid(headings, speeds, indexing="ij"))
    velocity = speed[:, None] * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    paths = passing_paths(sprite, velocity, open_view.shape)  # [T, N, 2]
    columns, rows = (paths[..., axis].astype(int) for axis in range(2))
    seen = open_view[np.arange(len(places))[:, None], rows, columns] > 0.5
    distance = np.linalg.norm(paths - places[:, None], axis=-1)
    mean = np.where(seen, distance, 0).sum(0) / np.maximum(seen.sum(0), 1)
    best = int(np.where(2 * seen.sum(0) >= len(places), mean, np.inf).argmin())
    return np.where(seen[:, best], distance[:, best], np.nan), float(heading[best]), float(speed[best])


def coverage(headings: Sequence[float]) -> float | None:
    """Mean angle between pairs of ``headings`` over that of uniform ones; None for fewer than two.

    The mean over pairs is unbiased: in expectation it is 1 for headings of the world, however few they are.
    """
    if len(headings) < 2:
        return None
    values = torch.tensor(headings, dtype=torch.float64)
    apart = (values[:, None] - values).abs() % (2 * math.pi)
    angles = torch.minimum(apart, 2 * math.pi - apart)
    count = len(headings)
    return float(angles.sum() / (count * (count - 1)) / (math.pi / 2))
