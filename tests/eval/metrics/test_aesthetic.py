"""The scorer of a suite: the bundled one, or LAION's head where it is given."""

import numpy as np
import pytest
import torch

from ardrag.worlds.sprites import make_clip
from eval.metrics.aesthetic import frame_scores, load_scorer


def test_bundled_scorer_prefers_what_is_whole():
    frames = make_clip("test", 0, 9).frames
    scorer = load_scorer(None)
    scores = frame_scores(scorer, frames)
    assert scores.shape == (9,) and scores.dtype == np.float64
    expected = scorer.score_frames(torch.from_numpy(frames).permute(0, 3, 1, 2)).numpy()
    assert scores == pytest.approx(expected, rel=1e-6)
    noise = np.random.default_rng(0).integers(-60, 60, frames.shape)
    assert frame_scores(scorer, (frames + noise).clip(0, 255).astype(np.uint8)).max() < scores.min()


def test_a_missing_head_is_told_before_clip_is_loaded(tmp_path):
    with pytest.raises(ValueError, match="aesthetic: .*none.pth is no file"):
        load_scorer(tmp_path / "none.pth")
