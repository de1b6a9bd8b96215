"""A running Space on the bundled checkpoint, and Chromium on it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app_assets.server import Limits, Space, launch
from pipelines.pipeline_ardrag import BUNDLED_CHECKPOINT, ARDragPipeline


SHOTS = Path(__file__).resolve().parents[2] / "docs" / "app"
"""Where screenshots go: artefacts of CI, and the pictures of the documentation."""


@pytest.fixture(scope="session")
def bundled() -> ARDragPipeline:
    return ARDragPipeline.from_pretrained(BUNDLED_CHECKPOINT)


@contextmanager
def running(pipeline: ARDragPipeline, rehearse: bool = False, **limits: Any) -> Iterator[str]:
    """A Space in this process; gives its address."""
    space = Space(pipeline, Limits(max_frames=97, **limits))
    if rehearse:
        space.rehearse()
    server, url = launch(space, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield url
    server.get_blocks().close()
    space.close()


@pytest.fixture(scope="session")
def address(bundled: ARDragPipeline) -> Iterator[str]:
    with running(bundled) as url:
        yield url


@pytest.fixture
def address_without_sockets(bundled: ARDragPipeline) -> Iterator[str]:
    with running(bundled, sockets=False) as url:
        yield url


@pytest.fixture(scope="session")
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
def open_page(address: str, chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens the page in a fresh context; fails afterwards if anything was written to the console as an error.

    ``broken`` is the address of a picture that comes damaged.
    """
    errors: list[str] = []
    contexts = []

    def opened(path: str = "", broken: str = "", **options: Any) -> Any:
        settings = {"viewport": {"width": 1200, "height": 940}, "accept_downloads": True, **options}
        contexts.append(chromium.new_context(**settings))
        tab = contexts[-1].new_page()
        tab.set_default_timeout(60_000)
        if broken:
            tab.route(broken, lambda route: route.fulfill(body=b"no picture", content_type="image/webp"))
        tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(path if path.startswith("http") else address + path)
        tab.wait_for_selector("html[data-ready=true]", state="attached")
        return tab

    opened.errors = errors
    yield opened
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def page(open_page: Callable[..., Any]) -> Any:
    return open_page()


def point(page: Any, x: float, y: float) -> tuple[float, float]:
    """A place of the canvas (0..1) on the screen."""
    box = page.locator("#pad").bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def drag(page: Any, *corners: tuple[float, float], steps: int = 12, pause: int = 25, release: bool = True) -> None:
    """Press, move along ``corners`` (0..1 of the canvas) at a human pace, let go."""
    page.mouse.move(*point(page, *corners[0]))
    page.mouse.down()
    for (ax, ay), (bx, by) in zip(corners, corners[1:], strict=False):
        for step in range(1, steps + 1):
            share = step / steps
            page.mouse.move(*point(page, ax + share * (bx - ax), ay + share * (by - ay)))
            page.wait_for_timeout(pause)
    if release:
        page.mouse.up()


def canvas_pixels(page: Any, selector: str = "#pad") -> np.ndarray:
    """What the canvas shows, ``[H, W, 3]``, as the browser painted it."""
    return np.asarray(Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("RGB"), np.float64)


def shot(page: Any, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")
