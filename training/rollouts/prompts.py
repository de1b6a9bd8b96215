"""What stage 3 asks the policy for: a picture, a caption and tracks, from Sprite World or a dataset that has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ardrag.tracks.tracks import Tracks
from ardrag.worlds.clip_tracks import clip_tracks
from ardrag.worlds.sprites import make_clip
from training.run.data import open_rows


class Prompt(NamedTuple):
    """One task: ``image`` uint8 ``[H, W, 3]``, ``caption`` and ``tracks``."""

    image: npt.NDArray[np.uint8]
    caption: str
    tracks: Tracks


DrawPrompt = Callable[[torch.Generator], Prompt]


def load_prompts(source: str, num_frames: int, height: int, width: int) -> DrawPrompt:
    """A function that draws prompts.

    Args:
        source: ``"sprites"`` for the training split of Sprite World (as many as anyone could want), or a folder or Hub
            name of a dataset with columns ``image``, ``caption`` and ``tracks`` (``ardrag.tracks/v1`` JSON).
        num_frames, height, width: length and size of the clips.

    Raises:
        ValueError: if the dataset lacks a column.
    """
    if source == "sprites":

        def draw_sprites(generator: torch.Generator) -> Prompt:
            clip = make_clip("train", int(torch.randint(2**31, (), generator=generator)), num_frames, height, width)
            return Prompt(clip.frames[0], clip.caption, clip_tracks(clip))

        return draw_sprites
    rows = open_rows(source, "prompts")
    missing = {"image", "caption", "tracks"} - set(rows.column_names)
    if missing:
        raise ValueError(f"prompts: {source} lacks column(s) {', '.join(sorted(missing))}")

    def draw_row(generator: torch.Generator) -> Prompt:
        row = rows[int(torch.randint(len(rows), (), generator=generator))]
        return Prompt(np.asarray(row["image"], np.uint8), row["caption"], Tracks.from_json(row["tracks"]))

    return draw_row
