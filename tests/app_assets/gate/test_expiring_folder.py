"""The folder of visitors' files: what is old goes, then what is too much, the oldest first; and what lies in it."""

import os
import time

import pytest

from app_assets.gate.expiring_folder import KEEP_SECONDS, ExpiringFolder


@pytest.fixture
def make():
    made = []

    def folder(**limits):
        made.append(ExpiringFolder("ardrag-test-", **limits))
        return made[-1]

    yield folder
    for one in made:
        one.close()


def fill(folder, name, size, age):
    """An entry as Gradio makes them: a folder with a file in it."""
    place = folder.folder / name
    place.mkdir()
    (place / "file").write_bytes(b"0" * size)
    os.utime(place, (time.time() - age,) * 2)
    return place


def left(folder):
    return sorted(path.name for path in folder.folder.iterdir())


def test_old_then_too_much_then_too_many(make):
    folder = make(max_entries=3, max_bytes=100)
    fill(folder, "old", 1, KEEP_SECONDS + 9)
    for age, name in enumerate("edcba"):
        fill(folder, name, 10, age + 1)
    folder.tidy()
    assert left(folder) == ["c", "d", "e"]
    fill(folder, "large", 85, 0)
    folder.tidy()
    assert left(folder) == ["e", "large"]
    assert not folder.new_place().exists() and left(folder) == ["e", "large"]
    folder.max_entries = 2
    folder.new_place()
    assert left(folder) == ["large"], "room for the new one"


def test_files_are_kept_apart_from_everything_else(make, tmp_path):
    folder = make()
    inside = fill(folder, "a", 1, 0) / "file"
    outside = tmp_path / "secret"
    outside.write_text("x")
    (folder.folder / "link").symlink_to(outside)
    (folder.folder / "loop").symlink_to(folder.folder / "loop")
    assert folder.holds(str(inside)) and folder.holds(f"{folder.folder}/a/../a/file")
    for path in (
        outside,
        folder.folder / "link",
        folder.folder / "loop",
        folder.folder,
        folder.folder / "a",
        "",
        "\0",
    ):
        assert not folder.holds(str(path))
    assert not folder.holds(f"{folder.folder}/../{outside}") and not folder.holds(f"{folder.folder}x/file")
