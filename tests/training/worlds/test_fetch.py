"""Fetching: sources are pinned, checked and unpacked; what is kept is trimmed, reduced and named."""

import hashlib
import io
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from training.worlds import fetch


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def source(content=b"package", **changes):
    checked = {
        "name": "@scope/pictures",
        "version": "1.2",
        "client": "npm",
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return checked | changes


def test_sources_are_pinned_and_files_belong_to_them():
    sources = {item["name"]: item for item in fetch.load_sources()}
    for item in sources.values():
        assert (
            len(item["sha256"]) == 64
            and item["version"]
            and item["licence"]
            and item["client"] in ("apt", "npm", "pip")
        )
    rows = list(fetch.listed_files())
    assert {row["package"] for row in rows} <= set(sources)
    assert {row["split"] for row in rows} == {"train", "test"} and {row["kind"] for row in rows} == {"photo", "cutout"}


def test_photographs_are_held_out_by_whole_package():
    packages = {}
    for row in fetch.listed_files():
        if row["kind"] == "photo":
            packages.setdefault(row["package"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in packages.values())


def test_a_package_that_is_there_is_not_fetched_again(tmp_path, monkeypatch):
    (tmp_path / "scope-pictures-1.2.tgz").write_bytes(b"package")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("fetched again"))
    assert fetch.download(source(), tmp_path).name == "scope-pictures-1.2.tgz"


def test_a_wrong_checksum_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(
        subprocess, "run", lambda *_, cwd, **__: (cwd / "scope-pictures-1.2.tgz").write_bytes(b"other")
    )
    with pytest.raises(ValueError, match="@scope/pictures.*checksum"):
        fetch.download(source(), tmp_path)


def test_a_failing_client_is_named(tmp_path, monkeypatch):
    def fail(command, **_):
        raise subprocess.CalledProcessError(1, command, stderr="no such package")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(ValueError, match="@scope/pictures: npm pack.*no such package"):
        fetch.download(source(), tmp_path)


def test_clients_are_asked_for_one_version(tmp_path):
    commands = [fetch.client_command(source(client=client), tmp_path) for client in ("apt", "npm", "pip")]
    assert [command[-1] for command in commands] == [
        "@scope/pictures=1.2",
        "@scope/pictures@1.2",
        "@scope/pictures==1.2",
    ]


def test_archives_are_unpacked_once(tmp_path):
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        info = tarfile.TarInfo("package/x.txt")
        info.size = 2
        archive.addfile(info, io.BytesIO(b"hi"))
    with zipfile.ZipFile(tmp_path / "b.whl", "w") as archive:
        archive.writestr("y.txt", "ho")
    for package, inside, text in (("a.tgz", "package/x.txt", "hi"), ("b.whl", "y.txt", "ho")):
        folder = tmp_path / package[0]
        fetch.unpack(tmp_path / package, folder)
        assert (folder / inside).read_text() == text
        (folder / inside).write_text("kept")
        fetch.unpack(tmp_path / package, folder)
        assert (folder / inside).read_text() == "kept"


def test_variants_of_one_emoji_stay_on_one_side(tmp_path):
    for stem in ("1f40d", "1f40d-fe0f", "1f471-1f3fb", *[f"1f{n:03x}" for n in range(0x400, 0x430)]):
        (tmp_path / f"{stem}.webp").touch()
    rows = {row["path"]: row["split"] for row in fetch.emoji_files(tmp_path)}
    assert rows["1f40d.webp"] == rows["1f40d-fe0f.webp"] and "1f471-1f3fb.webp" not in rows
    assert set(rows.values()) == {"train", "test"}


def test_names_for_captions():
    assert fetch.picture_name(fetch.EMOJI, "package/assets/1f40d-fe0f.webp") == "snake"
    assert fetch.picture_name("x", "a/GreenTurtle_by-me.png") == "green turtle by"
    assert fetch.picture_name("x", "a/007.png") == "thing"


def test_cutouts_lose_their_margin_and_photographs_their_size():
    rgba = np.zeros((100, 80, 4), np.uint8)
    rgba[20:70, 30:50] = 255
    assert fetch.decode(png(rgba), "cutout", 200).shape == (50, 20, 4)
    assert fetch.decode(png(rgba), "cutout", 25).shape == (25, 10, 4)
    assert fetch.decode(png(rgba[..., :3]), "photo", 40).shape == (50, 40, 3)


@pytest.mark.parametrize(("cover", "good"), [((0, 0), False), ((30, 40), True), ((40, 40), False)])
def test_a_cutout_needs_a_hole_round_it(cover, good):
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[: cover[0], : cover[1], 3] = 255
    entry = fetch.Entry("cutout", "train", True, "a", "b", "c", 40, 40, 0)
    assert fetch.usable(entry, pixels) is good
