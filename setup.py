"""Builds the wheel: all parts of the checkout under the one name `ardrag`; everything else is in pyproject.toml.

`pipelines`, `training` and `eval` are other packages' names, so in a wheel they lie inside of `ardrag`, and their
imports of each other say so. `ardrag.home` knows which of the two it runs from.
"""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


ROOT = Path(__file__).resolve().parent
PARTS = ("pipelines", "training", "eval", "app_assets", "app.py")
"""Neighbours of `ardrag/` that become parts of it."""
DATA = ("checkpoints", "examples")
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*", "*.pyc")
NAMES = "|".join(part.removesuffix(".py") for part in PARTS)
IMPORT = re.compile(rf"\bfrom ({NAMES})\b")


class BuildWheel(build_py):
    """Also puts the neighbours and the bundled data into the package; an editable install stays as the checkout is."""

    def run(self) -> None:
        """Build everything from nothing: what an earlier build left would be packed too."""
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "ardrag")
        for name in (*PARTS, *DATA):
            copy(ROOT / name, target / name)
        for file in target.rglob("*.py"):
            file.write_text(inside_ardrag(file.read_text(encoding="utf-8")), encoding="utf-8")


def copy(source: Path, target: Path) -> None:
    """Copy a file, or a folder without what is not its own."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=LEFT_OUT)
    else:
        shutil.copyfile(source, target)


def inside_ardrag(source: str) -> str:
    """The source of a module with its imports of `PARTS` as they are inside of `ardrag`; line for line the same.

    Raises:
        ValueError: for ``import pipelines``, which would bind another name.
    """
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and any(re.match(rf"({NAMES})\b", alias.name) for alias in node.names):
            raise ValueError(f"line {node.lineno}: {ast.unparse(node)}: write from ... import ...")
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            lines[node.lineno - 1] = IMPORT.sub(r"from ardrag.\1", lines[node.lineno - 1], count=1)
    return "".join(lines)


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildWheel})
