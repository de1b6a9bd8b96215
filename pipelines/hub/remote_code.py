"""The code that a repository carries for those who do not have this package, generated from this package's own.

diffusers runs custom code as single files. `flatten` puts `ARDragPipeline` and everything it imports from here into
one readable module, ``pipeline.py``; each component of a class of ours gets a file of a few lines that takes the class
from there. The first line is a stamp (version, SHA-256 of the rest) that tells a change (`hub.warn_of_changes`).

    python -m pipelines.publish code some/folder
    DiffusionPipeline.from_pretrained(repository, custom_pipeline="pipeline", trust_remote_code=True)
"""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterator
from pathlib import Path

from ardrag.home import PACKAGE, __version__, module_name
from pipelines.hub.client import PIPELINE_FILE, code_hash, stamp_line


ROOT = PACKAGE.parent
ENTRY = module_name("pipelines.pipeline_ardrag")
PACKAGES = ("ardrag", "pipelines")
COMPONENTS = {
    "transformer": ("ardrag.transformer", "CausalWanTransformer"),
    "scheduler": ("ardrag.flow", "FewStepScheduler"),
    "outline": ("ardrag.outlines.network", "Outline"),
}
"""Components whose classes are ours: the module and class that ``model_index.json`` names."""

FOOTER = """
# How the files beside the components find this module, whichever way it was loaded, and what a saved copy calls them.
sys.modules["{alias}"] = sys.modules[__name__]
{homes}
warn_of_changes(Path(__file__).read_text(encoding="utf-8"), __file__)
"""
HEADER = '''"""AR-Drag's pipeline in one file, for those who do not have the package `ardrag`.

Generated from the package's own modules, in the order in which they need each other; do not edit it, its first line
tells. Loaded by DiffusionPipeline.from_pretrained(..., custom_pipeline="pipeline", trust_remote_code=True).
"""

from __future__ import annotations

'''
COMPONENT = '''"""`{name}`, from the `pipeline.py` of this repository; see there.

Loaded by DiffusionPipeline.from_pretrained(..., custom_pipeline="pipeline", trust_remote_code=True).
"""

from {alias} import {name}


__all__ = ["{name}"]
'''


def write_code(folder: str | os.PathLike[str]) -> list[str]:
    """Write the code beside the weights of a pipeline in ``folder``; returns the files, relative to it.

    A component that the pipeline there does not have gets none.
    """
    index, written = Path(folder) / "model_index.json", []
    known = json.loads(index.read_text(encoding="utf-8")) if index.exists() else None
    for name, text in code_files().items():
        if known is not None and "/" in name and not known.get(name.split("/")[0], [None])[0]:
            continue
        target = Path(folder) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # it may share its place on the disk with another folder's
        target.write_text(text, encoding="utf-8")
        written.append(name)
    return written


def code_files() -> dict[str, str]:
    """All generated files: path in the repository to text."""
    body = flatten(ENTRY)
    alias = f"ardrag_{code_hash(body)[:16]}"  # by content: two repositories in one process do not meet
    homes = "\n".join(f'{name}.__module__ = "{module}"' for module, name in COMPONENTS.values())
    code = body + FOOTER.format(alias=alias, homes=homes)
    files = {PIPELINE_FILE: stamp_line(__version__, code) + code}
    for folder, (module, name) in COMPONENTS.items():
        files[f"{folder}/{module}.py"] = COMPONENT.format(alias=alias, name=name)
    return files


def flatten(entry: str) -> str:
    """``entry`` and all modules of ours that it imports at module level, as one module, imported ones first.

    Imports of ours inside functions stay: they are for those who have the package.

    Raises:
        ValueError: if two modules define a name differently, or import in a way that cannot be flattened.
    """
    outer: dict[str, None] = {"import sys": None, "from pathlib import Path": None}
    defined: dict[str, str] = {}
    bodies = []
    for module in module_order(entry):
        source = module_path(module).read_text(encoding="utf-8")
        lines = source.splitlines()
        for statement in reversed(ast.parse(source).body):
            if is_import(statement) or is_for_types(statement):
                del lines[statement.lineno - 1 : statement.end_lineno]
        for statement in ast.parse(source).body:
            if is_import(statement):
                outer.update(dict.fromkeys(outer_imports(statement)))
            check_names(statement, module, defined)
        text = "\n".join(lines).strip()
        bodies.append(f"# {'-' * 10} {module.replace('.', '/')}.py {'-' * 10}\n\n{text}\n")
    header = HEADER + "\n".join(sorted(outer))
    return header + "\n\n\n" + "\n\n".join(bodies)


def module_order(entry: str) -> list[str]:
    """``entry`` after all modules of ours that it needs, each after those that it needs itself."""
    order: list[str] = []

    def visit(module: str) -> None:
        for statement in ast.parse(module_path(module).read_text(encoding="utf-8")).body:
            for needed in inner_imports(statement):
                if needed not in order:
                    visit(needed)
        order.append(module)

    visit(entry)
    return list(dict.fromkeys(order))


def module_path(module: str) -> Path:
    """Source file of one of our modules."""
    return ROOT / (module.replace(".", "/") + ".py")


def is_import(statement: ast.stmt) -> bool:
    """Whether a statement imports something."""
    return isinstance(statement, ast.Import | ast.ImportFrom)


def is_for_types(statement: ast.stmt) -> bool:
    """Whether a statement is there for type checkers alone."""
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"


def inner_imports(statement: ast.stmt) -> Iterator[str]:
    """Modules of ours that a statement imports.

    Raises:
        ValueError: unless it reads ``from package.module import name``.
    """
    if isinstance(statement, ast.Import):
        found = [alias.name for alias in statement.names if alias.name.split(".")[0] in PACKAGES]
        if found:
            raise ValueError(f"import {found[0]}: cannot be flattened; write from ... import ...")
    elif isinstance(statement, ast.ImportFrom) and (statement.module or "").split(".")[0] in PACKAGES:
        if any(alias.asname for alias in statement.names) or "." not in str(statement.module):
            raise ValueError(f"{ast.unparse(statement)}: cannot be flattened; name the module, and no alias")
        yield str(statement.module)


def outer_imports(statement: ast.stmt) -> Iterator[str]:
    """A statement that imports from elsewhere, one line per name."""
    if isinstance(statement, ast.Import):
        yield from (ast.unparse(ast.Import([alias])) for alias in statement.names)
    elif (
        isinstance(statement, ast.ImportFrom) and statement.module != "__future__" and not [*inner_imports(statement)]
    ):
        names = (alias for alias in statement.names if alias.name != "TYPE_CHECKING")
        yield from (ast.unparse(ast.ImportFrom(statement.module, [alias], 0)) for alias in names)


def check_names(statement: ast.stmt, module: str, defined: dict[str, str]) -> None:
    """Raise ValueError where a statement gives a name of another module another meaning."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        names = [statement.name]
    elif isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
    else:
        return
    meaning = ast.unparse(statement)
    for name in names:
        if defined.setdefault(name, meaning) != meaning:
            raise ValueError(f"{module}: {name} has another meaning in a module that it is flattened with; rename it")
