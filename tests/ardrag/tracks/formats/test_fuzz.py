"""Track files of all formats, damaged in every way: read, or refused with a sentence."""

import io
import json
import pickle
from pathlib import Path
from typing import Any

import imageio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ardrag.tracks.tracks import Tracks
from tests.fuzzing import EXAMPLES, damaged, fuzz, memory_before, peak_memory, refused_or_read


SIZE = (64, 48)
DRAWN = Tracks.from_points([[(0, 0.2, 0.5), (8, 0.8, 0.5)], [(0, 0.5, 0.1)]], num_frames=9, interp="linear")
GIVEN: dict[str, Any] = {"image_size": SIZE, "num_frames": 9}
MOST_MIB = 128
"""Memory that thousands of files may leave behind, at most."""


def video_of_masks(path: Path) -> bytes:
    """MagicMotion's: a red square that moves to the right."""
    with imageio.get_writer(path, fps=8, codec="libx264", macro_block_size=2) as writer:
        for t in range(5):
            frame = np.zeros((32, 48, 3), np.uint8)
            frame[8:24, 4 + 4 * t : 20 + 4 * t] = (128, 0, 0)
            writer.append_data(frame)
    return path.read_bytes()


def samples(folder: Path) -> dict[str, bytes]:
    """One small good file of each format but that of videos."""
    found = {"ardrag": DRAWN.to_json().encode(), "dragnuwa": b"[[[1, 2], [30, 40]], [[5, 6]]]"}
    for kind, name in (
        ("wan_move", "a_tracks.npy"),
        ("ati", "a.pth"),
        ("kjnodes", "k.json"),
        ("draganything", "d.json"),
        ("motionpro", "m.json"),
        ("tora", "t.txt"),
    ):
        found[kind] = DRAWN.export(folder / name, kind, image_size=SIZE)[0].read_bytes()
    arrays = {"video": np.zeros((9, 8, 8, 3), np.uint8), "points": np.full((2, 9, 2), 0.5, np.float32)}
    clip = {**arrays, "occluded": np.zeros((2, 9), bool)}
    for protocol in (2, 5):
        found[f"tapvid {protocol}"] = pickle.dumps({"a": clip}, protocol)
    return found


def read(content: bytes) -> None:
    """The whole way of a track file."""
    Tracks.load(io.BytesIO(content), **GIVEN).to_array()


@pytest.mark.slow
def test_damaged_track_files(tmp_path_factory: pytest.TempPathFactory) -> None:
    files, good = samples(tmp_path_factory.mktemp("samples")), list[bool]()
    assert all(refused_or_read(lambda content=content: read(content)) for content in files.values())
    before = memory_before()

    @fuzz
    @given(damaged(files))
    def check(file: tuple[str, bytes]) -> None:
        good.append(refused_or_read(lambda: read(file[1])))

    check()
    assert 0 < sum(good) < len(good)
    assert peak_memory() - before < MOST_MIB
    print(f"{len(good)} track files, {sum(good)} of them read")


NUMBERS = st.integers() | st.floats() | st.sampled_from([1e308, -1e308, 10**400, 0.5])
KEYS = st.sampled_from(["x", "y", "schema", "trajectory", "traj_key_points", "points", "f"])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["x", "y", "schema", "trajectory", "traj_key_points", "points", "f"]), inner, max_size=4
        )
    ),
    max_leaves=24,
)


@pytest.mark.slow
@fuzz
@given(JSON)
def test_any_json(value: Any) -> None:
    refused_or_read(lambda: Tracks.load(io.BytesIO(json.dumps(value).encode()), **GIVEN))


@pytest.mark.slow
def test_damaged_videos(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A decoder is started for each: one in ten of the others."""
    video, good = video_of_masks(tmp_path_factory.mktemp("video") / "a.mp4"), list[bool]()

    @settings(fuzz, max_examples=max(10, EXAMPLES // 10))
    @given(damaged({"magicmotion": video}))
    def check(file: tuple[str, bytes]) -> None:
        good.append(refused_or_read(lambda: Tracks.load(io.BytesIO(file[1]), **GIVEN)))

    check()
    assert 0 < sum(good) < len(good)
    print(f"{len(good)} videos, {sum(good)} of them read")
