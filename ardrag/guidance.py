"""Classifier-free guidance over text and over motion: away from what the model says without the one or the other.

    velocity + text * (velocity - without text) + motion * (velocity - without motion)

A ``text`` of 3 is a guidance scale of 4 in the usual count. MotionStream's joint guidance, which starts from a mixture
``a * without text + (1 - a) * without motion`` with ``a = t / (t + m)``, is this one with ``text = t - a`` and
``motion = m - (1 - a)`` (its section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from ardrag.conditioning import Conditions


@dataclass(frozen=True)
class Guidance:
    """Strength of guidance over text and over motion; 0 is none."""

    text: float = 0.0
    motion: float = 0.0

    @property
    def rows(self) -> int:
        """Answers of the model that one guided answer takes."""
        return 1 + bool(self.text) + bool(self.motion)


def without(conditions: Conditions, null_text: Tensor, null_motion: Tensor, guidance: Guidance) -> list[Conditions]:
    """The conditions, then those without text and without motion, as far as ``guidance`` asks for them."""
    found = [conditions]
    if guidance.text:
        found.append(replace(conditions, text=null_text.expand_as(conditions.text)))
    if guidance.motion:
        found.append(replace(conditions, motion=null_motion.expand_as(conditions.motion)))
    return found


def extrapolate(velocities: list[Tensor], guidance: Guidance) -> Tensor:
    """Guided velocity from those that belong to `without`."""
    wanted, rest = velocities[0], velocities[1:]
    scales = [scale for scale in (guidance.text, guidance.motion) if scale]
    guided = wanted
    for scale, lacking in zip(scales, rest, strict=True):
        guided = guided + scale * (wanted - lacking)
    return guided
