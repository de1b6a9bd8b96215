"""Motion consistency: 5 on the path, alpha minus the squared distance beside it, 0 far away."""

import numpy as np
import pytest

from ardrag.judges.tracking import Trajectories
from eval.metrics.consistency import motion_consistency


@pytest.mark.parametrize(("shift", "value"), [(0, 5), (8, 4), (16, 1), (17, 5 - (17 / 8) ** 2), (24, 0)])
def test_shift_in_pixels(shift, value):
    wanted = Trajectories(np.zeros((9, 2, 2), np.float32), np.ones((9, 2), bool))
    found = Trajectories(np.full((9, 2, 2), [shift, 0], np.float32), wanted.visible)
    assert motion_consistency(found, wanted) == pytest.approx(value, abs=1e-5)


def test_nothing_shown_is_none():
    nothing = Trajectories(np.zeros((9, 1, 2), np.float32), np.zeros((9, 1), bool))
    assert motion_consistency(nothing, nothing) is None
