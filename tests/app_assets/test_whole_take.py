"""A model that makes clips at once behind the Space: progress, then all frames; nothing to steer."""

import json

import imageio.v3 as iio
import numpy as np
import pytest

from app_assets.endpoints import at_once
from app_assets.player import Player
from app_assets.whole_take import WholeTake
from tests.app_assets.conftest import PATH, START, finish, pixels, say, started


STEPS = 3


@pytest.fixture(scope="module")
def whole(make_pipeline):
    return make_pipeline(scheduler={"mode": "bidirectional", "sigmas": None, "num_inference_steps": STEPS, "eta": 0.0})


@pytest.fixture
def visitor(whole, picture):
    one = Player(whole, {"p": picture}.__getitem__, max_frames=101)
    yield one
    one.close()


ORDER = {**START, "steps": None, "tracks": json.loads(PATH.to_json())}


def test_progress_and_then_all_frames(visitor, whole, picture):
    visitor.post(json.dumps(ORDER))
    replies = finish(visitor)
    kinds = [reply.header["type"] for reply in replies]
    assert kinds == ["started", *["progress"] * STEPS, "frames", "done"]
    assert [(reply.header["step"], reply.header["steps"]) for reply in replies[1:4]] == [(i + 1, 3) for i in range(3)]
    header = replies[4].header
    assert header["first"] == 0 and header["lag"] is None and len(header["places"]) == len(pixels(replies)) == 13
    assert header["places"][0][0] == pytest.approx([0.2, 0.3, 1.0])
    made = whole.start_clip(picture, ORDER["prompt"], tracks=PATH, num_frames=13, seed=3)
    *_, frames = at_once(made)
    (video, tracks) = say(visitor, type="export", take=1, draw=False)[0].parts
    assert len(iio.imread(video, extension=".mp4")) == len(frames) == 13
    assert json.loads(tracks)["num_frames"] == 13 and json.loads(tracks)["source"]["seed"] == 3


def test_it_is_not_steered_but_stopped_and_gone_on_with(visitor):
    say(visitor, **ORDER | {"steps": 12})
    for message in (
        {"type": "drag", "seq": 1, "seen": 0, "pointers": [], "released": []},
        {"type": "rewind", "latent": 0},
        {"type": "branch", "latent": 0},
        {"type": "plan", "tracks": None, "num_frames": 13},
    ):
        (answer, *_) = say(visitor, **message, take=1)
        assert (
            answer.header["type"] == "error" and "cannot be steered; draw, then generate" in answer.header["message"]
        )
    (answer,) = say(visitor, type="cancel", take=1)
    assert answer.header == {"type": "cancelled", "take": 1, "frames": 0} and not visitor.due
    say(visitor, type="seen", take=1, frame=-1, rtt=0)
    say(visitor, type="run", take=1, on=True)
    assert finish(visitor)[-1].header["type"] == "done"


def test_a_take_shows_the_clip_of_the_pipeline(whole, picture):
    take = WholeTake(lambda: whole.start_clip(picture, tracks=PATH, num_frames=13, seed=1), 13)
    assert take.due and not take.done and take.fps == whole.config.fps
    assert [take.step() for _ in range(STEPS + 1)] == [(1, 3), (2, 3), (3, 3), (3, 3)]
    assert take.done and not take.due and take.summary()["frames"] == 13
    clip = whole.start_clip(picture, tracks=PATH, num_frames=13, seed=1)
    *_, frames = at_once(clip)
    assert np.array_equal(np.stack(frames), np.stack(list(take.frames)))
    take.close()


@pytest.mark.slow
def test_the_page_knows_and_programs_get_the_video(whole, picture, tmp_path):
    import httpx
    from gradio_client import Client, handle_file

    picture.save(tmp_path / "p.png")
    with started(whole) as running:
        assert httpx.get(running.url + "/settings.json").json()["live"] is False
        client = Client(running.url, verbose=False)
        job = client.submit(
            image=handle_file(str(tmp_path / "p.png")), tracks=PATH.to_json(), num_frames=13, api_name="/generate"
        )
        *progress, (_, video, tracks) = list(job)
    assert [part["made"] for part, *_ in progress] == [0] * STEPS + [13]
    assert tracks["num_frames"] == 13 and len(iio.imread(video["path"] if isinstance(video, dict) else video)) == 13
