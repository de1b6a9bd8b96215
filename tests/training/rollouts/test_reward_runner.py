"""Rewards by name, and what happens to one that fails."""

import os
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ardrag.judges.constancy import ConstancyReward
from ardrag.judges.patch_tracking import PatchTracker
from ardrag.judges.rewards import MotionReward
from ardrag.judges.sprite_aesthetic import SpriteAestheticReward
from ardrag.judges.trackers import build_tracker
from ardrag.judges.tracking import LucasKanadeTracker
from ardrag.tracks.tracks import Tracks
from training.rollouts.reward_runner import RewardProcess, build_reward, build_rewards, score, score_all


def test_by_name():
    rewards, weights = build_rewards(["motion=0.5"])
    assert weights == {"motion": 0.5} and isinstance(rewards["motion"], MotionReward)
    assert isinstance(rewards["motion"].tracker, PatchTracker)
    assert isinstance(build_reward("motion", "lucas_kanade").tracker, LucasKanadeTracker)
    assert isinstance(build_reward("sprite_aesthetic"), SpriteAestheticReward)
    assert isinstance(build_reward("constancy"), ConstancyReward)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["motion"], "rewards: 'motion' is not name=weight"),
        (["motion=much"], "rewards: 'motion=much' is not name=weight"),
        (["beauty=1"], "rewards: 'beauty' is unknown; use motion, constancy, aesthetic or sprite_aesthetic"),
        (["motion=1", "motion=2"], "rewards: 'motion' is given twice"),
        ([], "rewards: none given"),
    ],
)
def test_entries_that_are_none(entries, message):
    with pytest.raises(ValueError, match=message):
        build_rewards(entries)


def test_unknown_tracker():
    with pytest.raises(ValueError, match="tracker: 'eyes' is unknown; use patch, lucas_kanade, cotracker"):
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


VIDEOS = torch.randint(0, 256, (2, 9, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
TRACKS = Tracks.from_points([[(0, 0.3, 0.5), (8, 0.7, 0.5)]], num_frames=9)


@pytest.mark.slow
def test_rewards_in_two_processes_are_those_of_this_one(tmp_path):
    entries = ["motion=1", "sprite_aesthetic=0.5"]
    here, weights = build_rewards(entries)
    there, same = build_rewards(entries, processes=True)
    assert weights == same and all(isinstance(reward, RewardProcess) for reward in there.values())
    expected, found = (score_all(rewards, VIDEOS, TRACKS, 1, tmp_path) for rewards in (here, there))
    for name in weights:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)
        there[name].close()


class Moody:
    """A reward that tells its process and when it worked, and dies as often as its folder says."""

    def __init__(self, folder, deaths):
        self.folder, self.deaths = folder, deaths

    def __call__(self, videos, tracks):
        died = len(list(self.folder.iterdir()))
        if died < self.deaths:
            (self.folder / str(died)).touch()
            os._exit(1)
        began = time.time()
        time.sleep(0.5)
        return np.array([[os.getpid(), began, time.time(), tracks.num_frames, float(videos.sum())]] * 2)


@pytest.mark.slow
def test_two_processes_work_at_the_same_time(tmp_path):
    rewards = {name: RewardProcess(Moody, tmp_path, 0) for name in ("one", "other")}
    score_all(rewards, VIDEOS, TRACKS, 1, tmp_path)  # both have begun now
    found = score_all(rewards, VIDEOS, TRACKS, 1, tmp_path)
    one, other = found["one"][0], found["other"][0]
    assert len({one[0], other[0], os.getpid()}) == 3
    assert one[1] < other[2] and other[1] < one[2]
    assert one[3] == 9 and one[4] == float(VIDEOS.sum())
    for reward in rewards.values():
        reward.close()


@pytest.mark.slow
def test_a_process_that_dies_is_begun_again(tmp_path):
    (tmp_path / "deaths").mkdir()
    reward = RewardProcess(Moody, tmp_path / "deaths", 2)
    found = score("motion", reward, VIDEOS, TRACKS, 3, tmp_path)
    reward.close()
    assert found.shape == (2, 5) and len(list((tmp_path / "deaths").iterdir())) == 2
    assert not (tmp_path / "failed_rollout").exists()


@pytest.mark.slow
def test_a_process_that_keeps_dying_stops_the_run_with_the_rollout_kept(tmp_path):
    (tmp_path / "deaths").mkdir()
    reward = RewardProcess(Moody, tmp_path / "deaths", 9)
    with pytest.raises(RuntimeError, match="reward motion failed 2 times.*rollout is kept"):
        score_all({"motion": reward}, VIDEOS, TRACKS, 2, tmp_path)
    assert torch.equal(load_file(tmp_path / "failed_rollout" / "videos.safetensors")["videos"], VIDEOS)


@pytest.mark.slow
def test_what_a_reward_raises_in_its_process_is_told_here(tmp_path):
    reward = RewardProcess(build_reward, "beauty")
    with pytest.raises(RuntimeError, match="reward motion failed 1 times"):
        score("motion", reward, VIDEOS, TRACKS, 1, tmp_path)
