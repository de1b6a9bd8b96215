"""What a Space does before its first visitor."""

import io
import json
import threading

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import ardrag.known.answers as answers
from app_assets.player import Player
from app_assets.server import Limits, Space, build_server
from ardrag.tracks.tracks import Tracks
from pipelines.session import Session
from tests.app_assets.conftest import START, finish


@pytest.fixture
def asked(monkeypatch):
    """One entry for each answer that a model had to make."""
    found, keep = [], answers.Answers.keep
    monkeypatch.setattr(answers.Answers, "keep", lambda self, *given: found.append(given) or keep(self, *given))
    return found


@pytest.fixture
def rehearsed(make_pipeline, asked, monkeypatch):
    """`rehearsed(scheduler)`: a Space after its rehearsal, and the latents that were made in it."""
    steps, step, spaces = [], Session.step, []
    monkeypatch.setattr(Session, "step", lambda self, *given: steps.append(self.position) or step(self, *given))

    def rehearse(scheduler=None):
        space = Space(make_pipeline(scheduler=scheduler, transformer={"window_frames": 2}), Limits())
        spaces.append(space)
        space.rehearse()
        return space, list(steps)

    yield rehearse
    for space in spaces:
        space.close()


def test_a_first_visit_finds_everything_encoded_and_the_window_was_full_once(rehearsed, asked):
    space, steps = rehearsed()
    assert steps[:4] == [0, 1, 2, 3] and len(asked) >= 3 * len(space.examples) - 2
    asked.clear()
    player = space.player()
    for example in space.examples:
        player.post(json.dumps({**START, "picture": example["picture"], "prompt": example["prompt"], "num_frames": 5}))
        kinds = [reply.header["type"] for reply in finish(player)]
        assert kinds[0] == "started" and "error" not in kinds and "frames" in kinds
    assert not asked


def test_a_model_that_makes_a_clip_at_once_only_encodes(rehearsed, asked):
    scheduler = {"mode": "bidirectional", "sigmas": None, "num_inference_steps": 2, "eta": 0.0}
    space, steps = rehearsed(scheduler)
    assert space.trailer is None and steps == [] and len(asked) >= 3 * len(space.examples) - 2


def test_the_first_example_is_the_trailer(rehearsed):
    space, _ = rehearsed()
    trailer = Image.open(io.BytesIO(space.trailer))
    drawn = space.examples[0]["tracks"]["num_frames"]
    assert trailer.n_frames == drawn and trailer.info["loop"] == 1 and space.settings()["trailer"]
    assert trailer.size == (space.examples[0]["width"], space.examples[0]["height"])
    pipe, example = space.pipe, space.examples[0]
    order = {"tracks": Tracks.from_json(json.dumps(example["tracks"])), "num_frames": drawn, "seed": 0}
    *_, last = pipe.stream(space.pictures.find(example["picture"]), example["prompt"], **order)
    trailer.seek(drawn - 1)  # a random model's noise, twice through WebP
    pairs = np.stack([np.asarray(trailer.convert("RGB")).flatten(), last[-1].flatten()])
    assert np.corrcoef(pairs)[0, 1] > 0.6


def test_before_the_rehearsal_there_is_no_trailer(make_pipeline):
    space = Space(make_pipeline(), Limits())
    client = TestClient(build_server(space))
    assert not client.get("/settings.json").json()["trailer"]
    answer = client.get("/trailer.webp")
    assert answer.status_code == 404 and "trailer: there is none yet" in answer.json()["message"]
    space.trailer = b"RIFF"
    assert client.get("/settings.json").json()["trailer"]
    assert client.get("/trailer.webp").content == b"RIFF"
    space.close()


def test_a_visitor_has_a_turn_in_the_middle_and_closing_ends_it(make_pipeline, monkeypatch):
    space, turns = Space(make_pipeline(), Limits()), []
    turn = Player.turn

    def noted(player):
        turns.append(player)
        if len(turns) == 4:
            visitor = space.player()
            visitor.post(json.dumps({**START, "picture": space.examples[0]["picture"]}))
            space.worker.submit(visitor.turn)
        if len(turns) == 8:
            space.close()
        return turn(player)

    monkeypatch.setattr(Player, "turn", noted)
    thread = threading.Thread(target=space.rehearse)
    thread.start()
    thread.join(60)
    assert not thread.is_alive() and len({id(player) for player in turns[4:6]}) == 2 and len(turns) == 8
