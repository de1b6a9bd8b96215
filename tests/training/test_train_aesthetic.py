"""Degradations grow with their severity and begin at nothing; a short training learns to rank them."""

from pathlib import Path

import pytest
import torch

from ardrag.judges.degradations import DEGRADATIONS, degrade
from ardrag.judges.sprite_aesthetic import SpriteAestheticReward
from training import train_aesthetic
from training.run.runtime import RunLog
from training.train_aesthetic import AestheticConfig, draw_frames, main, rank_correlation, spoiled_batch


@pytest.fixture(scope="module")
def frames():
    return draw_frames("train", 6)


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_severity(frames, name):
    distances = []
    for severity in (0.0, 0.1, 0.4, 1.0):
        generator = torch.Generator().manual_seed(0)
        spoiled = degrade(frames, torch.full((6,), severity), [name] * 6, generator)
        assert spoiled.shape == frames.shape and spoiled.dtype == torch.uint8
        distances.append((spoiled.float() - frames.float()).abs().mean().item())
    assert distances[0] < 0.02 and distances == sorted(distances) and distances[-1] > 2


def test_each_picture_has_its_own_way_and_amount(frames):
    severity = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    names = ["blur", "blur", "noise", "noise", "broken shapes", "colour drift"]
    spoiled = degrade(frames, severity, names, torch.Generator().manual_seed(0))
    changed = (spoiled.float() - frames.float()).abs().mean((1, 2, 3)) > 0.5
    assert changed.tolist() == [False, True, False, True, False, True]


def test_a_batch_holds_untouched_frames_too(frames):
    many = frames.repeat(50, 1, 1, 1)[:, :, :32, :32]
    spoiled, wanted, names = spoiled_batch(many, torch.Generator().manual_seed(0))
    assert set(names) == set(DEGRADATIONS) and wanted.min() >= 0
    assert (wanted == 10).float().mean().item() == pytest.approx(0.125, abs=0.06)
    whole = wanted == 10
    assert (spoiled[whole].float() - many[whole].float()).abs().max() <= 1


def test_rank_correlation():
    values = torch.tensor([0.1, 5.0, 2.0, 7.0])
    assert rank_correlation(values, values**3) == pytest.approx(1)
    assert rank_correlation(values, -values) == pytest.approx(-1)


@pytest.mark.slow
def test_a_short_training_learns_to_rank(tmp_path, monkeypatch):
    """One kind of degradation is enough for a few seconds."""
    monkeypatch.setattr(train_aesthetic, "DEGRADATIONS", {"noise": DEGRADATIONS["noise"]})
    config = AestheticConfig(
        str(tmp_path), width=8, levels=3, steps=150, batch_size=16, pool_frames=60, validation_frames=40
    )
    main(config)
    rows = RunLog(Path(tmp_path), 10**6).rows()
    assert rows[-1]["validation/noise"] > 0.6
    assert SpriteAestheticReward.from_pretrained(tmp_path / "scorer").score_frames(draw_frames("train", 2)).shape == (
        2,
    )
