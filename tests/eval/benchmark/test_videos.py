"""Other people's files: what they claim, what they hold, and how broken ones are told."""

import numpy as np
import pytest
from PIL import Image

from eval.benchmark.videos import Probe, probe, read_picture, read_true_video, read_video
from pipelines.video import write_video


@pytest.fixture
def video(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    write_video([frames] * 5, tmp_path / "a.mp4", 16)
    return tmp_path / "a.mp4", frames


def test_a_good_video(video):
    path, frame = video
    assert probe(path) == Probe(5, 32, 48)
    found = read_video(path)
    assert found.shape == (5, 32, 48, 3) and np.abs(found[2].astype(int) - frame).mean() < 12


def test_missing_corrupt_and_cut_off(video, tmp_path):
    path, _ = video
    with pytest.raises(ValueError, match="b.mp4 is missing"):
        probe(tmp_path / "b.mp4")
    (tmp_path / "c.mp4").write_bytes(b"no video at all" * 50)
    with pytest.raises(ValueError, match="c.mp4 is no video that can be read"):
        read_video(tmp_path / "c.mp4")
    (tmp_path / "d.mp4").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="d.mp4"):
        read_video(tmp_path / "d.mp4")


def test_true_video_has_the_length_or_is_absent(video, tmp_path):
    path, _ = video
    assert read_true_video(tmp_path / "none.mp4", 5) is None
    assert len(read_true_video(path, 3)) == 3
    with pytest.raises(ValueError, match="a.mp4: 5 frames; its tracks have 9"):
        read_true_video(path, 9)


def test_pictures(tmp_path):
    Image.new("L", (4, 3), 9).save(tmp_path / "grey.png")
    assert read_picture(tmp_path / "grey.png").shape == (3, 4, 3)
    (tmp_path / "bad.png").write_text("x")
    for name in ("bad.png", "none.png"):
        with pytest.raises(ValueError, match=f"{name} is missing or no picture"):
            read_picture(tmp_path / name)
