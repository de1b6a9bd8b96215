"""Resource collections are read back, plain and compressed, of both versions."""

import struct
import zlib

import pytest

from training.worlds.qt_resources import read_files


def collection(version, files):
    """A ``.rcc`` of one folder with ``files`` (name, content, compressed), by the format's description."""
    names, data, offsets = b"", b"", {}
    for name in ("folder", *[name for name, _, _ in files]):
        offsets[name] = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    tail = b"" if version == 1 else bytes(8)
    nodes = [struct.pack(">IHII", 0, 2, 1, 1) + tail, struct.pack(">IHII", offsets["folder"], 2, len(files), 2) + tail]
    for name, content, compressed in files:
        stored = struct.pack(">I", len(content)) + zlib.compress(content) if compressed else content
        nodes.append(struct.pack(">IHHHI", offsets[name], int(compressed), 0, 0, len(data)) + tail)
        data += struct.pack(">I", len(stored)) + stored
    tree = b"".join(nodes)
    header = b"qres" + struct.pack(">4I", version, 20, 20 + len(tree), 20 + len(tree) + len(data))
    return header + tree + data + names


@pytest.mark.parametrize("version", [1, 2])
def test_files_come_back(tmp_path, version):
    files = [("a.webp", b"plain", False), ("b.webp", b"packed " * 40, True)]
    (tmp_path / "x.rcc").write_bytes(collection(version, files))
    found = dict(read_files(tmp_path / "x.rcc"))
    assert found == {f"folder/{name}": content for name, content, _ in files}


def test_another_file_is_refused(tmp_path):
    (tmp_path / "x.rcc").write_bytes(b"PK\x03\x04 and more than twenty bytes")
    with pytest.raises(ValueError, match="qres"):
        list(read_files(tmp_path / "x.rcc"))
