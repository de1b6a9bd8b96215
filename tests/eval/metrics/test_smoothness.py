"""VBench's formula with interpolators that are known, and AMT's padding."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from eval.metrics.smoothness import _padded, _unpadded, interpolation_smoothness, load_amt, midpoint


def ramp(length=9):
    return np.stack([np.full((4, 4, 3), 10 * t, np.uint8) for t in range(length)])


def test_even_change_is_perfectly_smooth():
    assert interpolation_smoothness(ramp()) == 1


def test_a_jump_costs_its_size():
    frames = ramp(5)
    frames[1] += 30
    assert interpolation_smoothness(frames) == pytest.approx((255 - 15) / 255)  # one of two odd frames is 30 off


def test_even_frames_are_given_and_a_better_guess_is_smoother():
    frames = ramp(7)
    frames[2] += 100
    assert interpolation_smoothness(frames, lambda before, after: frames[1]) < 1
    truth = iter(frames[1::2])
    assert interpolation_smoothness(frames, lambda before, after: next(truth)) == 1
    assert interpolation_smoothness(frames[:6]) == interpolation_smoothness(frames[:5])


def test_midpoint_does_not_overflow():
    assert midpoint(np.full((1, 1, 3), 255, np.uint8), np.full((1, 1, 3), 253, np.uint8)).max() == 254


def test_too_short():
    with pytest.raises(ValueError, match="frames: 2; smoothness needs at least three"):
        interpolation_smoothness(ramp(2))


def test_padding_is_undone():
    frame = np.random.default_rng(0).integers(0, 256, (21, 45, 3), dtype=np.uint8)
    padded = _padded(frame)
    assert padded.shape == (1, 3, 32, 48) and (_unpadded(padded, 21, 45) == frame).all()


def test_amt_is_told_missing_by_name():
    with pytest.raises(ValueError, match="smoothness: AMT-S comes with VBench"):
        load_amt()


class Mean(torch.nn.Module):
    """Has AMT's way of being called; gives the mean of both frames times a learnt number."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.zeros(1))

    def forward(self, before, after, time, scale_factor, eval):
        assert time.shape == (1, 1, 1, 1) and float(time) == 0.5 and scale_factor == 1.0 and eval
        return {"imgt_pred": self.gain * (before + after) / 2}


def test_amt_is_loaded_and_called_as_vbench_does(tmp_path, monkeypatch):
    """With the package's modules stood in for; the network is asked with padded frames in 0..1."""
    modules = {
        "vbench": SimpleNamespace(__file__=str(tmp_path / "vbench" / "__init__.py")),
        "omegaconf": SimpleNamespace(OmegaConf=SimpleNamespace(load=lambda path: SimpleNamespace(network=path))),
    }
    for name in ("vbench.third_party", "vbench.third_party.amt", "vbench.third_party.amt.utils"):
        modules[name] = ModuleType(name)
    modules["vbench.third_party.amt.utils.build_utils"] = SimpleNamespace(build_from_cfg=lambda config: Mean())
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    torch.save({"state_dict": {"gain": torch.ones(1)}}, tmp_path / "amt-s.pth")
    interpolate = load_amt(tmp_path / "amt-s.pth")
    frames = ramp(5)
    assert interpolate(frames[0], frames[2]).shape == (4, 4, 3)
    assert interpolation_smoothness(frames, interpolate) == 1
    with pytest.raises(ValueError, match=r"smoothness: .*nothing.pth is no file"):
        load_amt(tmp_path / "nothing.pth")
