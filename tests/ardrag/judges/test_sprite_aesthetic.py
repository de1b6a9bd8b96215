"""The small scorer: its interface, and that the bundled one ranks what it was made to rank."""

import numpy as np
import pytest
import torch

from ardrag.judges.sprite_aesthetic import BUNDLED_SCORER, SpriteAesthetic, SpriteAestheticReward
from ardrag.tracks.tracks import Tracks
from ardrag.worlds.sprites import make_clip


def test_scores_are_between_0_and_10_and_of_each_picture_alone():
    torch.manual_seed(0)
    reward = SpriteAestheticReward(SpriteAesthetic(width=8, levels=3), batch_size=3)
    videos = torch.randint(0, 256, (2, 5, 3, 32, 48), dtype=torch.uint8)
    alone = torch.stack([reward.score_frames(frame[None])[0] for frame in videos.flatten(0, 1)]).view(2, 5)
    assert (alone > 0).all() and (alone < 10).all()
    expected = np.stack([alone[:, 0], alone[:, 1:].mean(1)], axis=1)
    np.testing.assert_allclose(reward(videos, Tracks.empty(5)), expected, rtol=1e-4)


def test_round_trip(tmp_path):
    model = SpriteAesthetic(width=8, levels=2)
    model.save_pretrained(tmp_path)
    loaded = SpriteAestheticReward.from_pretrained(tmp_path)
    frames = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(loaded.score_frames(frames), model.eval()(frames).detach())
    assert not any(p.requires_grad for p in loaded.model.parameters())
    with pytest.raises(ValueError, match="aesthetic: .*none holds no scorer; make one with"):
        SpriteAestheticReward.from_pretrained(tmp_path / "none")


def test_the_bundled_scorer_prefers_what_is_whole():
    """Clips of the test split, which no training has seen: untouched above blurred above noise."""
    reward = SpriteAestheticReward.from_pretrained()
    frames = torch.stack([torch.from_numpy(make_clip("test", i, 5).frames[2]).permute(2, 0, 1) for i in range(12)])
    small = torch.nn.functional.interpolate(frames.float(), scale_factor=1 / 4, mode="area")
    blurred = torch.nn.functional.interpolate(small, scale_factor=4, mode="bilinear").to(torch.uint8)
    scores = [reward.score_frames(x) for x in (frames, blurred, torch.randint_like(frames, 0, 256))]
    assert (scores[0] > scores[1]).float().mean() > 0.9 and (scores[0] > scores[2]).all()
    assert scores[0].mean() - scores[1].mean() > 1.5


def test_the_bundled_scorer_is_small():
    assert sum(path.stat().st_size for path in BUNDLED_SCORER.iterdir()) < 2**20
