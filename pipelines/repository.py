"""What a pipeline's repository has besides its weights: the code for those without this package, and its card."""

from __future__ import annotations

from pathlib import Path

from pipelines.remote_code import write_code


def complete_repository(folder: Path, repo_id: str) -> None:
    """Write code and card into the folder of a saved pipeline that is to become the repository ``repo_id``."""
    write_code(folder)
