"""Curated clips become rows to train on, as those of the worlds do; no true path is known to any of the two steps."""

import datasets
import numpy as np
import pytest
from datasets import load_from_disk

from training.curate.__main__ import main as curate
from training.curate.record import decode_video
from training.curate.store import read_rows
from training.precompute import PrecomputeConfig
from training.precompute import main as precompute
from training.run.clips import unpack_tracks
from training.run.data import LatentPool, load_latents


TWO = (((0.2, 0.25), (0.75, 0.3), 0.15), ((0.8, 0.8), (0.3, 0.7), 0.15))


@pytest.mark.slow
def test_videos_become_rows_to_train_on(pipeline, tmp_path, monkeypatch, scene, shoot):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "films").mkdir()
    for name, size in {"square": (128, 128), "wide": (160, 96)}.items():
        shoot(tmp_path / "films" / f"{name}.mp4", scene(*size, movers=TWO, seed=len(name)), 24)
        (tmp_path / "films" / f"{name}.txt").write_text(f"two discs, {name}")
    kept = str(tmp_path / "curated")
    curate([str(tmp_path / "films"), "--output_dir", kept, "--buckets", "64x64", "80x48", "--num_frames", "17"])
    pipeline.vae.save_pretrained(tmp_path / "vae")
    rows = str(tmp_path / "rows")
    precompute(PrecomputeConfig(str(tmp_path / "vae"), rows, data=kept))
    source = {row["id"]: row for row in read_rows(tmp_path / "curated") if not row["drop"]}
    encoded = {row["id"]: row for row in load_from_disk(rows)}
    assert encoded.keys() == source.keys() and len(source) == 2
    for name, row in encoded.items():
        assert row["caption"] == source[name]["caption"] != ""
        for ours, theirs in zip(unpack_tracks(row), unpack_tracks(source[name]), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=2e-5)
        assert decode_video(source[name]["video"]).shape[1:3] == (row["height"], row["width"])
    pool = LatentPool(load_latents([rows]), 3)
    assert sorted(pool.buckets) == [[48, 80], [64, 64]]


def test_a_folder_without_a_kept_clip_is_named(tmp_path, pipeline, scene, shoot, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "films").mkdir()
    shoot(tmp_path / "films" / "still.mp4", scene(movers=()), 24)
    kept = str(tmp_path / "curated")
    curate([str(tmp_path / "films"), "--output_dir", kept, "--buckets", "64x64", "--num_frames", "17"])
    pipeline.vae.save_pretrained(tmp_path / "vae")
    with pytest.raises(ValueError, match=r"data: .*curated kept no clip; its review.html says why each was dropped"):
        precompute(PrecomputeConfig(str(tmp_path / "vae"), str(tmp_path / "rows"), data=kept))
