"""Where that lies which comes with this package: beside it in a checkout, inside it once it is installed.

In a checkout `pipelines/`, `training/`, `eval/`, `app_assets/`, `checkpoints/` and `examples/` are the neighbours of
`ardrag/`. A wheel has them all inside of `ardrag`, since other packages own these names.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType


__version__ = "0.1.0"
"""The version of this package, also stamped into the code that published repositories carry."""
PACKAGE = Path(__file__).resolve().parent
INSTALLED = (PACKAGE / "pipelines").is_dir()
ROOT = PACKAGE if INSTALLED else PACKAGE.parent
"""Folder with `checkpoints` and `examples`: the checkout's, or the installed package's own."""
DATA = ("checkpoints", "examples")
PREFIX = "ardrag." if INSTALLED else ""


def bundled(name: str) -> Path:
    """Path of a file or folder that comes with the package, from any working folder.

        ARDragPipeline.from_pretrained(bundled("checkpoints/ardrag-tiny"))

    Raises:
        ValueError: if there is none of that name.
    """
    path = ROOT / name
    if not path.exists():
        offered = sorted(f"{file.parent.name}/{file.name}" for part in DATA for file in (ROOT / part).glob("*"))
        raise ValueError(f"bundled: {name} does not come with ardrag; there are {', '.join(offered)}")
    return path


def module_name(name: str) -> str:
    """Full name of what a checkout calls ``name``: ``pipelines.hub`` is ``ardrag.pipelines.hub`` in a wheel."""
    return PREFIX + name


def import_part(name: str) -> ModuleType:
    """Import a module beside `ardrag` by the name that it has in a checkout, wherever it lies.

    Raises:
        ModuleNotFoundError: if it is not there: an `ardrag` on the path without its neighbours.
    """
    return import_module(module_name(name))
