"""Pictures of visitors: every kind that people have, or a sentence that says what is wrong with it."""

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app_assets import pictures as module
from app_assets.pictures import EXAMPLES, Fitted, Pictures, load_examples, on_part
from ardrag.tracks.tracks import Tracks
from ardrag.worlds.sprites import make_clip
from tests.app_assets.conftest import png


@pytest.fixture(scope="module")
def pictures(pipeline):
    return Pictures(pipeline)


def test_upload_is_fitted_shown_and_found_again(pictures):
    shown = pictures.add(png(Image.new("RGB", (300, 200), (10, 200, 30))), "a.png")
    assert (shown["width"], shown["height"]) == (32, 32) and len(shown["picture"]) >= 32
    found = pictures.find(shown["picture"])
    assert found.size == (32, 32) and found.getpixel((5, 5)) == (10, 200, 30)
    data = base64.b64decode(shown["src"].split(",", 1)[1])
    assert shown["src"].startswith("data:image/webp") and Image.open(io.BytesIO(data)).size == (32, 32)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1", "I;16", "CMYK"])
def test_every_kind_of_picture_comes_in(pictures, mode):
    content = png(Image.new(mode, (300, 200)), format="TIFF" if mode == "CMYK" else "PNG")
    assert pictures.find(pictures.add(content, "p")["picture"]).mode == "RGB"


def moving(kind="GIF"):
    frames = [Image.effect_noise((32, 32), 30 * (i + 1)) for i in range(3)]
    return png(frames[0], format=kind, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not a readable picture"),
        (b"just text", "notes.png is not a readable picture"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"></svg>', "is not a readable picture"),
        (png(Image.effect_noise((200, 200), 90), format="JPEG")[:3000], "is not a readable picture"),
        (moving(), "is a moving picture; save one frame"),
        (moving("AVIF"), "is a moving picture; save one frame"),
        (png(Image.new("RGB", (40, 40)), format="EPS"), "is not a readable picture"),
        (png(Image.new("1", (8000, 5000))), "8000 x 5000 is more than 24 megapixels"),
        (png(Image.new("L", (4, 4))), "too small"),
    ],
    ids=["empty", "text", "svg", "truncated", "moving", "moving avif", "eps", "40 megapixels", "tiny"],
)
def test_bad_files_are_named(pictures, content, reason):
    with pytest.raises(ValueError, match=f"image: .*{reason}"):
        pictures.add(content, "notes.png")


def test_unknown_and_dropped_names(pipeline, monkeypatch):
    monkeypatch.setattr(module, "MAX_KEPT", 2)
    pictures = Pictures(pipeline)
    names = [pictures.add(png(Image.new("L", (40, 40), i)), "p")["picture"] for i in range(2)]
    pictures.find(names[0])
    pictures.add(png(Image.new("L", (40, 40), 9)), "p")
    assert pictures.find(names[0])
    for name in (names[1], "", "../examples/circle.png"):
        with pytest.raises(ValueError, match="picture: this one is not here any more"):
            pictures.find(name)


def test_examples_are_complete_and_show_the_clips_they_name(pictures):
    examples = pictures.examples()
    assert 3 <= len(examples) <= 6
    for example in examples:
        drawn = Tracks.from_json(example["tracks"]).to_array()
        assert example["title"] and example["prompt"] and drawn.visible[0].any()
        assert pictures.find(example["picture"]).size == (32, 32)
    sprites = [entry for entry in load_examples() if "index" in entry["source"]]
    assert len(sprites) == 2
    for entry in sprites:
        clip, tracks = make_clip(entry["source"]["split"], entry["source"]["index"]), Tracks.load(entry["tracks"])
        assert (np.asarray(Image.open(entry["image"])) == clip.frames[0]).all() and entry["prompt"] == clip.caption
        assert np.abs(tracks.to_array().xy * 128 - clip.xy).max() < 0.02


def test_photographs_among_the_examples_are_credited():
    credits = (EXAMPLES / "CREDITS.md").read_text(encoding="utf-8")
    named = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".jpg", ".png")}
    assert named == set(re.findall(r"`(\w+\.(?:jpg|png))`", credits))
    for entry in load_examples():
        if "package" in entry["source"]:
            assert entry["source"]["licence"] in ("CC0", "public domain") and Path(entry["image"]).stat().st_size < 1e5


def test_drags_of_an_example_go_through_its_crop():
    """A portrait, of which a square part is shown: the middle stays, what is beyond the part is not seen."""
    tracks = Tracks.from_array([[[0.5, 0.5], [0.5, 0.375], [0.5, 0.1]]], sigma=0.2)
    part = on_part(tracks, Fitted(Image.new("RGB", (32, 32)), (100, 200)))
    xy, visible, _ = part.to_array()
    np.testing.assert_allclose(xy[0, :2], [[0.5, 0.5], [0.5, 0.25]], atol=1e-6)
    assert visible[0].tolist() == [True, True, False] and part.brushes() == (0.2, 0.2, 0.2)
    widths = {"t1": 0.3, "t2": 0.1, "t3": None}
    each = tuple(replace(track, sigma=widths[track.id]) for track in tracks.tracks)
    each = replace(tracks, tracks=each, _versions=None)
    assert on_part(each, Fitted(Image.new("RGB", (32, 32)), (100, 200))).brushes() == (0.3, 0.1, None)
    assert on_part(tracks, Fitted(Image.new("RGB", (32, 64)), (100, 200))) is tracks
