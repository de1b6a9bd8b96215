"""A library gives back what was written, by kind and split, and says how to get one where there is none."""

import numpy as np
import pytest

from ardrag.worlds.photo_library import LIBRARY_VARIABLE, Entry, default_library, open_library, write_library


def test_pictures_come_back(tmp_path):
    rng = np.random.default_rng(1)
    shapes = {"photo": (5, 7, 3), "cutout": (4, 3, 4)}
    pictures = [
        (Entry(kind, split, True, "a", "b", "c", *shape[:2], 0), rng.integers(0, 256, shape, dtype=np.uint8))
        for kind, shape in shapes.items()
        for split in ("train", "test")
    ]
    write_library(tmp_path, pictures)
    library = open_library(str(tmp_path))
    for entry, (written, pixels) in zip(library.entries, pictures, strict=True):
        assert (entry.kind, entry.split, entry.shape) == (written.kind, written.split, pixels.shape)
        assert np.array_equal(library.read(entry), pixels)
    assert [entry.split for entry in library.choose("cutout", "test")] == ["test"]


def test_the_variable_names_the_library(picture_folder, monkeypatch):
    monkeypatch.setenv(LIBRARY_VARIABLE, picture_folder)
    assert default_library() is open_library(picture_folder)


@pytest.mark.parametrize("folder", ["", "/nowhere"])
def test_without_a_library_the_remedy_is_told(folder, monkeypatch):
    monkeypatch.setenv(LIBRARY_VARIABLE, folder)
    with pytest.raises(ValueError, match="ARDRAG_PHOTOS.*training.worlds.fetch"):
        default_library()
