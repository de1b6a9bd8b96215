"""Opening a pipeline as commands do: where it runs, in which precision, with which adapters."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from pipelines.pipeline_ardrag import ARDragPipeline


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Options of every command that opens a pipeline; `open_pipeline` takes what they give."""
    parser.add_argument("--device", help="where it runs: cpu, cuda, cuda:1, ... (default: the GPU if there is one)")
    parser.add_argument("--dtype", choices=DTYPES, help="precision of all but the VAE (default: as it was saved)")
    parser.add_argument("--lora", nargs="+", default=[], metavar="L", help="adapters: files, folders or Hub names")


def open_pipeline(
    model: str, device: str | None = None, dtype: str | None = None, lora: Sequence[str] = ()
) -> ARDragPipeline:
    """Load the pipeline ``model`` and its adapters, on ``device``; the VAE stays in float32, as Wan is run.

    Raises:
        ValueError: naming the option and the remedy.
    """
    precision = {} if dtype is None else {"torch_dtype": {"vae": torch.float32, "default": DTYPES[dtype]}}
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=place)
    except (
        RuntimeError,
        AssertionError,
    ) as error:  # torch's words for a name, a driver and a build that are not there
        reason = str(error).splitlines()[0]
        raise ValueError(f"device: {place} cannot be used here ({reason}); use cpu, or leave it out") from error
    pipeline = ARDragPipeline.from_pretrained(model, **precision)
    for number, adapter in enumerate(lora):
        file = Path(adapter).expanduser()
        source = {"weight_name": file.name} if file.is_file() else {}
        pipeline.load_lora_weights(
            str(file.parent if file.is_file() else adapter), adapter_name=f"a{number}", **source
        )
    if len(lora) > 1:
        pipeline.set_adapters([f"a{number}" for number in range(len(lora))])
    return pipeline.to(place)
