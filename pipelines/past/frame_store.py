"""Finished pixel frames of a session, on disk, so that a stream may run for ever in bounded memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt


Frame = npt.NDArray[np.uint8]


class FrameStore:
    """Append-only list of uint8 frames ``[H, W, 3]`` in an unnamed temporary file; can be cut and copied."""

    def __init__(self, height: int, width: int) -> None:
        self.shape = (height, width, 3)
        self._bytes = height * width * 3
        self._file = tempfile.TemporaryFile(prefix="ardrag-frames-", buffering=0)  # noqa: SIM115 (lives as long as the store)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Frame:
        if not -self._count <= index < self._count:
            raise IndexError(f"frame {index} of {self._count}")
        self._file.seek(index % self._count * self._bytes)
        return np.frombuffer(self._file.read(self._bytes), np.uint8).reshape(self.shape)

    def __iter__(self) -> Iterator[Frame]:
        return (self[index] for index in range(self._count))

    def append(self, frame: Frame) -> None:
        """Add one frame at the end.

        Raises:
            OSError: if the disk is full; the store is as it was then.
        """
        assert frame.shape == self.shape and frame.dtype == np.uint8
        self._file.seek(self._count * self._bytes)
        rest = memoryview(np.ascontiguousarray(frame).tobytes())
        while rest:  # unbuffered: what cannot be written fails here and not later
            rest = rest[self._file.write(rest) :]
        self._count += 1

    def truncate(self, count: int) -> None:
        """Keep the first ``count`` frames."""
        assert 0 <= count <= self._count
        self._count = count
        self._file.truncate(count * self._bytes)

    def copy(self) -> FrameStore:
        """An independent copy."""
        twin = FrameStore(self.shape[0], self.shape[1])
        self._file.flush()
        self._file.seek(0)
        shutil.copyfileobj(self._file, twin._file)
        twin._count = self._count
        return twin

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()
