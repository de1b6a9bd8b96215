"""What a Space does before its first visitor."""

import json
import threading

import pytest

import ardrag.known.answers as answers
from app_assets.player import Player
from app_assets.server import Limits, Space
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
    assert steps == [0, 1, 2, 3] and len(asked) >= 3 * len(space.examples) - 2
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
    assert steps == [] and len(asked) >= 3 * len(space.examples) - 2


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
