"""Finished clips: measured in processes, kept as JSON lines, and taken up again by the next run with the same key."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from eval.record import write_text
from eval.suites.case import list_digest


Row = dict[str, Any]
MODEL_FILES = (".json", ".safetensors", ".model", ".txt")
UNMEASURED = ("run", "config", "preflight", "rows", "record", "statistics")
"""Files of this package, beside the report's, that a clip's numbers do not depend on."""


def files_digest(folder: Path | None) -> str:
    """Digest of a model's files, or of the names, sizes and times of somebody's videos; of nothing for None."""
    digest = hashlib.sha256()
    files = sorted(folder.rglob("*")) if folder is not None else []
    for path in files:
        if path.suffix in MODEL_FILES:
            digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    digest.update(list_digest([path for path in files if path.suffix == ".mp4"]).encode())
    return digest.hexdigest()


def code_digest() -> str:
    """Digest of all code so far loaded that makes and measures clips."""
    digest = hashlib.sha256()
    for path in _code():
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _code() -> list[Path]:
    modules = {name: module for name, module in sys.modules.items() if name.split(".")[0] in ("ardrag", "pipelines")}
    modules |= {
        name: module
        for name, module in sys.modules.items()
        if name.startswith("eval.")
        and not name.startswith("eval.report")
        and name.rpartition(".")[2] not in UNMEASURED
    }
    files = {getattr(module, "__file__", None) for module in modules.values()}
    return sorted(Path(file) for file in files if file)


class RowCache:
    """Finished clips of this and earlier runs, one JSON line each; a torn last line is dropped.

    Beside the rows of a key stand the records of the runs that made them.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        lines = [line for line in self._lines() if line is not None]
        own = [line for line in lines if line["key"] == key]
        self.rows: dict[int, Row] = {line["row"]["index"]: line["row"] for line in own if "row" in line}
        self.records: list[dict[str, Any]] = [line["record"] for line in own if "record" in line]
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))

    def _lines(self) -> Iterator[dict[str, Any] | None]:
        for text in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else ():
            try:
                yield json.loads(text)
            except json.JSONDecodeError:
                yield None

    def begin(self, record: dict[str, Any]) -> None:
        """Note which run makes the rows that follow."""
        self.records.append(record)
        self._append({"key": self.key, "record": record})

    def add(self, row: Row) -> None:
        """Keep one finished clip."""
        self.rows[row["index"]] = row
        self._append({"key": self.key, "row": row})

    def _append(self, line: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")


def in_processes(
    work: Callable[[int], Row],
    indices: Sequence[int],
    workers: int,
    start: Callable[..., None],
    given: tuple[Any, ...],
) -> Iterator[Row]:
    """``work(index)`` in several processes that each begin with ``start(*given)``, as the results come."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=start, initargs=given)
    try:
        for done in as_completed([pool.submit(work, index) for index in indices]):
            yield done.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
