"""The small world's test split: 64x64 pixels, one or two sprites, exact truth; its options as `--world` has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, count, islice

import numpy as np

from ardrag.worlds.open import read_options
from ardrag.worlds.small import SmallWorld
from ardrag.worlds.sprites import BENCHMARK_CLIPS, SpriteClip
from eval.suites.case import Case, Suite, clip_case
from eval.suites.sprites import SPLIT, categories_of


SIDE = 64
NUM_FRAMES = 25
"""Length of the clips that are asked whether their paths cross."""
CROSSING_CLIPS = 24
"""Of some twelve hundred."""


class SmallSuite(Suite):
    """The first clips of the test split.

    Raises:
        ValueError: if the world has no such option.
    """

    name = "small"

    def __init__(self, options: str = "") -> None:
        self._world = SmallWorld(**read_options(options))

    def names(self) -> Sequence[str]:
        """See `Suite`."""
        return [f"{index:03d}" for index in range(BENCHMARK_CLIPS)]

    def case(self, index: int, num_frames: int) -> Case:
        """See `Suite`."""
        clip = self._world.make(SPLIT, index, num_frames, SIDE, SIDE)
        crossing = ("paths cross",) if cross(clip) else ()
        several = () if len(clip.movers) > 1 else ("one path",)
        return clip_case(index, clip, num_frames, (*categories_of(clip), *several, *crossing), sprites=clip)

    def digest(self) -> str:
        """See `Suite`: the clips change with the code, which is part of every key, and with the options."""
        return f"{self.name} {self._world.named}"


class CrossingSuite(SmallSuite):
    """The first clips of the test split in which two paths cross."""

    name = "crossing"

    def __init__(self, options: str = "") -> None:
        super().__init__(options)
        clips = ((index, self._world.make(SPLIT, index, NUM_FRAMES, SIDE, SIDE)) for index in count())
        self._indices = [index for index, _ in islice(((i, c) for i, c in clips if cross(c)), CROSSING_CLIPS)]

    def names(self) -> Sequence[str]:
        """See `Suite`."""
        return [f"{index:04d}" for index in self._indices]

    def case(self, index: int, num_frames: int) -> Case:
        """See `Suite`."""
        number = self._indices[index]
        return replace(super().case(number, num_frames), index=index, name=f"{number:04d}")


def cross(clip: SpriteClip) -> bool:
    """Whether two moved sprites cover each other to a half or more at some time."""
    for one, other in combinations([clip.sprites[mover] for mover in clip.movers], 2):
        if np.linalg.norm(one.xy - other.xy, axis=1).min() < (one.size + other.size) / 4:
            return True
    return False
