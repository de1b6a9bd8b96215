"""The page on which a person accepts and rejects curated clips, from the disk, in a real browser."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.training.curate.conftest import fill
from training.curate import store
from training.curate.__main__ import main
from training.curate.review import write_page


pytestmark = pytest.mark.browser
DROPS = {"a": "", "b": "static", "c": "", "d": "unreadable or damaged"}


@pytest.fixture
def curated(tmp_path: Path) -> Path:
    """Four clips with pictures that a browser can show."""
    buffer, pixels = io.BytesIO(), np.full((96, 576, 3), 90, np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    folder = tmp_path / "my videos"
    folder.mkdir()
    fill(folder, DROPS, buffer.getvalue())
    write_page(folder)
    return folder


@pytest.fixture
def page(chromium: Any, curated: Path) -> Iterator[Any]:
    """The page as a double click opens it; nothing may be asked of a network, or go wrong."""
    wrong: list[str] = []
    context = chromium.new_context(accept_downloads=True)
    tab = context.new_page()
    tab.set_default_timeout(60_000)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("request", lambda asked: None if asked.url.startswith(("file:", "blob:")) else wrong.append(asked.url))
    tab.goto((curated / "review.html").as_uri())
    yield tab
    context.close()
    assert wrong == []


def card(page: Any, name: str) -> Any:
    return page.locator(f"article[id='{name}']")


def decided(page: Any) -> dict[str, str]:
    """What the cards show of the decisions."""
    shown = page.locator("article").evaluate_all("cards => cards.map(card => [card.id, card.className])")
    return {name: decision for name, decision in shown if decision}


def saved(page: Any, folder: Path) -> Path:
    with page.expect_download() as download:
        page.locator("#save").click()
    assert download.value.suggested_filename == "decisions.json"
    download.value.save_as(folder / "decisions.json")
    return folder / "decisions.json"


def test_keys_and_clicks_decide_and_the_command_applies_them(page: Any, curated: Path, capsys: Any) -> None:
    assert page.locator("article").count() == 4
    assert (
        card(page, "a").locator("img").evaluate("picture => picture.decode().then(() => picture.naturalWidth)") == 576
    )
    for key in ("j", "r", "a"):  # the first card; it is rejected, and the next comes; that is accepted
        page.keyboard.press(key)
    card(page, "c").locator("button[data-decision=reject]").click()
    assert decided(page) == {"a": "reject", "b": "accept", "c": "reject"}
    assert page.locator("#count").inner_text() == "1 accepted, 2 rejected"
    decisions = saved(page, curated.parent)
    assert json.loads(decisions.read_text())["decisions"] == {"a": "reject", "b": "accept", "c": "reject"}
    assert main(["--output_dir", str(curated), "--review", str(decisions)]) == 0
    assert "1 clips kept" in capsys.readouterr().out
    kept = {row["id"]: row["drop"] for row in store.read_rows(curated)}
    assert kept == {**dict.fromkeys("ac", "rejected by a person"), "b": "", "d": "unreadable or damaged"}


def test_a_decision_can_be_taken_back_and_outlives_the_page(page: Any, curated: Path) -> None:
    for key in ("j", "r", "k", "u", "j", "a"):  # back to the first, undone; the second accepted
        page.keyboard.press(key)
    card(page, "c").locator("button[data-decision=accept]").click()
    card(page, "c").locator("button[data-decision=accept]").click()  # once more: none
    assert decided(page) == {"b": "accept"}
    page.reload()
    assert decided(page) == {"b": "accept"}, "the browser remembers"
    assert card(page, "b").locator("button[data-decision=accept]").get_attribute("aria-pressed") == "true"
    decisions = saved(page, curated.parent)
    assert main(["--output_dir", str(curated), "--review", str(decisions)]) == 0
    page.evaluate("localStorage.clear()")
    page.reload()
    assert decided(page) == {"b": "accept"}, "so does the page that the command wrote"


def test_only_what_is_asked_for_is_shown(page: Any) -> None:
    shown = {}
    card(page, "b").locator("button[data-decision=accept]").click()
    for choice in ("kept", "dropped", "open", "all"):
        page.locator("#show").select_option(choice)
        shown[choice] = [name for name in "abcd" if card(page, name).is_visible()]
    assert shown == {"kept": ["a", "c"], "dropped": ["b", "d"], "open": ["a", "c", "d"], "all": list("abcd")}
