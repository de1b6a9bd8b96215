"""Which videos, and what is said of them: folders, lists, Hub datasets; captions from a table or beside the file."""

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.hub.client import clear_errors


logger = logging.getLogger(__name__)
SUFFIXES = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm")
NAME_COLUMNS, CAPTION_COLUMNS = ("path", "file_name", "video", "file"), ("caption", "text", "prompt")


class Source(NamedTuple):
    """A video file, the name that it goes by, and its caption."""

    path: Path
    name: str
    caption: str


def find_sources(places: Sequence[str], captions: str, downloads: Path) -> list[Source]:
    """All videos of ``places`` with their captions.

    Args:
        places: folders, video files, ``.txt`` lists of files, or names of Hub datasets with a video column.
        captions: csv, json or jsonl that names files and captions; else a ``.txt`` beside each video counts.
        downloads: where videos of Hub datasets are kept.

    Raises:
        ValueError: if a place is not there or holds no video, or the table names a file that is not among them.
    """
    found = [source for place in places for source in videos_of(place, downloads)]
    if not found:
        raise ValueError("videos: none given; give folders, files, a .txt list or a Hub dataset")
    told = read_captions(Path(captions)) if captions else {}
    missing = sorted(set(told) - {name for source in found for name in (source.name, source.path.name)})
    if missing:
        raise ValueError(
            f"captions: {captions} names {len(missing)} file(s) that are not among the videos, the first is "
            f"{missing[0]}; mend the table or give their folder too"
        )
    sources = [
        source._replace(caption=told.get(source.name, told.get(source.path.name, source.caption))) for source in found
    ]
    silent = sum(not source.caption for source in sources)
    if silent:
        logger.warning(
            "%d of %d videos have no caption: what is learnt from them cannot be steered by text, and guidance over "
            "text does nothing there",
            silent,
            len(sources),
        )
    return sources


def videos_of(place: str, downloads: Path) -> Iterator[Source]:
    """The videos of one place."""
    path = Path(place)
    if path.is_dir():
        if not os.access(path, os.R_OK | os.X_OK):
            raise ValueError(f"videos: {place} may not be read; give yourself the right to, or another folder")
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        if not files:
            raise ValueError(f"videos: {place} holds no video ({', '.join(SUFFIXES)})")
        yield from (Source(file, file.relative_to(path).as_posix(), beside(file)) for file in files)
    elif path.suffix.lower() == ".txt" and path.is_file():
        lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
        for line in lines:
            file = path.parent / line
            if not file.is_file():
                raise ValueError(f"videos: {place} lists {line}, which is no file; mend the list")
            yield Source(file, line, beside(file))
    elif path.is_file():
        yield Source(path, path.name, beside(path))
    elif place.count("/") == 1 and not place.startswith((".", "/", "~")):
        yield from hub_videos(place, downloads)
    else:
        raise ValueError(f"videos: {place} does not exist; give a folder, a file, a .txt list or a Hub dataset")


def beside(file: Path) -> str:
    """The text in the ``.txt`` beside a video, or none."""
    text = file.with_suffix(".txt")
    return " ".join(text.read_text().split()) if text.is_file() else ""


def hub_videos(name: str, downloads: Path) -> Iterator[Source]:
    """The videos of a Hub dataset, written into ``downloads`` where they are not files already."""
    from datasets import Video, load_dataset

    with clear_errors(f"videos: {name}"):
        rows = load_dataset(name, split="train", streaming=True)
        column = next((key for key, kind in (rows.features or {}).items() if isinstance(kind, Video)), None)
        if column is None:
            raise ValueError(f"videos: {name} has no video column; its columns are {', '.join(rows.features or {})}")
        for number, row in enumerate(rows.cast_column(column, Video(decode=False))):
            caption = next((str(row[key]) for key in CAPTION_COLUMNS if row.get(key)), "")
            yield Source(video_file(row[column], name, number, downloads), f"{name}/{number}", caption)


def video_file(video: dict[str, Any], name: str, number: int, downloads: Path) -> Path:
    """The file of a row's video."""
    if video.get("bytes") is None:
        return Path(video["path"])
    suffix = Path(video.get("path") or "").suffix or ".mp4"
    target = downloads / f"{name.replace('/', '--')}-{number:06d}{suffix}"
    if not target.is_file():
        downloads.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part")
        part.write_bytes(video["bytes"])
        part.replace(target)
    return target


def read_captions(path: Path) -> dict[str, str]:
    """Captions by file name from a csv, json or jsonl table.

    Raises:
        ValueError: if it cannot be read, or has no column of names or captions.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".csv":
            rows: Any = list(csv.DictReader(text.splitlines()))
        elif path.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = json.loads(text)
    except (OSError, ValueError) as error:
        raise ValueError(f"captions: {path} cannot be read ({error}); give a csv, json or jsonl file") from error
    if isinstance(rows, dict):
        return {str(name): str(caption) for name, caption in rows.items()}
    keys = [
        next((key for key in columns if rows and key in rows[0]), None) for columns in (NAME_COLUMNS, CAPTION_COLUMNS)
    ]
    if None in keys:
        raise ValueError(
            f"captions: {path} needs a column of names ({', '.join(NAME_COLUMNS)}) and one of captions "
            f"({', '.join(CAPTION_COLUMNS)})"
        )
    return {str(row[keys[0]]): str(row[keys[1]] or "") for row in rows}
