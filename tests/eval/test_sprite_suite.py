"""The sprite benchmark on two short clips with a random model: its measures, its control, going on after a stop."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ardrag.sprites import BENCHMARK_CLIPS, make_clip
from eval import sprite_suite
from eval.sprite_report import METRICS, VARIANTS, chosen_clips, summarize
from eval.sprite_suite import RowCache, SuiteConfig, donor_of, main, measure, run_key


def run(model_folder: Path, output: Path, *extra: str) -> dict[str, Any]:
    arguments = ["--model", str(model_folder), "--num_frames", "9", "--steps", "1", "--output_dir", str(output)]
    main([*arguments, *(extra or ("--num_clips", "2"))])
    return json.loads((output / "sprites.json").read_text())


@pytest.fixture(scope="module")
def finished(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    output = tmp_path_factory.mktemp("suite")
    return output, run(model_folder, output)


def test_writes_results_page_and_picture(finished: tuple[Path, dict[str, Any]]) -> None:
    output, results = finished
    summary = results["summary"]
    assert summary["clips"] == 2 and len(results["rows"]) == 2
    assert set(summary["variants"]) == set(VARIANTS)
    assert all(set(found) == set(METRICS) for found in summary["variants"].values())
    assert summary["variants"]["truth"]["path_error"]["mean"] < 1
    assert summary["variants"]["generated"]["path_error_latent_8"] is None
    assert results["record"]["command"].startswith("python -m eval.sprite_suite --model")
    page = (output / "sprites.md").read_text()
    assert "true video (floor of the measure)" in page and results["record"]["command"] in page
    assert Image.open(output / "sprites.png").size == (3 * 128, 6 * 128)


def test_goes_on_where_it_stopped(
    finished: tuple[Path, dict[str, Any]], model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (finished[0] / "rows.jsonl").read_text().splitlines()
    (tmp_path / "rows.jsonl").write_text(lines[0] + "\n" + lines[1][:40])
    measured = []
    whole = sprite_suite.clip_row
    monkeypatch.setattr(sprite_suite, "clip_row", lambda *args: measured.append(args[2]) or whole(*args))
    again = run(model_folder, tmp_path)
    assert measured == [1]
    assert again["summary"]["variants"] == finished[1]["summary"]["variants"]
    run(model_folder, tmp_path)
    assert measured == [1]
    run(model_folder, tmp_path, "--num_clips", "1", "--seed", "1")
    assert measured == [1, 0]


def test_key_depends_on_model_and_settings(model_folder: Path, tmp_path: Path) -> None:
    config = SuiteConfig(model=str(model_folder))
    key = run_key(config)
    assert key == run_key(SuiteConfig(model=str(model_folder), num_clips=3, workers=2, output_dir="elsewhere"))
    assert key != run_key(SuiteConfig(model=str(model_folder), steps=2))
    other = tmp_path / "model"
    other.mkdir()
    (other / "config.json").write_text("{}")
    assert key != run_key(SuiteConfig(model=str(other)))


def test_cache_keeps_other_runs(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    RowCache(path, "one").add({"index": 4})
    RowCache(path, "two").add({"index": 5})
    assert list(RowCache(path, "one").rows) == [4]
    assert list(RowCache(path, "two").rows) == [5]


def test_control_takes_every_other_clip_once() -> None:
    donors = [donor_of(index) for index in range(BENCHMARK_CLIPS)]
    assert sorted(donors) == list(range(BENCHMARK_CLIPS))
    assert all(donor != index for index, donor in enumerate(donors))


def test_measure_of_truth_and_of_a_shifted_video() -> None:
    clip = make_clip("test", 0)
    truth = measure(clip, clip.frames)
    assert truth["path_error"] < 1 and truth["background_psnr"] > 60
    late = measure(clip, np.concatenate([clip.frames[:1], clip.frames[:-1]]))
    step = np.linalg.norm(np.diff(clip.xy, axis=0), axis=-1)[clip.visible[1:]].mean()
    assert late["path_error"] == pytest.approx(step, abs=1)
    still = measure(clip, np.repeat(clip.frames[:1], len(clip.frames), axis=0))
    away = np.linalg.norm(clip.xy[29:33] - clip.xy[0], axis=-1)[clip.visible[29:33]].mean()
    assert still["path_error_latent_8"] == pytest.approx(away, abs=1)


def row(index: int, error: float | None, control: float | None) -> dict[str, Any]:
    found = {name: dict.fromkeys(METRICS, 30.0) for name in VARIANTS}
    found["generated"]["path_error"], found["shuffled"]["path_error"] = error, control
    return {"index": index, "categories": ["fast"], "seconds": 1.0, "results": found}


def test_summary_leaves_out_what_was_not_seen() -> None:
    rows = [row(0, 2.0, 20.0), row(1, None, None), row(2, 4.0, 40.0)]
    summary = summarize(rows)
    assert summary["variants"]["generated"]["path_error"]["mean"] == 3
    assert summary["variants"]["generated"]["path_error"]["clips"] == 2
    assert summary["control_ratio"]["mean"] == pytest.approx(10)
    assert [target["met"] for target in summary["targets"]] == [True, True, True]
    assert {name: found["index"] for name, found in chosen_clips(rows).items()} == {"best": 0, "median": 0, "worst": 2}
    assert summarize([row(1, None, None)])["control_ratio"] is None


@pytest.mark.parametrize(
    "field", [{"num_clips": 207}, {"num_frames": 32}, {"steps": 0}, {"workers": 0}, {"seed": -1}], ids=str
)
def test_refuses_bad_settings(field: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(field))):
        SuiteConfig(**field)


def test_refuses_an_unknown_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model"):
        run(tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_workers_give_the_same_numbers(
    finished: tuple[Path, dict[str, Any]], model_folder: Path, tmp_path: Path
) -> None:
    both = run(model_folder, tmp_path, "--num_clips", "2", "--workers", "2")
    assert both["summary"]["variants"] == finished[1]["summary"]["variants"]
