"""The command line of the Space."""

from typing import Any

import httpx
import pytest
from PIL import Image

import app
from eval.app_latency import Page, running_app
from pipelines.pipeline_ardrag import BUNDLED_CHECKPOINT
from tests.app_assets.conftest import START, png


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    options = app.parse_arguments([])
    assert (options.model, options.host, options.port, options.share) == (str(BUNDLED_CHECKPOINT), None, None, False)
    options = app.parse_arguments(
        ["--model", "user/x", "--host", "0.0.0.0", "--port", "80", "--share", "--seats", "9"]
    )
    assert (options.model, options.host, options.port, options.share) == ("user/x", "0.0.0.0", 80, True)
    assert options.seats == 9 and (options.device, options.dtype, options.lora) == (None, None, [])
    options = app.parse_arguments(["--dtype", "bfloat16", "--lora", "a.safetensors", "user/b"])
    assert options.dtype == "bfloat16" and options.lora == ["a.safetensors", "user/b"]
    with pytest.raises(SystemExit):
        app.parse_arguments(["--port", "eighty"])
    assert "--port" in capsys.readouterr().err


def test_a_space_may_name_its_model_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARDRAG_MODEL", "user/x")
    assert app.parse_arguments([]).model == "user/x"
    assert app.parse_arguments(["--model", "y"]).model == "y"


def test_unknown_model_is_one_line(tmp_path) -> None:
    with pytest.raises(SystemExit, match="app.py: model: .* does not exist"):
        app.main(["--model", str(tmp_path / "nothing")])
    with pytest.raises(SystemExit, match="app.py: device: quantum cannot be used here .*; use cpu"):
        app.main(["--device", "quantum"])


@pytest.mark.slow
def test_a_space_that_is_stopped_removes_its_visitors_files(pipeline: Any, picture: Image.Image, tmp_path) -> None:
    """By SIGTERM, as hosts stop it, while a visitor still has a video in the making."""
    folder, model = tmp_path / "files", tmp_path / "model"
    folder.mkdir()
    pipeline.save_pretrained(model)

    def left() -> list[str]:
        return [path.name for path in folder.rglob("*") if path.is_file()]

    with running_app(str(model), folder) as space:
        found = httpx.post(space.url + "picture", content=png(picture)).json()["picture"]
        assert httpx.post(space.url + "gradio_api/upload", files={"files": ("p.png", png(picture))}).is_success
        page = Page(space.url)
        page.say(**{**START, "picture": found, "num_frames": 101})
        page.wait("frames")
        assert "p.png" in left()
    assert left() == []
