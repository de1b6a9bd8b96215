"""ATI: a ``.pth`` file around the bytes of an ``.npz`` file.

`array` is [P, 121, 1, 3 or more] of (x, y, visible), all times 8 (some files are uint16), in pixels of the picture
file. The 121 places are 24 a second; at 16 a second they make 81 frames. A short path is filled up with zeros that are
not visible.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ardrag.tracks.formats.paths import Given, framewise, pixels_of
from ardrag.tracks.sampling import TrackArrays


KIND = "ati"
MAGIC = b"PK\x03\x04"
PLACES, FRAMES, TIMES = 121, 81, 8
MOST = 64 << 20
"""Bytes that a file may unpack to."""


def read(file: BinaryIO, given: Given, path: Path | None) -> dict[str, Any]:
    """The track file.

    Raises:
        ValueError: if it holds anything but such an array.
    """
    array = _array(file)
    if array.ndim != 4 or array.shape[2] != 1 or array.shape[3] < 3 or array.dtype.kind not in "fiu":
        raise ValueError(f"its array is {list(array.shape)} {array.dtype}, and must be [P, {PLACES}, 1, 3] of numbers")
    table = array[:, :, 0, :3].astype(np.float64).swapaxes(0, 1) / TIMES
    length = FRAMES if len(table) == PLACES else None
    return framewise(KIND, table[..., :2], table[..., 2] > 0.5, given.size(KIND), given, length)


def _array(file: BinaryIO) -> np.ndarray[Any, Any]:
    import torch

    try:
        _check_unpacked(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(content, bytes):
            raise ValueError(f"it holds a {type(content).__name__}, not the bytes of an npz file")
        packed = io.BytesIO(content)
        _check_unpacked(packed)
        with np.load(packed, allow_pickle=False) as arrays:
            return np.asarray(arrays["array"])
    except Exception as error:  # unpacking raises whatever it stumbles over in a damaged file
        raise ValueError(f"no ATI tracks can be read from it ({str(error).splitlines()[0][:80]})") from error


def _check_unpacked(file: BinaryIO) -> None:
    """Refuse a zip file that would unpack to very much; leaves the file at its start."""
    with zipfile.ZipFile(file) as packed:
        if sum(part.file_size for part in packed.infolist()) > MOST:
            raise ValueError(f"it unpacks to more than {MOST >> 20} MB")
    file.seek(0)


def write(arrays: TrackArrays, path: Path, size: tuple[int, int]) -> list[Path]:
    """The file; the arrays have `PLACES` rows, evenly over the clip."""
    import torch

    table = np.concatenate([pixels_of(arrays.xy, size), arrays.visible[..., None]], axis=2) * TIMES
    table[~arrays.visible] = 0
    packed = io.BytesIO()
    np.savez_compressed(packed, array=table.swapaxes(0, 1)[:, :, None].astype(np.float32))
    with path.open("wb") as file:
        torch.save(packed.getvalue(), file)
    return [path]
