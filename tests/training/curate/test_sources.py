"""Which videos are found, what is said of them, and what is wrong with a place or a table in one sentence."""

import json

import pytest

from training.curate.sources import find_sources


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.mp4", "b.WEBM", "sub/c.gif", "notes.md"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a.txt").write_text("a red\n  ball ")
    return tmp_path


def found(folder, places=None, captions=""):
    return {s.name: s.caption for s in find_sources(places or [str(folder)], captions, folder / "downloads")}


def test_a_folder_and_the_texts_beside(folder, caplog):
    assert found(folder) == {"a.mp4": "a red ball", "b.WEBM": "", "sub/c.gif": ""}
    assert "2 of 3 videos have no caption: what is learnt from them cannot be steered by text" in caplog.text


def test_a_file_and_a_list(folder):
    (folder / "list.txt").write_text("sub/c.gif\n\nb.WEBM\n")
    assert found(folder, [str(folder / "a.mp4"), str(folder / "list.txt")]) == dict.fromkeys(
        ("a.mp4", "sub/c.gif", "b.WEBM"), ""
    ) | {"a.mp4": "a red ball"}
    (folder / "list.txt").write_text("gone.mp4")
    with pytest.raises(ValueError, match=r"videos: .*list.txt lists gone.mp4, which is no file; mend the list"):
        found(folder, [str(folder / "list.txt")])


def test_a_folder_that_may_not_be_read(folder, monkeypatch):
    monkeypatch.setattr("training.curate.sources.os.access", lambda path, mode: path != folder)
    with pytest.raises(ValueError, match="videos: .* may not be read; give yourself the right to, or another folder"):
        found(folder)


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "map"])
def test_tables(folder, kind):
    rows = [{"file_name": "c.gif", "text": "a cat"}, {"file_name": "a.mp4", "text": "from the table"}]
    table = folder / f"captions.{'json' if kind == 'map' else kind}"
    table.write_text(
        {
            "csv": "file_name,text\nc.gif,a cat\na.mp4,from the table\n",
            "json": json.dumps(rows),
            "jsonl": "\n".join(map(json.dumps, rows)),
            "map": json.dumps({row["file_name"]: row["text"] for row in rows}),
        }[kind]
    )
    told = found(folder, captions=str(table))
    assert (told["sub/c.gif"], told["a.mp4"], told["b.WEBM"]) == ("a cat", "from the table", "")


def test_what_is_wrong_is_one_sentence(folder, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    for places, message in (
        ([], "videos: none given"),
        ([str(empty)], "videos: .* holds no video"),
        ([str(folder / "none")], "videos: .*none does not exist; give a folder"),
    ):
        with pytest.raises(ValueError, match=message):
            find_sources(places, "", folder)
    tables = {"bad.csv": "who,what\na,b\n", "names.csv": "path,caption\ngone.mp4,x\n", "broken.json": "{"}
    for name, text in tables.items():
        (folder / name).write_text(text)
    for name, message in (
        ("bad.csv", r"captions: .*bad.csv needs a column of names \(path, "),
        ("names.csv", r"captions: .* names 1 file\(s\) that are not among the videos, the first is gone.mp4"),
        ("broken.json", "captions: .*broken.json cannot be read"),
        ("gone.csv", "captions: .*gone.csv cannot be read"),
    ):
        with pytest.raises(ValueError, match=message):
            found(folder, captions=str(folder / name))


def test_a_dataset_on_the_hub(hub_process, folder, scene, shoot):
    """Pushed with a column of videos; streamed, and kept as files under names of their own."""
    shoot(folder / "clip.mp4", scene(seconds=0.5), 24)
    printed = hub_process.run(
        f"""
        from pathlib import Path
        from datasets import Dataset, Features, Value, Video
        from training.curate.sources import find_sources
        data = Path({str(folder / "clip.mp4")!r}).read_bytes()
        row = {{"clip": {{"bytes": data, "path": "clip.mp4"}}, "text": "a disc"}}
        kinds = Features({{"clip": Video(decode=False), "text": Value("string")}})
        Dataset.from_list([row], features=kinds).push_to_hub("alice/films")
        (source,) = find_sources(["alice/films"], "", Path({str(folder / "downloads")!r}))
        print(source.name, source.caption, source.path.name)
        """
    )
    assert printed.strip() == "alice/films/0 a disc alice--films-000000.mp4"
    assert (folder / "downloads" / "alice--films-000000.mp4").read_bytes() == (folder / "clip.mp4").read_bytes()
