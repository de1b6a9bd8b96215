"""Before and after reinforcement learning: measures where the answer is known, pairing, the command."""

import json

import numpy as np
import pytest

from ardrag.sprites import make_clip
from eval import rl
from eval.rl import COLUMNS, RlConfig, judges, main, measure, summarize


@pytest.fixture(scope="module")
def clip():
    return make_clip("test", 0, 17)


def test_the_truth_and_a_picture_that_stands_still(clip):
    rewards = judges()
    truth = measure(clip, clip.frames, rewards)
    assert set(truth) == set(COLUMNS.values())
    assert truth["path_error"] < 0.8 and truth["far"] == 0 and truth["motion_patch"] > 4.8
    assert truth["background_psnr"] > 60 and truth["aesthetic"] > 5
    still = measure(clip, np.repeat(clip.frames[:1], 17, axis=0), rewards)
    assert still["path_error_end"] > still["path_error"] > 5 and still["far"] > 20
    assert still["motion_patch"] < truth["motion_patch"] - 1 and still["motion_lucas_kanade"] < 4
    dull = np.random.default_rng(0).normal(clip.frames, 40).clip(0, 255).astype(np.uint8)
    noisy = measure(clip, dull, rewards)
    assert noisy["aesthetic"] < truth["aesthetic"] - 2 and noisy["background_psnr"] < 25


def test_clips_are_paired_and_gaps_left_out():
    def rows(shift, gap=None):
        return [{"index": i, **dict.fromkeys(COLUMNS.values(), None if i == gap else i + shift)} for i in range(8)]

    summary = summarize({"before": rows(0), "after": rows(-0.5, gap=3)})
    assert summary["before"]["differences"] is None
    found = summary["after"]["differences"]["path error, px"]
    assert (found["mean"], found["low"], found["high"], found["clips"]) == (-0.5, -0.5, -0.5, 7)
    assert summary["after"]["columns"]["aesthetic score"]["clips"] == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"systems": ["a"]}, "systems: .* must be name=folder"),
        ({"systems": ["a=x", "a=y"]}, "names all different"),
        ({"num_clips": 1}, "num_clips: 1 is outside"),
        ({"workers": 0}, "workers and seed"),
    ],
)
def test_settings_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        RlConfig(**{"systems": ["a=x"], **changes})


def test_the_command(model_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rl, "NUM_FRAMES", 9)

    def here(work, indices, workers, start, given):
        start(*given)
        return map(work, indices)

    monkeypatch.setattr(rl, "in_processes", here)
    arguments = ["--systems", f"w/o RL={model_folder}", f"AR-Drag={model_folder}", "--num_clips", "2"]
    arguments += ["--output_dir", str(tmp_path), "--title", "Before and after"]
    main(arguments)
    page = (tmp_path / "rl.md").read_text()
    assert (
        page.startswith("# Before and after") and "Differences to w/o RL" in page and page in capsys.readouterr().out
    )
    found = json.loads((tmp_path / "rl.json").read_text())["summary"]["AR-Drag"]["differences"]["path error, px"]
    assert found["mean"] == 0  # the same weights and seeds: the same videos
    monkeypatch.setattr(rl, "clip_row", lambda *_: pytest.fail("a finished clip was made again"))
    main(arguments)
