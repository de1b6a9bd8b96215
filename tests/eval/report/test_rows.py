"""Finished clips are kept, torn lines dropped, keys kept apart."""

from eval.report.rows import RowCache, code_digest, files_digest


def test_cache_keeps_rows_records_and_other_keys(tmp_path):
    path = tmp_path / "rows.jsonl"
    one = RowCache(path, "one")
    one.begin({"command": "first"})
    one.add({"index": 4})
    RowCache(path, "two").add({"index": 5})
    again = RowCache(path, "one")
    assert list(again.rows) == [4] and again.records == [{"command": "first"}]
    assert list(RowCache(path, "two").rows) == [5] and RowCache(path, "two").records == []


def test_a_torn_line_is_dropped(tmp_path):
    path = tmp_path / "rows.jsonl"
    RowCache(path, "one").add({"index": 1})
    path.write_text(path.read_text() + '{"key": "one", "row": {"ind')
    assert list(RowCache(path, "one").rows) == [1]
    RowCache(path, "one").add({"index": 2})
    assert list(RowCache(path, "one").rows) == [1, 2]


def test_digests_see_models_and_videos(tmp_path):
    assert files_digest(None) == files_digest(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    model = files_digest(tmp_path)
    assert model != files_digest(None)
    (tmp_path / "notes.md").write_text("not part of a model")
    assert files_digest(tmp_path) == model
    (tmp_path / "000.mp4").write_bytes(b"1")
    assert files_digest(tmp_path) != model
    assert code_digest() == code_digest()
