"""A temporary folder of visitors' files that cannot fill the disk: what was left for an hour goes, and the oldest."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path


KEEP_SECONDS = 3600
MAX_ENTRIES = 1024
MAX_BYTES = 2 << 30


class ExpiringFolder:
    """Files and folders of visitors, under names that nobody can guess.

    Args:
        prefix: how the folder's own name begins.
        max_entries: files and folders kept; those that were left alone for the longest go first.
        max_bytes: what they may need together.
    """

    def __init__(self, prefix: str, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix=prefix)
        self.folder = Path(self._temporary.name).resolve()
        self.max_entries, self.max_bytes = max_entries, max_bytes

    def holds(self, path: str) -> bool:
        """Whether ``path`` names a file in here, whatever links and dots it goes through."""
        try:
            place = Path(path).resolve()
            return place.is_relative_to(self.folder) and place.is_file()
        except (OSError, ValueError, RuntimeError):
            return False

    def new_place(self) -> Path:
        """Where one more entry may be made; nothing is there yet."""
        self.tidy(1)
        return self.folder / secrets.token_urlsafe(24)

    def tidy(self, coming: int = 0) -> None:
        """Remove what is too old or too much, where ``coming`` more entries are about to be made."""
        entries = []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # another visitor's request tidies too
                entries.append((path.stat().st_mtime, path))
        size = 0
        for count, (changed, path) in enumerate(sorted(entries, reverse=True), start=1 + coming):
            size += _size(path)
            if time.time() - changed > KEEP_SECONDS or count > self.max_entries or size > self.max_bytes:
                _remove(path)

    def close(self) -> None:
        """Remove all."""
        self._temporary.cleanup()


def _size(path: Path) -> int:
    with suppress(OSError):
        return sum(part.lstat().st_size for part in (path.rglob("*") if path.is_dir() else [path]))
    return 0


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
