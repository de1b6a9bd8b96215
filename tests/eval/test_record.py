"""A run record has what a reader needs to repeat the run."""

import json
import subprocess
from pathlib import Path

import pytest

from eval.record import commit_state, page_file, record_lines, run_record, write_json


def test_record_has_its_fields() -> None:
    record = run_record("eval.sprite_suite", ["--output_dir", "my folder"])
    assert record["command"] == "python -m eval.sprite_suite --output_dir 'my folder'"
    assert set(record) == {"command", "date", "commit", "dirty", "hardware", "versions"}
    assert record["hardware"]["cores"] >= 1
    assert record["versions"]["torch"]
    assert json.loads(json.dumps(record)) == record
    assert record["command"] in "\n".join(record_lines(record))


def test_commit_and_dirty_flag(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert commit_state(tmp_path) == {"commit": None, "dirty": None}
    git("init")
    (tmp_path / "a.py").write_text("1")
    assert commit_state(tmp_path) == {"commit": None, "dirty": True}
    git("add", ".")
    git("commit", "-m", "first")
    clean = commit_state(tmp_path)
    assert clean["dirty"] is False and len(clean["commit"]) == 40
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.md").write_text("new numbers")
    assert commit_state(tmp_path)["dirty"] is False
    (tmp_path / "a.py").write_text("2")
    assert commit_state(tmp_path)["dirty"] is True


def test_json_is_strict_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("target", "wanted"),
    [("out/page", "out/page.md"), ("out/lean1.5", "out/lean1.5.md"), ("page.json", "page.md"), ("v2.md", "v2.md")],
)
def test_a_dot_in_the_name_of_a_page_is_no_ending(target: str, wanted: str) -> None:
    assert page_file(Path(target), ".md") == Path(wanted)
