"""The house rules of who may import whom, read from the source: `ardrag <- pipelines <- {training, eval, app}`."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parent.parent
OURS = ("ardrag", "pipelines", "training", "eval", "app_assets", "app")
MAY_IMPORT = {
    "ardrag": {"ardrag"},
    "pipelines": {"ardrag", "pipelines"},
    "training": {"ardrag", "pipelines", "training"},
    "eval": {"ardrag", "pipelines", "eval"},
    "app_assets": {"ardrag", "pipelines", "app_assets"},
    "app": {"ardrag", "pipelines", "app_assets", "app"},
}
LEAVES = {
    "collage",
    "convolutions",
    "flow",
    "kv_cache",
    "folded_vae",
    "known",
    "outlines",
    "saving",
    "streaming_vae",
    "tracks",
}
LEAVES |= {"worlds"}
CONTROLS = LEAVES | {"controls", "conditioning", "attention", "home"}
INSIDE = {
    **dict.fromkeys(("convolutions", "kv_cache", "saving", "tracks"), set[str]()),
    **dict.fromkeys(("flow", "outlines"), {"saving"}),
    "collage": {"outlines"},
    "folded_vae": {"convolutions"},
    "streaming_vae": {"convolutions", "folded_vae"},
    "known": {"convolutions", "folded_vae", "streaming_vae"},
    "worlds": {"tracks"},
    **dict.fromkeys(("conditioning", "attention"), CONTROLS),
    "block": CONTROLS - {"controls"},
    "controls": CONTROLS | {"block"},
    "unrolled": {"attention", "block", "kv_cache"},
    "transformer": CONTROLS | {"block", "unrolled"},
    "guidance": {"conditioning"},
    "rollout": CONTROLS | {"transformer", "guidance"},
    "convert": CONTROLS | {"transformer"},
    "judges": LEAVES | {"home"},
    "old_names": {"judges"},
}
"""Which parts of `ardrag`, files or folders, a part may import beside itself."""
MAX_FILES = 12
HEAVY = {"gradio", "datasets", "peft", "cv2", "cotracker", "spaces", "imageio", "matplotlib"}


def sources(package: str) -> list[Path]:
    single = ROOT / f"{package}.py"
    return [single] if single.exists() else sorted((ROOT / package).rglob("*.py"))


def imports(path: Path, functions: bool = True) -> Iterator[str]:
    """Full dotted names of what a file imports; `functions=False`: only what runs when the file itself is imported."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)
        if functions or not _runs_later(node):
            todo.extend(ast.iter_child_nodes(node))


def _runs_later(node: ast.AST) -> bool:
    is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    return is_for_types or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


@pytest.mark.parametrize("package", OURS)
def test_imports_go_one_way(package: str) -> None:
    for path in sources(package):
        if path == ROOT / "ardrag" / "__init__.py":
            continue
        tops = {name.split(".")[0] for name in imports(path)} & set(OURS)
        assert tops <= MAY_IMPORT[package], f"{path.relative_to(ROOT)} imports {sorted(tops - MAY_IMPORT[package])}"


def part_of(path: Path) -> str:
    """File or folder right below `ardrag` that a source belongs to."""
    return path.relative_to(ROOT / "ardrag").with_suffix("").parts[0]


@pytest.mark.parametrize("part", sorted({part_of(path) for path in sources("ardrag")} - {"__init__"}))
def test_layers_inside_ardrag(part: str) -> None:
    files = [path for path in sources("ardrag") if part_of(path) == part]
    used = {name.split(".")[1] for path in files for name in imports(path) if name.startswith("ardrag.")} - {part}
    parts = {part_of(source) for source in sources("ardrag")} - {"__init__"}
    assert used <= parts, f"{part} imports {sorted(used - parts)} from the package's face, name the module"
    allowed = INSIDE.get(part, parts - {"old_names"})
    assert used <= allowed, f"{part} may not import {sorted(used - allowed)}"


@pytest.mark.parametrize("package", OURS)
def test_modules_are_named_in_full(package: str) -> None:
    """`from ardrag.tracks.tracks import Tracks`, not from the folder's face: so no import circle can hide there."""
    folders = {".".join(path.parent.relative_to(ROOT).parts) for top in OURS for path in sources(top)} - {
        "",
        "pipelines",
    }
    for path in (path for path in sources(package) if path.name != "__init__.py"):
        short = {name.rpartition(".")[0] for name in imports(path)} & folders
        faces = {name for name in imports(path) if name.rpartition(".")[0] in short and not is_module(name)}
        assert not faces, f"{path.relative_to(ROOT)} imports {sorted(faces)} from a folder's face; name the module"


def is_module(name: str) -> bool:
    place = ROOT / name.replace(".", "/")
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def test_no_import_circles() -> None:
    """Also where an import is for type checkers, or inside a function: files that name each other are one idea."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for package in OURS
        for path in sources(package)
        if path.name != "__init__.py"
    }
    needs = {}
    for module, path in modules.items():
        names = {name for found in imports(path) for name in (found, found.rpartition(".")[0])}
        needs[module] = names & set(modules) - {module}
    assert find_circle(needs) is None, f"these import each other: {find_circle(needs)}"


def find_circle(needs: dict[str, set[str]]) -> list[str] | None:
    """Modules that need each other, or None."""
    left = dict(needs)
    while free := [module for module, needed in left.items() if not needed & set(left)]:
        for module in free:
            del left[module]
    return sorted(left) or None


def test_no_folder_is_full() -> None:
    for package in OURS[:-1]:
        for folder in {path.parent for path in sources(package)}:
            count = sum(path.stem != "__init__" for path in folder.glob("*.py"))
            assert count <= MAX_FILES, f"{folder.relative_to(ROOT)} has {count} files; give an idea its own folder"


@pytest.mark.parametrize("path", sources("ardrag"), ids=lambda path: path.stem)
def test_heavy_packages_stay_inside_functions(path: Path) -> None:
    heavy = {name.split(".")[0] for name in imports(path, functions=False)} & HEAVY
    assert not heavy, f"{path.name} imports {sorted(heavy)} at module level; move it into the function that needs it"


def test_face_is_lazy_and_complete() -> None:
    code = (
        "import sys, ardrag; assert not {'torch', 'diffusers', 'pipelines'} & set(sys.modules), 'not lazy';"
        "from ardrag import Tracks; assert Tracks.__module__ == 'ardrag.tracks.tracks';"
        "assert {'ARDragPipeline', 'CausalWanTransformer', 'Tracks'} <= set(dir(ardrag))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_names_of_version_0_1_are_those_of_today() -> None:
    for old, new, name in (
        ("sprite_features", "judges.sprite_features", "load_features"),
        ("sprite_aesthetic", "judges.sprite_aesthetic", "SpriteAestheticReward"),
        ("tracks", "tracks.tracks", "Tracks"),
    ):
        homes = [importlib.import_module(f"ardrag.{module}") for module in (old, new)]
        assert getattr(homes[0], name) is getattr(homes[1], name)


def test_rules_would_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ardrag" / "flow.py"
    file.parent.mkdir()
    file.write_text(
        "from . import tracks\nfrom .rollout import x\nimport eval.metrics\ndef f():\n    import cv2\n"
        "if TYPE_CHECKING:\n    import datasets\n"
    )
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert set(imports(file)) == {"ardrag.tracks", "ardrag.rollout.x", "eval.metrics", "cv2", "datasets"}
    assert not {"cv2", "datasets"} & set(imports(file, functions=False))
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) and find_circle({"a": {"b"}, "b": set()}) is None
