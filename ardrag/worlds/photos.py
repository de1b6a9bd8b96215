"""Photo World: photographs on which cut-outs move, with exact tracks (the data of the tiny checkpoint, second half).

A clip is a photograph (a random window at a random scale) with cut-outs and ragged pieces of other photographs on it.
One to three of them move along Sprite World's splines, turn a little, grow and shrink; others stand in front or
behind; some cast a soft shadow. In some clips the camera pans and zooms (the background is pinned at two points, which
have tracks), in some nothing moves (a held press), in some a mover follows its drag only partly (touch force below 1).

Clips are a pure function of ``(split, index)`` and of the library of pictures (`ardrag.worlds.photo_library`). The
test split has photographs and cut-outs of its own; validation clips are other ones from the training pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ardrag.worlds.photo_background import camera_matrices, draw_background
from ardrag.worlds.photo_items import (
    Item,
    grab_place,
    item_matrices,
    prepare,
    ragged_piece,
    smooth_curve,
)
from ardrag.worlds.photo_library import PhotoLibrary, default_library
from ardrag.worlds.sprite_drawing import Float
from ardrag.worlds.sprites import SPLITS, check_request, sample_path


STREAM = 16
"""First number of the seeds of this world, so that it shares none with Sprite World."""
CAMERA_SHARE, STILL_SHARE, PARTIAL_SHARE, BRUSH_SHARE = 0.15, 0.06, 0.15, 0.4
"""How many clips have a moving camera, nothing that moves, drags that are followed partly, a brush of their own."""


@dataclass(frozen=True)
class PhotoClip:
    """One clip: ``frames`` uint8 ``[T, H, W, 3]`` and everything that is known about it.

    ``xy`` ``[T, P, 2]`` (pixels) and ``visible`` ``[T, P]`` say where the tracked points really are; ``drawn`` and
    ``force`` are what a user would have drawn for that: the same, except where the touch force is below 1 and a mover
    goes only that part of the way; ``brush`` is the tracks' own spread, relative to ``sqrt(H W)``, if they have one.
    ``owner`` uint8 ``[T, H, W]`` has the number of the item on top of each pixel, counted from 1 from back to front, 0
    for the background. ``movers`` are those of the first tracks, in their order; pins of the background follow.
    ``untouched`` ``[H, W]`` marks pixels that nothing ever covers, where the camera stands still.
    """

    frames: npt.NDArray[np.uint8]
    background: npt.NDArray[np.uint8]
    items: tuple[Item, ...]
    movers: tuple[int, ...]
    xy: Float
    visible: npt.NDArray[np.bool_]
    drawn: Float
    force: Float
    brush: float | None
    owner: npt.NDArray[np.uint8]
    untouched: npt.NDArray[np.bool_]
    caption: str
    categories: tuple[str, ...]


def choose_cutout(library: PhotoLibrary, split: str, rng: np.random.Generator) -> tuple[npt.NDArray[np.uint8], str]:
    """A cut-out with straight alpha and its name: photographic ones first, then drawn ones, then ragged pieces."""
    kind = rng.random()
    if kind > 0.75:
        photos = library.choose("photo", split)
        return ragged_piece(library, photos[int(rng.integers(len(photos)))], rng), "piece"
    entries = [entry for entry in library.choose("cutout", split) if entry.photographic == (kind < 0.45)]
    entry = entries[int(rng.integers(len(entries)))]
    pixels = library.read(entry)
    return (pixels[:, ::-1] if rng.random() < 0.5 else pixels), entry.name


def sample_item(
    library: PhotoLibrary,
    split: str,
    rng: np.random.Generator,
    placed: list[Item],
    moves: bool,
    num_frames: int,
    height: int,
    width: int,
) -> Item:
    """An item at a place that the others leave free if that can be, with its motion, before any camera."""
    cutout, name = choose_cutout(library, split, rng)
    side = math.sqrt(height * width)
    size = rng.uniform(0.18, 0.45) * side
    shadow = tuple(rng.uniform(-0.03, 0.05, 2) * side) if rng.random() < 0.3 else None
    rgba = prepare(cutout, size, shadow)
    extent = np.array([width, height], np.float32)
    inset = np.float32(size / 2 if rng.random() < 0.7 else 4.0)
    low, high = np.minimum(0 * extent + inset, extent / 2), np.maximum(extent - inset, extent / 2)
    for _ in range(12):
        start = rng.uniform(low, high).astype(np.float32)
        if all(np.linalg.norm(start - other.at(middle_of(other.rgba))[0]) > 0.8 * size for other in placed):
            break
    path = np.repeat(start[None], num_frames, axis=0)
    still = np.zeros(num_frames, np.float32)
    angle = growth = squash = still
    if moves:
        length = rng.uniform(0.3, 0.85) * side * (num_frames - 1) / 32
        path = sample_path(rng, start, length, num_frames, low, high)
        angle, growth, squash = (
            smooth_curve(rng, num_frames, spread) if rng.random() < 0.4 else still for spread in (0.25, 0.12, 0.08)
        )
    matrices = item_matrices(rgba, path, rng.uniform(-0.15, 0.15) + angle, growth, squash)
    return Item(name, rgba, matrices, grab_place(rgba, rng), moves)


def middle_of(rgba: npt.NDArray[np.uint8]) -> Float:
    """The middle of an item, ``[2]`` in its own pixels."""
    return np.array([rgba.shape[1] / 2, rgba.shape[0] / 2], np.float32)


def followed(item: Item, share: float) -> Item:
    """The item going only ``share`` of its way."""
    return Item(item.name, item.rgba, item.matrices[:1] + share * (item.matrices - item.matrices[:1]), item.grab, True)


def seen_by(item: Item, camera: Float) -> Item:
    """The item on the screen of a moving camera."""
    linear = camera[:, :, :2] @ item.matrices[:, :, :2]
    offset = camera[:, :, :2] @ item.matrices[:, :, 2:] + camera[:, :, 2:]
    return Item(item.name, item.rgba, np.concatenate([linear, offset], -1), item.grab, item.moves)


def render(
    background: npt.NDArray[np.uint8], items: tuple[Item, ...], num_frames: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Draw items (back to front) over a background uint8 ``[T or 1, H, W, 3]``: frames, owners, touched pixels."""
    import cv2

    height, width = background.shape[1:3]
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    owner, touched = np.zeros((num_frames, height, width), np.uint8), np.zeros((height, width), bool)
    for t in range(num_frames):
        frames[t] = background[t if len(background) > 1 else 0]
        for number, item in enumerate(items, 1):
            window = item.window(t, height, width)
            if window is None:
                continue
            drawn = item.draw(t, window)
            behind = cv2.multiply(frames[t][window], cv2.merge([255 - drawn[..., 3]] * 3), scale=1 / 255)
            frames[t][window] = cv2.add(behind, drawn[..., :3])
            owner[t][window][drawn[..., 3] > 127] = number
            touched[window] |= drawn[..., 3] > 0
    return frames, owner, touched


def point_owner(owner: npt.NDArray[np.uint8], xy: Float) -> npt.NDArray[np.int_]:
    """Number of the item on top of points ``[T, P, 2]``, -1 outside of the picture, ``[T, P]``."""
    frames, height, width = owner.shape
    x, y = (np.floor(xy[..., axis]).astype(int) for axis in (0, 1))
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    found = owner[np.arange(frames)[:, None], y.clip(0, height - 1), x.clip(0, width - 1)].astype(int)
    return np.where(inside, found, -1)


def background_pins(rng: np.random.Generator, owner: npt.NDArray[np.uint8], camera: Float) -> Float:
    """Two points of the background that are free in the first frame, as the camera moves them, ``[T, 2, 2]``."""
    rows, columns = np.nonzero(owner[0] == 0)
    if not len(rows):
        return np.zeros((len(owner), 0, 2), np.float32)
    chosen = rng.integers(len(rows), size=2)
    places = np.stack([columns[chosen], rows[chosen]], -1) + 0.5
    return np.stack([places @ matrix[:, :2].T + matrix[:, 2] for matrix in camera]).astype(np.float32)


def direction(path: Float) -> str:
    """Where a path ``[T, 2]`` leads, for captions."""
    dx, dy = path[-1] - path[0]
    if math.hypot(dx, dy) < 6:
        return "around"
    if abs(dx) > abs(dy):
        return "right" if dx > 0 else "left"
    return "down" if dy > 0 else "up"


@dataclass(frozen=True)
class Kind:
    """What sort of clip it is: ``share`` is how much of their drag the movers follow."""

    panning: bool
    still: bool
    share: float


def sample_kind(rng: np.random.Generator) -> Kind:
    """Most clips are of no special kind."""
    number = rng.random()
    partly = CAMERA_SHARE <= number < CAMERA_SHARE + PARTIAL_SHARE
    share = float(rng.uniform(0.3, 0.9)) if partly else 1.0
    return Kind(number < CAMERA_SHARE, number > 1 - STILL_SHARE, share)


def sample_items(
    library: PhotoLibrary, split: str, rng: np.random.Generator, still: bool, num_frames: int, height: int, width: int
) -> tuple[Item, ...]:
    """One to three movers (none in a still clip) and up to two others, from back to front, as their drags say."""
    moving = 0 if still else int(rng.choice([1, 2, 3], p=[0.6, 0.32, 0.08]))
    count = max(moving, 1) + int(rng.choice([0, 1, 2], p=[0.45, 0.35, 0.2]))
    made: list[Item] = []
    for number in range(count):
        made.append(sample_item(library, split, rng, made, number < moving, num_frames, height, width))
    return tuple(made[i] for i in rng.permutation(count))


def caption_of(names: list[str], paths: Float, place: str) -> str:
    """What a clip shows, in words; ``paths`` ``[T, P, 2]`` are those of the named movers."""
    moving = " and ".join(f"a {name} moves {direction(paths[:, n])}" for n, name in enumerate(names))
    return f"{moving or 'nothing moves'} on a photograph, {place}"


def categories_of(
    kind: Kind, movers: int, xy: Float, visible: npt.NDArray[np.bool_], height: int, width: int
) -> tuple[str, ...]:
    """Names for the breakdown of an evaluation."""
    inside = (xy >= 0).all(-1) & (xy < np.array([width, height])).all(-1)
    speed = float(np.linalg.norm(np.diff(xy[:, :movers], axis=0), axis=-1).mean())
    flags = {
        "still": kind.still,
        "fast": speed > 2.3,
        "camera": kind.panning,
        "partly": kind.share < 1 and not kind.still,
        "occluded": bool((inside & ~visible).any()),
        "two paths": movers > 1,
    }
    return tuple(name for name, holds in flags.items() if holds)


def make_photo_clip(
    split: str,
    index: int,
    num_frames: int = 33,
    height: int = 128,
    width: int = 128,
    library: PhotoLibrary | None = None,
) -> PhotoClip:
    """Make clip number ``index`` of ``split``; the same arguments and library always give the same clip.

    Raises:
        ValueError: if the split is unknown, the index negative, ``num_frames`` not ``4k + 1``, or no library there.
    """
    check_request(split, index, num_frames)
    library = library or default_library()
    sources = "test" if split == "test" else "train"
    rng = np.random.default_rng([STREAM, SPLITS.index(split), index])
    kind = sample_kind(rng)
    camera = camera_matrices(rng, num_frames, height, width, kind.panning)
    background, place = draw_background(library, sources, rng, camera, height, width)
    wanted = sample_items(library, sources, rng, kind.still, num_frames, height, width)
    items = tuple(seen_by(followed(item, kind.share) if item.moves else item, camera) for item in wanted)
    movers = tuple(i for i, item in enumerate(items) if item.moves) or (0,)
    frames, owner, touched = render(background, items, num_frames)
    pins = background_pins(rng, owner, camera) if kind.panning else np.zeros((num_frames, 0, 2), np.float32)
    paths = np.stack([items[i].at(items[i].grab) for i in movers], 1)
    drags = np.stack([seen_by(wanted[i], camera).at(items[i].grab) for i in movers], 1)
    xy = np.concatenate([paths, pins], 1)
    owners = np.array([*(number + 1 for number in movers), *[0] * pins.shape[1]])
    visible = point_owner(owner, xy) == owners
    brush = float(rng.uniform(0.07, 0.18)) if rng.random() < BRUSH_SHARE else None
    return PhotoClip(
        frames=frames,
        background=background[0],
        items=items,
        movers=movers,
        xy=xy,
        visible=visible,
        drawn=np.concatenate([drags, pins], 1),
        force=np.where(owners > 0, kind.share, 1.0).astype(np.float32)[None].repeat(num_frames, 0),
        brush=brush,
        owner=owner,
        untouched=~touched & (not kind.panning),
        caption=caption_of([] if kind.still else [items[i].name for i in movers], paths, place),
        categories=categories_of(kind, len(movers), xy, visible, height, width),
    )
