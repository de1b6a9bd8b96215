"""The sheet of photographs: what is asked of each, and a page with all of them whatever their shapes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ardrag.tracks.schema import GROUND
from ardrag.worlds.photo_library import open_library
from eval.report import contact_sheet
from eval.report.contact_sheet import COLUMNS, MARGIN, SHEET, SHOWN, drawn, page, photograph


def test_a_drag_goes_from_the_first_frame_to_the_last():
    tracks = drawn({"drags": [[[0.2, 0.3], [0.6, 0.4]]], "brush": 0.2}, 17, 640, 384)
    xy, visible, _ = tracks.to_array()
    np.testing.assert_allclose(xy[[0, 16], 0], [[0.2, 0.3], [0.6, 0.4]], atol=1e-6)
    assert visible.all() and tracks.brushes() == (0.2,) and tracks.num_frames == 17


def test_a_camera_has_pins_that_end_where_it_ends():
    tracks = drawn({"camera": {"pan": [0.1, 0], "zoom": 1.2}}, 17, 640, 384)
    xy, _, _ = tracks.to_array()
    assert set(tracks.brushes()) == {GROUND}
    np.testing.assert_allclose(xy[16], (xy[0] - 0.5) * 1.2 + 0.5 + np.array([0.1, 0]), atol=1e-5)


def test_every_row_is_as_high_as_it_must_be():
    strips = [
        np.full((height, width, 3), value, np.uint8)
        for value, (height, width) in enumerate([(4, 20), (9, 12), (6, 8)])
    ]
    made = page(strips)
    assert made.shape == (9 + 6 + 2 * MARGIN, COLUMNS * (20 + MARGIN), 3)
    assert (made[:4, :20] == 0).all() and (made[:9, 24:36] == 1).all() and (made[13:19, :8] == 2).all()
    assert (made[4:13, :20] == 255).all()


def test_the_sheets_own_drags_are_understood_and_credited():
    entries = json.loads(SHEET.read_text())
    assert len(entries) == 12 == len({entry["file"] for entry in entries})
    for entry in entries:
        tracks = drawn(entry, 33, 640, 384)
        assert tracks.to_array().xy.shape[1] and entry["credit"] and entry["about"]


def test_a_photograph_that_is_not_held_out_is_refused(picture_folder):
    library = open_library(picture_folder)
    assert photograph(library, "1.png").size == tuple(library.choose("photo", "test")[1].shape[1::-1])
    with pytest.raises(ValueError, match=r"sheet: missing.jpg is no held-out photograph .* fetch it anew"):
        photograph(library, "missing.jpg")


def test_the_command_shows_every_photograph(pipeline, picture_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ARDRAG_PHOTOS", picture_folder)
    pipeline.save_pretrained(tmp_path / "model")
    drags = [[[0.3, 0.5], [0.6, 0.5]]]
    entries = [{"file": f"{n}.png", "drags": drags, "about": f"thing {n}", "credit": "nobody"} for n in range(3)]
    (tmp_path / "sheet.json").write_text(json.dumps(entries))
    report = tmp_path / "pages" / "sheet"
    arguments = [str(tmp_path / "model"), "--sheet", str(tmp_path / "sheet.json"), "--num_latents", "2"]
    contact_sheet.main([*arguments, "--report", str(report)])
    text = report.with_suffix(".md").read_text()
    assert "2. thing 1 (nobody)" in text and "(sheet.jpg)" in text and "- commit: " in text
    with Image.open(report.with_suffix(".jpg")) as made:
        assert made.width >= COLUMNS * SHOWN * 16 and made.height > 2 * MARGIN
    assert not list(Path(tmp_path / "pages").glob("*.part"))
