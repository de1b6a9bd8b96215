"""Videos on disk: whole or not at all, paths blue, current point red, sheets of the right size."""

import imageio
import numpy as np
import pytest

from ardrag.tracks.tracks import Tracks
from pipelines import video
from pipelines.video import PATH_COLOUR, POINT_COLOUR, contact_sheet, draw_paths, with_paths, write_video


FRAMES = [np.full((32, 48, 3), 20 * t, np.uint8) for t in range(9)]
TRACKS = Tracks.from_points([[(0, 0.1, 0.5), (8, 0.9, 0.5)]], num_frames=9)


def test_written_video_can_be_read(tmp_path):
    write_video(FRAMES, tmp_path / "clip.mp4", 16.0)
    reader = imageio.get_reader(tmp_path / "clip.mp4")
    frames = [np.asarray(frame) for frame in reader]
    assert len(frames) == 9 and frames[0].shape == (32, 48, 3)
    assert reader.get_meta_data()["fps"] == 16
    assert np.abs(np.stack(frames).astype(int) - np.stack(FRAMES)).max() < 12
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_paths_are_blue_and_the_point_is_red():
    drawn = draw_paths(FRAMES[0], TRACKS.to_array(), 4)
    assert tuple(drawn[16, 24]) == POINT_COLOUR and tuple(drawn[16, 8]) == tuple(drawn[16, 40]) == PATH_COLOUR
    assert np.array_equal(drawn[:10], FRAMES[0][:10]) and not FRAMES[0].any()


def test_hidden_points_are_not_drawn():
    hidden = Tracks.from_points([[(0, 0.5, 0.5, 1, 0)]], num_frames=9)
    assert np.array_equal(draw_paths(FRAMES[1], hidden.to_array(), 0), FRAMES[1])


def test_every_frame_has_its_own_point():
    drawn = list(with_paths(iter(FRAMES), TRACKS))
    columns = [np.flatnonzero((frame[16] == POINT_COLOUR).all(-1)).mean() for frame in drawn]
    assert len(drawn) == 9 and columns == sorted(columns) and columns[0] < 8 and columns[-1] > 40


@pytest.mark.parametrize(
    ("frames", "name", "message"),
    [
        (FRAMES, "clip.gif", r"path: .*clip.gif must end in .mp4"),
        (FRAMES, "nowhere/clip.mp4", r"path: folder .*nowhere does not exist; create it first"),
        (FRAMES, "folder.mp4", r"path: .*folder.mp4 cannot be written"),
        ([], "clip.mp4", r"frames: there is nothing to write yet"),
    ],
)
def test_nothing_is_written_half(tmp_path, frames, name, message):
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "folder.mp4" / "full").touch()
    with pytest.raises(ValueError, match=message):
        write_video(frames, tmp_path / name, 16.0)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.mp4"]


def test_an_old_video_survives_a_failure(tmp_path, monkeypatch):
    (tmp_path / "clip.mp4").write_bytes(b"old")

    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(video.imageio, "get_writer", fail)
    with pytest.raises(KeyboardInterrupt):
        write_video(FRAMES, tmp_path / "clip.mp4", 16.0)
    assert (tmp_path / "clip.mp4").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("count", "size"), [(1, (48, 32)), (9, (432, 32)), (10, (432, 64)), (400, (432, 128))])
def test_contact_sheet(count, size):
    frames = [np.full((32, 48, 3), t % 256, np.uint8) for t in range(count)]
    sheet = contact_sheet(frames)
    assert sheet.size == size
    assert sheet.getpixel((0, 0)) == (0, 0, 0)
    last = (min(count, 9) - 1) * 48 if count != 10 else 0
    assert sheet.getpixel((last, size[1] - 1)) == ((count - 1) % 256,) * 3
