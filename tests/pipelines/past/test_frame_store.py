"""Frames on disk: a list that can be cut and copied."""

import numpy as np
import pytest

from pipelines.past.frame_store import FrameStore


def frame(value):
    return np.full((4, 6, 3), value, np.uint8)


@pytest.fixture
def store():
    store = FrameStore(4, 6)
    for value in range(5):
        store.append(frame(value))
    return store


def values(store):
    return [int(picture[0, 0, 0]) for picture in store]


def test_is_a_sequence(store):
    assert len(store) == 5 and values(store) == [0, 1, 2, 3, 4]
    assert np.array_equal(store[3], frame(3)) and np.array_equal(store[-1], frame(4))
    for index in (5, -6):
        with pytest.raises(IndexError):
            store[index]


def test_cut_and_go_on(store):
    store.truncate(2)
    assert len(store) == 2 and values(store) == [0, 1]
    store.append(frame(9))
    assert values(store) == [0, 1, 9]
    store.truncate(0)
    assert values(store) == []
    with pytest.raises(IndexError):
        store[-1]


def test_a_copy_is_independent(store):
    twin = store.copy()
    twin.append(frame(7))
    store.truncate(1)
    store.append(frame(8))
    assert values(twin) == [0, 1, 2, 3, 4, 7] and values(store) == [0, 8]
    store.close()
    assert values(twin) == [0, 1, 2, 3, 4, 7]


def test_reading_between_writes(store):
    assert np.array_equal(store[1], frame(1))
    store.append(frame(5))
    assert values(store) == [0, 1, 2, 3, 4, 5]


def test_views_are_written_as_they_look():
    store = FrameStore(4, 6)
    store.append(np.arange(72, dtype=np.uint8).reshape(6, 4, 3).transpose(1, 0, 2))
    assert np.array_equal(store[0], np.arange(72, dtype=np.uint8).reshape(6, 4, 3).transpose(1, 0, 2))


@pytest.mark.parametrize("wrong", [np.zeros((4, 5, 3), np.uint8), np.zeros((4, 6, 3), np.float32)])
def test_other_frames_are_our_own_mistake(store, wrong):
    with pytest.raises(AssertionError):
        store.append(wrong)


def test_a_full_disk_is_told_at_once_and_leaves_the_store_whole(monkeypatch):
    """Not when a buffer is flushed later; a disk that takes half a frame at a time takes all of it."""

    class Disk:
        def __init__(self, file, room):
            self.file, self.room = file, room

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            if self.room <= 0:
                raise OSError("No space left on device")
            part = data[: max(1, min(len(data) // 2, self.room))]
            self.room -= len(part)
            return self.file.write(part)

    store = FrameStore(4, 6)
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)
    store._file = Disk(store._file, room=int(1.5 * frames[0].nbytes))
    store.append(frames[0])
    with pytest.raises(OSError, match="No space left"):
        store.append(frames[1])
    assert len(store) == 1 and np.array_equal(store[0], frames[0])
    store._file.room = 10**6
    store.append(frames[2])
    assert np.array_equal(np.stack(list(store)), frames[[0, 2]])
