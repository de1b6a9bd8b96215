"""Flicker and PSNR where they are known."""

import numpy as np
import pytest

from ardrag.judges.template_match import psnr
from eval.metrics.background import flicker


def test_flicker_is_the_mean_change():
    frames = np.full((5, 4, 4, 3), 100, np.uint8)
    assert flicker(frames) == 0
    frames[1::2] += 6
    assert flicker(frames) == pytest.approx(6)
    frames[:, :2] = 50
    assert flicker(frames, np.arange(4)[:, None] * np.ones(4) >= 2) == pytest.approx(6)
    assert flicker(frames) == pytest.approx(3)
    assert flicker(frames, np.zeros((4, 4), bool)) is None


def test_psnr():
    truth = np.full((3, 4, 4, 3), 100, np.uint8)
    assert psnr(truth + 10, truth) == pytest.approx([20 * np.log10(25.5)] * 3)
    assert psnr(truth, truth[0]) == pytest.approx([10 * np.log10(255**2 / 1e-3)] * 3)
    half = truth.copy()
    half[:, :2] = 0
    assert psnr(half, truth, np.arange(4)[:, None] * np.ones(4) >= 2).min() > 70
    assert np.isnan(psnr(half, truth, np.zeros((4, 4), bool))).all()
    with pytest.raises(ValueError, match="frames and truth: shapes"):
        psnr(truth, truth[:2])
