"""The generated code is this package's own, whole, plain Python, and says from which version it is."""

import ast
import importlib.util
import json
import logging
import sys

import pytest

from ardrag.home import __version__
from pipelines.hub import remote_code
from pipelines.hub.client import STAMP, code_hash, warn_of_changes
from pipelines.hub.remote_code import ENTRY, check_names, code_files, flatten, module_order, module_path, write_code


@pytest.fixture(scope="module")
def files():
    return code_files()


def test_every_definition_is_ours_word_for_word(files):
    """Each class and function of each module, as its source has it."""
    generated = files["pipeline.py"]
    for module in module_order(ENTRY):
        source = module_path(module).read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert ast.get_source_segment(source, node) in generated, f"{module}: {node.name}"


def test_modules_come_after_what_they_need():
    order = module_order(ENTRY)
    assert order[-1] == ENTRY and len(order) == len(set(order))
    for first, second in [("ardrag.flow", "ardrag.rollout"), ("ardrag.tracks.tracks", "pipelines.session")]:
        assert order.index(first) < order.index(second)
    assert not {"pipelines.hub.model_card", "ardrag.worlds.sprites", "ardrag.judges.rewards"} & set(order)


def test_nothing_of_ours_is_imported(files):
    """Not even inside functions: diffusers tells people to install what a file imports."""
    for text in files.values():
        for node in ast.walk(ast.parse(text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"ardrag", "pipelines", "training", "eval"}


def test_components_take_their_classes_from_the_pipeline(files):
    ours = {"transformer/ardrag.transformer.py", "scheduler/ardrag.flow.py", "outline/ardrag.outlines.network.py"}
    assert set(files) == {"pipeline.py", *ours}
    alias = files["scheduler/ardrag.flow.py"].split("from ")[-1].split()[0]
    assert f'sys.modules["{alias}"] = sys.modules[__name__]' in files["pipeline.py"]


def test_the_stamp_says_version_and_content(files, tmp_path, caplog):
    text = files["pipeline.py"]
    stamp = STAMP.match(text)
    assert stamp[1] == __version__ and stamp[2] == code_hash(text[stamp.end() :])
    with caplog.at_level(logging.WARNING):
        warn_of_changes(text, "a/b", __version__)
        assert not caplog.messages
        warn_of_changes(text + "# more\n", "a/b")
        warn_of_changes(text, "a/b", "9.9.9")
    assert "not what its stamp says" in caplog.messages[0] and "loaded by 9.9.9" in caplog.messages[1]


def test_files_are_written_beside_the_weights_that_are_there(files, tmp_path):
    index = {"transformer": ["ardrag.transformer", "X"], "scheduler": ["ardrag.flow", "Y"], "outline": [None, None]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    written = set(write_code(tmp_path))
    assert written == {name for name in files if not name.startswith("outline/")} and len(written) == 3
    assert (tmp_path / "transformer" / "ardrag.transformer.py").read_text() == files[
        "transformer/ardrag.transformer.py"
    ]


def test_two_meanings_of_one_name_are_refused():
    defined = {}
    for code in ("x = 1", "def f(): pass", "x: int = 1"):
        (statement,) = ast.parse(code).body
        if code.startswith("x:"):
            with pytest.raises(ValueError, match="two: x has another meaning"):
                check_names(statement, "two", defined)
        else:
            check_names(statement, "one", defined)
            check_names(statement, "again", defined)


@pytest.mark.parametrize("line", ["import ardrag.flow", "from ardrag.flow import shift as s", "from ardrag import x"])
def test_imports_that_cannot_be_flattened_are_refused(tmp_path, monkeypatch, line):
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "a.py").write_text(line + "\n")
    monkeypatch.setattr(remote_code, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="cannot be flattened"):
        flatten("pipelines.a")


def test_flattened_modules_become_one(tmp_path, monkeypatch):
    (tmp_path / "pipelines").mkdir()
    for name, text in {
        "a": "from __future__ import annotations\nimport math\nfrom pipelines.b import twice\n\nx = twice(2)\n",
        "b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pipelines.a import x\n"
        "import math\n\n\ndef twice(n: int) -> float:\n    return math.floor(2 * n)\n",
    }.items():
        (tmp_path / "pipelines" / f"{name}.py").write_text(text)
    monkeypatch.setattr(remote_code, "ROOT", tmp_path)
    code = flatten("pipelines.a")
    assert code.count("from __future__ import annotations") == 1 and code.count("import math") == 1
    values = {}
    exec(compile(code, "flat", "exec"), values)
    assert values["x"] == 4 and "TYPE_CHECKING" not in code


def test_the_pipeline_can_be_found_in_its_file(files):
    """diffusers wants exactly one pipeline class in the file."""
    classes = [node for node in ast.parse(files["pipeline.py"]).body if isinstance(node, ast.ClassDef)]
    bases = {node.name: [ast.unparse(base) for base in node.bases] for node in classes}
    assert [name for name, found in bases.items() if "DiffusionPipeline" in found] == ["ARDragPipeline"]


def test_changed_code_says_so_when_it_runs(files, tmp_path, caplog, monkeypatch):
    """As diffusers runs it: from a file, as a module of its own."""
    for name, change in (("as_generated", ""), ("changed_by_hand", "# changed\n")):
        path = tmp_path / f"{name}.py"
        path.write_text(files["pipeline.py"] + change, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        with caplog.at_level(logging.WARNING):
            spec.loader.exec_module(module)
        assert ["its code is not what its stamp says" in message for message in caplog.messages] == [True] * bool(
            change
        )
        assert module.CausalWanTransformer.__module__ == "ardrag.transformer"
