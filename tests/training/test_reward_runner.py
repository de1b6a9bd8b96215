"""Rewards by name, and what happens to one that fails."""

import numpy as np
import pytest
import torch

from ardrag.rewards import MotionReward
from ardrag.tracking import LucasKanadeTracker
from ardrag.tracks import Tracks
from training.reward_runner import build_rewards, build_tracker, score


def test_by_name():
    rewards, weights = build_rewards(["motion=0.5"])
    assert weights == {"motion": 0.5} and isinstance(rewards["motion"], MotionReward)
    assert isinstance(rewards["motion"].tracker, LucasKanadeTracker)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["motion"], "rewards: 'motion' is not name=weight"),
        (["motion=much"], "rewards: 'motion=much' is not name=weight"),
        (["beauty=1"], "rewards: 'beauty' is unknown; use motion, aesthetic or sprite_aesthetic"),
        (["motion=1", "motion=2"], "rewards: 'motion' is given twice"),
        ([], "rewards: none given"),
    ],
)
def test_entries_that_are_none(entries, message):
    with pytest.raises(ValueError, match=message):
        build_rewards(entries)


def test_unknown_tracker():
    with pytest.raises(ValueError, match="tracker: 'eyes' is unknown; use lucas_kanade, cotracker"):
        build_tracker("eyes")


def test_a_reward_is_asked_again(tmp_path):
    calls = []

    def reward(videos, tracks):
        calls.append(1)
        if len(calls) < 3:
            raise OSError("busy")
        return np.ones((2, 3))

    videos = torch.zeros(2, 9, 3, 8, 8, dtype=torch.uint8)
    assert score("motion", reward, videos, Tracks.empty(9), 3, tmp_path).sum() == 6
    assert len(calls) == 3 and not list(tmp_path.iterdir())
