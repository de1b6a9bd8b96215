"""What a report says of its rows: two names of one model, and what was left out."""

from eval.report.report import left_out, twins


def found(errors, broken=None, note=""):
    rows = [{"index": i, "name": f"{i:03d}", "note": note, "values": {"path_error": e}} for i, e in enumerate(errors)]
    return {"rows": rows, "broken": broken or {}}


def test_two_names_of_one_model_are_told():
    results = {"a": found([1.0, 2.0]), "b": found([1.0, 2.0]), "c": found([1.0, 2.5]), "d": found([1.0])}
    assert twins(results) == [("a", "b")]


def test_what_was_left_out_is_listed():
    results = {"a": found([1.0], {3: "003.mp4 is missing"}), "b": found([1.0], note="256 of 300 tracks")}
    assert left_out(results) == ["a, clip 3: 003.mp4 is missing", "000: 256 of 300 tracks"]
