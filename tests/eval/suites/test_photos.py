"""206 clips of Photo World's test split, with truth; without a library the remedy is told."""

import numpy as np
import pytest

from eval.suites.open import open_suite


def test_clips_are_fixed_and_complete(picture_folder, monkeypatch):
    monkeypatch.setenv("ARDRAG_PHOTOS", picture_folder)
    suite = open_suite("photos")
    assert len(suite) == 206 and suite.names()[7] == "007"
    case, again = suite.case(7, 9), suite.case(7, 9)
    assert (case.truth == again.truth).all() and len(case.truth) == case.num_frames == 9
    assert (case.picture == case.truth[0]).all() and case.sprites is None and case.categories
    arrays = case.tracks.to_array()
    assert np.abs(arrays.xy * 128 - case.photos.drawn)[arrays.visible].max() < 1e-3
    assert suite.digest().startswith("photos ")


def test_without_photographs_there_is_no_suite(monkeypatch):
    monkeypatch.delenv("ARDRAG_PHOTOS", raising=False)
    with pytest.raises(ValueError, match="training.worlds.fetch"):
        open_suite("photos")
