"""The gate: its numbers where they are known, its words, and a run from end to end with a random model."""

import json

import numpy as np
import pytest

from ardrag.worlds.small import SmallWorld
from eval.benchmark.headroom import FULL_REWARD, ClipHeadroom, make_group, offsets, shown_share, variance_share
from eval.headroom import HeadroomConfig, main, summarize, verdicts


def told(**changes):
    plain = ClipHeadroom(1.0, 1.0, 0.1, 0.98, 0.99 * FULL_REWARD, 0.01, None, None)
    found = summarize([plain._replace(**changes), plain._replace(**changes)])
    return verdicts(found, changes.get("reward", plain.reward) / FULL_REWARD)


def test_the_share_of_variance_is_that_of_the_noise():
    rng = np.random.default_rng(0)
    bias, noise = rng.standard_normal((1, 4000, 2)), rng.standard_normal((4, 4000, 2))
    assert variance_share(2 * bias + noise) == pytest.approx(0.2, abs=0.02)
    assert variance_share(noise) == pytest.approx(1, abs=0.02)
    assert variance_share(np.repeat(bias, 4, axis=0)) == 0 == variance_share(0 * noise)


def test_the_true_video_is_on_its_path_and_shows_its_passers_by():
    clip = SmallWorld(passers_by=1).make("test", 1, 5)
    still = np.repeat(clip.frames[:1], 5, axis=0)
    assert np.nanmax(np.abs(offsets(clip, np.stack([clip.frames, still]))[0])) < 1
    assert shown_share(clip, clip.free, clip.frames[None]) == pytest.approx(1)
    faint = (0.5 * clip.frames + 0.5 * clip.background).astype(np.uint8)
    assert shown_share(clip, clip.free, faint[None]) == pytest.approx(0.5, abs=0.05)
    assert shown_share(clip, (), clip.frames[None]) is None


def test_words_follow_the_numbers():
    assert all("nothing" in line for line in told())
    assert "means something" in told(one_step=1.2)[0] and "nothing" in told(one_step=1.05)[0]
    assert "means something" in told(shown_one_step=0.6, shown=0.9)[0]
    wins = {"variance": 0.5, "best": 0.7, "reward": 0.8 * FULL_REWARD}
    assert "here: something" in told(**wins)[1] and "something likewise" in told(**wins)[2]
    assert "10 % of the squared error is variance" in told(**{**wins, "variance": 0.1})[1]
    assert "only 2 % better" in told(**{**wins, "best": 0.98})[1]
    assert "earns 99 % of the reward" in told(**{**wins, "reward": 0.99 * FULL_REWARD})[1]


def test_few_clips_that_disagree_decide_nothing():
    clip = ClipHeadroom(1.0, 1.0, 0.1, 0.7, 4.0, 0.3, None, None)
    found = summarize([clip, clip, clip._replace(variance=0.9)])
    assert found["share of variance"].mean > 0.3 and "not decided" in verdicts(found, 0.8)[1]


def test_members_differ_and_repeat(pipeline):
    clip = SmallWorld().make("test", 0, 9, 32, 32)
    first, finished = make_group(pipeline, clip, 3, seed=5)
    assert first.shape == finished.shape and first.shape[:1] + first.shape[2:3] == (3, 3)
    assert not finished[0].equal(finished[1]) and not first[:, :, 1:].equal(finished[:, :, 1:])
    assert make_group(pipeline, clip, 3, seed=5)[1].equal(finished)
    assert finished[:2].allclose(make_group(pipeline, clip, 2, seed=5)[1], atol=1e-4)  # whoever else there is


@pytest.mark.slow
def test_a_page_from_end_to_end(pipeline, tmp_path, capsys):
    pipeline.save_pretrained(tmp_path / "model")
    options = ["--num_clips", "2", "--members", "2", "--num_latents", "3", "--report", str(tmp_path / "page")]
    main([str(tmp_path / "model"), "--world", "small:passers_by=1", *options])
    page = capsys.readouterr().out
    assert (
        "in the small world with passers_by=1" in page
        and "GRPO, what it means here" in page
        and "shown by one step" in page
    )
    clips = json.loads((tmp_path / "page.json").read_text())["clips"]
    assert len(clips) == 2 and all(np.isfinite(list(clip.values())).all() for clip in clips)


def test_what_is_refused():
    with pytest.raises(ValueError, match="members: 1 is too few"):
        HeadroomConfig("model", members=1)
    with pytest.raises(ValueError, match="world: 'moon' is unknown"):
        main(["model", "--world", "moon"])
