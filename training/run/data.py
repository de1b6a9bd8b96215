"""Precomputed latents in memory and batches of them that depend on the seed and the step alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset, concatenate_datasets, load_dataset, load_from_disk
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from pipelines.hub.client import clear_errors


@dataclass
class LatentBatch:
    """Encoded clips: ``latents`` and ``motion`` ``[B, C, F, H, W]``, ``reference`` uint8 ``[B, H, W, 3]``."""

    latents: Tensor
    motion: Tensor
    reference: Tensor
    captions: list[str]

    def to(self, device: torch.device) -> LatentBatch:
        """The same batch with its latents on ``device``; the pictures stay, their processor works on the CPU."""
        return LatentBatch(self.latents.to(device), self.motion.to(device), self.reference, self.captions)


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
        missing = {"latents", "motion", "reference", "caption"} - set(part.column_names)
        if missing:
            raise ValueError(f"data: {name} lacks column(s) {', '.join(sorted(missing))}; run training.precompute")
    return concatenate_datasets(parts)


class LatentPool(TorchDataset[LatentBatch]):
    """All clips of a dataset in memory, half precision for the latents."""

    def __init__(self, dataset: Dataset) -> None:
        columns = dataset.with_format("torch")
        self.captions: list[str] = list(dataset["caption"])
        self.latents = torch.stack([row["latents"].half() for row in columns])
        self.motion = torch.stack([row["motion"].half() for row in columns])
        self.reference = torch.stack([row["reference"].to(torch.uint8) for row in columns])

    def __len__(self) -> int:
        return len(self.captions)

    def draw(self, count: int, generator: torch.Generator, num_latents: int | None = None) -> LatentBatch:
        """``count`` random clips, cut to their first ``num_latents`` latent frames."""
        index = torch.randint(len(self), (count,), generator=generator)
        return LatentBatch(
            self.latents[index, :, :num_latents].float(),
            self.motion[index, :, :num_latents].float(),
            self.reference[index],
            [self.captions[i] for i in index.tolist()],
        )
