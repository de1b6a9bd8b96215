"""Moved things are found where they are, also turned, half hidden, blurred; regions are compared apart."""

import numpy as np
import pytest

from ardrag.judges.photo_match import offset_of, piece_offsets, region_psnr
from ardrag.worlds.photos import make_photo_clip


@pytest.fixture(scope="module")
def clip(library):
    """A clip whose movers can be told from the rest of it."""
    clips = (make_photo_clip("test", index, 5, 64, 80, library) for index in range(40))
    plain = (c for c in clips if not {"still", "camera"} & set(c.categories) and c.visible.all())
    return next(c for c in plain if np.isfinite(piece_offsets(c, c.frames)).all())


def test_in_the_true_video_everything_is_where_it_should_be(clip):
    assert np.nanmax(np.abs(piece_offsets(clip, clip.frames))) < 0.4


@pytest.mark.parametrize("shift", [(3, -2), (-5, 4), (0, 0)])
def test_a_shifted_video_is_shifted(clip, shift):
    moved = np.roll(clip.frames, (shift[1], shift[0]), (1, 2))
    found = piece_offsets(clip, moved)
    assert np.nanmedian(np.linalg.norm(found - np.array(shift), axis=-1)) < 0.3


def test_half_a_pixel_is_told():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :48]
    spots = rng.uniform(8, 40, (25, 2))

    def picture(across):
        near = [np.exp(-((x - cx - across) ** 2 + (y - cy) ** 2) / 6) for cx, cy in spots]
        return (120 * np.clip(np.sum(near, 0), 0, 2)).astype(np.uint8)[..., None].repeat(3, -1)

    mask = np.zeros((48, 48), bool)
    mask[12:36, 12:36] = True
    assert offset_of(picture(0.5), picture(0), mask) == pytest.approx([0.5, 0], abs=0.2)
    assert offset_of(picture(2.25), picture(0), mask) == pytest.approx([2.25, 0], abs=0.2)


def test_what_looks_like_other_places_is_not_asked_for():
    """A grey piece on grey ground with a faint seam: a blurred video may show it anywhere."""
    truth = np.full((48, 48, 3), 128, np.uint8)
    mask = np.zeros((48, 48), bool)
    mask[20:30, 20:30] = True
    truth[mask] = 140
    assert np.isnan(offset_of(truth, truth, mask)).all()
    truth[mask] = 200
    assert np.abs(offset_of(truth, truth, mask)).max() < 0.5


def test_a_painted_fainter_piece_is_found():
    """A correlation that forgives contrast would prefer any place with the same pattern, however pale."""
    rng = np.random.default_rng(1)
    truth, pattern = np.full((64, 64, 3), 20, np.uint8), rng.integers(120, 256, (12, 12, 3))
    truth[10:22, 10:22] = pattern
    mask = np.zeros((64, 64), bool)
    mask[10:22, 10:22] = True
    frame = np.full_like(truth, 20)
    frame[40:52, 30:42] = 20 + (pattern - 20) * 0.7  # it went elsewhere, somewhat pale
    frame[10:22, 10:22] = 20 + (pattern - 20) * 0.05  # and left a trace
    assert offset_of(frame, truth, mask) == pytest.approx([20, 30], abs=0.5)


def test_regions_are_compared_apart(clip):
    moved = np.isin(clip.owner, np.array(clip.movers) + 1)
    damaged = clip.frames.copy()
    damaged[moved] = 255 - damaged[moved]
    found = region_psnr(clip, damaged)
    assert (found["rest"] > 70).all() and (found["piece"][moved.any((1, 2))] < 20).all()


def test_what_is_hidden_is_nowhere(clip):
    gone = clip.owner.copy()
    gone[2] = 0
    hidden = type(clip)(**{**vars(clip), "owner": gone})
    found = piece_offsets(hidden, clip.frames)
    assert np.isnan(found[2]).all() and np.isfinite(found[1]).all()
    assert np.isnan(region_psnr(hidden, clip.frames)["piece"][2])
