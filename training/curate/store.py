"""The folder of a curated dataset, safe against being killed at any moment.

    plans/*.json     one for each video: its clips
    parts/*.parquet  one for each finished clip, until the run ends
    shards/*.parquet the clips, in the order of their names, ``shard_rows`` each
    manifest.json    recipe, versions of the code, what was dropped and why, seconds of a core by part of the work
    review.json      what a person decided

Every file is written under another name and then renamed. A clip is done when its row lies in a part or a shard; what
remains to be done is a difference of sets. A part whose clip lies in a shard is left over from a kill and removed.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


SCHEMA = "ardrag.curated/v1"
TABLE = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("sha256", pa.string()),
        ("caption", pa.string()),
        ("start", pa.float64()),
        ("frames", pa.int32()),
        ("fps", pa.float32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("drop", pa.string()),
        ("scores", pa.map_(pa.string(), pa.float32())),
        ("num_tracks", pa.int32()),
        ("tracks", pa.large_binary()),
        ("visible", pa.large_binary()),
        ("force", pa.large_binary()),
        ("video", pa.large_binary()),
        ("sheet", pa.large_binary()),
    ]
)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within, no other run writes into ``folder``.

    Raises:
        ValueError: if another one does, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise ValueError(
            f"output_dir: {folder} cannot be written ({error.strerror}); choose another folder"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"output_dir: another run writes into {folder}; wait for it, or choose another"
            ) from error
        yield


def write_whole(target: Path, write: Any) -> None:
    """Let ``write(path)`` write a file and give it the name ``target`` when it is complete.

    Raises:
        OSError: if the disk is full or refuses; nothing half written stays, what was written before is intact.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        write(part)
        os.replace(part, target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(
            f"{target.parent}: {target.name} cannot be written ({error}); all clips before it are kept. Make room and "
            "run the same command again"
        ) from error


def write_json(target: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    text = json.dumps(value, indent=1, sort_keys=True)
    write_whole(target, lambda path: path.write_text(text))


def write_rows(target: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows of `TABLE` whole or not at all."""
    table = pa.Table.from_pylist(rows, schema=TABLE)
    write_whole(target, lambda path: pq.write_table(table, path, compression="zstd"))


def write_part(folder: Path, row: dict[str, Any]) -> None:
    """A clip is done."""
    write_rows(folder / "parts" / f"{row['id']}.parquet", [row])


def shard_files(folder: Path) -> list[Path]:
    """The shards of a curated folder."""
    return sorted((folder / "shards").glob("*.parquet"))


def done(folder: Path) -> set[str]:
    """Names of all clips that are done; parts that a kill left beside their shard are removed."""
    sharded: set[str] = set()
    for file in shard_files(folder):
        sharded.update(pq.read_table(file, columns=["id"])["id"].to_pylist())
    parts = {file.stem for file in (folder / "parts").glob("*.parquet")}
    for name in parts & sharded:
        (folder / "parts" / f"{name}.parquet").unlink()
    return sharded | parts


def gather_parts(folder: Path, shard_rows: int) -> None:
    """Put all parts into shards, in the order of their names."""
    parts = sorted((folder / "parts").glob("*.parquet"))
    first = len(shard_files(folder))
    for number, start in enumerate(range(0, len(parts), shard_rows), first):
        files = parts[start : start + shard_rows]
        table = pa.concat_tables([pq.read_table(file) for file in files])
        target = folder / "shards" / f"{number:05d}.parquet"
        write_whole(target, lambda path, table=table: pq.write_table(table, path, compression="zstd"))
        for file in files:
            file.unlink()


def begin(folder: Path, recipe: dict[str, Any], code: str) -> None:
    """Open a curated folder, new or to go on with.

    Raises:
        ValueError: if it was made by another recipe.
    """
    path = folder / "manifest.json"
    manifest = read_manifest(folder) if path.exists() else {"schema": SCHEMA, "recipe": recipe, "code": []}
    different = [key for key in recipe if manifest["recipe"].get(key) != recipe[key]]
    if different:
        key = different[0]
        raise ValueError(
            f"output_dir: {folder} was made with {key} = {manifest['recipe'].get(key)}, not {recipe[key]}; "
            "use another folder"
        )
    if code not in manifest["code"]:
        write_json(path, {**manifest, "code": [*manifest["code"], code]})


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest.

    Raises:
        ValueError: if the folder is no curated one.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"data: {folder} has no manifest.json; make one with python -m training.curate") from error
    return manifest


def read_review(folder: Path) -> dict[str, str]:
    """What a person decided: ``accept`` or ``reject`` by name of the clip."""
    path = folder / "review.json"
    return json.loads(path.read_text()) if path.exists() else {}


def read_rows(folder: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """All rows, shard by shard, with ``drop`` as a person left it."""
    review = read_review(folder)
    for file in shard_files(folder):
        for batch in pq.ParquetFile(file).iter_batches(16, columns=columns):
            for row in batch.to_pylist():
                decision = review.get(row["id"])
                if decision:
                    row["drop"] = "" if decision == "accept" else "rejected by a person"
                yield row


def add_cost(folder: Path, clips: int, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Add to the manifest what a run did, ``clips``, and what it took, seconds of a core by part; returns the sum."""
    manifest = read_manifest(folder)
    before = manifest.get("cost", {"clips": 0, "seconds": {}})
    spent = {part: round(before["seconds"].get(part, 0) + taken, 3) for part, taken in seconds.items()}
    cost = {"clips": before["clips"] + clips, "seconds": {**before["seconds"], **spent}}
    write_json(folder / "manifest.json", {**manifest, "cost": cost})
    return cost


def summarise(folder: Path) -> dict[str, Any]:
    """Count what was kept and what was dropped, by rule, into the manifest; returns it."""
    review, drops = read_review(folder), Counter[str]()
    frames = 0
    for row in read_rows(folder, ["id", "drop", "frames"]):
        drops[row["drop"]] += 1
        frames += 0 if row["drop"] else row["frames"]
    kept = drops.pop("", 0)
    counts = {"kept": kept, "kept_frames": frames, "dropped": dict(sorted(drops.items())), "reviewed": len(review)}
    manifest = {**read_manifest(folder), **counts}
    write_json(folder / "manifest.json", manifest)
    return manifest
