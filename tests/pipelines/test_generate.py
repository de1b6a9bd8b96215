"""The command line: files in, files out; what a user gets wrong is one line, exit code 2, and no file."""

import subprocess
import sys
from pathlib import Path

import imageio
import numpy as np
import pytest
from PIL import Image

from ardrag.tracks.tracks import Tracks
from pipelines.generate import build_parser, main
from pipelines.pipeline_ardrag import BUNDLED_CHECKPOINT


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    pipeline.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def inputs(model, picture, tmp_path):
    """Command-line arguments as a dict, and the folder they live in."""
    picture.save(tmp_path / "in.png")
    Tracks.from_points([[(0, 0.2, 0.5), (8, 0.8, 0.5)]], num_frames=9).save(tmp_path / "in.json")
    paths = {"--image": tmp_path / "in.png", "--tracks": tmp_path / "in.json", "--out": tmp_path / "out.mp4"}
    return {**paths, "--model": model}


def flat(options):
    return [str(part) for pair in options.items() for part in pair if part is not None]


def test_defaults():
    options = build_parser().parse_args(["--image", "a.png", "--out", "b.mp4"])
    assert options.model == str(BUNDLED_CHECKPOINT) and options.seed == 0 and not options.draw_paths


def test_everything_is_written(inputs, pipeline, picture, tmp_path, capsys):
    extra = {"--contact_sheet": tmp_path / "sheet.png", "--save_tracks": tmp_path / "used.json", "--prompt": "a star"}
    assert main(flat({**inputs, **extra, "--seed": 3, "--steps": 1})) == 0
    assert "latents: 100%" in capsys.readouterr().err
    drawn = Tracks.load(tmp_path / "in.json")
    parts = pipeline.stream(picture, "a star", tracks=drawn, seed=3, num_inference_steps=1)
    frames = np.stack([frame for part in parts for frame in part])
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert np.abs(sheet.astype(int) - np.concatenate(list(frames), axis=1)).max() <= 1  # loaded: rounding
    assert Tracks.load(tmp_path / "used.json") == drawn
    assert sum(1 for _ in imageio.get_reader(tmp_path / "out.mp4")) == 9
    assert {path.name for path in tmp_path.iterdir()} == {"in.png", "in.json", "out.mp4", "sheet.png", "used.json"}


def test_paths_can_be_drawn_and_clips_be_longer(inputs, tmp_path):
    extra = {"--contact_sheet": tmp_path / "sheet.png", "--save_tracks": tmp_path / "used.json"}
    assert main([*flat({**inputs, **extra, "--num_frames": 13, "--guidance_scale": 2.0}), "--draw_paths"]) == 0
    sheet = np.asarray(Image.open(tmp_path / "sheet.png")).reshape(2, 32, 9, 32, 3)
    assert (sheet[0, :, 0] == (255, 40, 40)).all(-1).any() and (sheet[0, :, 0] == (40, 90, 255)).all(-1).any()
    assert Tracks.load(tmp_path / "used.json").num_frames == 13


def test_without_tracks(inputs, tmp_path):
    options = {**inputs, "--num_frames": 5, "--save_tracks": tmp_path / "used.json"}
    del options["--tracks"]
    assert main(flat(options)) == 0
    assert Tracks.load(tmp_path / "used.json") == Tracks.empty(5)


def test_tracks_of_other_systems_and_of_a_portrait(inputs, picture, tmp_path):
    """The same way, four times: on the picture, and on one with as much again above and below."""
    tall = Image.new("RGB", (32, 64), (0, 200, 0))
    tall.paste(picture, (0, 16))
    tall.save(tmp_path / "tall.png")
    Tracks.from_points([[(0, 0.2, 0.5), (8, 0.8, 0.5)]], num_frames=9, width=32, height=64).save(
        tmp_path / "tall.json"
    )
    (tmp_path / "way.json").write_text('[[{"x": 6.4, "y": 16}, {"x": 25.6, "y": 16}]]')
    (tmp_path / "way.txt").write_text("51.2,128\n204.8,128\n")
    sheets = []
    for changes in (
        {},
        {"--image": tmp_path / "tall.png", "--tracks": tmp_path / "tall.json"},
        {"--tracks": tmp_path / "way.json", "--tracks_size": "32x32", "--tracks_frames": 9},
        {"--tracks": tmp_path / "way.txt", "--tracks_frames": 9},
    ):
        options = flat({**inputs, **changes, "--contact_sheet": tmp_path / "sheet.png", "--steps": 1})
        assert main([*options, "--draw_paths"]) == 0
        sheets.append(np.asarray(Image.open(tmp_path / "sheet.png")).astype(int))
    assert all((np.abs(sheet - sheets[0]) > 1).mean() < 0.002 for sheet in sheets)


BAD = {
    "no picture": ({"--image": "{tmp}/no.png"}, "cannot be opened"),
    "corrupt picture": ({"--image": "{tmp}/in.json"}, "is not a readable picture"),
    "no tracks": ({"--tracks": "{tmp}/no.json"}, "--tracks: {tmp}/no.json cannot be opened"),
    "tracks are a picture": ({"--tracks": "{tmp}/in.png"}, "in.png: the track file is not JSON"),
    "tracks of what": (
        {"--tracks": "{tmp}/way.json"},
        "way.json: --tracks_size: kjnodes files have pixels and do not",
    ),
    "tracks size": ({"--tracks": "{tmp}/way.json", "--tracks_size": "64*32"}, "--tracks_size: '64*32' is not WIDTHxH"),
    "tracks without time": ({"--tracks": "{tmp}/way.txt"}, "way.txt: --tracks_frames: tora files do not say"),
    "another canvas": ({"--tracks": "{tmp}/wide.json"}, "canvas: the tracks were drawn on 64 x"),
    "wrong schema": ({"--tracks": "{tmp}/old.json"}, "schema is 'ardrag.tracks/v0', but only"),
    "nan point": ({"--tracks": "{tmp}/nan.json"}, "tracks[0].points[0].x"),
    "far-off point": ({"--tracks": "{tmp}/far.json"}, "tracks[0].points[0].x"),
    "tracks longer than clip": ({"--num_frames": 5}, "tracks: they last 9 frames"),
    "num_frames": ({"--num_frames": 10}, "num_frames: 10 is not 4k + 1; use 9 or 13"),
    "steps": ({"--steps": 0}, "num_inference_steps: 0"),
    "seed": ({"--seed": -1}, "seed: -1"),
    "guidance": ({"--guidance_scale": "nan"}, "guidance_scale: nan"),
    "model": ({"--model": "{tmp}/nowhere"}, "model: {tmp}/nowhere does not exist"),
    "out gif": ({"--out": "{tmp}/out.gif"}, "--out: {tmp}/out.gif must end in .mp4"),
    "out folder": ({"--out": "{tmp}/no/out.mp4"}, "--out: folder {tmp}/no does not exist"),
    "sheet": ({"--contact_sheet": "{tmp}/sheet.jpg"}, "--contact_sheet: {tmp}/sheet.jpg must end in .png"),
    "used tracks": ({"--save_tracks": "{tmp}/no/used.json"}, "--save_tracks: folder {tmp}/no does not exist"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_no_file(inputs, tmp_path, capsys, name):
    text = (tmp_path / "in.json").read_text()
    (tmp_path / "old.json").write_text(text.replace("tracks/v1", "tracks/v0"))
    (tmp_path / "nan.json").write_text(text.replace('"x": 0.2', '"x": NaN'))
    (tmp_path / "way.json").write_text('[[{"x": 6.4, "y": 16}, {"x": 25.6, "y": 16}]]')
    (tmp_path / "wide.json").write_text(text.replace('"canvas": {}', '"canvas": {"width": 64, "height": 32}'))
    (tmp_path / "way.txt").write_text("51,128\n205,128\n")
    (tmp_path / "far.json").write_text(text.replace('"x": 0.2', '"x": 200'))
    before = {path.name for path in tmp_path.iterdir()}
    changes, message = BAD[name]
    options = {**inputs, **{key: str(value).format(tmp=tmp_path) for key, value in changes.items()}}
    assert main(flat(options)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message.format(tmp=tmp_path) in line
    assert {path.name for path in tmp_path.iterdir()} == before


def test_runs_as_a_module(tmp_path):
    command = [sys.executable, "-m", "pipelines.generate", "--image", "no.png", "--out", str(tmp_path / "o.mp4")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and result.stderr.splitlines()[-1].startswith("error: image: no.png cannot be")
    assert "Traceback" not in result.stderr and not list(tmp_path.iterdir())
