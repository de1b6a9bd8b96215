"""The page for human eyes and what it decides."""

import json

import pytest

from tests.training.curate.conftest import fill
from training.curate import store
from training.curate.review import apply_review, write_page


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path, {"a": "", "b": "static", "c": "unreadable or damaged"})
    return tmp_path


def decide(folder, decisions, schema="ardrag.review/v1"):
    (folder / "decisions.json").write_text(json.dumps({"schema": schema, "decisions": decisions}))
    apply_review(folder, folder / "decisions.json")


def test_the_page_shows_every_clip_and_no_more_than_text(folder):
    page = write_page(folder).read_text()
    assert page.count("<article") == 3 and "1 kept, 2 dropped" in page and "@" not in page.split("<main>")[1]
    assert "&lt;b&gt;bold&lt;/b&gt;" in page and "<b>bold</b>" not in page
    assert (folder / "sheets" / "a.jpg").read_bytes() == b"sheet" and not (folder / "sheets" / "c.jpg").exists()
    assert "http" not in page.replace("http://www.w3.org", ""), "nothing is fetched"


def test_decisions_are_applied_and_add_up(folder):
    decide(folder, {"a": "reject"})
    decide(folder, {"b": "accept"})
    assert store.read_review(folder) == {"a": "reject", "b": "accept"}
    drops = {row["id"]: row["drop"] for row in store.read_rows(folder)}
    assert drops == {"a": "rejected by a person", "b": "", "c": "unreadable or damaged"}
    assert '"a": "reject"' in write_page(folder).read_text()


@pytest.mark.parametrize(
    ("decisions", "schema", "message"),
    [
        ({"z": "accept"}, "ardrag.review/v1", "says accept of z, which is no clip"),
        ({"a": "perhaps"}, "ardrag.review/v1", "says perhaps of a"),
        ({"c": "accept"}, "ardrag.review/v1", "accepts c, which could not be read"),
        ({}, "something", "cannot be read .*its schema is not ardrag.review/v1"),
        (None, "ardrag.review/v1", "cannot be read"),
    ],
)
def test_a_wrong_review_changes_nothing(folder, decisions, schema, message):
    with pytest.raises(ValueError, match=f"review: .*{message}"):
        decide(folder, decisions, schema)
    assert not (folder / "review.json").exists()
    with pytest.raises(ValueError, match="review: .*none.json cannot be read"):
        apply_review(folder, folder / "none.json")
