"""Batches of encoded clips: one shape each, functions of (seed, step, rank), from files that stay on disk."""

import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import concatenate_datasets

from training.run.clips import unpack_half, unpack_tracks
from training.run.data import LatentPool, choose, load_latents, shape_generator
from training.run.runtime import step_generator


ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def rows(make_clips):
    """Six square clips of four latents, three wide ones of three, two square ones of six."""
    parts = [make_clips(6), make_clips(3, 3, 24, 48, seed=1), make_clips(2, 6, seed=2)]
    return concatenate_datasets(parts)


@pytest.fixture
def pool(rows):
    return LatentPool(rows, num_latents=4)


def draw(pool, count, seed, step=0, rank=0):
    generators = [step_generator(seed, step, rank * count + clip) for clip in range(count)]
    return pool.draw(generators, shape_generator(seed, step))


def test_a_batch_depends_on_seed_step_and_rank_alone(pool, rows):
    first, again = draw(pool, 4, 3), draw(LatentPool(rows, 4), 4, 3)
    assert torch.equal(first.latents, again.latents) and first.captions == again.captions
    others = [draw(pool, 4, 4), draw(pool, 4, 3, step=1), draw(pool, 4, 3, rank=1)]
    assert all(not torch.equal(first.latents[:, 0, 0, 0], other.latents[:, 0, 0, 0]) for other in others)


def test_rows_of_a_batch_belong_together(pool, rows):
    known = {np.asarray(row["reference"]).tobytes(): row for row in rows}
    for step in range(12):
        batch = draw(pool, 3, 0, step)
        latents = batch.latents.shape[2]
        assert batch.latents.dtype == torch.float32 and batch.reference.dtype == torch.uint8
        for i, picture in enumerate(batch.reference):
            row = known[picture.numpy().tobytes()]
            assert torch.equal(batch.latents[i], unpack_half(row["latents"], row["latent_shape"])[:, :latents])
            assert torch.equal(batch.motion[i], unpack_half(row["motion"], row["latent_shape"])[:, :latents])
            assert batch.captions[i] == row["caption"]
            tracks = unpack_tracks(row)
            assert len(batch.tracks[i].xy) == 4 * latents - 3
            assert np.array_equal(batch.tracks[i].xy, tracks.xy[: 4 * latents - 3])


def test_all_ranks_work_on_one_shape_and_every_clip_comes_as_often(pool):
    """Long clips are cut to the others' length and share their batches; shapes come by their share of clips."""
    assert pool.shapes == [(3, 24, 48), (4, 32, 32)] and [len(group) for group in pool.groups] == [3, 8]
    assert pool.buckets == [[32, 32], [24, 48]] and len(pool) == 11
    shapes = Counter()
    for step in range(200):
        batches = [draw(pool, 1, 5, step, rank) for rank in range(2)]
        (shape,) = {tuple(batch.latents.shape[2:]) for batch in batches}
        shapes[shape] += 1
    assert shapes[3, 3, 6] / 200 == pytest.approx(3 / 11, abs=0.08)
    assert choose([7], None) == 0


def test_longer_than_all_clips_is_refused(rows):
    with pytest.raises(ValueError, match="num_latents: 7 is longer than the data, whose clips have at most 6; use 6"):
        LatentPool(rows, 7)


def test_clips_of_two_vaes_are_refused(rows, make_clips):
    with pytest.raises(ValueError, match="data: latents have 4 and 8 channels; encode all clips with one VAE"):
        LatentPool(concatenate_datasets([rows, make_clips(1, channels=8)]), 4)


def test_moving_a_batch_keeps_it(pool):
    batch = draw(pool, 2, 0)
    assert torch.equal(batch.to(torch.device("cpu")).latents, batch.latents)
    assert batch.to(torch.device("meta")).motion.device.type == "meta"


def test_captions_of_all_clips(pool, rows):
    assert list(pool.captions()) == rows["caption"][:]


def test_several_folders_are_one(make_clips, tmp_path):
    for name in "ab":
        make_clips(2).save_to_disk(tmp_path / name)
    assert len(load_latents([str(tmp_path / "a"), str(tmp_path / "b")])) == 4


def test_bad_folders_are_named(make_clips, tmp_path):
    with pytest.raises(ValueError, match="data: no folder given; write one with python -m training.precompute"):
        load_latents([])
    make_clips(2).remove_columns(["schema", "tracks"]).save_to_disk(tmp_path / "old")
    with pytest.raises(ValueError, match=r"data: .*old lacks column\(s\) schema, tracks of ardrag.clips/v1; write it"):
        load_latents([str(tmp_path / "old")])


def test_a_dataset_that_cannot_be_had_is_named(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="^data: nobody/no-such-latents "):
        load_latents(["nobody/no-such-latents"])


MEMORY = """
import sys
import psutil
from training.run.data import LatentPool, load_latents, shape_generator
from training.run.runtime import step_generator

pool = LatentPool(load_latents([sys.argv[1]]), 4)
for step in range(40):
    pool.draw([step_generator(0, step, clip) for clip in range(4)], shape_generator(0, step))
memory = psutil.Process().memory_info()
print(memory.rss - memory.shared)  # without what is mapped from files, which the kernel may drop at any time
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_dataset(make_clips, tmp_path):
    """Four times the clips, 16 and 64 MB of latents, the same memory of its own within a tenth."""
    part = make_clips(32, 5, 256, 256, channels=24)
    found = []
    for times in (2, 8):
        concatenate_datasets([part] * times).save_to_disk(tmp_path / str(times))
        command = [sys.executable, "-c", textwrap.dedent(MEMORY), str(tmp_path / str(times))]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        found.append(int(done.stdout))
    size = [sum(file.stat().st_size for file in (tmp_path / str(times)).glob("*.arrow")) for times in (2, 8)]
    assert size[1] > 3.9 * size[0] and size[1] - size[0] > 0.15 * found[0], (size, found)
    assert abs(found[1] - found[0]) < 0.1 * found[0], found
