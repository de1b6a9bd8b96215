"""The package as somebody installs it: built, put into an environment of its own, used from another folder."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import tomllib
from filelock import FileLock

from ardrag import home
from ardrag.home import __version__
from setup import PARTS, inside_ardrag
from tests.hub_server import HubServer
from tests.test_readme import blocks


ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(name: str) -> set[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith(("#", "-r"))}


def test_requirements_are_what_the_package_and_its_extras_need() -> None:
    extras = PROJECT["optional-dependencies"]
    assert requirements("requirements.txt") == {
        *PROJECT["dependencies"],
        *(r for rows in extras.values() for r in rows),
    }


def test_commands_are_functions_of_the_checkout() -> None:
    for target in PROJECT["scripts"].values():
        module, function = target.removeprefix("ardrag.").split(":")
        assert callable(getattr(home.import_part(module), function))


def test_imports_of_neighbours_move_inside() -> None:
    source = (
        "from pipelines.video import Frame\nfrom ardrag.flow import shift\n\n"
        "def f():\n    from training import tiny  # from training\n    return 'from eval'\n"
    )
    assert inside_ardrag(source) == (
        "from ardrag.pipelines.video import Frame\nfrom ardrag.flow import shift\n\n"
        "def f():\n    from ardrag.training import tiny  # from training\n    return 'from eval'\n"
    )
    with pytest.raises(ValueError, match="line 1: import training.finetune: write from"):
        inside_ardrag("import training.finetune")


def test_bundled_names_what_there_is() -> None:
    assert home.bundled("examples/circle.png").is_file()
    assert home.module_name("pipelines.hub") == "pipelines.hub"
    with pytest.raises(
        ValueError, match="examples/none.png does not come with ardrag; there are .*examples/circle.png"
    ):
        home.bundled("examples/none.png")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the commands of a new environment that has the built wheel, and this one's packages beside it."""
    folder = tmp_path_factory.mktemp("package")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    with FileLock(tmp_path_factory.getbasetemp().parent / "build.lock"):  # a build writes into the checkout
        done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        assert not [name for name in archive.getnames() if re.search(r"/tests/|\.pyc$", name)]
    wheel = next(folder.glob("*.whl"))
    venv.create(folder / "env", symlinks=True)
    scripts = folder / "env" / "bin"
    pip = [sys.executable, "-m", "pip", "--python", str(scripts / "python"), "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--quiet", str(wheel)], check=True)
    here = Path(
        subprocess.run(
            [scripts / "python", "-c", "import site; print(site.getsitepackages()[0])"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    (here / "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib"))
    return scripts


def run(command: list[str | Path], folder: Path, **more: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | more
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_wheel_holds_one_package(installed: Path) -> None:
    wheel = next(installed.parent.parent.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        tops = {name.split("/")[0] for name in names}
        assert tops == {"ardrag", f"ardrag-{__version__}.dist-info"}
        parts = "|".join(part.removesuffix(".py") for part in PARTS)
        loose = re.compile(rf"^\s*(from|import) ({parts})\b", re.MULTILINE)
        wrong = [name for name in names if name.endswith(".py") and loose.search(archive.read(name).decode())]
        assert not wrong
    models = [f"checkpoints/{name}/model_index.json" for name in ("ardrag-tiny", "ardrag-tiny-photos")]
    for name in (*models, "examples/examples.json", "app_assets/web/index.html"):
        assert f"ardrag/{name}" in names


@pytest.mark.slow
def test_readme_runs_where_the_package_is_installed(installed: Path, tmp_path: Path) -> None:
    run([installed / "python", "-c", blocks("python")[0]], tmp_path)
    assert (tmp_path / "drag.mp4").stat().st_size > 0
    code = (
        "import ardrag, importlib.util; from ardrag import ARDragPipeline; assert 'site-packages' in ardrag.__file__;"
        "assert ARDragPipeline.__module__ == 'ardrag.pipelines.pipeline_ardrag';"
        "assert not any(importlib.util.find_spec(n) for n in ('pipelines', 'training', 'eval', 'app_assets', 'app'))"
    )
    run([installed / "python", "-c", code], tmp_path)


@pytest.mark.slow
def test_snippets_for_the_hub_run_where_the_package_is_installed(
    installed: Path, hub: HubServer, tmp_path: Path
) -> None:
    hub.users["hf_you"] = "you"
    with_package, without = blocks("python")[1:]
    run([installed / "python", "-c", with_package + without], tmp_path, **hub.environment(tmp_path, "hf_you"))
    assert {"pipeline.py", "README.md", "vae/config.json"} < hub.repository("you/ardrag-tiny").files.keys()


HELP = """
import contextlib, runpy, sys
for module in sys.argv[1:]:  # in one process: importing torch is paid for once
    sys.argv = [module, "--help"]
    with contextlib.suppress(SystemExit):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
def test_commands_run_where_the_package_is_installed(installed: Path, tmp_path: Path) -> None:
    picture, tracks = home.bundled("examples/circle.png"), home.bundled("examples/circle.tracks.json")
    run([installed / "ardrag-generate", "--image", picture, "--tracks", tracks, "--out", "v.mp4"], tmp_path)
    assert (tmp_path / "v.mp4").stat().st_size > 0
    assert "--seats" in run([installed / "ardrag-app", "--help"], tmp_path)
    modules = [f"ardrag.{name}" for name in ("training.finetune", "eval.run", "pipelines.publish")]
    assert run([installed / "python", "-c", HELP, *modules], tmp_path).count("usage:") == len(modules)


@pytest.mark.slow
def test_published_code_is_complete_where_the_package_is_installed(installed: Path, tmp_path: Path) -> None:
    """Models that an installed package publishes carry the same files as those from a checkout."""
    code = "from ardrag.pipelines.hub.remote_code import code_files; print(sorted(code_files()))"
    assert run([installed / "python", "-c", code], tmp_path).strip() == str(
        [
            "outline/ardrag.outlines.network.py",
            "pipeline.py",
            "scheduler/ardrag.flow.py",
            "transformer/ardrag.transformer.py",
        ]
    )
