"""Several videos of one picture: other futures of it, what is measured of them, and a run from end to end."""

import json

import numpy as np
import pytest

from ardrag.worlds.small import SmallWorld
from eval.benchmark import histories
from eval.benchmark.histories import HistoriesConfig, clip_of, future, main, measure_group
from eval.metrics.latents import latent_steps
from eval.report import seeds
from eval.suites.open import open_suite


FRAMES = 13
LATENTS = slice(1, 4)


def passing(index):
    return clip_of(open_suite("small:passers_by=1").case(index, FRAMES))


def test_futures_have_the_picture_and_the_tracks_in_common():
    clip = passing(1)
    one, other = future(clip, 0), future(clip, 1)
    assert np.array_equal(one[0], other[0])
    np.testing.assert_allclose(one[0].astype(int), clip.frames[0], atol=1)  # its background was rounded
    assert not np.array_equal(one[-1], other[-1]) and np.array_equal(one, future(clip, 0))
    x, y = clip.sprites[clip.movers[0]].xy[-1].astype(int)
    assert np.array_equal(one[-1, y, x], other[-1, y, x])  # what lies in front is where its track says


def test_true_futures_are_near_a_still_picture_is_not(pipeline):
    clip = passing(2)
    futures = [future(clip, number) for number in range(8)]
    still = [np.repeat(clip.frames[:1], FRAMES, axis=0)] * 4
    true = np.stack([latent_steps(pipeline.vae, video) for video in futures[4:]])
    near, far = (measure_group(clip, videos, pipeline.vae, true, LATENTS) for videos in (futures[:4], still))
    assert near["passer_off"] < 0.3 < far["passer_off"] and near["path_error"] < 0.3 < far["path_error"]
    assert far["passer_coverage"] == 0 < near["passer_coverage"]
    assert near["latent_distance"] < far["latent_distance"]
    assert near["passer_sharpness"] > 0.95 and far["passer_sharpness"] > 0.95


def test_what_is_refused():
    with pytest.raises(ValueError, match="members: 1 is too few; use 2"):
        HistoriesConfig(systems=["truth"], members=1)
    with pytest.raises(ValueError, match="suite: nobody passes by in clip 000; use small:passers_by=1"):
        main(["--systems", "truth", "--suite", "small"])
    fork = SmallWorld(two_futures=True)
    assert fork.make("test", 0, 5).free == (0,)
    with pytest.raises(ValueError, match="nobody passes by"):
        clip_of(open_suite("small:two_futures=1").case(0, 5))


def run(folder, model, *more):
    options = ["--num_clips", "3", "--members", "2", "--num_frames", "9", "--vae", str(model)]
    main(["--output_dir", str(folder), *options, *more])
    return json.loads((folder / "report.json").read_text())


@pytest.mark.slow
def test_from_systems_to_the_page_of_seeds_and_again_without_making_anything(pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(histories, "LONG_FRAMES", 25)
    pipeline.register_to_config(buckets=[[64, 64]])
    pipeline.save_pretrained(tmp_path / "model")
    model = tmp_path / "model"
    systems = ["truth", "still", f"ours, seed 0={model}", f"teacher={model}@2", f"VAE=vae:{model}"]
    report = run(tmp_path / "eval", model, "--num_long_clips", "1", "--systems", *systems)
    truth = report["clips"]["truth"]
    assert report["clips"].keys() == {"truth", "still", "ours, seed 0", "teacher", "VAE"}
    assert len(truth["passer_off"]) == 3 and truth["late_passer_off"][1:] == [None, None]
    assert report["summary"]["still"]["values"]["passer_coverage"]["mean"] == 0

    def no_maker(*given):
        raise AssertionError("everything is there")

    with monkeypatch.context() as patch:
        patch.setattr(histories, "maker_of", lambda *given: no_maker)
        again = run(tmp_path / "eval", model, "--num_long_clips", "1", "--systems", *systems)
    assert again["clips"] == report["clips"]
    keys = ["passer_sharpness", "passer_off", "passer_coverage", "latent_distance", "late_passer_off"]
    target = tmp_path / "page"
    seeds.main([str(tmp_path / "eval" / "report.json"), "--report", str(target), "--metrics", *keys])
    page = target.with_suffix(".md").read_text()
    assert "| ours |" in page and "- late, passers-by, off any valid path, px: the same at the end of long" in page
    pipeline.register_to_config(buckets=[[32, 32]])
    pipeline.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="systems: videos of 32x32; the clips have 64x64"):
        run(tmp_path / "other_eval", model, "--num_long_clips", "0", "--systems", f"a={tmp_path / 'other'}")
