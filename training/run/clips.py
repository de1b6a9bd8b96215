"""`ardrag.clips/v1`: an encoded clip as a row of a `datasets` dataset, told column by column in docs/data.md.

Rows of any size and length lie in one dataset, so arrays are bytes beside their shape. Latents are half precision.
Places of tracks are 16-bit fixed point, a fiftieth of a pixel at 1280 (half precision would step by five pixels there
if it had to hold 0.5 to 1 in eight bits, as bfloat16 does), their visibility is one bit, their force one byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import Features, Image, List, Value
from torch import Tensor

from ardrag.controls.control import Rows
from ardrag.tracks.sampling import TrackArrays


SCHEMA = "ardrag.clips/v1"
FULL_PLACE, FULL_FORCE = 65535, 255
FEATURES = Features(
    {
        "schema": Value("string"),
        "id": Value("string"),
        "source": Value("string"),
        "caption": Value("string"),
        "height": Value("int32"),
        "width": Value("int32"),
        "frames": Value("int32"),
        "fps": Value("float32"),
        "reference": Image(mode="RGB"),
        "num_tracks": Value("int32"),
        "tracks": Value("large_binary"),
        "visible": Value("large_binary"),
        "force": Value("large_binary"),
        "brushes": List(Value("float32")),
        "latent_shape": List(Value("int32")),
        "latents": Value("large_binary"),
        "control": Value("string"),
        "motion": Value("large_binary"),
        "encoders": Value("string"),
        "text": Value("large_binary"),
        "no_text": Value("large_binary"),
        "image_tokens": Value("large_binary"),
    }
)
NO_TOKENS: dict[str, Any] = {"encoders": "", "text": b"", "no_text": b"", "image_tokens": b""}
"""Columns of a clip whose tokens are not stored; `training.rollouts.tokens` stores them."""


def pack_tracks(arrays: TrackArrays) -> dict[str, Any]:
    """The columns of ``arrays``: ``xy`` ``[T, P, 2]`` in 0..1, ``visible`` and ``force`` ``[T, P]``."""
    return {
        "num_tracks": arrays.xy.shape[1],
        "tracks": np.rint(np.clip(arrays.xy, 0, 1) * FULL_PLACE).astype("<u2").tobytes(),
        "visible": np.packbits(arrays.visible).tobytes(),
        "force": np.rint(np.clip(arrays.force, 0, 1) * FULL_FORCE).astype(np.uint8).tobytes(),
    }


def unpack_tracks(row: Mapping[str, Any]) -> TrackArrays:
    """The tracks of a row, as `pack_tracks` was given them but for rounding."""
    frames, count = row["frames"], row["num_tracks"]
    places = np.frombuffer(row["tracks"], "<u2").reshape(frames, count, 2).astype(np.float32) / FULL_PLACE
    bits = np.unpackbits(np.frombuffer(row["visible"], np.uint8), count=frames * count)
    force = np.frombuffer(row["force"], np.uint8).reshape(frames, count).astype(np.float32) / FULL_FORCE
    return TrackArrays(places, bits.astype(bool).reshape(frames, count), force)


def unpack_rows(row: Mapping[str, Any]) -> Rows:
    """The tracks of a row with their brushes; of a clip that was written before those were kept, the usual ones."""
    return Rows(unpack_tracks(row), tuple(row["brushes"]) or (None,) * row["num_tracks"])


def pack_half(values: Tensor) -> bytes:
    """Half precision, little endian, last axis fastest.

    Raises:
        ValueError: if a value is no number or too large for half precision.
    """
    with np.errstate(over="ignore"):
        half = values.detach().cpu().numpy().astype("<f2")
    if not np.isfinite(half).all():
        raise ValueError("latents: they are not finite in half precision; check the VAE's weights and the pictures")
    return half.tobytes()


def unpack_half(data: bytes, shape: Sequence[int]) -> Tensor:
    """What `pack_half` was given, float32 and of ``shape``."""
    return torch.from_numpy(np.frombuffer(data, "<f2").reshape(tuple(shape)).astype(np.float32))


def pack_clip(
    name: str,
    source: str,
    caption: str,
    picture: npt.NDArray[np.uint8],
    rows: Rows,
    fps: float,
    latents: Tensor,
    control: str = "",
    motion: Tensor | None = None,
) -> dict[str, Any]:
    """A row.

    Args:
        name: of the clip, unlike that of any other.
        source: what it was made from.
        picture: the reference, ``[H, W, 3]``.
        rows: the tracks in its ``T`` frames.
        latents: of the video, ``[C, F, H / 8, W / 8]``.
        control: name and settings of the motion control that is stored, as `training.controls.maker` writes them.
        motion: its latents, likewise; None where none is stored.
    """
    from PIL import Image as Picture

    assert motion is None or latents.shape == motion.shape, "latents and motion of one clip"
    assert (motion is None) == (not control), "a motion is somebody's"
    height, width = picture.shape[:2]
    return {
        "schema": SCHEMA,
        "id": name,
        "source": source,
        "caption": caption,
        "height": height,
        "width": width,
        "frames": len(rows),
        "fps": fps,
        "reference": Picture.fromarray(picture),
        **pack_tracks(rows.arrays),
        "brushes": list(rows.brushes),
        "latent_shape": list(latents.shape),
        "latents": pack_half(latents),
        "control": control,
        "motion": b"" if motion is None else pack_half(motion),
        **NO_TOKENS,
    }
