"""What tracks say of a clip: the camera's motion and things' own, jumps; and what pixels say."""

import numpy as np
import pytest

from ardrag.judges.tracking import Trajectories
from training.curate.score import (
    Rules,
    analyse,
    black_bars,
    broken_rule,
    frozen_share,
    largest_jump,
    score_clip,
    sharpness,
)


@pytest.fixture
def points():
    y, x = np.mgrid[8:128:12, 8:128:12]
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


def filmed(points, steps=9, camera=(0.0, 0.0), zoom=0.0, mover=(), way=(0.0, 0.0)):
    """Tracks of ``points`` under a camera that goes and zooms, of which ``mover`` go a way of their own."""
    share = np.linspace(0, 1, steps)[:, None, None]
    xy = 64 + (points - 64) * (1 + zoom * share) + share * np.array(camera)
    xy[:, list(mover)] += share * np.array(way)
    return Trajectories(xy.astype(np.float32), np.ones(xy.shape[:2], bool))


def test_the_camera_s_motion_is_taken_out(points):
    motion = analyse(filmed(points, camera=(20, 8), zoom=0.2))
    assert motion.own.max() < 0.1 and motion.camera == pytest.approx(np.hypot(20, 8), abs=4)


def test_a_thing_that_moves_by_itself_is_seen_behind_a_moving_camera(points):
    mover = [33, 34, 43, 44]
    motion = analyse(filmed(points, camera=(20, 8), zoom=0.1, mover=mover, way=(-15, 10)))
    assert np.allclose(motion.own[mover], np.hypot(15, 10), atol=0.5)
    assert np.delete(motion.own, mover).max() < 0.1
    assert np.allclose(motion.residual[-1, mover], [-15, 10], atol=0.5)


def test_what_cannot_be_seen_does_not_count(points):
    tracks = filmed(points, mover=[0], way=(30, 0))
    tracks.visible[5:, 0] = False
    assert analyse(tracks).displacement[0] == pytest.approx(15, abs=0.1)


def test_jumps(points):
    tracks = filmed(points, camera=(20, 0))
    assert largest_jump(tracks, 10) == 0
    tracks.visible[4:, :60] = False
    assert largest_jump(tracks, 10) == pytest.approx(0.6)
    tracks.xy[6:, 60:] += 50
    assert largest_jump(tracks, 10) == 1


def test_bars_and_frozen_frames(scene):
    frames = np.stack([scene().draw(t / 10) for t in range(8)])
    assert black_bars(frames) == 0 and frozen_share(frames) == 0
    boxed = frames.copy()
    boxed[:, :16], boxed[:, -16:] = 4, 4
    assert black_bars(boxed) == 0.25
    assert black_bars(np.concatenate([boxed[:, :96], frames[:, :32]], axis=1)) == 0, "bars are at both ends"
    frames[4:] = frames[3]
    assert frozen_share(frames) == pytest.approx(4 / 7)
    assert sharpness(frames[0]) > 3 * sharpness(np.full((64, 64, 3), 90, np.uint8)) + 4


def test_the_first_broken_rule_is_named(points, scene):
    frames = np.stack([scene().draw(t / 10) for t in range(9)])
    tracks = filmed(points, mover=[33, 34, 43, 44], way=(30, 0))
    scores = score_clip(frames, tracks, tracks, analyse(tracks), Rules())
    assert broken_rule(scores, Rules()) == "" and scores["moving_points"] == 4
    broken = {
        "light": 3.0,
        "bars": 0.1,
        "jump": 0.9,
        "moving_points": 1,
        "frozen": 0.6,
        "visible": 0.1,
        "sharpness": 1,
    }
    names = ["black", "letterbox", "missed cut", "static", "frozen", "tracks lost", "blurred"]
    for (score, value), name in zip(broken.items(), names, strict=True):
        assert broken_rule(scores | {score: value}, Rules()) == name


def test_a_clip_without_points_is_static():
    frames = np.full((5, 64, 64, 3), 90, np.uint8)
    none = Trajectories(np.zeros((5, 0, 2), np.float32), np.zeros((5, 0), bool))
    assert broken_rule(score_clip(frames, none, none, analyse(none), Rules()), Rules()) == "static"
