"""The publish command against a Hub: models, datasets, the Space; what it would send; what it refuses."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from datasets import Dataset

from pipelines import publish
from pipelines.hub import space
from pipelines.hub.client import GENERATED
from pipelines.hub.space import SPACE_PARTS, check_space, space_files
from pipelines.publish import main
from pipelines.record import REPOSITORY


COMMAND = "from pipelines.publish import main\nassert main({arguments!r}) == 0"


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_is_published_with_code_and_card(hub, hub_process, pipeline, tmp_path):
    folder = tmp_path / "pipeline"
    pipeline.save_pretrained(folder)
    (folder / "README.md").write_text("an old card\n" + GENERATED)
    before = contents(folder)
    printed = hub_process.run(COMMAND.format(arguments=["model", str(folder), "alice/drag", "--private"]))
    repository = hub.repository("alice/drag")
    assert printed.strip().endswith(repository.refs["main"]) and repository.private
    assert {"README.md", "pipeline.py", "model_index.json"} < repository.files.keys()
    assert b'from_pretrained("alice/drag")' in hub.content(repository.files["README.md"])
    assert contents(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline"]


def test_sprite_world_is_pushed_and_loaded(hub, hub_process):
    options = ["--num_clips", "3", "--num_frames", "5", "--split", "test"]
    hub_process.run(COMMAND.format(arguments=["dataset", "sprites", "alice/sprites", *options]))
    hub_process.run(
        """
        import numpy as np
        from datasets import load_dataset
        from ardrag.worlds.sprites import make_clip
        clips = load_dataset("alice/sprites", split="test")
        assert len(clips) == 3
        clip = make_clip("test", 2, 5)
        assert np.array_equal(clips[2]["frames"], clip.frames) and clips[2]["caption"] == clip.caption
        """
    )
    files = hub.repository("alice/sprites", "dataset").files
    card = hub.content(files["README.md"]).decode()
    assert "# Sprite World" in card and GENERATED in card and "license: apache-2.0" in card and "dataset_info:" in card
    assert not [path for path in files if path.endswith((".py", ".pkl", ".bin"))]


def test_a_saved_dataset_is_pushed_as_it_is(hub_process, tmp_path):
    rows = {"latents": [b"ab", b"\0"], "caption": ["a", "b"]}
    Dataset.from_dict(rows).save_to_disk(tmp_path / "latents")
    hub_process.run(COMMAND.format(arguments=["dataset", str(tmp_path / "latents"), "alice/latents"]))
    printed = hub_process.run(
        """
        from datasets import load_dataset
        print(load_dataset("alice/latents", split="train")[:])
        """
    )
    assert printed.strip() == repr(rows)


def test_the_space_is_what_the_dry_run_shows(hub, hub_process, capsys):
    assert main(["space", "alice/ardrag", "--dry_run"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    shown = {line.split("  ")[-1] for line in lines}
    assert ("space", "alice/ardrag") not in hub.repositories
    hub_process.run(COMMAND.format(arguments=["space", "alice/ardrag"]))
    repository = hub.repository("alice/ardrag", "space")
    assert set(repository.files) - {".gitattributes"} == shown and repository.sdk == "gradio"
    assert f"bytes in {len(shown)} files would go to the Space alice/ardrag" in last
    assert {"app.py", "README.md", "requirements.txt", "checkpoints/ardrag-tiny-photos/model_index.json"} < shown
    assert not [path for path in shown if path.startswith(("tests", "training", "eval", ".")) or "__pycache__" in path]


@pytest.mark.slow
def test_the_space_has_every_module_that_the_app_imports(tmp_path):
    """Copied alone into a folder, the app's own modules import."""
    for name in space_files():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, tmp_path / name)
    code = "import app; assert app.BUNDLED_CHECKPOINT.is_dir()"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("title: a\n", "the head of README.md lacks emoji, colorFrom, colorTo, sdk, sdk_version, app_file"),
        ("short", "short_description in README.md is longer than 60 letters"),
        ("file", "README.md names sdk gradio and none.py; use gradio and app.py"),
    ],
)
def test_a_wrong_head_is_refused(tmp_path, head, message):
    values = dict.fromkeys(space.REQUIRED, "x") | {"sdk": "gradio", "app_file": "app.py"}
    values |= {"short": {"short_description": "y" * 61}, "file": {"app_file": "none.py"}}.get(head, {})
    lines = head if head.startswith("title") else "\n".join(f"{name}: {value}" for name, value in values.items())
    (tmp_path / "README.md").write_text(f"---\n{lines}\n---\n")
    (tmp_path / "app.py").write_text("")
    with pytest.raises(ValueError, match=message):
        check_space(tmp_path)


def test_an_incomplete_checkout_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"space: .*{SPACE_PARTS[0]} is missing; run from a whole checkout"):
        space_files(tmp_path)


def test_what_the_user_gets_wrong_is_one_line(capsys, tmp_path):
    for arguments, message in (
        (["model", str(tmp_path / "none"), "alice/x"], "error: folder: .*none does not exist"),
        (["dataset", "nothing", "alice/x"], "error: source: nothing is no folder; give `sprites`"),
    ):
        assert main(arguments) == 2
        assert re.match(message, capsys.readouterr().err)


def test_card_and_code_are_written_into_the_folder(pipeline, tmp_path, capsys):
    pipeline.save_pretrained(tmp_path)
    assert main(["card", str(tmp_path), "--name", "alice/drag"]) == 0 and main(["code", str(tmp_path)]) == 0
    assert 'from_pretrained("alice/drag")' in (tmp_path / "README.md").read_text()
    assert capsys.readouterr().out.split()[0] == "pipeline.py" and (tmp_path / "pipeline.py").is_file()
    assert json.loads((tmp_path / "model_index.json").read_text())["_class_name"] == "ARDragPipeline"


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit):
        publish.main(["--help"])
    shown = capsys.readouterr().out
    assert all(command in shown for command in ("model", "dataset", "space", "card", "code"))
