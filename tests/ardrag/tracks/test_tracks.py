"""Tracks: the file round trip, every refusal, sampling against closed forms, heat maps against the formula, edits."""

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ardrag.controls.heat import heatmap
from ardrag.tracks.schema import GROUND, MAX_BYTES, SCHEMA, SIGMA
from ardrag.tracks.tracks import Tracks


LINE = [(0, 0.2, 0.5), (32, 0.8, 0.5)]
CURVE = [(0, 0.1, 0.2, 1.0), (7.5, 0.4, 0.9, 0.5), (20, 0.6, 0.3, 0.8), (30, 0.9, 0.7, 0.2)]


def document(**changes: Any) -> dict[str, Any]:
    """A full track file of 33 frames; `changes` replace top-level entries."""
    full = {
        "schema": SCHEMA,
        "canvas": {"width": 640, "height": 320, "image_sha256": "ab12", "fit": "cover"},
        "fps": 16,
        "num_frames": 33,
        "defaults": {"sigma": 0.03, "interp": "linear", "strength": 0.5},
        "tracks": [
            {"id": "a", "kind": "drag", "label": "hand", "color": "#34c759", "interp": "catmull", "ease": "none",
             "start": 1, "end": 24.5, "after_end": "release", "strength": 0.9, "sigma": 0.01,
             "points": [{"f": 0, "x": 0.41, "y": 0.52, "p": 0.7, "v": 1}, {"f": 12.5, "x": 0.47, "y": 0.5, "v": 0}]},
            {"id": "pin", "kind": "static", "points": [{"f": 0, "x": 0.9, "y": 0.1}]},
            {"id": "g", "kind": "group", "offsets": [[-0.1, 0], [0.1, 0.2]], "points": [{"f": 4, "x": 0.5, "y": 0.5}]},
        ],
        "camera": {"interp": "smooth", "grid": [3, 2], "exclude": ["a"],
                   "keys": [{"f": 0, "pan": [0, 0], "zoom": 1, "roll": 0}, {"f": 32, "pan": [0.2, 0], "roll": 5}]},
        "edits": [
            {"seq": 3, "op": "replace_tail", "track": "a", "seen_frame": 5, "applied_frame": 9,
             "points": [{"f": 9, "x": 0.1, "y": 0.1}]},
            {"seq": 7, "op": "add", "track": "late", "applied_frame": 13, "kind": "static", "sigma": 0.05,
             "points": [{"f": 13, "x": 0.2, "y": 0.2}]},
            {"seq": 8, "op": "end", "track": "pin", "applied_frame": 17},
        ],
        "source": {"tool": "test", "version": "1"},
        "unknown": {"ignored": True},
    }  # fmt: skip
    return {**full, **changes}


def one(points: Any, **options: Any) -> Tracks:
    return Tracks.from_points([points], num_frames=33, **options)


# The file


def test_json_round_trip_keeps_everything() -> None:
    tracks = Tracks.from_json(document())
    again = Tracks.from_json(tracks.to_json())
    assert again == tracks and hash(again) == hash(tracks)
    assert again.to_json() == tracks.to_json()
    assert "unknown" not in tracks.to_json() and again.source == {"tool": "test", "version": "1"}
    assert again.tracks[0].label == "hand" and again.canvas.image_sha256 == "ab12"
    assert again.edits[2].track.after_end == "release" and again.edits[0].seen_frame == 5
    for ours, theirs in zip(again.to_array(), tracks.to_array(), strict=True):
        assert np.array_equal(ours, theirs)


def test_reads_text_bytes_and_objects() -> None:
    text = json.dumps(document())
    assert Tracks.from_json(text) == Tracks.from_json(text.encode()) == Tracks.from_json(json.loads(text))


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "drag.tracks.json"
    tracks = one(CURVE, width=640, height=368)
    tracks.save(path)
    assert Tracks.load(path) == tracks and tracks.canvas.width == 640
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with pytest.raises(FileNotFoundError):
        Tracks.load(tmp_path / "missing.json")


def test_save_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "drag.tracks.json"
    one(LINE).save(path)
    before = path.read_text()
    dense = np.random.default_rng(0).random((2001, 16, 2), dtype=np.float32)
    with pytest.raises(ValueError, match=f"larger than {MAX_BYTES} bytes"):
        Tracks.from_array(dense).save(path)

    def broken(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", broken)
    with pytest.raises(OSError, match="disk full"):
        one(CURVE).save(path)
    assert path.read_text() == before and len(list(tmp_path.iterdir())) == 1


def test_empty_means_no_control() -> None:
    tracks = Tracks.empty(9)
    xy, visible, force = tracks.to_array()
    assert xy.shape == (9, 0, 2) and visible.shape == force.shape == (9, 0)
    assert not heatmap(tracks, 16, 24).any() and heatmap(tracks, 16, 24).shape == (9, 16, 24)
    assert Tracks.from_json(tracks.to_json()) == tracks


def test_ids_default_to_their_place() -> None:
    tracks = Tracks.from_points([LINE, CURVE], num_frames=33)
    assert [track.id for track in tracks.tracks] == ["t1", "t2"]


# Refusals

POINT = {"f": 0, "x": 0.5, "y": 0.5}
HUGE = int("9" * 400)


def entry(**changes: Any) -> dict[str, Any]:
    """A file whose third track has three good points and `changes`."""
    good = {"points": [{**POINT, "f": f} for f in (0, 4, 8)], **changes}
    return document(tracks=[{"points": [POINT]}, {"points": [POINT]}, good], camera=None, edits=[])


def points(**changes: Any) -> dict[str, Any]:
    """A file where `tracks[2].points[1]` has `changes`."""
    return entry(points=[POINT, {**POINT, "f": 4, **changes}])


def camera(**changes: Any) -> dict[str, Any]:
    return document(edits=[], camera={"keys": [{"f": 0}, {"f": 8}], **changes})


def edit(**changes: Any) -> dict[str, Any]:
    good = {"seq": 1, "op": "replace_tail", "track": "a", "applied_frame": 9, "points": [{**POINT, "f": 9}]}
    return document(edits=[{**good, **changes}])


REFUSED = [
    ("not json", "the track file is not JSON .*Tracks.load"),
    (b"\xff\xfe{}", "not JSON"),
    ("[" * 100_000, "not JSON"),
    (" " * (MAX_BYTES + 1), f"larger than {MAX_BYTES} bytes; use fewer points"),
    ("[1, 2]", "a track file is a JSON object, not list"),
    (
        document(schema="ardrag.tracks/v2"),
        "schema is 'ardrag.tracks/v2', but only 'ardrag.tracks/v1' is read",
    ),
    ({"tracks": []}, "schema is None"),
    (document(num_frames=32), "num_frames is 32, but a clip has 4k[+]1 frames; use 29 or 33"),
    (document(num_frames=34), "use 33 or 37"),
    (document(num_frames=0), "num_frames is 0; give a finite number from 1"),
    (document(num_frames=33.5), "num_frames is 33.5; give a whole number"),
    (document(num_frames="33"), "num_frames must be a number, not '33'"),
    (document(num_frames=True), "num_frames must be a number"),
    (document(num_frames=HUGE), "num_frames is 9999"),
    (document(fps=0), "fps is 0"),
    (document(canvas={"width": 0}), "canvas.width is 0"),
    (document(canvas=[640, 368]), "canvas must be an object, not list"),
    (document(defaults={"sigma": 0}), "defaults.sigma is 0"),
    (document(defaults={"interp": "cubic"}), "defaults.interp is 'cubic'; use one of linear, catmull"),
    (document(tracks={"a": 1}), "tracks must be a list, not dict"),
    (document(tracks=[{"points": [POINT]}] * 257), "tracks has 257 entries; the limit is 256"),
    (document(tracks=[7]), r"tracks\[0\] must be an object, not int"),
    (entry(points=[]), r"tracks\[2\].points is empty; give at least one point or leave the track out"),
    (entry(points="abc"), r"tracks\[2\].points must be a list"),
    (entry(points=[POINT] * 4097), r"tracks\[2\].points has 4097 entries; the limit is 4096"),
    (entry(points=[None, 1]), r"tracks\[2\].points\[0\].f must be a number, not 'None'"),
    (points(x=math.nan), r"tracks\[2\].points\[1\].x is nan; give a finite number from -1 to 2"),
    (points(y=math.inf), r"tracks\[2\].points\[1\].y is inf"),
    (points(y=HUGE), r"tracks\[2\].points\[1\].y is 9999"),
    (points(x=2.5), r"tracks\[2\].points\[1\].x is 2.5; give a finite number from -1 to 2"),
    (points(y=-1.01), r"tracks\[2\].points\[1\].y is -1.01"),
    (points(x="0.5"), r"tracks\[2\].points\[1\].x must be a number, not '0.5'"),
    (points(p=1.1), r"tracks\[2\].points\[1\].p is 1.1; give a finite number from 0 to 1"),
    (points(v=-1), r"tracks\[2\].points\[1\].v is -1"),
    (points(f=0), r"tracks\[2\].points\[1\].f is 0 after 0; f must increase"),
    (points(f=-1), r"tracks\[2\].points\[1\].f is -1"),
    (points(f=math.nan), r"tracks\[2\].points\[1\].f is nan"),
    (points(f=33), r"ends at frame 32; drop .*, or declare num_frames=37 and fit .* Tracks.retimed\(33\)"),
    (entry(id="t1"), r"tracks\[2\].id 't1' is used twice"),
    (entry(id=3), r"tracks\[2\].id must be text, not int"),
    (entry(label="x" * 300), r"tracks\[2\].label has 300 characters; the limit is 256"),
    (entry(kind="spin"), r"tracks\[2\].kind is 'spin'; use one of drag, static, group"),
    (entry(interp=["linear"]), r"tracks\[2\].interp is"),
    (entry(after_end="stop"), r"tracks\[2\].after_end is 'stop'; use one of hold, hide, release"),
    (entry(strength=1.5), r"tracks\[2\].strength is 1.5"),
    (entry(sigma=-0.1), r"tracks\[2\].sigma is -0.1; give .* from 0.001 to 1, or 0 for a pin of the ground"),
    (entry(sigma=False), r"tracks\[2\].sigma must be a number"),
    (entry(start=20, end=10), r"tracks\[2\].start is 20, after end 10"),
    (entry(end=40), r"tracks\[2\].end is 40"),
    (entry(kind="static"), r"tracks\[2\].points has 3 points; a static pin has one"),
    (entry(kind="group"), r"tracks\[2\].offsets: kind 'group' needs offsets"),
    (entry(offsets=[[0, 0]]), r"tracks\[2\].offsets: kind 'group' needs"),
    (entry(kind="group", offsets=[[0, 0, 0]]), r"tracks\[2\].offsets\[0\] has 3 entries"),
    (entry(kind="group", offsets=[[0]]), r"tracks\[2\].offsets\[0\] must be two numbers"),
    (entry(kind="group", offsets=[[0, 0]] * 255), "tracks expand to 257 with groups and camera; the limit is 256"),
    (camera(keys=[]), "camera.keys is empty"),
    (camera(keys=[{"f": 4}, {"f": 4}]), r"camera.keys\[1\].f is 4 after 4"),
    (camera(keys=[{"f": 0, "zoom": 0}]), r"camera.keys\[0\].zoom is 0"),
    (camera(keys=[{"f": 0, "pan": [9, 0]}]), r"camera.keys\[0\].pan\[0\] is 9"),
    (camera(grid=[0, 4]), r"camera.grid\[0\] is 0"),
    (camera(grid=[20, 20]), "tracks expand to 404 with groups and camera"),
    (camera(exclude=["nobody"]), "camera.exclude names 'nobody', which is no track; use one of"),
    (camera(interp="catmull"), "camera.interp is 'catmull'"),
    ({**camera(keys=[{"f": 0, "roll": 5}]), "canvas": {}}, "canvas.width and canvas.height are missing"),
    (edit(op="undo"), r"edits\[0\].op is 'undo'; use one of replace_tail, add, end"),
    (edit(applied_frame=8), r"edits\[0\].applied_frame is 8, not the first frame of a latent; use 5 or 9"),
    (edit(applied_frame=33), r"edits\[0\].applied_frame is 33; give a finite number from 0 to 32"),
    (edit(points=[{**POINT, "f": 8}]), r"edits\[0\].points\[0\].f is 8, before applied_frame 9"),
    (edit(points=[]), r"edits\[0\].points is empty"),
    (edit(op="end"), r"edits\[0\].points must be empty when op is 'end'"),
    (edit(track=None), r"edits\[0\].track is missing"),
    (edit(track="nobody"), r"edits\[0\].track 'nobody' is no track; use 'add' or one of"),
    (edit(op="add"), r"edits\[0\].track 'a' exists; use replace_tail"),
    (edit(seq=-1), r"edits\[0\].seq is -1"),
    (edit(seen_frame=10), r"edits\[0\].seen_frame is 10; give a finite number from 0 to 9"),
    (document(edits=[document()["edits"][1], document()["edits"][0]]), r"edits\[1\].seq is 3 after 7"),
    (
        document(edits=[document()["edits"][2], {**document()["edits"][1], "seq": 9}]),
        r"edits\[1\].applied_frame is 13 after 17; to go back call rewound\(13\) first",
    ),
]


@pytest.mark.parametrize(("bad", "message"), REFUSED, ids=lambda value: value[:40] if isinstance(value, str) else "")
def test_refuses_and_names_the_field(bad: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tracks.from_json(bad)


def test_from_points_and_from_array_name_the_field() -> None:
    with pytest.raises(ValueError, match=r"tracks\[0\].points\[1\] must be \(f, x, y\)"):
        one([(0, 0.5, 0.5), (1, 0.5)])
    with pytest.raises(ValueError, match=r"tracks\[0\].points\[0\].x is nan"):
        one([(0, math.nan, 0.5)])
    with pytest.raises(ValueError, match=r"xy must be \[T, P, 2\], not \[9, 2\]"):
        Tracks.from_array(np.zeros((9, 2)))
    with pytest.raises(ValueError, match=r"force must be \[9, 1\] like xy, not \[9\]"):
        Tracks.from_array(np.zeros((9, 1, 2)), force=np.ones(9))
    with pytest.raises(ValueError, match="use 9 or 13"):
        Tracks.from_array(np.zeros((10, 1, 2)))
    with pytest.raises(ValueError, match="frames starts at -1"):
        one(LINE).to_array(frames=[-1, 0])


# Sampling


def test_pixels_need_the_size_of_the_picture() -> None:
    """Both sizes and one number that can be nothing else: all are pixels."""
    pixels = Tracks.from_points([[(0, 64, 128), (8, 1, 0.5)]], num_frames=9, width=256, height=512)
    assert pixels.to_array().xy[[0, 8], 0] == pytest.approx(np.array([[0.25, 0.25], [1 / 256, 0.5 / 512]]))
    unit = Tracks.from_points([[(0, 0.25, 2.0), (8, -1, 0.5)]], num_frames=9, width=256, height=512)
    assert unit.tracks[0].points[0][1:3] == (0.25, 2.0) and unit.canvas.width == 256
    with pytest.raises(ValueError, match=r"points\[0\].x is 64; .* 0..1 of the picture, so give its width and height"):
        Tracks.from_points([[(0, 64, 128)]], num_frames=9)
    with pytest.raises(ValueError, match="width and height: give both, the size of the picture in pixels"):
        Tracks.from_points([[(0, 64, 128)]], num_frames=9, width=256)
    with pytest.raises(ValueError, match=r"points\[0\].x is 4.0"):
        Tracks.from_points([[(0, 1024, 128)]], num_frames=9, width=256, height=512)
    with pytest.raises(ValueError, match=r"points\[0\].x must be a number"):
        Tracks.from_points([[(0, "left", 128)]], num_frames=9, width=256, height=512)


def test_what_nobody_knows_of_a_hidden_point_is_the_last_place() -> None:
    xy = np.full((5, 3, 2), 0.5, np.float32)
    xy[:, 0, 0] = [0.1, 0.2, np.nan, 900, 0.3]
    xy[0, 1], xy[:, 2] = -1e9, np.nan
    visible = np.ones((5, 3), bool)
    visible[2:4, 0] = visible[0, 1] = visible[:, 2] = False
    arrays = Tracks.from_array(xy, visible).to_array()
    assert (arrays.visible == visible).all() and np.isfinite(arrays.xy).all()
    assert (arrays.xy[visible] == xy[visible]).all() and arrays.xy[2:4, 0].tolist() == [arrays.xy[1, 0].tolist()] * 2
    with pytest.raises(ValueError, match=r"tracks\[1\].points\[0\].x"):
        Tracks.from_array(xy, np.ones((5, 3), bool) & (np.arange(3) == 1))
    near = xy.clip(-1, 2)
    near[2, 0], near[:, 2] = 0.7, 0.6
    assert (Tracks.from_array(near, visible).to_array().xy == near).all()  # guesses stay
    near[3, 0] = 0
    assert (Tracks.from_array(near, visible).to_array().xy[3, 0] == near[2, 0]).all()
    near[:, 1] = 0
    assert (Tracks.from_array(near, visible).to_array().xy[1, 1] == 0).all()  # seen in the corner


def test_linear_closed_form() -> None:
    xy, visible, force = one([(0, 0.2, 0.9, 1.0), (32, 0.8, 0.1, 0.5)], interp="linear").to_array()
    u = np.arange(33) / 32
    np.testing.assert_allclose(xy[:, 0], np.stack([0.2 + 0.6 * u, 0.9 - 0.8 * u], axis=1), atol=1e-6)
    np.testing.assert_allclose(force[:, 0], 1 - 0.5 * u, atol=1e-6)
    assert visible.all() and xy.dtype == force.dtype == np.float32 and visible.dtype == bool


@pytest.mark.parametrize("interp", ["linear", "catmull"])
def test_interpolation_passes_through_points(interp: str) -> None:
    path = [(0, 0.1, 0.2, 0.3), (7, 0.4, 0.9, 0.5), (8, 0.6, 0.3, 0.8), (32, 0.9, 0.7, 0.2)]
    xy, _, force = one(path, interp=interp).to_array()
    for f, x, y, p in path:
        assert xy[int(f), 0].tolist() == [np.float32(x), np.float32(y)] and force[int(f), 0] == np.float32(p)


def test_catmull_is_the_default_smooth_and_exact_on_lines() -> None:
    line = one([(f, 0.1 + 0.02 * f, 0.5) for f in (0, 5, 13, 32)]).to_array().xy[:, 0, 0]
    np.testing.assert_allclose(line, 0.1 + 0.02 * np.arange(33), atol=1e-6)
    corner = [(0, 0.1, 0.1), (16, 0.9, 0.1), (32, 0.9, 0.9)]
    bend = [
        np.abs(np.diff(one(corner, **o).to_array().xy[:, 0], n=2, axis=0)).max() for o in ({}, {"interp": "linear"})
    ]
    assert bend[0] < 0.3 * bend[1]
    # halfway of the first segment: slopes 0.05 and 0.025 in x, cubic Hermite at u = 1/2
    assert one(corner).to_array().xy[8, 0, 0] == pytest.approx(0.5 * (0.1 + 0.9) + 16 * (0.05 - 0.025) / 8)


def test_hold_hide_release() -> None:
    path = [(4, 0.2, 0.5, 0.8), (8, 0.6, 0.5, 0.8)]
    hold, hide, release = (one(path, after_end=how).to_array() for how in ("hold", "hide", "release"))
    for arrays in (hold, hide, release):
        assert not arrays.visible[:4].any() and arrays.visible[4:9].all() and not arrays.force[:4].any()
        np.testing.assert_allclose(arrays.xy[8:, 0], [[0.6, 0.5]] * 25, atol=1e-7)
    assert hold.visible[9:].all() and (hold.force[9:] == np.float32(0.8)).all()
    assert not hide.visible[9:].any() and (hide.force[9:] == np.float32(0.8)).all()
    assert not release.visible[9:].any() and not release.force[9:].any()
    assert heatmap(one(path, after_end="hide"), 16, 16)[9:].sum() == 0


def test_start_and_end_cut_and_stretch() -> None:
    cut = one(LINE, interp="linear", start=8, end=16).to_array()
    assert cut.visible[:, 0].tolist() == [f >= 8 for f in range(33)]
    assert cut.xy[8, 0, 0] == np.float32(0.35) and (cut.xy[16:, 0, 0] == np.float32(0.5)).all()
    stretched = one([(4, 0.2, 0.5), (8, 0.6, 0.5)], start=0, end=20, after_end="hide").to_array()
    assert stretched.visible[:, 0].tolist() == [f <= 20 for f in range(33)]
    assert (stretched.xy[:5, 0, 0] == np.float32(0.2)).all()


def test_visibility_is_a_step_and_off_canvas_is_invisible() -> None:
    arrays = one([(0, 0.5, 0.5, 1, 1), (8.5, 0.5, 0.5, 1, 0), (16, 0.5, 0.5, 1, 0.5), (32, 1.5, 0.5)], interp="linear")
    xy, visible, force = arrays.to_array()
    assert visible[:, 0].tolist() == [f <= 8 or 16 <= f <= 24 for f in range(33)]
    assert xy[32, 0, 0] == 1.5 and force[32, 0] == 1 and not heatmap(arrays, 8, 8)[25:].any()


def test_static_pin_stays() -> None:
    xy, visible, force = one([(0, 0.9, 0.1)], kind="static", after_end="release").to_array(num_frames=100)
    assert visible.all() and (force == 1).all() and np.ptp(xy, axis=0).max() == 0
    assert one([(4, 0.9, 0.1)], kind="static", end=8, after_end="hide").to_array().visible.sum() == 5


def test_group_expands_to_its_offsets() -> None:
    offsets = [[-0.1, 0.0], [0.0, 0.0], [0.1, 0.05]]
    group, alone = one(CURVE, kind="group", offsets=offsets, sigma=0.05), one(CURVE)
    xy, _, force = group.to_array()
    np.testing.assert_allclose(xy, alone.to_array().xy + np.array(offsets), atol=1e-6)
    assert force.shape == (33, 3) and group.sigmas() == [0.05] * 3


def test_a_pin_of_the_ground_has_no_width_of_its_own() -> None:
    tracks = Tracks.from_json(
        document(tracks=[{"id": "a", "points": [POINT], "sigma": 0}, {"points": [POINT]}], edits=[])
    )
    pins = len(tracks.brushes()) - 2
    assert tracks.brushes() == (GROUND, 0.03, *[GROUND] * pins) and tracks.sigmas() == [SIGMA, 0.03, *[SIGMA] * pins]
    assert Tracks.from_json(tracks.to_json()) == tracks
    wide = Tracks.from_json(document(tracks=[{"points": [POINT]}], camera=None, edits=[])).with_brushes([0.2])
    assert wide.brushes() == (0.2,)
    with pytest.raises(ValueError, match="shorter"):
        wide.with_brushes([])


def test_strength_multiplies_force() -> None:
    tracks = Tracks.from_json(document(tracks=[{"points": [{**POINT, "p": 0.5}]}], camera=None, edits=[]))
    assert (tracks.to_array().force == 0.25).all()
    assert (one([(0, 0.5, 0.5, 0.5)], strength=0.5).to_array().force == 0.25).all()


def moved(keys: list[dict[str, Any]], interp: str = "linear", canvas: tuple[int, int] = (640, 320)) -> np.ndarray:
    """Camera pins [T, P, 2] of a 5 x 4 grid."""
    size = dict(zip(("width", "height"), canvas, strict=True))
    control = {"keys": keys, "interp": interp}
    return Tracks.from_json(document(tracks=[], edits=[], canvas=size, camera=control)).to_array().xy


def test_camera_pan_moves_pins_by_the_pan() -> None:
    xy = moved([{"f": 0}, {"f": 32, "pan": [0.2, -0.1]}])
    assert xy.shape == (33, 20, 2)
    np.testing.assert_allclose(xy[0, :6, 0], [0.1, 0.3, 0.5, 0.7, 0.9, 0.1], atol=1e-6)
    expected = xy[:1] + np.arange(33)[:, None, None] / 32 * np.array([0.2, -0.1])
    np.testing.assert_allclose(xy, expected, atol=1e-6)
    eased = moved([{"f": 0}, {"f": 32, "pan": [0.2, -0.1]}], interp="smooth")
    np.testing.assert_allclose(eased[[0, 16, 32]], xy[[0, 16, 32]], atol=1e-6)
    assert abs(eased[1] - eased[0]).max() < 0.2 * abs(xy[1] - xy[0]).max()


def test_camera_zoom_and_roll_turn_about_the_centre() -> None:
    zoomed = moved([{"f": 0}, {"f": 32, "zoom": 1.5}])
    np.testing.assert_allclose(zoomed[32] - 0.5, 1.5 * (zoomed[0] - 0.5), atol=1e-6)
    xy = moved([{"f": 0}, {"f": 16, "roll": 90}]) - 0.5
    pixels = xy * [640, 320]
    turned = np.stack([-pixels[0, :, 1], pixels[0, :, 0]], axis=1)
    np.testing.assert_allclose(pixels[16:], np.broadcast_to(turned, (17, 20, 2)), atol=1e-3)


def test_camera_leaves_out_pins_near_excluded_tracks() -> None:
    file = document(edits=[], tracks=[{"id": "a", "points": [{**POINT, "x": 0.1, "y": 0.125}]}])
    file["camera"] = {"keys": [{"f": 0}], "grid": [5, 4], "exclude": ["a"]}
    tracks = Tracks.from_json(file)
    assert tracks.to_array().xy.shape[1] == 1 + 19 == len(tracks.sigmas())
    assert tracks.sigmas() == [0.03, *[SIGMA] * 19] and (tracks.to_array().force[:, 1:] == 0.5).all()


def test_array_round_trip_is_exact() -> None:
    random = np.random.default_rng(0)
    xy = random.random((33, 5, 2), dtype=np.float32)
    visible, force = random.random((33, 5)) < 0.7, random.random((33, 5), dtype=np.float32)
    tracks = Tracks.from_json(Tracks.from_array(xy, visible, force, fps=8).to_json())
    arrays = tracks.to_array()
    assert np.array_equal(arrays.xy, xy) and np.array_equal(arrays.visible, visible)
    assert np.array_equal(arrays.force, force) and tracks.fps == 8
    assert Tracks.from_array(torch.from_numpy(xy)).to_array().visible.all()


# Edits


def same(a: Tracks, b: Tracks, frames: range) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a.to_array(frames=frames), b.to_array(frames=frames), strict=True))


def test_replace_tail_rules_from_its_frame_only() -> None:
    before = one(CURVE)
    after = before.with_edit("replace_tail", "t1", 13, [(16, 0.2, 0.2), (32, 0.3, 0.9)], seen_frame=10)
    assert same(before, after, range(13)) and not same(before, after, range(13, 14))
    xy = after.to_array().xy[:, 0]
    assert xy[16].tolist() == [np.float32(0.2)] * 2 and xy[32].tolist() == [np.float32(0.3), np.float32(0.9)]
    assert np.abs(np.diff(xy[11:17], axis=0)).max() < 0.3, "the new tail goes on from where the old one was"
    assert before.edits == () and after.edits[0].seq == 1 and after.edits[0].seen_frame == 10


def test_add_and_end() -> None:
    base = one(LINE)
    added = base.with_edit("add", "new", 5, [(5, 0.5, 0.1), (9, 0.5, 0.3)], sigma=0.05)
    assert added.to_array().visible[:, 1].tolist() == [f >= 5 for f in range(33)]
    assert added.sigmas() == [SIGMA, 0.05] and torch.equal(heatmap(added, 16, 16, range(5)), heatmap(base, 16, 16)[:5])
    ended = added.with_edit("end", "t1", 9).with_edit("end", "new", 13, after_end="hold")
    xy, visible, force = ended.to_array()
    assert visible[:, 0].tolist() == [f < 9 for f in range(33)] and not force[9:, 0].any()
    assert visible[5:, 1].all() and (xy[9:, 1, 1] == np.float32(0.3)).all()
    again = ended.with_edit("replace_tail", "t1", 17, [(20, 0.9, 0.9)])
    assert again.to_array().visible[:, 0].tolist() == [f < 9 or f >= 20 for f in range(33)]
    never = base.with_edit("end", "t1", 0, after_end="hold")
    assert not never.to_array().visible.any()
    assert never.with_edit("replace_tail", "t1", 5, [(5, 0.5, 0.5)]).to_array().visible[5:].all()


def test_replay_is_what_was_applied_frame_by_frame() -> None:
    tracks = one([(0, 0.5, 0.5)]).with_edit(
        "add", "pair", 0, [(0, 0.2, 0.2)], kind="group", offsets=[[0, 0], [0.1, 0]]
    )
    random = np.random.default_rng(1)
    heat, places = [heatmap(tracks, 24, 24, range(1))], [tracks.to_array(frames=range(1)).xy]
    for m in range(1, 9):
        first = 4 * m - 3
        for name in ("t1", "pair"):
            ahead = [(first + i + 0.5, *random.random(2)) for i in range(3) if first + i + 0.5 <= 32]
            if random.random() < 0.7 and ahead:
                tracks = tracks.with_edit("replace_tail", name, first, ahead, seen_frame=max(0, first - 6))
        frames = range(first, first + 4)
        heat.append(heatmap(tracks, 24, 24, frames))
        places.append(tracks.to_array(frames=frames).xy)
    for replayed in (tracks, Tracks.from_json(tracks.to_json())):
        assert torch.equal(heatmap(replayed, 24, 24), torch.cat(heat))
        assert np.array_equal(replayed.to_array().xy, np.concatenate(places))
    assert len(tracks.edits) > 5


def test_last_edit_at_a_frame_wins() -> None:
    base = one(LINE)
    once = base.with_edit("replace_tail", "t1", 9, [(9, 0.9, 0.9)])
    twice = base.with_edit("replace_tail", "t1", 9, [(9, 0.1, 0.1)]).with_edit(
        "replace_tail", "t1", 9, [(9, 0.9, 0.9)]
    )
    assert same(once, twice, range(33))


def test_rewound_drops_what_came_later() -> None:
    early = one(LINE).with_edit("replace_tail", "t1", 9, [(9, 0.9, 0.9)])
    late = early.with_edit("replace_tail", "t1", 17, [(17, 0.1, 0.1)])
    assert late.rewound(17) == early and late.rewound(9) == one(LINE) and late.rewound(18) == late
    branch = late.rewound(13).with_edit("replace_tail", "t1", 13, [(13, 0.5, 0.9)])
    assert [edit.applied_frame for edit in branch.edits] == [9, 13] and same(branch, late, range(13))


def test_edits_refuse_what_cannot_be_applied() -> None:
    tracks = one(LINE).with_edit("replace_tail", "t1", 9, [(9, 0.9, 0.9)])
    refused = [
        (("replace_tail", "t1", 5, [(5, 0.1, 0.1)]), r"edits\[1\].applied_frame is 5 after 9; .* rewound\(5\)"),
        (("replace_tail", "t1", 10, [(10, 0.1, 0.1)]), "use 9 or 13"),
        (("replace_tail", "nobody", 9, [(9, 0.1, 0.1)]), r"edits\[1\].track 'nobody' is no track"),
        (("add", "t1", 9, [(9, 0.1, 0.1)]), r"edits\[1\].track 't1' exists"),
        (("add", "t2", 9, [(9, 0.1, 7)]), r"edits\[1\].points\[0\].y is 7"),
        (("add", "t2", 9, [(9, 0.1)]), r"edits\[1\].points\[0\] must be"),
    ]
    for arguments, message in refused:
        with pytest.raises(ValueError, match=message):
            tracks.with_edit(*arguments)
    with pytest.raises(ValueError, match="tracks expand to 257"):
        tracks.with_edit("add", "many", 9, [(9, 0.5, 0.5)], kind="group", offsets=[[0, 0]] * 256)


def test_after_end_survives_a_new_tail() -> None:
    tracks = one(LINE, after_end="hide").with_edit("replace_tail", "t1", 9, [(12, 0.5, 0.5)])
    assert tracks.to_array().visible[:, 0].tolist() == [f <= 12 for f in range(33)]


def test_long_sessions_stay_cheap() -> None:
    tracks = one([(0, 0.5, 0.5)]).extended(4001)
    times = []
    for m in range(1, 1001):
        first = 4 * m - 3
        begin = time.perf_counter()
        tracks = tracks.with_edit("replace_tail", "t1", first, [(first + 3, 0.5 + 0.4 * math.sin(m), 0.5)])
        heatmap(tracks, 16, 16, range(first, first + 4))
        times.append(time.perf_counter() - begin)
    assert sorted(times[-100:])[50] < 2 * sorted(times[20:120])[50] + 0.002
    assert len(tracks.to_json()) < MAX_BYTES / 2


# Length


def test_retimed_stretches_everything() -> None:
    plain = Tracks.from_json(document(edits=[]))
    slow = plain.retimed(65)
    assert slow.num_frames == 65 and slow.tracks[0].points[1].f == 25 and slow.tracks[0].end == 49
    assert slow.camera is not None and slow.camera.keys[1].f == 64
    for ours, theirs in zip(slow.to_array(), plain.to_array(), strict=True):
        np.testing.assert_allclose(ours[::2], theirs, atol=1e-6)
    assert Tracks.from_points([[(40, 0.5, 0.5)]], num_frames=41).retimed(33).tracks[0].points[0].f == 32
    assert Tracks.from_json(slow.to_json()) == slow


def test_retimed_and_extended_refuse() -> None:
    tracks = one(LINE)
    with pytest.raises(ValueError, match="use 29 or 33"):
        tracks.retimed(30)
    with pytest.raises(ValueError, match="no room for motion"):
        tracks.retimed(1)
    with pytest.raises(ValueError, match="from_array"):
        tracks.with_edit("end", "t1", 9).retimed(65)
    with pytest.raises(ValueError, match="shorter than 33; use retimed"):
        tracks.extended(29)
    assert Tracks.from_points([[(0, 0.5, 0.5)]], num_frames=1).retimed(33).num_frames == 33


def test_extended_moves_nothing() -> None:
    tracks = one(CURVE).with_edit("replace_tail", "t1", 9, [(12, 0.5, 0.5)])
    longer = tracks.extended(41)
    assert same(tracks, longer, range(41)) and len(longer.to_array().xy) == 41
