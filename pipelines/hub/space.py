"""What the Space consists of: the app, the packages it imports, its checkpoint, the README that configures it."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from pipelines.record import REPOSITORY


SPACE_PARTS = (
    "README.md",
    "LICENSE",
    "requirements.txt",
    "app.py",
    "app_assets",
    "ardrag",
    "pipelines",
    "examples",
    "checkpoints/ardrag-tiny-photos",
)
"""Files and folders of this repository that make up the Space, besides what the README shows and links."""
LINKED = re.compile(r"\]\((docs/[^)#]+)\)")
REQUIRED = ("title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "app_file", "python_version")
MAX_DESCRIPTION = 60


def space_files(root: Path = REPOSITORY) -> dict[str, int]:
    """Files of the Space, relative to ``root``, with their sizes.

    Raises:
        ValueError: if one of its parts is missing.
    """
    found = {}
    for part in SPACE_PARTS:
        if not (root / part).exists():
            raise ValueError(f"space: {root / part} is missing; run from a whole checkout")
    linked = LINKED.findall((root / "README.md").read_text(encoding="utf-8"))
    for place in (root / part for part in dict.fromkeys([*SPACE_PARTS, *linked])):
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            hidden = any(name.startswith((".", "__pycache__")) for name in path.relative_to(root).parts)
            if path.is_file() and not hidden:
                found[path.relative_to(root).as_posix()] = path.stat().st_size
    return found


def check_space(root: Path = REPOSITORY) -> None:
    """Check what the Hub asks of a Space's README.

    Raises:
        ValueError: naming the field and the remedy.
    """
    _, _, rest = (root / "README.md").read_text(encoding="utf-8").partition("---\n")
    front = yaml.safe_load(rest.partition("\n---\n")[0]) or {}
    missing = [name for name in REQUIRED if name not in front]
    if missing:
        raise ValueError(f"space: the head of README.md lacks {', '.join(missing)}")
    if len(front.get("short_description", "")) > MAX_DESCRIPTION:
        raise ValueError(f"space: short_description in README.md is longer than {MAX_DESCRIPTION} letters; shorten it")
    if front["sdk"] != "gradio" or not (root / front["app_file"]).is_file():
        raise ValueError(f"space: README.md names sdk {front['sdk']} and {front['app_file']}; use gradio and app.py")
