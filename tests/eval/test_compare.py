"""Systems side by side: how they are named, what is measured where the answer is known, and what the report says."""

import json

import numpy as np
import pytest

from ardrag.sprites import make_clip
from eval import compare
from eval.compare import CompareConfig, System, main, measure
from eval.compare_report import summarize


def test_a_system_is_a_name_a_folder_and_perhaps_steps():
    assert System.parse("AR-Drag=a/b") == System("AR-Drag", "a/b", None)
    assert System.parse("teacher=a/b@24") == System("teacher", "a/b", 24)


@pytest.mark.parametrize("text", ["a/b", "=a/b", "a=", "a=b@", "a=b@x", "a=b@0"])
def test_a_system_that_is_none(text):
    with pytest.raises(ValueError, match="systems: .* is not name=folder or name=folder@steps"):
        System.parse(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"systems": ["a=x", "a=y"]}, "systems: .* different names"),
        ({"systems": []}, "systems: .* one or more"),
        ({"num_clips": 1}, "num_clips: 1 is outside 2..206"),
        ({"workers": 0}, "num_long_clips, workers and seed"),
    ],
)
def test_settings_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        CompareConfig(**{"systems": ["a=x"], **changes})


@pytest.fixture(scope="module")
def clip():
    return make_clip("test", 0, 33)


def test_the_truth_has_no_errors(clip):
    found = measure(clip, clip.frames, (2, 8))
    assert found["path_error"] < 0.8 and found["flicker"] == 0
    assert found["colour_error_latent_8"] < 3 and found["background_psnr_latent_8"] > 60


def test_each_damage_moves_its_own_number(clip):
    truth = measure(clip, clip.frames, (8,))
    shifted = np.roll(clip.frames, 5, axis=2)
    assert measure(clip, shifted, (8,))["path_error"] == pytest.approx(5, abs=1)
    dark = (clip.frames * 0.8).astype(np.uint8)
    found = measure(clip, dark, (8,))
    assert found["path_error"] == pytest.approx(truth["path_error"], abs=0.6) and found["flicker"] == 0
    assert found["colour_error_latent_8"] > 10
    blinking = clip.frames.astype(int) + 6 * (np.arange(33) % 2)[:, None, None, None]
    found = measure(clip, blinking.clip(0, 255).astype(np.uint8), (8,))
    assert found["flicker"] == pytest.approx(6, abs=0.5) and found["path_error"] < truth["path_error"] + 0.6


def row(index, error, late, latency=0.1):
    short = {"path_error": error, "flicker": 0.0, "path_error_latent_2": None, "path_error_latent_8": error}
    short |= {"colour_error_latent_8": 1.0, "background_psnr_latent_8": 30.0}
    features = list(np.random.default_rng(index).normal(size=4))
    found = {"index": index, "short": short, "latency": latency, "features": features, "true_features": features}
    return found | ({"long": {"path_error_latent_20": late, "colour_error_latent_20": 2.0}} if late else {})


def test_summary_pairs_clips_and_leaves_gaps():
    ours = [row(i, 1.0 + 0.1 * i, 2.0) for i in range(10)]
    theirs = [row(i, 3.0 + 0.1 * i, None, latency=1.0) for i in range(10)]
    summary = summarize({"ours": ours, "theirs": theirs})
    assert summary["ours"]["columns"]["path error, px"]["mean"] == pytest.approx(1.45)
    difference = summary["theirs"]["differences"]["path error, px"]
    assert (difference["mean"], difference["low"], difference["high"]) == pytest.approx((2, 2, 2))
    assert summary["ours"]["differences"]["path error, px"] is None
    assert summary["theirs"]["columns"]["latent 20"] is None and summary["ours"]["columns"]["latent 2"] is None
    assert summary["ours"]["frechet"]["mean"] == pytest.approx(0, abs=1e-9)
    assert summary["theirs"]["first_latent_seconds"] == 1.0


def test_the_command(make_pipeline, tmp_path, monkeypatch, capsys):
    """Two systems, one of them at once; the second time nothing is generated but the sheet."""
    pipeline = make_pipeline()
    pipeline.register_to_config(buckets=[[128, 128]])
    pipeline.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(compare, "SHORT", 9)
    monkeypatch.setattr(compare, "LONG", 13)
    monkeypatch.setattr(compare, "SHORT_LATENTS", (2, 8))
    arguments = ["--systems", f"stream={tmp_path / 'model'}", f"whole={tmp_path / 'model'}@2", "--num_clips", "2"]
    arguments += ["--num_long_clips", "1", "--output_dir", str(tmp_path / "out"), "--title", "Two ways"]
    monkeypatch.setattr(
        compare, "in_processes", lambda work, indices, workers, start, given: _here(work, indices, start, given)
    )
    main(arguments)
    page = (tmp_path / "out" / "compare.md").read_text()
    assert (
        page.startswith("# Two ways")
        and "| stream |" in page
        and "| whole |" in page
        and page in capsys.readouterr().out
    )
    assert (tmp_path / "out" / "compare.png").stat().st_size > 1000
    stored = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert stored["summary"]["whole"]["columns"]["latent 20"] is None
    monkeypatch.setattr(compare, "clip_row", lambda *_: pytest.fail("a finished clip was made again"))
    main(arguments)


def _here(work, indices, start, given):
    start(*given)
    return map(work, indices)
