"""Cases on other canvases, lengths, and more tracks than a file holds."""

import numpy as np
import pytest
from PIL import Image

from ardrag.tracks.formats.paths import Given, framewise
from ardrag.tracks.schema import MAX_TRACKS
from ardrag.tracks.tracks import Tracks
from eval.suites.case import Case, Suite, clip_length, first_frames, first_readable, fit_case, list_digest, tracks_of
from pipelines.image_input import fit_image


def test_lengths_are_4k_plus_1():
    assert [clip_length(*pair) for pair in ((33, 81), (81, 33), (15, 33), (8, 9), (5, 5))] == [33, 33, 13, 5, 5]
    with pytest.raises(ValueError, match="frames: 4 are there and 33 wanted"):
        clip_length(4, 33)


def test_evenly_chosen_tracks_and_a_note():
    count = 2 * MAX_TRACKS
    xy = np.linspace(0, 1, count)[None, :, None].repeat(9, 0).repeat(2, 2)
    visible = np.ones((9, count), bool)
    tracks, length, note = tracks_of(framewise("any", xy, visible, None, Given()), 5)
    kept = tracks.to_array().xy[0, :, 0]
    assert len(kept) == MAX_TRACKS and kept[[0, -1]].tolist() == [0, 1] and f"{MAX_TRACKS} of {count} tracks" in note
    assert length == tracks.num_frames == 5
    visible[:, 1:] = False
    tracks, length, note = tracks_of(framewise("any", xy, visible, None, Given()), 33)
    assert tracks.to_array().xy.shape == (9, 1, 2) and note == "" and length == 9


def test_the_first_frames_are_the_same():
    tracks = Tracks.from_points([[(0, 0.1, 0.2), (16, 0.9, 0.4)]], num_frames=17)
    assert (first_frames(tracks, 9).to_array().xy == tracks.to_array(9).xy).all()
    assert first_frames(tracks, 33) is tracks


def test_the_first_case_that_can_be_read():
    class Some(Suite):
        def case(self, index, num_frames):
            if index < 2:
                raise ValueError(f"{index}.json: bad")
            return index

    assert first_readable(Some(), [0, 1, 2, 3], 9) == 2
    with pytest.raises(ValueError, match="none of 2 cases can be read; the first: 0.json: bad"):
        first_readable(Some(), [0, 1], 9)


def test_another_canvas_cuts_and_scales_everything_alike():
    """A red dot on the path of the track stays under it."""
    video = np.zeros((5, 20, 40, 3), np.uint8)
    for t in range(5):
        video[t, 8:12, 12 + 2 * t : 16 + 2 * t] = 255
    path = [(t, (14 + 2 * t) / 40, 0.5) for t in range(5)]
    tracks = Tracks.from_points([path, [(0, 0.05, 0.5)]], num_frames=5)
    case = Case(0, "dot", video[0], "", tracks, 5, truth=video)
    fitted = fit_case(case, 40, 40)
    assert fitted.picture.shape == (40, 40, 3) and fitted.truth.shape == (5, 40, 40, 3)
    assert (fitted.picture == np.asarray(fit_image(Image.fromarray(video[0]), 40, 40))).all()
    arrays = fitted.tracks.to_array()
    for t in range(5):
        rows, columns = np.nonzero(fitted.truth[t, ..., 0] > 127)
        middle = np.array([columns.mean() + 0.5, rows.mean() + 0.5]) if len(rows) else None
        if arrays.visible[t, 0]:
            assert arrays.xy[t, 0] * 40 == pytest.approx(middle, abs=1.5)
    assert not arrays.visible[:, 1].any()  # it was cut away
    assert fit_case(case, 20, 40) is case


def test_digest_of_files(tmp_path):
    (tmp_path / "a").write_text("1")
    first = list_digest([tmp_path / "a"])
    (tmp_path / "a").write_text("12")
    assert first != list_digest([tmp_path / "a"])
    assert list_digest([tmp_path / "none"]) != list_digest([tmp_path / "nothing"])
