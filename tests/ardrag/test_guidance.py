"""Guidance over text and motion: which conditions are asked, and how their answers are put together."""

import pytest
import torch

from ardrag.conditioning import Conditions
from ardrag.guidance import Guidance, extrapolate, without


def parts(guidance):
    conditions = Conditions(
        torch.ones(1, 2, 1, 2, 2), torch.ones(1, 2, 1, 2, 2), torch.ones(1, 3, 4), torch.ones(1, 5, 6)
    )
    return without(conditions, torch.zeros(1, 3, 4), torch.zeros(1, 2, 1, 1, 1), guidance)


@pytest.mark.parametrize(
    ("guidance", "text", "motion"),
    [
        (Guidance(), [1], [1]),
        (Guidance(2.0), [1, 0], [1, 1]),
        (Guidance(motion=2.0), [1, 1], [1, 0]),
        (Guidance(2.0, 2.0), [1, 0, 1], [1, 1, 0]),
    ],
)
def test_what_is_left_out(guidance, text, motion):
    found = parts(guidance)
    assert len(found) == guidance.rows
    assert [part.text.mean().item() for part in found] == text
    assert [part.motion.mean().item() for part in found] == motion


def test_joint_guidance_of_motionstream_is_one_of_these():
    """``base + t (v - without text) + m (v - without motion)`` with its mixed base, for its own 3.0 and 1.5."""
    wanted, no_text, no_motion = torch.randn(3, 5, dtype=torch.float64)
    t, m = 3.0, 1.5
    share = t / (t + m)
    base = share * no_text + (1 - share) * no_motion
    theirs = base + t * (wanted - no_text) + m * (wanted - no_motion)
    ours = extrapolate([wanted, no_text, no_motion], Guidance(t - share, m - (1 - share)))
    torch.testing.assert_close(ours, theirs)


def test_text_alone_is_the_usual_formula():
    wanted, negative = torch.randn(2, 5, dtype=torch.float64)
    torch.testing.assert_close(extrapolate([wanted, negative], Guidance(5.0)), negative + 6.0 * (wanted - negative))
    assert extrapolate([wanted], Guidance()) is wanted
