"""Gates between stages: what is good enough passes, everything else is said and ends a recipe."""

import json

import pytest

from eval.gate import failures, main, not_better


def report(error=3.0, other=9.0, psnr=26.0):
    values = {"own": (error, psnr), "shuffled": (other, psnr)}
    return {
        "summary": {
            name: {"values": {"path_error": {"mean": path}, "first_frame_psnr": {"mean": level}}}
            for name, (path, level) in values.items()
        }
    }


@pytest.mark.parametrize(
    ("values", "most", "expected"),
    [
        ({}, None, []),
        ({"other": 6.0, "psnr": 24.0}, 3.0, []),
        ({"other": 5.9}, None, ["path error is 3.00 px .* 5.90 px .* tracks do not steer"]),
        ({"psnr": 23.9}, None, ["first frame is 23.90 dB"]),
        ({}, 2.9, ["above 2.90 px: the stage before followed tracks better"]),
        ({"other": float("nan"), "psnr": float("nan")}, None, ["do not steer", "is not kept"]),
    ],
)
def test_what_is_not_good_enough_is_said(values, most, expected):
    found = failures(report(**values), "own", "shuffled", 2.0, 24.0, most)
    assert len(found) == len(expected)
    for line, pattern in zip(found, expected, strict=True):
        with pytest.raises(AssertionError, match=pattern):
            raise AssertionError(line)


def test_the_command_ends_a_recipe(tmp_path, capsys):
    now, before = tmp_path / "now.json", tmp_path / "before.json"
    now.write_text(json.dumps(report()))
    before.write_text(json.dumps(report(error=2.8)))
    options = [str(now), "--system", "own", "--control", "shuffled"]
    main(options)
    assert capsys.readouterr().out == "gate: own may go on\n"
    earlier = ["--before", str(before), "--before_system", "own", "--at_most"]
    main([*options, *earlier, "1.2"])
    with pytest.raises(SystemExit, match="gate: own: path error is 3.00 px, above 2.80 px"):
        main([*options, *earlier, "1"])


def test_a_teacher_must_be_better_than_its_student(tmp_path, capsys):
    values = {"teacher": (0.5, 0.9, 0.8, 3.0), "student": (0.6, 0.7, 1.3, 3.0)}
    keys = ("latent_distance", "passer_sharpness", "passer_coverage", "path_error")
    found = {
        "summary": {
            name: {"values": {key: {"mean": value} for key, value in zip(keys, row, strict=True)}}
            for name, row in values.items()
        }
    }
    assert not_better(found, "teacher", "student", keys[:3]) == []
    assert len(not_better(found, "student", "teacher", keys)) == 4  # as good is not better
    (tmp_path / "report.json").write_text(json.dumps(found))
    options = [str(tmp_path / "report.json"), "--system", "teacher"]
    main([*options, "--better_than", "student", "--metrics", *keys[:3]])
    assert capsys.readouterr().out == "gate: teacher may go on\n"
    with pytest.raises(SystemExit, match="gate: teacher: path error, px is 3.00, no better than 3.00 of student"):
        main([*options, "--better_than", "student"])
    with pytest.raises(SystemExit, match="control or better_than: name a system"):
        main(options)


@pytest.mark.parametrize(
    ("text", "system", "message"),
    [
        (None, "own", "report: .* is no report.json of python -m eval.run"),
        ("[]", "own", "report: .* is no report.json"),
        (json.dumps(report()), "theirs", "the report has no path_error of 'theirs'"),
    ],
)
def test_what_is_no_report_is_said_in_a_sentence(tmp_path, text, system, message):
    file = tmp_path / "report.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SystemExit, match=message):
        main([str(file), "--system", system, "--control", "shuffled"])
