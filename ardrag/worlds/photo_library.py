"""The pictures that Photo World is made of: photographs and cut-outs, decoded once, in one memory-mapped file.

A library is a folder with ``pixels.bin`` (all pictures one after the other, uint8, channels last) and ``index.json``
(what each one is and where it begins). `training.worlds.fetch` writes it; nothing of it is part of this repository.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt


LIBRARY_VARIABLE = "ARDRAG_PHOTOS"
"""Environment variable with the folder of the library."""

KINDS = ("photo", "cutout")


@dataclass(frozen=True)
class Entry:
    """One picture: a photograph ``[H, W, 3]``, or a cut-out ``[H, W, 4]`` with straight alpha.

    ``split`` is ``train`` or ``test``; ``photographic`` tells a cut-out photograph from a drawing.
    """

    kind: str
    split: str
    photographic: bool
    name: str
    package: str
    path: str
    height: int
    width: int
    offset: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.height, self.width, 3 if self.kind == "photo" else 4


@dataclass(frozen=True)
class PhotoLibrary:
    """Pictures by kind and split; pixels are read from disk when they are asked for."""

    entries: tuple[Entry, ...]
    pixels: npt.NDArray[np.uint8]

    def choose(self, kind: str, split: str) -> tuple[Entry, ...]:
        """The pictures of one kind and split, in the order of the index."""
        return tuple(entry for entry in self.entries if (entry.kind, entry.split) == (kind, split))

    def read(self, entry: Entry) -> npt.NDArray[np.uint8]:
        """The pixels of one picture, uint8 ``[H, W, 3 or 4]``."""
        return self.pixels[entry.offset : entry.offset + int(np.prod(entry.shape))].reshape(entry.shape)


def write_library(folder: Path, pictures: Iterable[tuple[Entry, npt.NDArray[np.uint8]]]) -> None:
    """Write pictures and their index; the offsets of the entries are set here."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, offset = [], 0
    with (folder / "pixels.bin").open("wb") as file:
        for entry, pixels in pictures:
            assert pixels.shape == entry.shape and pixels.dtype == np.uint8
            rows.append(asdict(entry) | {"offset": offset})
            offset += file.write(np.ascontiguousarray(pixels).tobytes())
    (folder / "index.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


@cache
def open_library(folder: str) -> PhotoLibrary:
    """Open what `write_library` wrote.

    Raises:
        ValueError: if there is no library in ``folder``.
    """
    index = Path(folder) / "index.json"
    if not folder or not index.exists():
        raise ValueError(
            f"{LIBRARY_VARIABLE}: no photographs in {folder!r}; fetch them with python -m training.worlds.fetch "
            f"--output_dir FOLDER and set {LIBRARY_VARIABLE}=FOLDER"
        )
    entries = tuple(Entry(**row) for row in json.loads(index.read_text()))
    return PhotoLibrary(entries, np.memmap(Path(folder) / "pixels.bin", np.uint8, "r"))


def default_library() -> PhotoLibrary:
    """The library that ``ARDRAG_PHOTOS`` names; errors as `open_library`."""
    return open_library(os.environ.get(LIBRARY_VARIABLE, ""))
