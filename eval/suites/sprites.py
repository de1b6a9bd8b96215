"""The paper's benchmark in small: 206 clips of Sprite World's test split, made on the spot, with exact truth."""

from __future__ import annotations

from collections.abc import Sequence

from ardrag.worlds.sprites import BENCHMARK_CLIPS, HELD_OUT_SHAPES, SpriteClip, make_clip
from eval.suites.case import Case, Suite, clip_case


SPLIT = "test"


class SpriteSuite(Suite):
    """The first clips of the test split; categories say how fast, occluded, near the border, with how many others."""

    name = "sprites"

    def names(self) -> Sequence[str]:
        """See `Suite`."""
        return [f"{index:03d}" for index in range(BENCHMARK_CLIPS)]

    def case(self, index: int, num_frames: int) -> Case:
        """See `Suite`."""
        clip = make_clip(SPLIT, index, num_frames)
        return clip_case(index, clip, num_frames, categories_of(clip), sprites=clip)

    def digest(self) -> str:
        """See `Suite`: the clips change only with the code that draws them, which is part of every key."""
        return self.name


def categories_of(clip: SpriteClip) -> tuple[str, ...]:
    """The clip's own categories, and whether a moved sprite has a shape that training never shows."""
    unseen = any(clip.sprites[mover].shape in HELD_OUT_SHAPES for mover in clip.movers)
    return (*clip.categories, "unseen shape" if unseen else "seen shape")
