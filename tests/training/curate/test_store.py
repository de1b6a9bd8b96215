"""The curated folder: whole files only, one run at a time, nothing twice, and what a person decided."""

import errno
import os

import pyarrow.parquet as pq
import pytest

from training.curate import store


RECIPE = {"fps": 16.0, "negative_prompt": "static"}


def row(name, drop="", frames=17):
    values = {"id": name, "source": "a.mp4", "sha256": "0", "caption": "", "start": 0.0, "frames": frames, "fps": 16.0}
    values |= {"height": 64, "width": 64, "drop": drop, "scores": {"light": 90.0}, "num_tracks": 0}
    return values | dict.fromkeys(("tracks", "visible", "force", "video", "sheet"), b"x")


def test_parts_become_shards_in_order_and_are_done(tmp_path):
    for name in "dbac":
        store.write_part(tmp_path, row(name))
    assert store.done(tmp_path) == set("abcd")
    store.gather_parts(tmp_path, 3)
    assert [pq.read_table(file)["id"].to_pylist() for file in store.shard_files(tmp_path)] == [["a", "b", "c"], ["d"]]
    assert not list((tmp_path / "parts").iterdir()) and store.done(tmp_path) == set("abcd")
    store.write_part(tmp_path, row("e"))
    store.gather_parts(tmp_path, 3)
    assert [one["id"] for one in store.read_rows(tmp_path)] == list("abcde")


def test_killed_between_shard_and_parts_nothing_comes_twice(tmp_path, monkeypatch):
    for name in "abcd":
        store.write_part(tmp_path, row(name))
    unlink, count = store.Path.unlink, []

    def die(path, **options):
        count.append(path)
        if len(count) == 2:
            raise KeyboardInterrupt
        unlink(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(store.Path, "unlink", die)
        with pytest.raises(KeyboardInterrupt):
            store.gather_parts(tmp_path, 3)
    assert store.done(tmp_path) == set("abcd")
    store.gather_parts(tmp_path, 3)
    assert [one["id"] for one in store.read_rows(tmp_path)] == list("abcd")


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    store.write_part(tmp_path, row("a"))

    def full(table, path, **options):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.pq, "write_table", full)
    with pytest.raises(
        OSError, match="b.parquet cannot be written .*No space left.*Make room and run the same command"
    ):
        store.write_part(tmp_path, row("b"))
    assert os.listdir(tmp_path / "parts") == ["a.parquet"]


def test_two_runs_in_one_folder(tmp_path):
    refused = pytest.raises(ValueError, match="output_dir: another run writes into")
    with store.locked(tmp_path), refused, store.locked(tmp_path):
        pass
    with store.locked(tmp_path):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="output_dir: .*file cannot be written"), store.locked(tmp_path / "file"):
        pass


def test_another_recipe_is_refused(tmp_path):
    store.begin(tmp_path, RECIPE, "one")
    store.begin(tmp_path, RECIPE, "two")
    assert store.read_manifest(tmp_path)["code"] == ["one", "two"]
    with pytest.raises(ValueError, match="was made with fps = 16.0, not 24.0; use another folder"):
        store.begin(tmp_path, RECIPE | {"fps": 24.0}, "two")
    with pytest.raises(ValueError, match="data: .*none has no manifest.json; make one with python -m training.curate"):
        store.read_manifest(tmp_path / "none")


def test_what_a_run_took_adds_up(tmp_path):
    store.begin(tmp_path, RECIPE, "one")
    assert store.add_cost(tmp_path, 3, {"track": 1.5, "cut": 0.5}) == {
        "clips": 3,
        "seconds": {"track": 1.5, "cut": 0.5},
    }
    store.add_cost(tmp_path, 1, {"track": 2.0})
    store.begin(tmp_path, RECIPE, "two")
    assert store.read_manifest(tmp_path)["cost"] == {"clips": 4, "seconds": {"track": 3.5, "cut": 0.5}}


def test_counts_follow_the_review(tmp_path):
    store.begin(tmp_path, RECIPE, "one")
    for name, drop in (("a", ""), ("b", "static"), ("c", "static"), ("d", "")):
        store.write_part(tmp_path, row(name, drop))
    store.gather_parts(tmp_path, 9)
    counts = store.summarise(tmp_path)
    assert (counts["kept"], counts["kept_frames"], counts["dropped"]) == (2, 34, {"static": 2})
    store.write_json(tmp_path / "review.json", {"a": "reject", "b": "accept"})
    counts = store.summarise(tmp_path)
    assert (counts["kept"], counts["reviewed"]) == (2, 2)
    assert counts["dropped"] == {"rejected by a person": 1, "static": 1}
    assert {one["id"]: one["drop"] for one in store.read_rows(tmp_path)}["b"] == ""
