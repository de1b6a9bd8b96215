"""What the README says is so: its files exist, its Python runs as written, its test command is the one CI calls."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.hub_process import HubProcess
from tests.hub_server import HubServer


ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

COMMAND = """
import runpy, sys
sys.argv = {arguments!r}
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert end.code == 0, end.code
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_ci_calls_the_test_command_of_the_readme() -> None:
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    assert "pip install -r requirements-dev.txt && python -m pytest" in commands
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert any(re.fullmatch(r"python -m pytest( -n \d+)?( --dist \w+)?( --durations \d+)?", line) for line in script)


def test_files_and_modules_named_in_the_readme_exist() -> None:
    paths = set(re.findall(r"`((?:app_assets|ardrag|pipelines|training|eval|examples|docs)/[\w./-]*)`", README))
    paths |= set(re.findall(r"(?:training/configs|examples)/[\w.]+", README))
    missing = sorted(path for path in paths if not (ROOT / path).exists())
    assert not missing
    modules = set(re.findall(r"python -m ((?:training|eval|pipelines)\.\w+)", README))
    assert modules
    places = [ROOT / module.replace(".", "/") for module in modules]
    assert all(place.with_suffix(".py").is_file() or (place / "__main__.py").is_file() for place in places)


def test_front_matter_names_the_app_and_the_installed_gradio() -> None:
    front = README.split("---")[1]
    assert "app_file: app.py" in front
    assert re.search(r"sdk_version: 6\.\d+", front)


@pytest.mark.slow
def test_python_of_the_readme_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(tmp_path)
    snippet = blocks("python")[0]
    exec(compile(snippet, "README.md", "exec"), {"__name__": "readme"})
    assert (tmp_path / "drag.mp4").stat().st_size > 0
    assert (tmp_path / "drag.tracks.json").is_file()


@pytest.mark.slow
def test_what_the_readme_pushes_arrives(hub: HubServer, tmp_path: Path) -> None:
    """Its Python and its commands for the Hub, as written, by somebody called you."""
    (tmp_path / "runs" / "distill").mkdir(parents=True)
    facts = shutil.ignore_patterns("card.yaml", "README.md", "samples")  # what a run does not write
    shutil.copytree(ROOT / "checkpoints" / "ardrag-tiny", tmp_path / "runs" / "distill" / "pipeline", ignore=facts)
    (tmp_path / "home").mkdir()
    hub.users["hf_you"] = "you"
    process = HubProcess(hub, tmp_path / "home", tmp_path, "hf_you")
    with_package, without = blocks("python")[1:]
    process.run(with_package)
    process.run(without + "pipe.tracks_class.from_json(tracks.to_json())")
    commands = [line for block in blocks("bash") for line in block.splitlines() if "pipelines.publish" in line]
    assert len(commands) == 4
    for command in commands:
        process.run(COMMAND.format(arguments=shlex.split(command)[2:]))
    process.kill()
    assert {key for key in hub.repositories if key[1].startswith("you/")} == {
        ("model", "you/ardrag-tiny"),
        ("model", "you/ardrag-distilled"),
        ("dataset", "you/sprite-world"),
        ("space", "you/ardrag"),
    }
