"""Rows of a session in one buffer: what a list of them would hold, whatever is added, taken back and copied."""

import numpy as np

from ardrag.tracks.sampling import TrackArrays
from pipelines.past.applied_rows import LEAST, AppliedRows


def random_rows(generator, frames, tracks):
    shape = (frames, tracks)
    xy, force = generator.random((*shape, 2), np.float32), generator.random(shape, np.float32)
    return TrackArrays(xy, generator.random(shape) < 0.5, force)


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_buffer_is_what_a_list_of_rows_would_be():
    generator, rows, listed = np.random.default_rng(0), AppliedRows(), []
    for step in range(300):
        added = random_rows(generator, 4, int(generator.integers(0, 6)))
        rows.extend(added)
        listed += [TrackArrays(*(column[t] for column in added)) for t in range(4)]
        if step in (3, 4) or step % 7 == 6:
            kept = max(0, len(listed) - int(generator.integers(0, 40)))
            rows.truncate(kept)
            del listed[kept:]
        assert len(rows) == len(listed)
        assert same(rows.last, listed[-1]) if listed else rows.last is None
    whole = rows.arrays
    assert whole.force.shape == (len(listed), max(len(row.force) for row in listed)) and len(listed) > 2 * LEAST
    for t, row in enumerate(listed):
        present = len(row.force)
        assert same(TrackArrays(*(column[t, :present] for column in whole)), row)
        assert not whole.visible[t, present:].any() and not whole.force[t, present:].any()


def test_copy_goes_its_own_way():
    generator, rows = np.random.default_rng(1), AppliedRows()
    rows.extend(random_rows(generator, 5, 2))
    twin = rows.copy()
    twin.truncate(2)
    twin.extend(random_rows(generator, 3, 1))
    assert not same(rows.arrays, twin.arrays) and rows.last.force.shape == (2,) and twin.last.force.shape == (1,)


def test_no_rows_are_empty_arrays():
    assert AppliedRows().arrays.force.shape == (0, 0) and AppliedRows().last is None
