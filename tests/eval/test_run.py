"""The whole command with a tiny random model: report, resuming, broken clips, bad settings, exported inputs."""

import json

import pytest

from eval import run
from eval.benchmark.config import EvalConfig
from eval.benchmark.systems import System
from eval.report.report import left_out
from eval.report.summary import summarize
from eval.run import Worker, main, make_meter, rows_of_system, run_key, run_record, with_truth
from eval.suites.folder import FolderSuite
from eval.suites.sprites import SpriteSuite
from pipelines.video import write_video


@pytest.fixture
def here(monkeypatch):
    """Clips are made in this process; what was made is listed."""
    made = []

    def in_this_process(work, indices, workers, start, given):
        start(*given)
        for index in indices:
            made.append((given[0].name, index))
            yield work(index)

    monkeypatch.setattr(run, "in_processes", in_this_process)
    return made


def arguments(folder, output):
    systems = [f"ours={folder}", f"whole={folder}@1", "truth"]
    settings = ["--num_clips", "4", "--num_frames", "17", "--num_long_clips", "0", "--output_dir", str(output)]
    return ["--systems", *systems, *settings]


def test_the_command_and_going_on(model_folder, tmp_path, here, capsys, monkeypatch):
    main(arguments(model_folder, tmp_path))
    assert len(here) == 12
    page = (tmp_path / "report.md").read_text()
    assert page == capsys.readouterr().out.rstrip("\n") + "\n"
    assert "| ours |" in page and "FVD-sprite" in page and "No clip was left out." in page
    assert "Run 1, which wrote this page:" in page and "python -m eval.run --systems" in page
    for name in ("report.html", "report.png", "report_latency.png", "report_drift.png", "report_worst.mp4"):
        assert (tmp_path / name).stat().st_size > 1000
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert numbers["summary"]["truth"]["values"]["path_error"]["mean"] < 0.3
    assert numbers["summary"]["ours"]["distances"]["fvd"]["mean"] > 0
    assert numbers["clips"]["ours"]["name"] == ["000", "001", "002", "003"]
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    (tmp_path / "rows.jsonl").write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:50])
    again = []
    monkeypatch.setattr(run, "write_report", lambda config, suite, results, absent, record: again.append(results))
    main(arguments(model_folder, tmp_path))
    assert here[12:] == [("truth", 3)]
    errors = [row["values"]["path_error"] for row in again[0]["ours"]["rows"]]
    assert errors == pytest.approx(numbers["clips"]["ours"]["path_error"], abs=1e-5)
    assert len(again[0]["truth"]["records"]) == 2 and len(again[0]["ours"]["records"]) == 1


@pytest.fixture
def reported(monkeypatch):
    """What the report would be written from."""
    calls = []
    monkeypatch.setattr(run, "write_report", lambda config, suite, results, absent, record: calls.append(results))
    return calls


def test_a_broken_clip_is_told_skipped_and_tried_again(model_folder, tmp_path, here, reported, monkeypatch, caplog):
    whole = Worker._measured

    def fails(self, index):
        if (self.system.name, index) == ("ours", 1):
            raise ValueError("001: it cannot be made")
        return whole(self, index)

    monkeypatch.setattr(Worker, "_measured", fails)
    main(arguments(model_folder, tmp_path))
    assert "ours, clip 1 is left out: 001: it cannot be made" in caplog.text
    (found,) = reported
    assert found["ours"]["broken"] == {1: "001: it cannot be made"} and found["whole"]["broken"] == {}
    assert [row["index"] for row in found["ours"]["rows"]] == [0, 2, 3]
    assert left_out(found) == ["ours, clip 1: 001: it cannot be made"]
    monkeypatch.setattr(Worker, "_measured", whole)
    main(arguments(model_folder, tmp_path))
    assert here[12:] == [("ours", 1)] and left_out(reported[1]) == []


def test_a_folder_of_tracks_and_a_folder_of_videos(model_folder, tmp_path, here, reported):
    """Inputs are exported, somebody makes videos of them (one is cut off), and both sides are measured by tracker."""
    suite, inputs, videos = SpriteSuite(), tmp_path / "inputs", tmp_path / "videos"
    count = ["--num_clips", "4", "--num_frames", "17"]
    main(["--export_inputs", str(inputs), *count])
    videos.mkdir()
    for index in range(4):
        write_video(list(suite.case(index, 17).truth), videos / f"{index:03d}.mp4", 16)
    (videos / "002.mp4").write_bytes((videos / "002.mp4").read_bytes()[:2000])
    systems = ["--systems", f"videos:{videos}", f"ours={model_folder}", "still"]
    settings = ["--suite", f"folder:{inputs}", "--features", "sprite", "--output_dir", str(tmp_path / "out")]
    main([*systems, *settings, *count])
    found = reported[0]
    assert [row["index"] for row in found["videos"]["rows"]] == [0, 1, 3]
    assert "002.mp4 is no video that can be read" in found["videos"]["broken"][2]
    errors = {name: summarize({name: one["rows"]}, None)[name]["values"]["path_error"] for name, one in found.items()}
    assert errors["videos"]["mean"] < 0.5 * errors["still"]["mean"]
    assert all(row["pixels"] == [128, 128] for row in found["ours"]["rows"])


def test_too_few_clips_are_an_error(model_folder, tmp_path, here, monkeypatch):
    monkeypatch.setattr(Worker, "_measured", lambda self, index: (_ for _ in ()).throw(ValueError("no")))
    with pytest.raises(ValueError, match="systems: ours: 0 clips could be made, 3 are needed"):
        main(arguments(model_folder, tmp_path))


def test_the_truth_is_added_where_there_is_one(tmp_path):
    ours, true = System("ours", "causal", "x"), System("floor", "truth")
    assert with_truth([ours], SpriteSuite(), 9) == [ours, System("truth", "truth")]
    assert with_truth([ours, true], SpriteSuite(), 9) == [ours, true]
    main(["--export_inputs", str(tmp_path), "--num_clips", "3", "--num_frames", "9"])
    assert with_truth([ours], FolderSuite(tmp_path), 9) == [ours]


def test_clips_too_short_for_the_distances_are_told_first(model_folder, tmp_path, here):
    with pytest.raises(ValueError, match="num_frames: 9; distances between clips need at least 16"):
        main([*arguments(model_folder, tmp_path), "--num_frames", "9"])
    assert here == []


def test_keys(model_folder):
    suite, config = SpriteSuite(), EvalConfig()
    key = run_key(System("a", "causal", str(model_folder)), suite, config)
    assert key == run_key(
        System("another name", "causal", str(model_folder)), suite, EvalConfig(workers=1, num_clips=3)
    )
    for kind, settings in (("bidirectional", {}), ("causal", {"seed": 1}), ("causal", {"num_frames": 17})):
        assert key != run_key(System("a", kind, str(model_folder)), suite, EvalConfig(**settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_clips": 2}, "num_clips: 2 is too few"),
        ({"num_frames": 32}, "num_frames: 32 is not 4k . 1"),
        ({"workers": 0}, "workers, seed and num_long_clips"),
        ({"features": "i3d"}, "features: 'i3d' is unknown; use auto, sprite, standard"),
        ({"tracker": "raft"}, "tracker: 'raft' is unknown"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        EvalConfig(**settings)


def test_numbers_of_clips():
    assert EvalConfig().clips(206) == 206 and EvalConfig(quick=True).clips(206) == 24
    assert EvalConfig(quick=True).clips(5) == 5 and EvalConfig(quick=True, num_clips=7).clips(206) == 7
    assert EvalConfig(quick=True).long_clips == 0 and EvalConfig().long_clips == 40
    with pytest.raises(ValueError, match="num_clips: 300 of a suite that has 206"):
        EvalConfig(num_clips=300).clips(206)


def test_networks_that_cannot_be_had_are_named(tmp_path):
    for settings, message in (
        ({"aesthetic_head": str(tmp_path / "none.pth")}, "aesthetic: .*none.pth is no file"),
        ({"amt": "hub"}, "smoothness: AMT-S comes with VBench"),
        ({"features": "standard", "inception": str(tmp_path / "none.pth")}, "inception: the weights cannot be had"),
    ):
        with pytest.raises(ValueError, match=message):
            make_meter(EvalConfig(**settings), SpriteSuite())


def test_exported_inputs_are_a_suite(tmp_path):
    main(["--export_inputs", str(tmp_path / "inputs"), "--num_clips", "3", "--num_frames", "9"])
    suite = FolderSuite(tmp_path / "inputs")
    assert suite.names() == ["000", "001", "002"]
    assert (suite.case(1, 9).picture == SpriteSuite().case(1, 9).picture).all()


@pytest.mark.slow
def test_workers_give_the_same_numbers(model_folder, tmp_path):
    """Two processes, against this one: all of every row but what the clock and the memory say."""
    system, suite = System("ours", "causal", str(model_folder)), SpriteSuite()
    config = EvalConfig(num_clips=4, num_frames=17, num_long_clips=0, workers=2, output_dir=str(tmp_path))
    rows, broken, _ = rows_of_system(system, suite, config, [0, 1, 2, 3], run_record("eval.run", []))
    alone, measured = Worker(system, config), {"first_seconds", "seconds", "peak_mib"}
    assert not broken and [row["index"] for row in rows] == [0, 1, 2, 3]
    for row in rows:
        same = json.loads(json.dumps(alone.row(row["index"])))
        assert {name: row[name] for name in row.keys() - measured} == {
            name: same[name] for name in same.keys() - measured
        }
