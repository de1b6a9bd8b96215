"""What stage 3 asks the policy for: a picture, a caption and tracks, from a world or a dataset that has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset

from ardrag.tracks.tracks import Tracks
from ardrag.worlds.clip_tracks import clip_tracks
from ardrag.worlds.open import WORLDS, MakeClip, open_world
from training.run.clips import SCHEMA, unpack_rows
from training.run.data import choose, open_rows


class Prompt(NamedTuple):
    """One task: ``image`` uint8 ``[H, W, 3]``, ``caption`` and ``tracks``."""

    image: npt.NDArray[np.uint8]
    caption: str
    tracks: Tracks


DrawPrompt = Callable[[torch.Generator, torch.Generator], Prompt]
"""Called with a generator of its own, and with one that chooses the picture's size (see `shape_generator`)."""


def load_prompts(source: str, num_frames: int, buckets: Sequence[Sequence[int]]) -> DrawPrompt:
    """A function that draws prompts.

    Args:
        source: a world as `ardrag.worlds.open.open_world` has them (``"sprites"``, ``"small:passers_by=1"``), for as
            many of its training clips as anyone could want; or a folder or Hub name of encoded clips
            (``ardrag.clips/v1``), or of a dataset with columns ``image``, ``caption`` and ``tracks``
            (``ardrag.tracks/v1`` JSON).
        num_frames: length of the clips.
        buckets: picture sizes ``(height, width)`` of a world's clips.

    Raises:
        ValueError: if the world has no such option, the dataset lacks a column, or its clips are shorter than
            ``num_frames``.
    """
    if source.partition(":")[0] in WORLDS:
        return world_prompts(open_world(source).make, num_frames, buckets)
    rows = open_rows(source, "prompts")
    return clip_prompts(rows, source, num_frames) if "schema" in rows.column_names else drawn_prompts(rows, source)


def world_prompts(make: MakeClip, num_frames: int, buckets: Sequence[Sequence[int]]) -> DrawPrompt:
    """Prompts from the training split of a world."""

    def draw_clip(generator: torch.Generator, shape: torch.Generator) -> Prompt:
        height, width = buckets[choose([1] * len(buckets), shape)]
        clip = make("train", int(torch.randint(2**31, (), generator=generator)), num_frames, height, width)
        return Prompt(clip.frames[0], clip.caption, clip_tracks(clip))

    return draw_clip


def drawn_prompts(rows: Dataset, source: str) -> DrawPrompt:
    """Prompts whose tracks somebody drew."""
    missing = {"image", "caption", "tracks"} - set(rows.column_names)
    if missing:
        raise ValueError(f"prompts: {source} lacks column(s) {', '.join(sorted(missing))}")

    def draw_row(generator: torch.Generator, shape: torch.Generator) -> Prompt:
        row = rows[int(torch.randint(len(rows), (), generator=generator))]
        return Prompt(np.asarray(row["image"], np.uint8), row["caption"], Tracks.from_json(row["tracks"]))

    return draw_row


def clip_prompts(rows: Dataset, source: str, num_frames: int) -> DrawPrompt:
    """Prompts from encoded clips: their first picture, and the first ``num_frames`` frames of their tracks."""
    columns: Any = rows.select_columns(["frames", "height", "width"]).with_format("numpy")[:]
    long_enough = np.flatnonzero(columns["frames"] >= num_frames)
    if not len(long_enough):
        raise ValueError(
            f"num_latents: clips of {num_frames} frames are longer than all of {source} ({SCHEMA}), which have at "
            f"most {columns['frames'].max()}"
        )
    sizes = np.stack([columns["height"], columns["width"]], axis=1)[long_enough]
    found, kind = np.unique(sizes, axis=0, return_inverse=True)
    groups = [long_enough[kind.ravel() == k] for k in range(len(found))]

    def draw_clip(generator: torch.Generator, shape: torch.Generator) -> Prompt:
        group = groups[choose([len(one) for one in groups], shape)]
        row = rows[int(group[int(torch.randint(len(group), (), generator=generator))])]
        shown = unpack_rows(row).part(0, num_frames)
        tracks = Tracks.from_array(*shown.arrays).with_brushes(shown.brushes)
        return Prompt(np.array(row["reference"]), row["caption"], tracks)

    return draw_clip
