"""Which model an evaluation is about: the bundled one by its name in the repository, or any folder or Hub name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ardrag.home import bundled
from eval.record import REPOSITORY
from pipelines import ARDragPipeline
from pipelines.pipeline_ardrag import BUNDLED_CHECKPOINT


BUNDLED_NAME = "checkpoints/ardrag-tiny"
"""The checkpoint of sprites, which the benchmark is about."""
SPACE_NAME = f"checkpoints/{BUNDLED_CHECKPOINT.name}"
"""The one that the Space begins with."""
RESULTS = (REPOSITORY if (REPOSITORY / "docs").is_dir() else Path()) / "docs" / "results"
"""Where results that speak for the repository are kept; below the working folder where there is no checkout."""


def with_model_named(arguments: Sequence[str]) -> list[str]:
    """A command line that may begin with the model, ``MODEL ...``, as ``--model MODEL ...``."""
    return ["--model", *arguments] if arguments and not arguments[0].startswith("-") else [*arguments]


def load_pipeline(model: str, device: str = "cpu") -> ARDragPipeline:
    """Load a pipeline without progress bars of its own; the bundled one is found from any working folder."""
    name = str(bundled(BUNDLED_NAME)) if model == BUNDLED_NAME else model
    pipeline = ARDragPipeline.from_pretrained(name).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def model_folder(model: str) -> Path:
    """The local files of a model that `load_pipeline` can load."""
    local = Path(bundled(BUNDLED_NAME)) if model == BUNDLED_NAME else Path(model)
    return local if local.is_dir() else Path(ARDragPipeline.download(model))
