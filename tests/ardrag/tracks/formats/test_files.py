"""Track files of other systems: each is told by its content, gives the right places, and goes out and comes back."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ardrag.tracks.schema import MAX_TRACKS
from ardrag.tracks.tracks import Tracks


SIZE = (832, 480)
T = np.arange(17.0)
WAY = np.stack([np.stack([100 + 10 * T, 200 + 0 * T], 1), np.stack([400 + 0 * T, 50 + 5 * T], 1)], 1)
"""[17, 2, 2] pixels."""


def packed(content: bytes) -> io.BytesIO:
    return io.BytesIO(content)


def npy(array: Any) -> io.BytesIO:
    file = io.BytesIO()
    np.save(file, array)
    file.seek(0)
    return file


def text(value: Any) -> io.BytesIO:
    return packed((value if isinstance(value, str) else json.dumps(value)).encode())


def ati(array: np.ndarray) -> io.BytesIO:
    inner, outer = io.BytesIO(), io.BytesIO()
    np.savez_compressed(inner, array=array)
    torch.save(inner.getvalue(), outer)
    outer.seek(0)
    return outer


def points(path: np.ndarray) -> list[dict[str, float]]:
    return [{"x": x, "y": y} for x, y in path.tolist()]


def pixels(tracks: Tracks, size: tuple[int, int] = SIZE) -> np.ndarray:
    return tracks.to_array().xy * np.array(size)


def test_wan_move_with_its_visibility_beside_it(tmp_path: Path) -> None:
    seen = np.ones((1, 17, 2), bool)
    seen[0, 5:9, 1] = False
    places = WAY[None].astype(np.float32)
    places[0, 5:9, 1] = np.nan
    np.save(tmp_path / "a_tracks.npy", places)
    assert Tracks.load(npy(WAY[:, :1]), image_size=SIZE).to_array().visible.all()  # alone, and without its first axis
    with pytest.raises(ValueError, match=r"track 1 is visible in frame 5, but its place is \[nan, nan\]"):
        Tracks.load(tmp_path / "a_tracks.npy", image_size=SIZE)
    np.save(tmp_path / "a_visibility.npy", seen)
    tracks = Tracks.load(tmp_path / "a_tracks.npy", image_size=SIZE)
    arrays = tracks.to_array()
    assert (arrays.visible == seen[0]).all() and (tracks.canvas.width, tracks.canvas.height) == SIZE
    assert pixels(tracks)[seen[0]] == pytest.approx(WAY[seen[0]], abs=1e-3)
    assert tracks.source == {"imported_from": "wan_move"}
    both = b"".join((tmp_path / f"a_{name}.npy").read_bytes() for name in ("tracks", "visibility"))
    assert Tracks.load(io.BytesIO(both), image_size=SIZE) == tracks
    (tmp_path / "both.npy").write_bytes(both)
    assert Tracks.load(tmp_path / "both.npy", image_size=SIZE) == tracks


def test_ati_is_times_eight_and_24_a_second() -> None:
    way = np.zeros((2, 121, 1, 3), np.float32)
    way[0, :, 0] = np.stack([4.0 * np.arange(121), np.full(121, 240.0), np.ones(121)], 1)
    way[1, :61, 0] = (416, 100, 1)  # then filled up with zeros
    for array in (way * 8, (way * 8).astype(np.uint16), np.concatenate([way * 8, way[..., :1]], axis=3)):
        tracks = Tracks.load(ati(array), image_size=SIZE)
        arrays, found = tracks.to_array(), pixels(tracks)
        assert tracks.num_frames == 81
        assert found[:, 0] == pytest.approx(np.stack([6.0 * np.arange(81), np.full(81, 240.0)], 1), abs=1e-2)
        assert found[0, 1] == pytest.approx([416, 100], abs=1e-2) and arrays.visible[:, 0].all()
        assert arrays.visible[:, 1].tolist() == [True] * 41 + [False] * 40
    assert Tracks.load(ati(way * 8), image_size=SIZE, num_frames=33).num_frames == 33


def test_kjnodes_lists() -> None:
    lists = [points(WAY[:, 0]), points(WAY[:9, 1])]
    for content in (json.dumps(lists), str(lists), json.dumps([json.dumps(one) for one in lists])):
        tracks = Tracks.load(text(content), image_size=SIZE)
        assert tracks.num_frames == 17 and pixels(tracks)[:, 0] == pytest.approx(WAY[:, 0], abs=1e-3)
        assert tracks.to_array().visible.sum(0).tolist() == [17, 9]
    assert Tracks.load(text(lists[0]), image_size=SIZE).to_array().xy.shape == (17, 1, 2)
    long = Tracks.load(text([[{"x": float(i), "y": 10} for i in range(121)]]), image_size=SIZE)
    assert long.num_frames == 81 and pixels(long)[[0, 40, 80], 0, 0] == pytest.approx([0, 60, 120], abs=1e-3)
    assert Tracks.load(text(lists), image_size=SIZE, num_frames=33).to_array().visible.sum(0).tolist() == [33, 18]


def test_tora_is_on_a_square_whatever_the_picture() -> None:
    tracks = Tracks.load(text("\ufeff64,128\n128, 128\n\n192 , 64\n"), num_frames=49)
    assert tracks.to_array().xy[[0, 24, 48], 0].tolist() == [[0.25, 0.5], [0.5, 0.5], [0.75, 0.25]]
    tracks.crop_on(832, 480)  # of any shape


@pytest.mark.parametrize("inner", [True, False])
def test_draganything(inner: bool) -> None:
    paths = {"7": WAY[:, 0].tolist(), "9": WAY[:5, 1].tolist()}
    content = {k: {"comment": "", "mask_name": "a.jpg", "trajectory": path} for k, path in paths.items()}
    tracks = Tracks.load(text(content if inner else paths), image_size=SIZE)
    assert pixels(tracks)[:, 0] == pytest.approx(WAY[:, 0], abs=1e-3)
    assert tracks.to_array().visible.sum(0).tolist() == [17, 5]


def test_key_points_without_time() -> None:
    paths = [[[0, 0], [416, 240], [832, 240]], [[208, 120]]]
    for content in ({"traj_key_points": paths}, paths, paths[0]):
        tracks = Tracks.load(text(content), image_size=SIZE, num_frames=17)
        arrays = tracks.to_array()
        assert arrays.xy[[0, 8, 16], 0].tolist() == [[0, 0], [0.5, 0.5], [1, 0.5]] and arrays.visible.all()
        assert content is paths[0] or (arrays.xy[:, 1] == (0.25, 0.25)).all()
    assert [
        Tracks.load(text(c), image_size=SIZE, num_frames=5).source["imported_from"]
        for c in (paths, {"traj_key_points": paths})
    ] == ["dragnuwa", "motionpro"]


def test_our_own_file_is_read_as_ever(tmp_path: Path) -> None:
    tracks = Tracks.from_points([[(0, 0.1, 0.2), (8, 0.9, 0.5)]], num_frames=9)
    tracks.save(tmp_path / "a.json")
    assert Tracks.load(tmp_path / "a.json") == tracks == Tracks.load(packed(tracks.to_json().encode()))
    assert Tracks.load(tmp_path / "a.json", num_frames=17) == tracks.retimed(17)


def test_frames_are_cut_or_spread() -> None:
    longer = np.concatenate([WAY, WAY[-1:]])
    assert Tracks.load(npy(longer), image_size=SIZE).num_frames == 17
    spread = Tracks.load(npy(WAY), image_size=SIZE, num_frames=33)
    assert pixels(spread)[::2] == pytest.approx(WAY, abs=1e-3) and spread.num_frames == 33
    with pytest.raises(ValueError, match="num_frames: the paths have 3, and a clip needs 5; say how many"):
        Tracks.load(npy(WAY[:3]), image_size=SIZE)
    with pytest.raises(ValueError, match="num_frames is 10, but a clip has 4k"):
        Tracks.load(npy(WAY), image_size=SIZE, num_frames=10)


def test_far_off_and_too_many() -> None:
    """What is far off the picture is out of sight; of more tracks than fit, even ones stay, and the file says so."""
    away = WAY.copy()
    away[3:, 1] = 1e7
    assert Tracks.load(npy(away), image_size=SIZE).to_array().visible.sum(0).tolist() == [17, 3]
    with pytest.raises(
        ValueError, match="no track is ever visible within the picture of 8 x 8 pixels; check image_size"
    ):
        Tracks.load(npy(WAY), image_size=(8, 8))
    many = np.zeros((5, 2 * MAX_TRACKS, 2))
    many[..., 0] = np.arange(2 * MAX_TRACKS)
    tracks = Tracks.load(npy(many), image_size=SIZE)
    assert len(tracks.tracks) == MAX_TRACKS and tracks.source["note"].startswith(
        f"{MAX_TRACKS} of {2 * MAX_TRACKS} tracks"
    )
    assert pixels(tracks)[0, [0, -1], 0] == pytest.approx([0, 2 * MAX_TRACKS - 1], abs=1e-3)


NEEDS = {
    "size of npy": (
        npy(WAY),
        {},
        "image_size: wan_move files have pixels and do not say of what; give that picture's",
    ),
    "size of lists": (text([[[1, 2]]]), {"num_frames": 9}, "image_size: dragnuwa files"),
    "length": (text("1,2"), {}, "num_frames: tora files do not say how many frames"),
    "length of lists": (text([[[1, 2]]]), {"image_size": SIZE}, "num_frames: dragnuwa files"),
    "bad size": (npy(WAY), {"image_size": (832, 0)}, r"image_size: \(832, 0\) must be \(width, height\)"),
    "size as text": (npy(WAY), {"image_size": "832x480"}, "image_size: 832x480 must be"),
    "shape": (npy(np.zeros((2, 17, 3, 2))), {"image_size": SIZE}, r"tracks \[2, 17, 3, 2\] float64 and no visibility"),
    "numbers": (npy(np.full((17, 1, 2), "a")), {"image_size": SIZE}, "must be .* of numbers"),
    "empty array": (npy(np.zeros((0, 1, 2))), {"image_size": SIZE}, "no track is ever visible"),
    "something after it": (packed(npy(WAY).getvalue() + b"x"), {}, "it holds no array of numbers"),
    "objects": (packed(b"\x93NUMPY\x01\x00"), {}, "it holds no array of numbers"),
    "zip": (packed(b"PK\x03\x04" + bytes(99)), {}, "no ATI tracks can be read"),
    "ati shape": (
        ati(np.zeros((4, 9))),
        {"image_size": SIZE},
        r"its array is \[4, 9\] float64, and must be \[P, 121, 1, 3\]",
    ),
    "line": (text("1,2\n3;4"), {"num_frames": 9}, "line 2 is '3;4', not x, y"),
    "kj point": (text([[{"x": 1, "y": 2}, {"x": 1}]]), {}, 'track 0 is not a list of {"x"'),
    "kj number": (text([[{"x": 1, "y": 2}], [{"x": 1, "y": None}]]), {}, r"track 1 is not a list of \[x, y\]"),
    "object": (text({"1": [[1, 2]], "2": [[1, 2, 3]]}), {}, r"track '2' is not a list of \[x, y\]"),
    "key points": (text({"traj_key_points": [[[1, 2]], []]}), {}, r"traj_key_points\[1\] is not a list"),
    "none": (text({"traj_key_points": []}), {}, "traj_key_points is not a list of lists"),
    "huge": (text("[[[1e999, 2]]]"), {"image_size": SIZE}, r"track 0 is not a list of \[x, y\], finite"),
    "key point far": (
        text([[[1, 2]], [[9999, 2]]]),
        {"image_size": SIZE, "num_frames": 9},
        r"tracks\[1\].points\[0\].x is 12.0",
    ),
    "text": (text("hello"), {}, "the track file is not JSON .*, and in no other format that is known; Wan-Move .npy"),
    "bytes": (packed(b"\xff\xfe\x00"), {}, "the track file is not JSON and in no format that is known"),
    "other object": (text({"tracks": []}), {}, "track 'tracks' is not a list"),
    "no object": (text({}), {}, "schema is missing, and the track file is in no other format"),
    "number": (text("7"), {}, "schema is missing"),
    "deep": (text("[" * 100_000), {}, "not JSON"),
    "our errors": (text({"schema": "ardrag.tracks/v2"}), {}, "schema is 'ardrag.tracks/v2', but only"),
}


@pytest.mark.parametrize("name", NEEDS)
def test_what_is_missing_or_wrong_is_named(name: str) -> None:
    file, options, message = NEEDS[name]
    file.seek(0)
    with pytest.raises(ValueError, match=message):
        Tracks.load(file, **options)


def test_what_would_unpack_to_very_much_is_refused() -> None:
    bomb = ati(np.zeros((8, 121, 1, 20_000), np.float32))
    assert len(bomb.getvalue()) < 1 << 20
    with pytest.raises(ValueError, match="unpacks to more than 64 MB"):
        Tracks.load(bomb, image_size=SIZE)


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("a pickle ran code",))


def test_a_pth_file_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for zipped, message in ((True, "no ATI tracks can be read"), (False, "it holds a int, not the videos by name")):
        file = io.BytesIO()
        torch.save({"a": Evil()}, file, _use_new_zipfile_serialization=zipped)
        file.seek(0)
        with pytest.raises(ValueError, match=message):
            Tracks.load(file, image_size=SIZE)
    assert capsys.readouterr().out == ""


DRAWN = Tracks.from_points(
    [[(0, 0.2, 0.5), (32, 0.8, 0.5)], [(0, 0.5, 0.1), (16, 0.5, 0.9)]], num_frames=33, interp="linear"
)


@pytest.mark.parametrize(
    ("kind", "name", "exact"),
    [
        ("wan_move", "a_tracks.npy", 0.01),
        ("ati", "a.pth", 0.01),
        ("kjnodes", "a.json", 0.01),
        ("draganything", "a.json", 0.01),
        ("motionpro", "a.json", 0.01),
    ],
)
def test_what_is_written_is_read(tmp_path: Path, kind: str, name: str, exact: float) -> None:
    written = DRAWN.export(tmp_path / name, kind, image_size=SIZE)
    assert written[0] == tmp_path / name and all(path.is_file() for path in written)
    back = Tracks.load(written[0], image_size=SIZE, num_frames=33)
    assert back.source["imported_from"] == kind
    assert np.abs(pixels(back) - pixels(DRAWN)).max() < exact + (0.3 if kind == "ati" else 0)  # its corner, resampled


def test_tora_gets_a_file_a_track(tmp_path: Path) -> None:
    first, second = DRAWN.export(tmp_path / "way.txt", "tora")
    assert [first.name, second.name] == ["way_1.txt", "way_2.txt"] and first.read_text().splitlines()[0] == "51,128"
    back = Tracks.load(second, num_frames=33).to_array().xy[:, 0]
    assert np.abs(back - DRAWN.to_array().xy[:, 1]).max() < 0.6 / 256


def test_hidden_tracks_go_only_where_they_can(tmp_path: Path) -> None:
    hidden = Tracks.from_points([[(0, 0.2, 0.5)], [(0, 0.2, 0.5), (16, 0.8, 0.5, 1, 0)]], num_frames=33)
    with pytest.raises(ValueError, match=r"tracks\[1\] is hidden for a while, which kjnodes cannot say"):
        hidden.export(tmp_path / "a.json", "kjnodes", image_size=SIZE)
    for kind, name in (("wan_move", "tracks.npy"), ("ati", "a.pth")):
        (path, *_) = hidden.export(tmp_path / name, kind, image_size=SIZE)
        assert (
            Tracks.load(path, image_size=SIZE, num_frames=33).to_array().visible[:, 1].tolist()
            == [True] * 16 + [False] * 17
        )


def test_exports_that_cannot_be(tmp_path: Path) -> None:
    for tracks, kind, options, message in (
        (DRAWN, "svg", {}, "kind: 'svg' is unknown; use one of wan_move, ati"),
        (DRAWN, "kjnodes", {}, "image_size: .* must be"),
        (DRAWN, "wan_move", {"image_size": SIZE}, "path: a.json must end in tracks.npy"),
        (Tracks.empty(9), "kjnodes", {"image_size": SIZE}, "tracks: there is none to write"),
    ):
        with pytest.raises(ValueError, match=message):
            tracks.export(tmp_path / "a.json", kind, **options)
    assert not list(tmp_path.iterdir())
