"""206 clips of Photo World's test split: photographs and cut-outs from packages that training never sees."""

from __future__ import annotations

from collections.abc import Sequence

from ardrag.worlds.photo_library import default_library
from ardrag.worlds.photos import make_photo_clip
from ardrag.worlds.sprites import BENCHMARK_CLIPS
from eval.suites.case import Case, Suite, clip_case


class PhotoSuite(Suite):
    """The first clips of the test split; categories say what is special about them.

    Raises:
        ValueError: if there is no library of photographs.
    """

    name = "photos"

    def __init__(self) -> None:
        self._library = default_library()

    def names(self) -> Sequence[str]:
        """See `Suite`."""
        return [f"{index:03d}" for index in range(BENCHMARK_CLIPS)]

    def case(self, index: int, num_frames: int) -> Case:
        """See `Suite`."""
        clip = make_photo_clip("test", index, num_frames, library=self._library)
        return clip_case(index, clip, num_frames, clip.categories or ("plain",), photos=clip)

    def digest(self) -> str:
        """See `Suite`: the clips change with the code, which is part of every key, and with the library."""
        return f"{self.name} {len(self._library.entries)} {len(self._library.pixels)}"
