"""A page for human eyes (appendix B.1's check): kept and dropped clips with their tracks, accepted or rejected by key.

The page is one HTML file beside a folder of pictures; it works from the disk, keeps its state in the browser and saves
a JSON file that `apply_review` reads.
"""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from training.curate.store import read_review, read_rows, write_json, write_whole


SCHEMA = "ardrag.review/v1"
DECISIONS = ("accept", "reject")
TEMPLATE = Path(__file__).with_name("review.html")


def write_page(folder: Path) -> Path:
    """Write ``review.html`` and its pictures; returns the page."""
    cards, count = [], 0
    for row in read_rows(folder, ["id", "source", "caption", "start", "frames", "fps", "drop", "scores", "sheet"]):
        picture = folder / "sheets" / f"{row['id']}.jpg"
        if row["sheet"] and not picture.exists():
            write_whole(picture, lambda path, data=row["sheet"]: path.write_bytes(data))
        cards.append(card(row))
        count += not row["drop"]
    page = TEMPLATE.read_text(encoding="utf-8")
    values = {"@NAME@": html.escape(folder.name), "@KEPT@": str(count), "@DROPPED@": str(len(cards) - count)}
    values |= {"@REVIEW@": json.dumps(read_review(folder)).replace("<", "\\u003c"), "@CARDS@": "\n".join(cards)}
    for name, value in values.items():
        page = page.replace(name, value)
    target = folder / "review.html"
    write_whole(target, lambda path: path.write_text(page, encoding="utf-8"))
    return target


def card(row: dict[str, Any]) -> str:
    """One clip as HTML."""
    name, drop = html.escape(row["id"]), html.escape(row["drop"])
    scores = ", ".join(f"{key} {value:.3g}" for key, value in row["scores"])
    place = f"{row['source']} at {row['start']:.2f} s, {row['frames']} frames, {row['fps']:.3g} a second"
    sheet = '<p class="none">nothing to see</p>'
    if row["sheet"]:
        sheet = f'<img src="sheets/{name}.jpg" loading="lazy" height="96" alt="six frames with tracks">'
    verdict = f"dropped: {drop}" if drop else "kept"
    return (
        f'<article tabindex="0" id="{name}" data-drop="{drop}" aria-label="{name}, {verdict}">{sheet}'
        f'<p><b class="{"dropped" if drop else "kept"}">{verdict}</b> {html.escape(place)}</p>'
        f"<p>{html.escape(row['caption'])}</p><p class='scores'>{html.escape(scores)}</p>"
        '<button data-decision="accept" aria-pressed="false">accept</button>'
        '<button data-decision="reject" aria-pressed="false">reject</button></article>'
    )


def apply_review(folder: Path, file: Path) -> None:
    """Take over what a person decided on the page; earlier decisions on other clips stay.

    Raises:
        ValueError: if the file is no review, names a clip that is not there, or accepts one that has no picture.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        decisions = document["decisions"]
        if document["schema"] != SCHEMA or not isinstance(decisions, dict):
            raise ValueError(f"its schema is not {SCHEMA}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"review: {file} cannot be read ({error}); save one with review.html") from error
    rows = {
        row["id"]: row["frames"] and row["height"] for row in read_rows(folder, ["id", "frames", "height", "drop"])
    }
    for name, decision in decisions.items():
        if name not in rows or decision not in DECISIONS:
            raise ValueError(f"review: {file} says {decision} of {name}, which is no clip of {folder}, or no decision")
        if decision == "accept" and not rows[name]:
            raise ValueError(f"review: {file} accepts {name}, which could not be read; leave it out")
    write_json(folder / "review.json", {**read_review(folder), **decisions})
