"""What is wrong with an input is told by name before the first clip is made."""

import numpy as np
import pytest

from eval.benchmark.preflight import check_systems
from eval.benchmark.systems import System
from eval.suites.case import OnCanvas
from eval.suites.sprites import SpriteSuite
from pipelines.video import write_video


INDICES, FRAMES = [0, 1, 2, 3], 9


def system(folder, name="theirs"):
    return System(name, "videos", str(folder))


def write(folder, indices=INDICES, size=128, length=FRAMES):
    folder.mkdir(exist_ok=True)
    frame = np.random.default_rng(0).integers(0, 256, (size // 16, size // 16, 3), dtype=np.uint8)
    frame = frame.repeat(16, 0).repeat(16, 1)
    for index in indices:
        write_video([frame] * length, folder / f"{index:03d}.mp4", 16)
    return folder


def check(*systems):
    return check_systems(systems, SpriteSuite(), INDICES, FRAMES)


def test_good_videos_pass(tmp_path):
    assert check(system(write(tmp_path / "a")), System("truth", "truth")) == {"theirs": {}, "truth": {}}


def test_a_missing_folder_or_model(tmp_path):
    with pytest.raises(ValueError, match="systems: theirs: .*none is no folder"):
        check(system(tmp_path / "none"))
    with pytest.raises((ValueError, OSError), match="nowhere"):
        check(System("model", "causal", str(tmp_path / "nowhere")))


def test_one_broken_clip_is_told_and_left_out(tmp_path, caplog):
    folder = write(tmp_path / "a")
    (folder / "002.mp4").write_bytes(b"broken")
    assert list(check(system(folder))["theirs"]) == [2]
    assert "002.mp4 is no video that can be read; it may be cut off; this clip is left out" in caplog.text


def test_many_missing_clips_stop_the_run(tmp_path):
    folder = write(tmp_path / "a", [0, 1])
    with pytest.raises(ValueError, match="theirs: 2 of 4 clips cannot be used: .*002.mp4 is missing; .*003.mp4"):
        check(system(folder))


def test_other_sizes_and_lengths(tmp_path):
    with pytest.raises(ValueError, match="videos of 64x64 pixels; the suite has 128x128"):
        check(system(write(tmp_path / "small", size=64)))
    folder = write(tmp_path / "mixed")
    write(folder, [1], size=64)
    assert check(system(folder))["theirs"] == {1: "001.mp4 has 64x64 pixels, most others 128x128"}
    with pytest.raises(ValueError, match="4 of 4 clips cannot be used: 000.mp4 has 5 frames, the clip has 9"):
        check(system(write(tmp_path / "short", length=5)))


class Elsewhere(SpriteSuite):
    """A suite whose videos may have any size."""

    name = "elsewhere"


def test_two_folders_of_different_sizes(tmp_path):
    systems = [system(write(tmp_path / "a"), "large"), system(write(tmp_path / "b", size=64), "small")]
    with pytest.raises(ValueError, match="different sizes .large 128x128, small 64x64.*add --size WIDTHxHEIGHT"):
        check_systems(systems, Elsewhere(), INDICES, FRAMES)


def test_a_model_and_the_truth_on_different_canvases(model_folder):
    """The model's bucket is 128x128; a suite of wide pictures must be brought to it."""
    systems = [System("ours", "causal", str(model_folder)), System("truth", "truth")]
    wide = OnCanvas(SpriteSuite(), 96, 128)
    with pytest.raises(ValueError, match="different sizes .ours 128x128, truth 128x96."):
        check_systems(systems, wide, INDICES, FRAMES)
    check_systems(systems, OnCanvas(wide, 128, 128), INDICES, FRAMES)
