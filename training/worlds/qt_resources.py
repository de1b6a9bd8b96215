"""Read the files inside a compiled Qt resource collection (``.rcc``), as GCompris keeps its pictures.

A header (magic ``qres``, then version and the offsets of tree, data and names, big-endian), a tree of nodes of 14
bytes (version 1) or 22 (from 2 on, with the time of change), names in UTF-16, and data behind their length.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


COMPRESSED, DIRECTORY, ZSTD = 1, 2, 4


@dataclass(frozen=True)
class Collection:
    """A collection in memory and where its parts begin."""

    content: bytes
    node_size: int
    tree: int
    data: int
    names: int


def open_collection(path: Path) -> Collection:
    """Read the header.

    Raises:
        ValueError: if the file is no resource collection.
    """
    content = path.read_bytes()
    if content[:4] != b"qres":
        raise ValueError(f"{path}: this is no Qt resource collection (it does not begin with qres); fetch it again")
    version, tree, data, names = struct.unpack_from(">4I", content, 4)
    return Collection(content, 14 if version == 1 else 22, tree, data, names)


def read_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of a collection as ``(path inside, content)``."""
    yield from _walk(open_collection(path), 0, "")


def _walk(collection: Collection, node: int, folder: str) -> Iterator[tuple[str, bytes]]:
    start = collection.tree + node * collection.node_size
    name_offset, flags = struct.unpack_from(">IH", collection.content, start)
    path = f"{folder}/{_name(collection, name_offset)}".lstrip("/") if node else ""
    if flags & DIRECTORY:
        count, first = struct.unpack_from(">2I", collection.content, start + 6)
        for child in range(first, first + count):
            yield from _walk(collection, child, path)
    elif not flags & ZSTD:  # pictures are compressed already, and never stored so
        (offset,) = struct.unpack_from(">I", collection.content, start + 10)
        yield path, _data(collection, offset, flags)


def _name(collection: Collection, offset: int) -> str:
    at = collection.names + offset
    (length,) = struct.unpack_from(">H", collection.content, at)
    return collection.content[at + 6 : at + 6 + 2 * length].decode("utf-16-be")


def _data(collection: Collection, offset: int, flags: int) -> bytes:
    at = collection.data + offset
    (length,) = struct.unpack_from(">I", collection.content, at)
    stored = collection.content[at + 4 : at + 4 + length]
    return zlib.decompress(stored[4:]) if flags & COMPRESSED else stored
