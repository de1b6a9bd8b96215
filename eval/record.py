"""What a result must carry to be believed and repeated, and writing it whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pipelines.record import REPOSITORY as REPOSITORY
from pipelines.record import commit_state as commit_state
from pipelines.record import run_record as run_record


ENDINGS = (".md", ".json", ".html", ".jpg", ".png")
"""Files of a page."""


def record_lines(record: dict[str, Any]) -> list[str]:
    """The record as lines of Markdown, for the foot of a report."""
    machine, packages = record["hardware"], record["versions"]
    accelerators = ", ".join(machine["accelerators"]) or "no accelerator"
    state = " (with uncommitted changes)" if record["dirty"] else ""
    return [
        f"- command: `{record['command']}`",
        f"- commit: {record['commit'] or 'none'}{state}, {record['date']}",
        f"- hardware: {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {accelerators}, "
        f"load average {machine['load_average']} at the start",
        "- versions: " + ", ".join(f"{name} {number}" for name, number in packages.items()),
    ]


def page_file(target: Path, ending: str) -> Path:
    """A file of the page at ``target``, which may have such an ending already; another dot in its name is none."""
    name = target.stem if target.suffix in ENDINGS else target.name
    return target.with_name(name + ending)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` whole or not at all, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented strict JSON (no NaN), whole or not at all."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
