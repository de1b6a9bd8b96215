"""A temporary folder whose entries have names that nobody can guess, and go after an hour."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from pathlib import Path


KEEP_SECONDS = 3600


class ExpiringFolder:
    """Files and folders of visitors; whoever asks for a new place clears those away that were left for an hour."""

    def __init__(self, prefix: str) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix=prefix)
        self.folder = Path(self._temporary.name)

    def new_place(self) -> Path:
        """Where one more entry may be made; nothing is there yet."""
        for path in self.folder.iterdir():
            if time.time() - path.stat().st_mtime > KEEP_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return self.folder / secrets.token_urlsafe(24)

    def close(self) -> None:
        """Remove all."""
        self._temporary.cleanup()
