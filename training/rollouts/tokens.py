"""Text and image tokens that are stored beside a clip, so that no encoder need be in the process that trains.

UMT5-XXL and CLIP take more memory than the model of 1.3 billion parameters that they serve, and their answers never
change. Tokens are stored in half precision, text without what lies beyond its end, and with them an empty text's.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from ardrag.conditioning import encode_image_tokens, encode_text, encode_token_ids, token_ids
from pipelines import ARDragPipeline
from pipelines.hub.client import MODEL_INDEX, fetch_pipeline, link_or_copy
from training.run import tiny
from training.run.clips import pack_half, unpack_half


ENCODERS = ("text_encoder", "image_encoder")
PIECE = 2**20
"""Bytes of each end of a file of weights that tell it from others."""


def encoders_digest(folder: Path) -> str:
    """What tells encoders and tokenizer of the pipeline in ``folder`` from others: of large files the ends alone."""
    found = hashlib.sha256()
    for part in (*ENCODERS, "tokenizer"):
        for file in sorted((folder / part).glob("*")):
            if file.suffix == ".safetensors" or file.name == "tokenizer.json":
                size = file.stat().st_size
                found.update(f"{part}/{file.name} {size}".encode())
                with file.open("rb") as data:
                    found.update(data.read(PIECE))
                    data.seek(max(size - PIECE, 0))
                    found.update(data.read(PIECE))
    return found.hexdigest()[:16]


class TokenMaker:
    """Adds the tokens that the encoders of a pipeline make of rows of `ardrag.clips/v1`.

    Raises:
        ValueError: if there is no such pipeline, or it has no image encoder.
    """

    def __init__(self, name: str) -> None:
        folder = fetch_pipeline(name)
        self._pipeline = ARDragPipeline.from_pretrained(folder, transformer=None, vae=None)
        if self._pipeline.image_encoder is None:
            raise ValueError(f"tokens: {name} has no image encoder; name a pipeline that has both")
        self._digest = encoders_digest(folder)

    @torch.no_grad()
    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """``row`` with its tokens."""
        pipeline = self._pipeline
        ids, mask = token_ids(pipeline.tokenizer, [row["caption"], ""])
        text = encode_token_ids(pipeline.text_encoder, ids, mask)
        pixels = tiny.pixel_values(pipeline.image_processor, [np.asarray(row["reference"])])
        (image,) = encode_image_tokens(pipeline.image_encoder, pixels)
        told, none = (tokens[: int(seen.sum())] for tokens, seen in zip(text, mask, strict=True))
        shapes = {"digest": self._digest, "text": list(text.shape[1:]), "image": list(image.shape)}
        packed = {"text": pack_half(told), "no_text": pack_half(none), "image_tokens": pack_half(image)}
        return {**row, "encoders": json.dumps(shapes, sort_keys=True), **packed}


def unpack_text(data: bytes, shape: Sequence[int]) -> Tensor:
    """Text tokens ``[Lt, Dt]`` of ``shape``, zero after the text's end."""
    tokens = torch.zeros(tuple(shape))
    found = unpack_half(data, (-1, shape[1]))
    tokens[: len(found)] = found
    return tokens


def stored_tokens(rows: Iterable[Mapping[str, Any]], captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Text ``[B, Lt, Dt]`` and image tokens ``[B, Li, Di]`` of rows; those of an empty text for an empty caption."""
    text, image = [], []
    for row, caption in zip(rows, captions, strict=True):
        shapes = json.loads(row["encoders"])
        text.append(unpack_text(row["text"] if caption else row["no_text"], shapes["text"]))
        image.append(unpack_half(row["image_tokens"], shapes["image"]))
    return torch.stack(text), torch.stack(image)


def empty_text(pipeline: ARDragPipeline, row: Mapping[str, Any] | None) -> Tensor:
    """Text tokens ``[1, Lt, Dt]`` of no text, by the encoder of ``pipeline``, or, if it has none, of ``row``."""
    if pipeline.text_encoder is not None:
        return encode_text(pipeline.tokenizer, pipeline.text_encoder, [""])
    assert row is not None, "a run without encoders has clips"
    return unpack_text(row["no_text"], json.loads(row["encoders"])["text"])[None]


def require_tokens(dataset: Dataset, pipeline: str) -> None:
    """Check that every clip has tokens by the encoders of ``pipeline``.

    Raises:
        ValueError: naming a clip that has none, or another's.
    """
    digest = encoders_digest(fetch_pipeline(pipeline))
    for row in dataset.select_columns(["id", "encoders"]):
        if not row["encoders"] or json.loads(row["encoders"])["digest"] != digest:
            whose = "those of other encoders" if row["encoders"] else "no tokens"
            raise ValueError(
                f"stored_tokens: clip {row['id']} has {whose}; run training.precompute with --clips and --tokens "
                f"{pipeline}"
            )


def without_encoders(stored: bool) -> dict[str, None]:
    """What `from_pretrained` is told so that it loads no encoder."""
    return dict.fromkeys(ENCODERS) if stored else {}


def add_encoders(folder: Path, source: str) -> None:
    """Give the pipeline in ``folder``, which was saved without encoders, those of the pipeline ``source``."""
    theirs = fetch_pipeline(source)
    index, known = (json.loads((place / MODEL_INDEX).read_text()) for place in (folder, theirs))
    for part in ENCODERS:
        shutil.copytree(theirs / part, folder / part, copy_function=link_or_copy)
        index[part] = known[part]
    (folder / MODEL_INDEX).write_text(json.dumps(index, indent=2) + "\n")
