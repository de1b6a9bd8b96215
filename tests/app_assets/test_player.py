"""A visitor's takes: what is asked is done, what is wrong is said, nothing of one take leaks into another."""

import io
import json
import os
import threading

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from app_assets.player import MAX_TAKES, MAX_WAITING, OVER, encode_frame, mp4_bytes
from ardrag.tracks.tracks import Tracks
from pipelines.session import Session
from tests.app_assets.conftest import PATH, START, finish, pixels, say


def kinds(replies):
    return [reply.header["type"] for reply in replies]


def drag(player, take, seq, place, pointer=1, released=(), seen=0):
    pointers = [{"id": pointer, "way": [[0.0, *place, 1.0]]}] if place else []
    return say(player, type="drag", take=take, seq=seq, seen=seen, pointers=pointers, released=list(released))


def test_clip_comes_latent_by_latent_and_says_when_it_is_done(player):
    player.post(json.dumps({**START, "tracks": json.loads(PATH.to_json())}))
    assert player.due and player.started
    replies = finish(player)
    assert kinds(replies) == ["started", *["frames"] * 4, "done"]
    assert [reply.header["first"] for reply in replies[1:5]] == [0, 1, 5, 9]
    assert len(pixels(replies)) == 13 and not player.due
    assert Image.open(io.BytesIO(pixels(replies)[0])).size == (32, 32)
    assert replies[2].header["places"][-1][0][2] == 1


def test_watched_take_steered_by_drags(player):
    replies = say(player, **{**START, "paced": True, "num_frames": 41})
    assert kinds(replies) == ["started"] and not player.due
    replies = drag(player, 1, 1, (0.3, 0.4)) + finish(player)
    assert set(kinds(replies)) == {"frames"} and replies[0].header["places"] == [[[0.3, 0.4, 1.0]]]
    made = len(pixels(replies))
    drag(player, 1, 2, None, released=[1])
    finish(player)
    made += len(pixels(say(player, type="seen", take=1, frame=made - 1) + finish(player)))
    say(player, type="seen", take=1, frame=made - 1)
    finish(player)
    say(player, type="seen", take=1, frame=99)
    assert not player.due
    assert kinds(say(player, type="run", take=1, on=True)) == ["frames"]


def test_message_that_was_overtaken_is_left_out(player):
    say(player, **{**START, "paced": True})
    drag(player, 1, 5, (0.3, 0.4))
    late = drag(player, 1, 4, (0.9, 0.9), pointer=2)
    frames = [reply for reply in late + finish(player) if reply.header["type"] == "frames"]
    assert all(len(reply.header["places"][0]) == 1 for reply in frames)


def test_rewind_branch_and_cancel(player):
    say(player, **START)
    finish(player)
    assert say(player, type="branch", take=1, latent=2)[0].header == {
        "type": "branched", "take": 2, "from": 1, "frames": 5, "latent": 2, "num_frames": 13,
    }  # fmt: skip
    assert say(player, type="rewind", take=1, latent=1)[0].header["frames"] == 1
    assert say(player, type="cancel", take=2)[0].header == {"type": "cancelled", "take": 2, "frames": 5}
    assert not player.due


def test_every_turn_does_something_until_nothing_is_due(player):
    """A turn that only finds out that a latent is over would cost a visitor every second place in the queue."""
    player.post(json.dumps({**START, "num_frames": 41}))
    turns = []
    while (turn := player.turn()) is not OVER:
        turns.append(turn)
    assert kinds(turns) == ["started", *["frames"] * 11, "done"] and player.turn() is OVER
    player.post(json.dumps({"type": "branch", "take": 1, "latent": 2}))  # one latent is farther back than remembered
    assert [player.turn() for _ in range(2)] == [None, None]
    assert player.turn().header["type"] == "branched"


PRESS = {"id": 1, "way": [[0.0, 0.5, 0.5, 1.0]]}


def test_an_idle_turn_makes_context_of_what_was_shown(player, monkeypatch):
    """The frames go out first; the next drag finds nothing left to do before it."""
    settled, settle = [], Session.settle
    monkeypatch.setattr(Session, "settle", lambda session: settled.append(session.position) or settle(session))
    player.post(json.dumps({**START, "num_frames": 41, "paced": True}))
    player.post(json.dumps({"type": "drag", "take": 1, "seq": 1, "seen": 0, "pointers": [PRESS], "released": []}))
    turns = []
    while (turn := player.turn()) is not OVER:
        turns.append(turn)
    made = [turn.header["latent"] for turn in turns if turn is not None and turn.header["type"] == "frames"]
    assert made and settled == [made[-1] + 1] and turns[-1] is None


def test_what_was_going_on_is_given_back_with_the_rest(player, monkeypatch):
    closed, close = [], Session.close
    monkeypatch.setattr(Session, "close", lambda session: closed.append(session) or close(session))
    say(player, **{**START, "num_frames": 41})
    finish(player)
    player.post(json.dumps({"type": "branch", "take": 1, "latent": 2}))
    assert player.turn() is None and not closed
    player.close()
    assert len(closed) == 3 and player.turn() is OVER, "the take, its twin, and what makes its past again"


def test_cancelled_clip_can_be_dragged_on(player):
    say(player, **{**START, "num_frames": 41})
    say(player, type="cancel", take=1)
    assert not player.due
    assert "frames" in kinds(drag(player, 1, 1, (0.5, 0.5)) + finish(player))


def test_export_replays_to_the_same_pixels(player, pipeline, picture):
    say(player, **{**START, "paced": True, "num_frames": 9})
    drag(player, 1, 1, (0.2, 0.2))
    finish(player)
    say(player, type="seen", take=1, frame=8)
    drag(player, 1, 2, (0.8, 0.7))
    finish(player)
    say(player, type="run", take=1, on=True)
    finish(player)
    (files,) = say(player, type="export", take=1, draw=True)
    video, text = files.parts
    tracks = Tracks.from_json(text)
    assert tracks.source == {"tool": "ardrag-pad", "prompt": "a red star", "seed": 3, "steps": 2}
    shown = iio.imread(video, extension=".mp4")
    assert len(shown) == tracks.num_frames == 9
    replies = say(player, **{**START, "tracks": json.loads(text), "num_frames": 9}) + finish(player)
    parts = pipeline.stream(picture, "a red star", tracks=tracks, num_frames=9, num_inference_steps=2, seed=3)
    assert pixels(replies) == [encode_frame(frame) for part in parts for frame in part]


def test_plan_changes_from_the_next_latent_on(player):
    say(player, **{**START, "paced": True, "num_frames": 41})
    say(player, type="run", take=1, on=True)
    say(player, type="plan", take=1, num_frames=41, tracks=json.loads(PATH.to_json()))
    replies = say(player, type="seen", take=1, frame=99) + finish(player)
    assert [len(reply.header["places"][0]) for reply in replies][-1] == 1


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({**START, "num_frames": 105}, "num_frames: 105 is more than 101"),
        ({"type": "run", "take": 9, "on": True}, "take: 9 is not open any more"),
        ({"type": "rewind", "take": 1, "latent": 7}, "latent: 7 is not in this take"),
        ({"type": "export", "take": 1, "draw": False}, "frames: there is nothing to write"),
    ],
)
def test_what_is_wrong_is_said_and_the_takes_live_on(player, message, reason):
    say(player, **{**START, "paced": True})
    (reply,) = say(player, **message)
    assert reply.header["type"] == "error" and reason in reply.header["message"]
    drag(player, 1, 1, (0.5, 0.5))
    assert say(player, type="cancel", take=1)[0].header["frames"] > 0


def test_takes_and_messages_are_bounded(player):
    for _ in range(MAX_TAKES + 1):
        say(player, **{**START, "paced": True})
    (reply,) = say(player, type="cancel", take=1)
    assert "not open any more (open: 2, 3, 4, 5)" in reply.header["message"]
    for _ in range(MAX_WAITING):
        player.post('{"type": "seen", "take": 2, "frame": 0}')
    with pytest.raises(ValueError, match="too many at once"):
        player.post('{"type": "seen", "take": 2, "frame": 0}')


def test_waiting_messages_are_bounded_by_what_they_hold(player):
    big = json.dumps(
        {"type": "plan", "take": 1, "num_frames": 13, "tracks": json.loads(PATH.to_json()), "pad": "x" * 900_000}
    )
    player.post(big), player.post(big)
    with pytest.raises(ValueError, match="too many at once"):
        player.post(big)
    list(player.work())
    player.post(big)


def test_no_turn_makes_more_than_one_latent(player, pipeline, monkeypatch):
    """However far back a rewind goes, others have their turns between its latents."""
    say(player, **{**START, "num_frames": 65})
    finish(player)
    steps = []
    step = Session.step
    monkeypatch.setattr(Session, "step", lambda *args: (steps.append(1), step(*args))[1])
    for kind in ("branch", "rewind"):
        player.post(json.dumps({"type": kind, "take": 1, "latent": 5}))
        player.post(json.dumps({"type": "run", "take": 1, "on": True}))
    counts = []
    turns = player.work()
    while True:
        before = len(steps)
        if next(turns, turns) is turns:
            break
        counts.append(len(steps) - before)
    assert max(counts) == 1 and sum(counts) >= 10


def test_rewind_that_is_broken_off_leaves_no_file(player):
    say(player, **{**START, "num_frames": 65})
    finish(player)
    files = len(os.listdir("/proc/self/fd"))
    player.post(json.dumps({"type": "branch", "take": 1, "latent": 5}))
    turns = player.work()
    next(turns), next(turns)
    assert len(os.listdir("/proc/self/fd")) == files + 2
    turns.close()
    assert len(os.listdir("/proc/self/fd")) == files


def test_export_is_made_aside_and_does_not_mind_what_happens_meanwhile(player):
    say(player, **START)
    finish(player)
    player.post('{"type": "export", "take": 1, "draw": true}')
    (files,) = player.work()
    player.close()
    reply = files()
    assert (
        len(iio.imread(reply.parts[0], extension=".mp4")) == 13 and Tracks.from_json(reply.parts[1]).num_frames == 13
    )


def test_closing_leaves_no_file_and_no_thread(player):
    say(player, **START)
    finish(player)
    threads = threading.active_count()
    stores = [opened.take.session.frames for opened in player._takes.values()]
    player.close()
    assert not player.due and not player.started and threading.active_count() == threads
    with pytest.raises(ValueError, match="closed file"):
        stores[0].append(np.zeros((32, 32, 3), np.uint8))


def test_mp4_in_memory():
    frames = [np.full((32, 32, 3), 40 * i, np.uint8) for i in range(5)]
    assert iio.imread(mp4_bytes(frames, 16, None), extension=".mp4").shape == (5, 32, 32, 3)


def test_brush_of_a_press_is_saved_with_its_track(player):
    """As `sigma`, next to a track that has none; what is no brush takes nothing with it."""
    say(player, **{**START, "paced": True})
    wide = [{"id": 1, "way": [[0, 0.3, 0.3, 1]], "sigma": 0.2}, {"id": 2, "way": [[0, 0.8, 0.8, 1]]}]
    say(player, type="drag", take=1, seq=0, seen=-1, pointers=wide, released=[1, 2])
    with pytest.raises(ValueError, match=r"pointers\[0\].sigma: 0 must be a number from 0.001 to 1"):
        say(player, type="drag", take=1, seq=1, seen=0, pointers=[{**wide[0], "sigma": 0}], released=[])
    finish(player)
    (files,) = say(player, type="export", take=1, draw=False)
    assert [track.sigma for track in Tracks.from_json(json.loads(files.parts[1])).tracks] == [0.2, None]
