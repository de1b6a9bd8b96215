"""Precomputed clips of any size and length, read from memory-mapped files, and batches of one shape.

A clip is a function of (seed, step, its number in the update): nothing is kept between steps, so a resumed run draws
what the uninterrupted one would, on any number of processes, in batches of any size. The shape of a batch (picture
size and length) is a function of (seed, step) alone: all ranks work on the same one. Only the shapes of the clips are
in memory; the rest is read when it is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset, concatenate_datasets, load_dataset, load_from_disk
from torch import Tensor

from ardrag.rollout import seeded_generator
from ardrag.tracks.sampling import TrackArrays
from pipelines import ARDragPipeline
from pipelines.hub.client import clear_errors
from training.run.clips import FEATURES, NO_TOKENS, SCHEMA, unpack_half, unpack_tracks


ShowTracks = Callable[[Mapping[str, Any], torch.Generator], Tensor]
"""The motion slot ``[C, F, h, w]`` of a row, given the clip's generator (`training.controls.maker.ControlMaker`)."""


LATER = {"control": "", "brushes": [], **NO_TOKENS}
"""Columns that a dataset may lack, and what stands for them."""


@dataclass
class LatentBatch:
    """Encoded clips: ``latents`` and ``motion`` ``[B, C, F, H, W]``, ``reference`` uint8 ``[B, H, W, 3]``.

    ``tracks`` are those of the pixel frames that the ``F`` latents decode to; ``rows`` is where all comes from.
    """

    latents: Tensor
    motion: Tensor
    reference: Tensor
    captions: list[str]
    tracks: list[TrackArrays] = field(default_factory=list)
    rows: Sequence[Mapping[str, Any]] = ()

    def to(self, device: torch.device) -> LatentBatch:
        """The same batch with its latents on ``device``; the pictures stay, their processor works on the CPU."""
        return replace(self, latents=self.latents.to(device), motion=self.motion.to(device))


def open_rows(source: str, field: str) -> Dataset:
    """A dataset from a folder that `save_to_disk` wrote, or the training split of one on the Hub.

    Raises:
        ValueError: naming the ``field`` of the configuration, if the dataset cannot be had.
    """
    with clear_errors(f"{field}: {source}"):
        return load_from_disk(source) if Path(source).is_dir() else load_dataset(source, split="train")


def load_latents(sources: Sequence[str]) -> Dataset:
    """Open datasets written by `training.precompute`, from folders or from the Hub, as one.

    Raises:
        ValueError: if nothing is given, or a column is missing.
    """
    if not sources:
        raise ValueError("data: no folder given; write one with python -m training.precompute")
    parts = [open_rows(name, "data") for name in sources]
    for name, part in zip(sources, parts, strict=True):
        missing = set(FEATURES) - set(part.column_names) - set(LATER)
        if missing:
            raise ValueError(
                f"data: {name} lacks column(s) {', '.join(sorted(missing))} of {SCHEMA}; "
                "write it anew with python -m training.precompute"
            )
    return concatenate_datasets([completed(part) for part in parts])


def completed(part: Dataset) -> Dataset:
    """A dataset of before there were all columns: nobody knows whose the stored motion is, no tokens are stored."""
    for name in sorted(set(LATER) - set(part.column_names)):
        part = part.add_column(name, [LATER[name]] * len(part), feature=FEATURES[name])
    return part


def shape_generator(seed: int, step: int, part: int = 0) -> torch.Generator:
    """The generator that chooses the shape of a batch, alike on all ranks."""
    return seeded_generator(seed, step, part, 1)


def choose(sizes: Sequence[int], generator: torch.Generator) -> int:
    """One of several groups, as often as it has members."""
    if len(sizes) == 1:
        return 0
    return int(torch.multinomial(torch.tensor(sizes, dtype=torch.float64), 1, generator=generator))


class LatentPool:
    """The clips of a dataset, by shape; each is cut to its first ``num_latents`` latents.

    Raises:
        ValueError: if ``num_latents`` is longer than every clip, or the clips were encoded by different VAEs.
    """

    def __init__(self, dataset: Dataset, num_latents: int) -> None:
        self.rows = dataset.with_format(None)
        columns = dataset.select_columns(["latent_shape", "height", "width"]).with_format("numpy")[:]
        channels, length, *_ = shapes = np.stack(columns["latent_shape"]).T
        if length.max() < num_latents:
            raise ValueError(
                f"num_latents: {num_latents} is longer than the data, whose clips have at most {length.max()}; use "
                f"{length.max()}, or give training.precompute more frames"
            )
        if len(set(channels.tolist())) > 1:
            raise ValueError(
                f"data: latents have {' and '.join(map(str, sorted(set(channels.tolist()))))} channels; encode all "
                "clips with one VAE"
            )
        self.channels = int(channels[0])
        kinds = np.stack([np.minimum(length, num_latents), columns["height"], columns["width"]], axis=1)
        found, kind = np.unique(kinds, axis=0, return_inverse=True)
        self.shapes: list[tuple[int, int, int]] = [tuple(shape) for shape in found.tolist()]
        """(latents, height, width in pixels) of each group."""
        self.groups: list[npt.NDArray[np.intp]] = [np.flatnonzero(kind.ravel() == k) for k in range(len(found))]
        assert shapes.shape == (4, len(dataset)), "latents are [C, F, H, W]"
        self._show: ShowTracks = stored_motion

    def show(self, show: ShowTracks) -> None:
        """Have ``show`` make what batches show of the tracks, in the place of what is stored."""
        self._show = show

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def buckets(self) -> list[list[int]]:
        """Picture sizes ``[height, width]``, the one with most clips first."""
        count: dict[tuple[int, int], int] = {}
        for (_, height, width), group in zip(self.shapes, self.groups, strict=True):
            count[height, width] = count.get((height, width), 0) + len(group)
        return [list(size) for size in sorted(count, key=lambda size: -count[size])]

    def captions(self) -> Iterator[str]:
        """The caption of every clip, read as they are asked for."""
        return (row["caption"] for row in self.rows.select_columns(["caption"]))

    def draw(self, generators: Sequence[torch.Generator], shape: torch.Generator) -> LatentBatch:
        """A random clip for each of ``generators``; ``shape`` chooses their shape (see `shape_generator`)."""
        kind = choose([len(group) for group in self.groups], shape)
        places = [int(torch.randint(len(self.groups[kind]), (), generator=generator)) for generator in generators]
        rows = [self.rows[int(self.groups[kind][place])] for place in places]
        shown = [self._show(row, generator) for row, generator in zip(rows, generators, strict=True)]
        return read_batch(rows, shown, self.shapes[kind][0])


def stored_motion(row: Mapping[str, Any], generator: torch.Generator) -> Tensor:
    """What is stored beside the clip, whichever control that is."""
    if not row["motion"]:
        raise ValueError(f"data: clip {row['id']} has no control stored; run training.precompute with --control")
    return unpack_half(row["motion"], row["latent_shape"])


def require_fit(pool: LatentPool, pipeline: ARDragPipeline) -> None:
    """Check that ``pipeline`` can be trained on the clips of ``pool``.

    Raises:
        ValueError: if they were encoded by another VAE.
    """
    if pool.channels != pipeline.vae.config.z_dim:
        raise ValueError(
            f"data: its latents have {pool.channels} channels, those of the model's VAE {pipeline.vae.config.z_dim}; "
            "run training.precompute with that VAE"
        )


def read_batch(rows: Sequence[dict[str, Any]], shown: Sequence[Tensor], num_latents: int) -> LatentBatch:
    """The first ``num_latents`` latents of ``rows``, all of one picture size, and of what is ``shown``, as a batch."""
    latents = torch.stack([unpack_half(row["latents"], row["latent_shape"])[:, :num_latents] for row in rows])
    motion = torch.stack([motion[:, :num_latents] for motion in shown])
    tracks = []
    for row in rows:
        frames = 1 + (row["frames"] - 1) * (num_latents - 1) // max(row["latent_shape"][1] - 1, 1)
        tracks.append(TrackArrays(*(part[:frames] for part in unpack_tracks(row))))
    pictures = torch.from_numpy(np.stack([np.asarray(row["reference"]) for row in rows]))
    return LatentBatch(latents, motion, pictures, [row["caption"] for row in rows], tracks, rows)
