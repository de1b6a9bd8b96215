"""Precomputed latents: what `training.precompute` writes is what the VAE says, and what a batch draws."""

import numpy as np
import pytest
import torch
from datasets import Dataset

from ardrag.streaming_vae import StreamingVAE
from ardrag.worlds.clip_tracks import clip_tracks
from ardrag.worlds.sprites import make_clip
from training import precompute
from training.run.data import LatentPool, load_latents


SHAPE = (4, 3, 4, 4)


def make_dataset(count=6):
    generator = np.random.default_rng(0)
    rows = {
        "latents": generator.normal(size=(count, *SHAPE)).astype(np.float32).tolist(),
        "motion": generator.normal(size=(count, *SHAPE)).astype(np.float32).tolist(),
        "reference": generator.integers(0, 256, (count, 8, 8, 3)).tolist(),
        "caption": [f"clip {i}" for i in range(count)],
    }
    return Dataset.from_dict(rows)


@pytest.fixture
def pool():
    return LatentPool(make_dataset())


def test_a_batch_depends_on_its_generator_alone(pool):
    first, second = (pool.draw(4, torch.Generator().manual_seed(3)) for _ in range(2))
    other = pool.draw(4, torch.Generator().manual_seed(4))
    assert torch.equal(first.latents, second.latents) and first.captions == second.captions
    assert first.captions != other.captions


def test_rows_of_a_batch_belong_together(pool):
    batch = pool.draw(20, torch.Generator().manual_seed(0), num_latents=2)
    assert batch.latents.shape == batch.motion.shape == (20, 4, 2, 4, 4)
    assert batch.latents.dtype == torch.float32 and batch.reference.dtype == torch.uint8
    for row, caption in enumerate(batch.captions):
        clip = int(caption.split()[1])
        assert torch.equal(batch.latents[row], pool.latents[clip, :, :2].float())
        assert torch.equal(batch.motion[row], pool.motion[clip, :, :2].float())
        assert torch.equal(batch.reference[row], pool.reference[clip])
    assert len(set(batch.captions)) == len(pool) == 6


def test_moving_a_batch_keeps_it(pool):
    batch = pool.draw(2, torch.Generator().manual_seed(0))
    assert torch.equal(batch.to(torch.device("cpu")).latents, batch.latents)
    assert batch.to(torch.device("meta")).motion.device.type == "meta"


def test_several_folders_are_one(tmp_path):
    for name in "ab":
        make_dataset(2).save_to_disk(tmp_path / name)
    assert len(load_latents([str(tmp_path / "a"), str(tmp_path / "b")])) == 4


def test_bad_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match="data: no folder given; write one with python -m training.precompute"):
        load_latents([])
    make_dataset(2).remove_columns(["motion", "caption"]).save_to_disk(tmp_path / "old")
    with pytest.raises(ValueError, match=r"data: .*old lacks column\(s\) caption, motion; run training.precompute"):
        load_latents([str(tmp_path / "old")])


def test_precomputed_latents_are_the_vae_s(pipeline, tmp_path, monkeypatch):
    """Also when the weights at the same place have changed since the last time."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    vae, stream = pipeline.vae, StreamingVAE(pipeline.vae)
    config = precompute.PrecomputeConfig(str(tmp_path / "vae"), str(tmp_path / "latents"), num_clips=2, num_frames=5)
    seen = []
    for scale in (1.0, 2.0):
        changed = type(vae).from_config(vae.config)
        changed.load_state_dict({name: scale * value for name, value in vae.state_dict().items()})
        changed.save_pretrained(config.vae)
        precompute.main(config)
        seen.append(load_latents([config.output_dir]).with_format("torch")[:])
    assert not torch.equal(seen[0]["latents"], seen[1]["latents"])
    for index in range(2):
        clip = make_clip("train", index, 5)
        video = torch.from_numpy(clip.frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        heat = clip_tracks(clip).control_video(128, 128)[None]
        row = {name: seen[0][name][index] for name in seen[0]}
        torch.testing.assert_close(row["latents"], stream.encode(video)[0], rtol=0, atol=1e-4)
        torch.testing.assert_close(row["motion"], stream.encode(heat)[0], rtol=0, atol=1e-4)
        assert np.array_equal(row["reference"], clip.frames[0]) and row["caption"] == clip.caption


def test_only_clips_of_the_categories_are_kept(pipeline, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    pipeline.vae.save_pretrained(tmp_path / "vae")
    settings = {"vae": str(tmp_path / "vae"), "output_dir": str(tmp_path / "hard"), "start": 3, "num_frames": 5}
    kept = [clip for clip in (make_clip("train", index, 5) for index in range(3, 15)) if "fast" in clip.categories]
    assert 0 < len(kept) < 12
    precompute.main(precompute.PrecomputeConfig(**settings, num_clips=12, categories=["fast"]))
    rows = load_latents([str(tmp_path / "hard")])
    assert rows["caption"] == [clip.caption for clip in kept]
    motion = rows.with_format("torch")["motion"][:]
    precompute.main(precompute.PrecomputeConfig(**settings, num_clips=12, categories=["fast"], coloured_tracks=True))
    coloured = load_latents([str(tmp_path / "hard")]).with_format("torch")["motion"][:]
    changed = [not torch.equal(one, other) for one, other in zip(motion, coloured, strict=True)]
    assert changed == [len(clip.movers) > 1 for clip in kept]
    with pytest.raises(ValueError, match="categories: none of clips 3 to 14 of train is upside down"):
        precompute.main(precompute.PrecomputeConfig(**settings, num_clips=12, categories=["upside down"]))


def test_a_dataset_that_cannot_be_had_is_named(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="^data: nobody/no-such-latents "):
        load_latents(["nobody/no-such-latents"])
