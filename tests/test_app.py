"""The Space: what the pad's drawings mean, what goes wrong visibly, and the page itself in a real browser."""

import functools
import itertools
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

import app
from app_assets.pad import drawing_from_tracks, load_examples, timed_path, tracks_from_drawing
from app_assets.words import progress_text, visible_errors, whole
from ardrag.tracks import Tracks
from pipelines.pipeline_ardrag import BUNDLED_CHECKPOINT, ARDragPipeline


def drawing(*paths: list[list[float]]) -> str:
    return json.dumps({"paths": [{"color": "#fff", "points": path} for path in paths]})


class FakeScheduler:
    class config:  # noqa: N801
        num_inference_steps = 3


class FakePipe:
    """Stands where the pipeline stands: the sizes and checks that the handlers use, and frames without a model."""

    class config:  # noqa: N801
        fps = 16.0

    scheduler = FakeScheduler()

    def __init__(self) -> None:
        self.made = 0

    def size_for(self, image: Image.Image, height: int | None, width: int | None) -> tuple[int, int]:
        return 64, 96

    def stream(self, image: Image.Image, prompt: str, **settings: Any) -> Iterator[list[np.ndarray]]:
        if settings["num_inference_steps"] < 1:
            raise ValueError("num_inference_steps: 0 is not positive; use 3 or more")
        self.settings = {"size": image.size, "prompt": prompt, **settings}
        return self._frames(settings["num_frames"])

    def _frames(self, count: int) -> Iterator[list[np.ndarray]]:
        while self.made < count:
            part = [np.full((64, 96, 3), self.made, np.uint8)] * (4 if self.made else 1)
            self.made += len(part)
            yield part


# ---- drawings ----


def test_path_takes_the_whole_clip_and_keeps_its_relative_speed() -> None:
    path = timed_path([[500, 0.1, 0.2, 1], [600, 0.2, 0.2, 0.5], [900, 0.9, 0.2, 1]], 33)
    assert path == [(0, 0.1, 0.2, 1), (8, 0.2, 0.2, 0.5), (32, 0.9, 0.2, 1)]


def test_tap_is_a_pin_and_equal_times_keep_the_later_place() -> None:
    assert timed_path([[5, 0.1, 0.2, 1]], 33) == [(0, 0.1, 0.2, 1)]
    assert timed_path([[5, 0.1, 0.2, 1], [5, 0.3, 0.2, 1]], 33) == [(0, 0.3, 0.2, 1)]
    path = timed_path([[0, 0.1, 0.1, 1], [10, 0.2, 0.1, 1], [10, 0.3, 0.1, 1], [9, 0.4, 0.1, 1]], 17)
    assert path == [(0, 0.1, 0.1, 1), (16, 0.4, 0.1, 1)]


def test_long_drawing_is_thinned_but_keeps_both_ends() -> None:
    rows = [[t, t / 1e5, 0.5, 1] for t in range(50_000)]
    path = timed_path(rows, 65)
    assert len(path) <= 1024 and path[0][:2] == (0, 0) and path[-1][:2] == (64, 0.49999)
    assert len(tracks_from_drawing(drawing(*[rows] * 3), 65).to_json()) < 1 << 20


def test_drawing_becomes_tracks() -> None:
    tracks = tracks_from_drawing(drawing([[0, 0.1, 0.2, 1], [100, 0.9, 0.8, 0.5]], [[7, 0.5, 0.5, 1]]), 17)
    xy, visible, force = tracks.to_array()
    assert xy.shape == (17, 2, 2) and visible.all()
    assert np.allclose(xy[8, 0], (0.5, 0.5)) and np.allclose(xy[-1, 0], (0.9, 0.8)) and math.isclose(force[-1, 0], 0.5)
    assert (xy[:, 1] == 0.5).all()


@pytest.mark.parametrize("nothing", ["", None, drawing()])
def test_empty_drawing_is_no_control(nothing: str | None) -> None:
    assert tracks_from_drawing(nothing, 33).tracks == ()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "3",
        '{"paths": 3}',
        '{"paths": [{}]}',
        drawing([]),
        drawing([[0, 0.1, 0.2]]),
        drawing([[0, None, 0, 1]]),
    ]
    + ['{"paths": [{"points": [[0, NaN, 0, 1]]}]}', '{"paths": [{"points": [["a", 0, 0, 1]]}]}'],
)
def test_malformed_drawing_names_the_field(text: str) -> None:
    with pytest.raises(ValueError, match="^drawing: .*draw again"):
        tracks_from_drawing(text, 33)


def test_place_off_the_picture_names_the_point() -> None:
    with pytest.raises(ValueError, match=r"tracks\[0\].points\[1\].x"):
        tracks_from_drawing(drawing([[0, 0.1, 0.2, 1], [9, 40, 0.2, 1]]), 33)


# ---- examples ----


def test_manifest_is_complete_and_exact() -> None:
    examples = load_examples()
    assert 3 <= len(examples) <= 4
    for example in examples:
        tracks = Tracks.load(example["tracks"])
        assert Image.open(example["image"]).size == (128, 128) and example["prompt"] and example["title"]
        assert tracks.num_frames in app.LENGTHS and tracks.to_array().visible.all()
        redrawn = tracks_from_drawing(drawing_from_tracks(tracks), tracks.num_frames)
        assert np.abs(redrawn.to_array().xy - tracks.to_array().xy).max() < 1e-4


def test_examples_show_the_clips_they_name() -> None:
    sprites = pytest.importorskip("ardrag.sprites")
    for example in load_examples():
        clip = sprites.make_clip(example["source"]["split"], example["source"]["index"])
        assert (np.asarray(Image.open(example["image"])) == clip.frames[0]).all() and example["prompt"] == clip.caption
        assert np.abs(Tracks.load(example["tracks"]).to_array().xy * 128 - clip.xy).max() < 0.02


# ---- handlers ----


def test_page_streams_every_latent_and_ends_with_files() -> None:
    pipe = FakePipe()
    picture = Image.new("RGB", (96, 64))
    drawn = drawing([[0, 0.1, 0.2, 1], [100, 0.9, 0.8, 1]])
    updates = list(app.generate_on_page(pipe, picture, drawn, "a star", 7, 17, 2, True))
    steps = [(pad.get("stream"), status) for pad, status, _, _ in updates]
    video, file = updates[-1][2:]
    assert [len(stream["frames"]) for stream, _ in steps[:-1]] == [1, 5, 9, 13, 17]
    assert len({stream["clip"] for stream, _ in steps[:-1]}) == 1 and steps[0][0]["total"] == 17
    assert all(url.startswith("data:image/webp;base64,") for url in steps[0][0]["frames"])
    assert "17 of 17 frames" in steps[-1][1] and "first frame after" in steps[-1][1] and "seed 7" in steps[-1][1]
    assert pipe.settings["num_inference_steps"] == 2 and pipe.settings["seed"] == 7
    assert not Path(video).exists(), "the temporary folder must be gone once Gradio has its copy"
    assert file["value"].endswith("ardrag-7.tracks.json")


def test_files_hold_the_drawing_and_how_to_repeat_it() -> None:
    drawn = drawing([[0, 0.1, 0.2, 1], [100, 0.9, 0.8, 1]])
    run = app.generate_on_page(FakePipe(), Image.new("RGB", (96, 64)), drawn, "a star", 7, 17, 2, True)
    *_, (_, _, video, file) = itertools.islice(run, 6)  # the generator waits at its last yield
    tracks = Tracks.load(file["value"])
    assert tracks.source == {"tool": "ardrag-app", "prompt": "a star", "seed": 7, "steps": 2}
    assert tracks.tracks[0].points[-1][:3] == (16, 0.9, 0.8)
    assert Path(video).stat().st_size > 500
    run.close()
    assert not Path(video).exists()


def test_cancelling_stops_before_the_next_latent() -> None:
    pipe = FakePipe()
    run = app.generate_on_page(pipe, Image.new("RGB", (96, 64)), "", "", 0, 65, 3, False)
    next(run), next(run)
    run.close()
    assert pipe.made == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"picture": None}, "image: there is none yet"),
        ({"drawing": "{"}, "drawing: "),
        ({"seed": None}, "seed: None is not a whole number"),
        ({"seed": 1.5}, "seed: 1.5"),
        ({"num_frames": 18}, "num_frames is 18"),
        ({"steps": 0}, "num_inference_steps: 0"),
    ],
)
def test_errors_of_the_page_are_messages(change: dict[str, Any], message: str) -> None:
    usual = {"picture": Image.new("RGB", (96, 64)), "drawing": "", "prompt": "", "seed": 0, "num_frames": 17}
    values = {**usual, "steps": 3, "draw": False, **change}
    handler = functools.partial(app.generate_on_page, FakePipe())
    assert [text[:9] for text in visible_errors(handler, str)(*values.values())] == ["**Error**"]
    with pytest.raises(gr.Error) as caught:
        list(visible_errors(handler)(*values.values()))
    assert message in caught.value.message and not caught.value.print_exception


def test_bad_picture_is_a_message_without_the_servers_paths(tmp_path: Path) -> None:
    bad = tmp_path / "notes.png"
    bad.write_text("not a picture")
    with pytest.raises(gr.Error) as caught:
        visible_errors(functools.partial(app.show_picture, FakePipe()))(str(bad))
    assert caught.value.message.startswith("image: notes.png is not a readable picture")


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1", "I;16", "CMYK"])
def test_every_kind_of_picture_is_fitted(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("p.tif" if mode == "CMYK" else "p.png")
    Image.new(mode, (300, 200)).save(path)
    picture, pad, _ = app.show_picture(FakePipe(), str(path))
    assert picture.mode == "RGB" and picture.size == (96, 64)
    assert (pad["picture"]["width"], pad["picture"]["height"]) == (96, 64) and pad["value"] == ""


def test_photographs_are_shown_upright(tmp_path: Path) -> None:
    photo = Image.new("RGB", (40, 80))
    photo.paste((255, 0, 0), (0, 0, 40, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    photo.save(tmp_path / "p.jpg", exif=exif, quality=95)
    picture = app.fitted_picture(FakePipe(), str(tmp_path / "p.jpg"))
    assert picture.getpixel((90, 32))[0] > 200 > 60 > picture.getpixel((5, 32))[0]


def test_endpoint_takes_tracks_as_text(tmp_path: Path) -> None:
    Image.new("L", (50, 50)).save(tmp_path / "p.png")
    tracks = Tracks.from_points([[(0, 0.1, 0.1), (16, 0.9, 0.9)]], num_frames=17)
    run = app.generate(FakePipe(), str(tmp_path / "p.png"), tracks.to_json(), "", 3, 17, 2)
    video, text = next(run)
    assert Path(video).is_file() and Tracks.from_json(text) == tracks
    run.close()
    for given, message in ((None, "image: there is none"), (str(tmp_path / "no.png"), "cannot be opened")):
        with pytest.raises(ValueError, match=message):
            next(app.generate(FakePipe(), given, "", "", 3, 17, 2))
    with pytest.raises(ValueError, match="not JSON"):
        next(app.generate(FakePipe(), str(tmp_path / "p.png"), "{", "", 3, 17, 2))


def test_words() -> None:
    assert progress_text(1, 33, 0.444, 0, 0.0) == "**1 of 33 frames** | first frame after 0.44 s"
    assert progress_text(5, 33, 0.5, 4, 0.25).endswith("| 16.0 frames/s")
    assert whole(3.0, "seed") == 3
    for bad in (True, "3", math.nan, math.inf):
        with pytest.raises(ValueError, match="^seed: "):
            whole(bad, "seed")


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    options = app.parse_arguments([])
    assert (options.model, options.host, options.port, options.share) == (str(BUNDLED_CHECKPOINT), None, None, False)
    options = app.parse_arguments(["--model", "user/x", "--host", "0.0.0.0", "--port", "80", "--share"])
    assert (options.model, options.host, options.port, options.share) == ("user/x", "0.0.0.0", 80, True)
    with pytest.raises(SystemExit):
        app.parse_arguments(["--port", "eighty"])
    assert "--port" in capsys.readouterr().err


def test_unknown_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="app.py: model: .* does not exist"):
        app.main(["--model", str(tmp_path / "nothing")])


def test_page_has_one_public_endpoint() -> None:
    named = app.build_page(FakePipe()).get_api_info()["named_endpoints"]
    assert list(named) == ["/generate"]
    names = [entry["parameter_name"] for entry in named["/generate"]["parameters"]]
    assert names == ["image", "tracks", "prompt", "seed", "num_frames", "steps"]


# ---- the page in Chromium ----


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A running Space on the bundled checkpoint."""
    if not (BUNDLED_CHECKPOINT / "model_index.json").is_file():
        pytest.skip(f"no bundled checkpoint in checkpoints/{BUNDLED_CHECKPOINT.name}")
    page = app.build_page(ARDragPipeline.from_pretrained(BUNDLED_CHECKPOINT)).queue()
    _, url, _ = page.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **app.LOOK)
    yield url
    page.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless browser: the system's Chromium, or the one that playwright installed."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync.sync_playwright() as engine:
        try:
            browser = engine.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        except sync.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}; run playwright install chromium")
        yield browser
        browser.close()


@pytest.fixture
def page(address: str, chromium: Any) -> Iterator[Any]:
    """The page, loaded; fails afterwards if anything was written to the console as an error."""
    tab = chromium.new_page(viewport={"width": 1200, "height": 900})
    tab.set_default_timeout(120_000)
    errors: list[str] = []
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(address)
    tab.wait_for_selector("#examples button")
    yield tab
    tab.close()
    assert errors == []


def picture_file(path: Path, size: tuple[int, int] = (200, 120)) -> Path:
    Image.linear_gradient("L").resize(size).save(path)
    return path


def draw(page: Any, *corners: tuple[float, float]) -> None:
    """Drag over the pad along corners in 0..1."""
    box = page.locator("#pad canvas").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()


def downloaded_tracks(page: Any) -> Tracks:
    page.wait_for_selector("#video video")
    with page.expect_download() as download:
        page.click("#tracks")
    return Tracks.load(download.value.path())


@pytest.mark.browser
def test_example_runs_with_one_click(page: Any) -> None:
    page.click("#examples button >> nth=0")
    page.wait_for_function("Number(document.querySelector('#pad canvas').dataset.frame) >= 0")
    page.wait_for_selector("#video video")
    assert "33 of 33 frames" in page.inner_text("#status")
    source = page.get_attribute("#video video", "src")
    answer = page.request.get(source)
    assert answer.ok and b"ftyp" in answer.body()[:16]
    page.wait_for_function("document.querySelector('#pad canvas').dataset.frame === '32'")


@pytest.mark.browser
def test_drawn_path_reaches_the_tracks(page: Any, tmp_path: Path) -> None:
    page.set_input_files("#picture-upload input[type=file]", picture_file(tmp_path / "p.png"))
    page.wait_for_selector("#pad .pad-empty", state="hidden")
    draw(page, (0.2, 0.3), (0.5, 0.3), (0.75, 0.65))
    draw(page, (0.8, 0.1), (0.9, 0.4))
    assert page.inner_text("#pad .pad-hint").startswith("2 paths")
    page.click("#pad [data-act=undo]")
    page.get_by_label("17", exact=True).check()
    page.click("#generate")
    tracks = downloaded_tracks(page)
    assert tracks.num_frames == 17 and len(tracks.tracks) == 1 and tracks.source["seed"] == 0
    first, *_, last = tracks.tracks[0].points
    assert first.f == 0 and last.f == 16
    assert abs(first.x - 0.2) < 0.02 and abs(first.y - 0.3) < 0.02
    assert abs(last.x - 0.75) < 0.02 and abs(last.y - 0.65) < 0.02


@pytest.mark.browser
def test_keyboard_draws_too(page: Any, tmp_path: Path) -> None:
    page.set_input_files("#picture-upload input[type=file]", picture_file(tmp_path / "p.png"))
    page.wait_for_selector("#pad .pad-empty", state="hidden")
    page.focus("#pad canvas")
    for key in ("ArrowRight", "Enter", "Shift+ArrowRight", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    assert page.inner_text("#pad .pad-hint").startswith("1 path.")


@pytest.mark.browser
def test_bad_upload_shows_a_message(page: Any, tmp_path: Path) -> None:
    bad = tmp_path / "broken.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n but nothing else")
    page.set_input_files("#picture-upload input[type=file]", bad)
    page.get_by_text("broken.png is not a readable picture").wait_for()
    page.click("#generate")
    page.get_by_text("image: there is none yet").wait_for()
    page.wait_for_selector("#generate:enabled")


@pytest.mark.browser
def test_cancel_stops_and_frees_the_page(page: Any) -> None:
    """A clip long enough to be caught: an example alone is done in less time than a click takes."""
    page.click("#examples button >> nth=0")
    page.get_by_text("33 of 33 frames").wait_for()
    page.wait_for_selector("#generate:enabled")
    page.get_by_label("65", exact=True).check()
    page.get_by_role("spinbutton", name="Steps per latent").fill("16")
    page.keyboard.press("Tab")
    page.click("#generate")
    page.wait_for_selector("#cancel:enabled")
    page.click("#cancel")
    page.get_by_text("Cancelled.").wait_for()
    page.wait_for_selector("#generate:enabled")


@pytest.mark.browser
def test_phone_width_needs_no_sideways_scrolling(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#pad canvas").bounding_box()["width"] >= 280
