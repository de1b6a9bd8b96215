"""The Space in a real browser: what a visitor does, and what they see."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image, ImageDraw

from app_assets.pictures import load_examples
from ardrag.tracks.tracks import Tracks
from tests.browser.conftest import canvas_pixels, drag, point, running, shot


pytestmark = pytest.mark.browser
BALL, BALL_COLOUR = (40, 64), (235, 60, 60)


@pytest.fixture
def ball(tmp_path: Path) -> Path:
    """A red ball on a soft background: what the checkpoint knows, and a colour that is easy to find again."""
    shade = np.linspace(90, 150, 128)
    picture = Image.fromarray(np.stack([shade[:, None].repeat(128, 1)] * 3, axis=2).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((BALL[0] - 14, BALL[1] - 14, BALL[0] + 14, BALL[1] + 14), fill=BALL_COLOUR)
    picture.save(tmp_path / "ball.png")
    return tmp_path / "ball.png"


def where_red(pixels: np.ndarray) -> tuple[float, float]:
    """Centre of what is red, in pixels of 128."""
    red = np.clip(pixels[..., 0] - pixels[..., 1:].max(2) - 30, 0, None)
    rows, columns = np.mgrid[: red.shape[0], : red.shape[1]]
    return tuple(float((red * at).sum() / red.sum() / red.shape[0] * 128) for at in (columns + 0.5, rows + 0.5))


def choose(page: Any, picture: Path) -> None:
    page.set_input_files("#upload", picture)
    page.get_by_text("Drag on the picture.").wait_for()


def frame_of(page: Any) -> int:
    return int(page.locator("#pad").get_attribute("data-frame"))


def wait_frame(page: Any, frame: int) -> None:
    page.wait_for_function("frame => Number(document.querySelector('#pad').dataset.frame) >= frame", arg=frame)


def last_frame(page: Any) -> int:
    return int(page.locator("#scrub").get_attribute("max"))


def wait_still(page: Any) -> None:
    """Until nothing more is made or played."""
    before, same = None, 0
    while same < 4:  # a busy machine may take a second for a latent
        now = (frame_of(page), last_frame(page))
        same, before = same + 1 if now == before else 0, now
        page.wait_for_timeout(700)


def test_start(page: Any) -> None:
    assert page.locator("#examples button").count() == len(load_examples())
    assert page.is_disabled("#stop") and page.is_disabled("#play")
    shot(page, "start")


def test_the_first_example_plays_once_by_itself(open_page: Any, bundled: Any) -> None:
    with running(bundled, rehearse=True) as url:
        page = open_page(url)
        page.wait_for_selector("#trailer:visible")
        assert "Now drag yourself" in page.inner_text("#status")
        shot(page, "trailer")
        page.wait_for_selector("#trailer", state="hidden")
        assert page.is_hidden("#empty") and page.inner_text("#frame") == "–", "the picture is there; nothing was made"
        quiet = open_page(url, reduced_motion="reduce")
        assert quiet.is_visible("#empty") and quiet.is_hidden("#trailer")
        without = open_page(url, broken="**/trailer.webp")
        assert without.is_visible("#empty"), "the page waits for a picture whether the trailer can be shown or not"


def test_example_runs_with_one_click_to_a_finished_mp4(page: Any, tmp_path: Path) -> None:
    page.click("#examples button >> nth=1")
    page.wait_for_selector('#pad[data-frame="32"]')
    assert "Done: 33 frames" in page.inner_text("#status")
    assert re.search(r"first frame \d+ ms", page.inner_text("#hud"))
    page.click("#save")
    page.get_by_text("ardrag-0.video.mp4").wait_for()
    for name, check in (("video.mp4", lambda p: len(iio.imread(p)) == 33), ("tracks.json", Tracks.load)):
        with page.expect_download() as download:
            page.get_by_text(name).click()
        download.value.save_as(tmp_path / name)
        assert check(tmp_path / name)
    page.click("#side")
    page.wait_for_selector("#sides figure")
    shot(page, "finished")


def test_drawn_path_reaches_the_server_with_its_times_and_the_sprite_goes_there(
    page: Any, ball: Path, tmp_path: Path
) -> None:
    choose(page, ball)
    page.click("[data-tool=path]")
    goal = (0.7, 0.6)
    drag(page, (BALL[0] / 128, BALL[1] / 128), goal)
    assert "1. path" in page.inner_text("#tracks")
    shot(page, "drawing")
    page.fill("#prompt", "a red circle moves right on a gradient background")
    page.click("#go")
    page.wait_for_selector('#pad[data-frame="32"]')
    page.click("#save")
    with page.expect_download() as download:
        page.get_by_text("tracks.json").click()
    tracks = Tracks.load(download.value.path())
    assert tracks.num_frames == 33 and len(tracks.tracks) == 1 and tracks.source["seed"] == 0
    xy = tracks.to_array().xy[:, 0]
    assert np.abs(xy[0] - np.array(BALL) / 128).max() < 0.02 and np.abs(xy[-1] - goal).max() < 0.02
    assert (np.diff(xy[:, 0]) > -1e-3).all()
    page.click("#clear")
    found = where_red(canvas_pixels(page))
    assert np.hypot(found[0] - goal[0] * 128, found[1] - goal[1] * 128) <= 8, found


def test_live_drag_changes_the_video_that_is_playing(page: Any, ball: Path) -> None:
    choose(page, ball)
    start = (BALL[0] / 128, BALL[1] / 128)
    drag(page, start, (0.55, 0.5), steps=20, pause=50, release=False)
    wait_frame(page, 4)
    shot(page, "live")
    first = where_red(canvas_pixels(page))
    drag_on = [(0.55, 0.5), (0.62, 0.62)]
    for i in range(1, 21):
        share = i / 20
        x, y = (a + share * (b - a) for a, b in zip(*drag_on, strict=True))
        page.mouse.move(*point(page, x, y))
        page.wait_for_timeout(50)
    page.mouse.up()
    wait_still(page)
    last = where_red(canvas_pixels(page))
    assert np.hypot(last[0] - 0.62 * 128, last[1] - 0.62 * 128) <= 8, (first, last)
    assert last[0] > BALL[0] + 20, "it did not follow at all"
    hud = page.inner_text("#hud")
    assert re.search(r"first frame \d+ ms", hud) and re.search(r"lag \d+ frames", hud), hud
    assert last_frame(page) > 8


def test_pause_rewind_branch_and_compare(page: Any, ball: Path) -> None:
    choose(page, ball)
    drag(page, (BALL[0] / 128, BALL[1] / 128), (0.6, 0.5), steps=20, pause=50)
    wait_still(page)
    made = last_frame(page)
    page.focus("#pad")
    page.keyboard.press("Space")
    wait_frame(page, made + 4)
    page.keyboard.press("Space")
    wait_still(page)
    longer = last_frame(page)
    page.wait_for_timeout(800)
    assert last_frame(page) == longer > made, "paused, and still frames came"
    page.focus("#scrub")
    page.keyboard.press("Home")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert frame_of(page) == 4
    page.click("#branch")
    page.get_by_text("Take 2").wait_for()
    assert last_frame(page) == 4
    page.click("text=Compare 1")
    page.wait_for_selector("#other")
    page.click("text=Take 1")
    assert last_frame(page) == longer
    page.focus("#scrub")
    page.keyboard.press("Home")
    page.click("#rewind")
    page.wait_for_function("() => document.querySelector('#scrub').max === '0'")


def test_press_on_an_earlier_frame_keeps_the_take(page: Any) -> None:
    page.click("#examples button >> nth=1")
    page.wait_for_selector('#pad[data-frame="32"]')
    page.focus("#scrub")
    page.keyboard.press("Home")
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    drag(page, (0.3, 0.3), (0.5, 0.5))
    page.get_by_text("Take 2").wait_for()
    wait_still(page)
    page.click("text=Take 1")
    assert last_frame(page) == 32


def test_cancel_frees_the_page(page: Any) -> None:
    page.click("#examples button >> nth=0")
    page.wait_for_selector('#pad[data-frame="32"]')
    page.select_option("#frames", "97")
    page.fill("#steps", "64")
    page.click("#go")
    page.wait_for_selector("#stop:enabled")
    wait_frame(page, 1)
    page.click("#stop")
    page.get_by_text("Cancelled after").wait_for()
    page.wait_for_selector("#go:enabled")
    assert last_frame(page) < 96


def test_export_and_import_give_the_same_drawing(open_page: Any, ball: Path, tmp_path: Path) -> None:
    page = open_page()
    choose(page, ball)
    page.click("[data-tool=path]")
    drag(page, (0.2, 0.2), (0.6, 0.3), (0.7, 0.8))
    page.click("[data-tool=pin]")
    page.mouse.click(*point(page, 0.9, 0.1))
    page.click("#camera summary")
    page.fill("#pan-x", "5")
    page.fill("#key-f", "32")
    page.click("#key-set")
    with page.expect_download() as download:
        page.click("#export")
    path = tmp_path / "d.json"
    download.value.save_as(path)
    tracks = Tracks.load(path)
    assert [track.kind for track in tracks.tracks] == ["drag", "static"] and len(tracks.camera.keys) == 2
    page.click("#clear")
    assert page.locator("#tracks li").count() == 0
    page.set_input_files("#import", path)
    page.get_by_text("2 tracks over 33 frames").wait_for()
    assert page.locator("#tracks li").count() == 2 and page.locator("#keys li").count() == 2
    page.set_input_files("#import", ball)
    page.get_by_text("the track file is not JSON and in no format that is known").wait_for()
    assert page.locator("#tracks li").count() == 2, "a bad file must not take the drawing away"
    assert "422" in open_page.errors.pop(), "the browser notes each refusal"


def test_other_systems_tracks_are_imported_and_drawn(page: Any, ball: Path, tmp_path: Path) -> None:
    """Wan-Move's pixels are those of the picture; DragNUWA's paths take as long as the page's clip."""
    with Image.open(ball) as picture:
        size = picture.size
    drawn = Tracks.from_points([[(0, 0.25, 0.5), (16, 0.75, 0.5)]], num_frames=17, interp="linear")
    drawn.export(tmp_path / "a_tracks.npy", "wan_move", image_size=size)
    page.set_input_files("#import", tmp_path / "a_tracks.npy")
    page.get_by_text("choose the picture they belong to first").wait_for()
    choose(page, ball)
    page.set_input_files("#import", tmp_path / "a_tracks.npy")
    page.get_by_text("1 tracks over 17 frames").wait_for()
    page.click("[data-tool=edit]")
    page.click("#tracks button")
    assert (page.input_value("#point-x"), page.input_value("#point-y")) == ("25", "50")
    two = Tracks.from_points([[(0, 0.25, 0.5)], [(0, 0.2, 0.5), (5, 0.8, 0.5, 1, 0)]], num_frames=9)
    page.set_input_files("#import", two.export(tmp_path / "b_tracks.npy", "wan_move", image_size=size))
    page.get_by_text("2 tracks over 9 frames").wait_for()
    (tmp_path / "d.txt").write_text("[[[0, 0], [8, 8]], [[4, 4]]]")
    page.select_option("#frames", "33")
    page.set_input_files("#import", tmp_path / "d.txt")
    page.get_by_text("2 tracks over 33 frames").wait_for()


def test_points_are_edited_and_undone(page: Any, ball: Path) -> None:
    choose(page, ball)
    page.click("[data-tool=path]")
    drag(page, (0.2, 0.5), (0.8, 0.5))
    page.click("[data-tool=edit]")
    drag(page, (0.8, 0.5), (0.8, 0.9), steps=4)
    assert page.input_value("#point-y") == "90"
    page.fill("#track-start", "16")
    page.keyboard.press("Tab")
    assert "frames 16 to 32" in page.inner_text("#tracks")
    page.click("#undo")
    page.click("#undo")
    page.click("#tracks button")
    assert "frames 0 to 32" in page.inner_text("#tracks") and page.input_value("#point-y") == "50"
    page.click("#pin-background")
    assert page.locator("#tracks li").count() > 6
    page.click("#redo >> nth=0", force=True)
    shot(page, "edit")


def test_keyboard_alone(page: Any, ball: Path) -> None:
    choose(page, ball)
    page.focus("[data-tool=live]")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("[data-tool=path]", "aria-checked") == "true"
    page.focus("#pad")
    for key in ("ArrowLeft", "Enter", *["Shift+ArrowRight"] * 3, "ArrowDown", "Enter"):
        page.keyboard.press(key)
    assert "1. path" in page.inner_text("#tracks")
    page.keyboard.press("Control+z")
    assert page.locator("#tracks li").count() == 0
    page.focus("[data-tool=path]")
    page.keyboard.press("ArrowLeft")
    page.focus("#pad")
    page.keyboard.press("Enter")
    for _ in range(4):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Enter")
    wait_frame(page, 5)
    page.focus("#go")
    page.keyboard.press("Enter")
    page.wait_for_selector('#pad[data-frame="32"]')


def test_link_brings_the_drawing_back(page: Any, open_page: Any) -> None:
    page.click("#examples button >> nth=2")
    page.wait_for_selector('#pad[data-frame="32"]')
    page.fill("#seed", "5")
    page.click("#share")
    page.wait_for_function("() => location.hash.startsWith('#d=')")
    other = open_page(re.sub(r"^.*#", "#", page.url))
    assert other.input_value("#seed") == "5" and other.locator("#tracks li").count() == 1
    assert other.is_hidden("#empty"), "the link names an example, its picture must be there"
    broken = open_page("#d=xyz")
    broken.get_by_text("link: it carries no drawing").wait_for()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("notes.png", b"not a picture", "notes.png is not a readable picture"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.svg is not a readable picture"),
        ("big.png", b"0" * (21 << 20), "big.png has more than 20 MB"),
    ],
)
def test_bad_pictures_get_a_sentence(open_page: Any, tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    page = open_page()
    (tmp_path / name).write_bytes(content)
    page.set_input_files("#upload", tmp_path / name)
    page.get_by_text(reason).wait_for()
    page.click("#go")
    page.get_by_text("image: there is none yet").wait_for()
    open_page.errors[:] = [text for text in open_page.errors if "422" not in text]  # the browser notes each refusal


def test_wrong_fields_are_named(page: Any, ball: Path) -> None:
    choose(page, ball)
    page.fill("#seed", "")
    page.click("#go")
    page.get_by_text("seed: type a whole number").wait_for()
    page.fill("#seed", "1")
    page.fill("#steps", "900")
    page.click("#go")
    page.get_by_text("steps: type a whole number from 1 to 64").wait_for()


def test_without_sockets_it_is_the_same(open_page: Any, address_without_sockets: str, ball: Path) -> None:
    page = open_page(address_without_sockets)
    page.click("#examples button >> nth=1")
    page.wait_for_selector('#pad[data-frame="32"]')
    choose(page, ball)
    drag(page, (BALL[0] / 128, BALL[1] / 128), (0.6, 0.5), steps=20, pause=50)
    wait_frame(page, 5)
    wait_still(page)
    assert where_red(canvas_pixels(page))[0] > BALL[0] + 15


def test_phone_width_needs_no_sideways_scrolling(open_page: Any, ball: Path) -> None:
    page = open_page(viewport={"width": 360, "height": 740}, has_touch=True)
    choose(page, ball)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    assert page.locator("#pad").bounding_box()["width"] >= 280
    drag(page, (BALL[0] / 128, BALL[1] / 128), (0.6, 0.5))
    wait_frame(page, 2)
    shot(page, "phone")


def test_dark(open_page: Any) -> None:
    page = open_page(color_scheme="dark")
    page.click("#examples button >> nth=3")
    page.wait_for_selector('#pad[data-frame="32"]')
    colour = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", colour))) < 150
    shot(page, "dark")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(open_page: Any, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = open_page(color_scheme=scheme, bypass_csp=True)  # axe is put into the page as a script
    page.click("#examples button >> nth=0")
    page.wait_for_selector('#pad[data-frame="32"]')
    for summary in page.locator("details:not([open]) > summary").all():
        summary.click()
    page.click("#tracks button >> nth=0")
    found = axe.Axe().run(page).response["violations"]
    grave = [item for item in found if item["impact"] in ("serious", "critical")]
    serious = {item["id"]: item["nodes"][0]["html"][:120] for item in grave}
    assert not serious, json.dumps(serious, indent=1)
    assert page.evaluate("() => document.querySelectorAll('[tabindex]').length") < 12


def test_a_model_that_makes_clips_at_once(open_page, make_pipeline):
    """No live drag; a path, progress, and then the video plays."""
    at_once = {"mode": "bidirectional", "sigmas": None, "num_inference_steps": 24, "eta": 0.0}
    with running(make_pipeline(scheduler=at_once)) as address:
        page = open_page(address)
        assert page.locator('[data-tool="live"]').is_hidden() and page.locator("#branch").is_hidden()
        assert "press Generate" in page.locator("#lead").inner_text()
        page.locator("#examples button").first.click()
        page.locator("#status", has_text="Done: 33 frames").wait_for()
        page.locator('#pad[data-frame="32"]').wait_for()
        drag(page, (0.2, 0.2), (0.6, 0.7))
        assert page.locator("#tracks li").count() > 0
