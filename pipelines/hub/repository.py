"""What a repository has besides weights: the code for those without this package, and a card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.hub.client import GENERATED
from pipelines.hub.model_card import kind_of, model_card, read_facts
from pipelines.hub.remote_code import write_code


def complete_repository(folder: Path, repo_id: str, facts: Mapping[str, Any] | None = None) -> None:
    """Write code (for a pipeline) and card into a folder that is to become the repository ``repo_id``.

    ``facts`` are those in the folder where none are given. A card that a person wrote there stays.

    Raises:
        ValueError: if the facts name results that are not there.
    """
    if kind_of(folder) == "pipeline":
        write_code(folder)
    found = read_facts(folder) if facts is None else facts
    card = folder / "README.md"
    if not found and card.is_file() and GENERATED not in card.read_text(encoding="utf-8"):
        return
    card.unlink(missing_ok=True)  # it may share its place on the disk with the original
    card.write_text(model_card(folder, repo_id, found), encoding="utf-8")
