"""Reading videos: every container alike, upright, in time; what is damaged says so."""

import numpy as np
import pytest

from training.curate.decode import Unusable, probe, read_frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("decode")


@pytest.fixture(scope="module")
def clip(folder, scene, shoot):
    """A clip of 24 frames a second, with sound, its scene and its times."""
    filmed = scene(96, 64, seed=1, seconds=1.0)
    return filmed, shoot(folder / "clip.mp4", filmed, 24, audio=True), folder / "clip.mp4"


def test_what_a_file_says_of_itself(clip):
    info = probe(clip[2])
    assert (info.width, info.height, info.fps) == (96, 64, 24) and info.duration == pytest.approx(25 / 24, abs=0.05)


def test_all_frames_come_with_their_times(clip):
    filmed, times, path = clip
    found = list(read_frames(path))
    assert np.allclose([time for time, _ in found], times, atol=1e-3)
    error = np.mean([np.abs(frame.astype(float) - filmed.draw(time)).mean() for time, frame in found])
    assert error < 6


def test_a_part_is_the_part_of_the_whole(clip):
    whole = list(read_frames(clip[2]))
    part = list(read_frames(clip[2], whole[7][0], whole[15][0]))
    assert [time for time, _ in part] == [time for time, _ in whole[7:16]]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(part, whole[7:16], strict=True))


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_a_turned_video_is_set_upright(clip, turned, folder, degrees):
    turned(clip[2], folder / f"{degrees}.mp4", degrees)
    plain, upright = (next(read_frames(path))[1] for path in (clip[2], folder / f"{degrees}.mp4"))
    assert np.array_equal(upright, np.rot90(plain, degrees // 90 % 4))
    info = probe(folder / f"{degrees}.mp4")
    assert (info.width, info.height) == ((96, 64) if degrees == 180 else (64, 96))


def test_variable_frame_rate(folder, scene, write):
    filmed, times = scene(64, 64, seconds=1.0), np.array([0, 0.02, 0.1, 0.15, 0.4, 0.45, 0.9])
    write(folder / "variable.mp4", [filmed.draw(time) for time in times], times)
    assert np.allclose([time for time, _ in read_frames(folder / "variable.mp4")], times, atol=2e-3)


def test_damaged_files(clip, folder):
    data = clip[2].read_bytes()
    contents = {"empty": b"", "noise": bytes(range(256)) * 20, "text": b"no video", "cut": data[: len(data) // 2]}
    for name, content in contents.items():
        (folder / f"{name}.mp4").write_bytes(content)
        with pytest.raises(Unusable, match="unreadable or damaged"):
            probe(folder / f"{name}.mp4")


def test_damage_in_the_middle_is_noticed(folder, scene, write):
    rng, times = np.random.default_rng(0), np.arange(72) / 24
    path = folder / "whole.mp4"
    frames = [rng.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in times]
    write(path, frames, times, options={"g": "12"})
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = rng.bytes(4000)
    (folder / "broken.mp4").write_bytes(data)
    probe(folder / "broken.mp4")
    with pytest.raises(Unusable, match="unreadable or damaged"):
        list(read_frames(folder / "broken.mp4"))


def test_a_codec_that_nobody_here_can_decode(clip, folder):
    (folder / "strange.mp4").write_bytes(clip[2].read_bytes().replace(b"avc1", b"zzz1"))
    with pytest.raises(Unusable, match="no decoder"):
        probe(folder / "strange.mp4")


def test_sound_alone_is_no_video(folder):
    import av

    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
        block.sample_rate, block.pts = 16000, 0
        container.mux(stream.encode(block))
        container.mux(stream.encode())
    with pytest.raises(Unusable, match="no video"):
        probe(folder / "sound.mp4")
