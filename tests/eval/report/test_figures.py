"""Pictures of a report are written and show what they should."""

import numpy as np
import pytest
from PIL import Image

from eval.benchmark.videos import probe
from eval.report.figures import (
    LABEL_HEIGHT,
    contact_sheet,
    drawn,
    error_over_time,
    labelled,
    latency_quality,
    side_by_side,
)
from eval.suites.sprites import SpriteSuite
from pipelines.video import POINT_COLOUR


@pytest.fixture
def summary():
    found = {"mean": 2.0, "low": 1.0, "high": 3.0}
    speed = {"first_seconds": {"median": 0.2}}
    curves = {"path_error": [0, 1.0, None, 2.0], "identity": [None, 0.9, 0.8, 0.7]}
    timed = {"distances": {"fvd": found}, "values": {"path_error": found}, "speed": speed}
    return {"ours": {**timed, "latents": curves, "long": {"path_error": [0, 1.0, 1.0]}}}


def test_plots(summary, tmp_path):
    assert latency_quality(summary, tmp_path / "a.png", "-sprite")
    error_over_time(summary, tmp_path / "b.png")
    assert min(Image.open(tmp_path / name).width for name in ("a.png", "b.png")) > 800
    summary["ours"]["speed"]["first_seconds"] = None
    assert not latency_quality(summary, tmp_path / "c.png", "") and not (tmp_path / "c.png").exists()


def test_sheet_and_video(tmp_path):
    case = SpriteSuite().case(0, 9)
    frames = drawn(case, case.truth)
    assert (frames[4] == np.array(POINT_COLOUR)).all(-1).any()
    sheet = contact_sheet([("truth", frames), ("again", frames)])
    assert sheet.size == (2 * 128, 2 * (128 + LABEL_HEIGHT))
    side_by_side([("truth", frames), ("again", frames)], tmp_path / "v.mp4")
    assert probe(tmp_path / "v.mp4") == (9, 128 + LABEL_HEIGHT, 256)


def test_labels_are_above_the_picture():
    picture = np.full((8, 60, 3), 40, np.uint8)
    found = labelled(picture, "name")
    assert (found[LABEL_HEIGHT:] == picture).all() and found[:LABEL_HEIGHT].max() > 200
