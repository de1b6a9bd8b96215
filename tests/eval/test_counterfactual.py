"""Many tracks on one picture: what is drawn, what is measured, and a run over a folder of pictures and videos."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ardrag.judges.trackers import build_tracker
from ardrag.judges.tracking import Trajectories
from ardrag.tracks.tracks import Tracks
from eval import counterfactual
from eval.benchmark.config import EvalConfig
from eval.counterfactual import (
    GRID,
    NEAR,
    PAN,
    drawings,
    grid_points,
    measured,
    pinned,
    source_suite,
    table,
    true_tracks,
)
from eval.run import main
from eval.suites.case import Case
from eval.suites.plain import PlainSuite
from pipelines.video import write_video


SIDE, FRAMES = 64, 9


def texture(seed, side=2 * SIDE):
    small = np.random.default_rng(seed).integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def sliding(seed, step=2):
    """A picture that goes left by ``step`` pixels a frame."""
    wide = texture(seed)
    return np.stack([wide[:SIDE, step * t : step * t + SIDE] for t in range(FRAMES)])


def case_of(frames, tracks=None):
    tracks = Tracks.empty(FRAMES) if tracks is None else tracks
    return Case(0, "a", frames[0], "", tracks, FRAMES, truth=frames)


@pytest.fixture(scope="module")
def tracker():
    return build_tracker("lucas_kanade")


def test_what_is_drawn(tracker):
    own = Tracks.from_points([[(0, 0.1, 0.1), (8, 0.4, 0.1)], [(0, 0.9, 0.9)]], num_frames=FRAMES)
    found = drawings(case_of(sliding(0), own), case_of(sliding(1)), tracker)
    assert list(found) == list(counterfactual.CONTROLS)
    arrays = {name: tracks.to_array(frames=range(FRAMES)) for name, tracks in found.items()}
    ways = {name: xy[-1] - xy[0] for name, (xy, *_) in arrays.items()}
    assert found["none"].to_array(frames=range(FRAMES)).xy.shape[1] == 0
    assert ways["pan"] == pytest.approx(np.tile([PAN, 0], (GRID**2, 1)), abs=1e-3)
    assert ways["zoom"] == pytest.approx(0.25 * (grid_points() - 0.5), abs=1e-3)
    assert arrays["sparse"].xy.shape[1] == 1 and ways["sparse"][0] == pytest.approx([0.3, 0], abs=1e-3)
    assert ways["other"][:, 0].mean() == pytest.approx(-2 * 8 / SIDE, abs=0.05)
    assert arrays["dense"].xy.shape[1] > 2 and np.abs(ways["dense"][2:]).max() < 1e-6


def test_pins_keep_away_from_tracks():
    tracks = Tracks.from_points([[(0, 0.1, 0.5), (8, 0.9, 0.5)]], num_frames=FRAMES)
    xy = pinned(tracks, FRAMES).to_array(frames=range(FRAMES)).xy
    assert xy.shape[1] == 1 + GRID * (GRID - 1)  # the row on which it goes has none
    assert np.linalg.norm(xy[:, 1:] - xy[:, :1], axis=-1).min() >= NEAR
    assert pinned(Tracks.empty(FRAMES), FRAMES).to_array(frames=range(FRAMES)).xy.shape[1] == GRID**2


def test_a_picture_without_tracks_has_no_true_ones(tracker):
    bare = replace(case_of(sliding(0)), truth=None)
    assert set(drawings(bare, bare, tracker)) == {"none", "pan", "zoom"}


def test_what_is_measured(tracker):
    """A video that goes left: right for tracks that do, wrong for a pan to the right, and as far as it goes."""
    frames = sliding(2)
    true = true_tracks(case_of(frames), tracker)
    found = measured(case_of(frames, true), frames, true, tracker)
    assert found["first_frame"] == np.inf or found["first_frame"] > 60
    assert found["given_error"] == pytest.approx(found["true_error"]) and found["given_error"] < 0.7
    assert found["motion"] == pytest.approx(100 * 16 / np.hypot(SIDE, SIDE), rel=0.2)
    pan = counterfactual.moved(grid_points() + (PAN, 0), FRAMES)
    wrong = measured(case_of(frames, pan), frames, None, tracker)
    assert wrong["given_error"] > 8 and wrong["true_error"] is None
    still = measured(case_of(frames), np.repeat(frames[:1], FRAMES, axis=0), true, tracker)
    assert still["given_error"] is None and still["motion"] < 0.5 and still["true_error"] > 5


def test_tracks_that_the_tracker_loses_are_hidden():
    class Losing:
        def track(self, video, queries):
            xy = np.repeat(queries[None, :, 1:].numpy(), len(video), axis=0)
            return Trajectories(xy, np.arange(xy.shape[0])[:, None].repeat(xy.shape[1], 1) < 4)

    visible = true_tracks(case_of(sliding(0)), Losing()).to_array(frames=range(FRAMES)).visible
    assert visible[:4].all() and not visible[4:].any()


def test_a_folder_of_pictures_and_videos(tmp_path):
    write_video(list(sliding(3)), tmp_path / "b.mp4", 16)
    Image.fromarray(texture(4, SIDE)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a cat\n")
    suite = source_suite(f"counterfactual:{tmp_path}", "")
    assert isinstance(suite, PlainSuite) and list(suite.names()) == ["a", "b"]
    picture, video = suite.case(0, 33), suite.case(1, 33)
    assert (picture.prompt, picture.num_frames, picture.truth) == ("a cat", 33, None)
    assert video.num_frames == FRAMES and np.array_equal(video.truth[0], video.picture)
    assert suite.digest() and source_suite("counterfactual", "").name == "sprites"
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="holds no picture and no video"):
        source_suite(f"counterfactual:{tmp_path / 'none'}", "")
    with pytest.raises(ValueError, match="suite: 'nothing' is unknown"):
        source_suite("counterfactual:nothing", "")


def test_means_are_of_what_was_measured():
    row = {"system": "a", "control": "none", "first_frame": 30.0, "given_error": None, "motion": 1.0}
    lines = table([row | {"true_error": 2.0}, row | {"true_error": 4.0}], "a")
    assert lines[2] == "| none | 2 | 30.00 [30.00, 30.00] | - | 3.00 [2.00, 4.00] | 1.00 [1.00, 1.00] |"


@pytest.mark.slow
def test_a_run(model_folder, tmp_path):
    command = ["--suite", "counterfactual", "--num_clips", "3", "--num_frames", "5", "--output_dir", str(tmp_path)]
    main([*command, "--systems", f"a={model_folder}", f"b={model_folder}@2"])
    rows = json.loads((tmp_path / "counterfactual.json").read_text())["rows"]
    assert len(rows) == 2 * 3 * 7 and {row["control"] for row in rows} == set(counterfactual.CONTROLS)
    text = (tmp_path / "counterfactual.md").read_text()
    assert text.count("| true | 3 |") == 2 and "python -m eval.run" in text
    with pytest.raises(ValueError, match="systems: still is still, which takes no tracks"):
        counterfactual.run(EvalConfig(systems=["still"], suite="counterfactual"), {})
