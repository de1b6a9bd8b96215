"""A small transformer and conditions for the tests of the stages' mathematics."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from ardrag.conditioning import Conditions, image_slot
from ardrag.controls.control import Rows
from ardrag.controls.heat import Heat
from ardrag.tracks.sampling import TrackArrays
from ardrag.transformer import CausalWanTransformer
from training.controls.maker import control_text
from training.run.checkpoint import find_state, step_of
from training.run.clips import FEATURES, pack_clip


CHANNELS, SIDE = 4, 4
HEAT = control_text(Heat())


def build_transformer(chunk_frames=1, **changes):
    """Five latents of window at most two: eviction begins early."""
    torch.manual_seed(0)
    layout = {"latents": CHANNELS, "motion": CHANNELS, "image": CHANNELS}
    settings = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 32, "freq_dim": 16}
    settings |= {"in_channels": 3 * CHANNELS, "out_channels": CHANNELS, "text_dim": 8, "image_dim": 6}
    settings |= {"added_kv_proj_dim": 24, "input_layout": layout, "image_context": "first", "window_frames": 2}
    return CausalWanTransformer(**{**settings, "chunk_frames": chunk_frames, **changes})


def build_conditions(num_latents, batch=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    motion, noise = torch.randn(2, batch, CHANNELS, num_latents, SIDE, SIDE, generator=generator)
    reference = torch.randn(batch, CHANNELS, 1, SIDE, SIDE, generator=generator)
    text, tokens = torch.randn(batch, 5, 8, generator=generator), torch.randn(batch, 3, 6, generator=generator)
    return Conditions(motion, image_slot(reference, noise), text, tokens), reference


@pytest.fixture(scope="session")
def make_transformer():
    return build_transformer


@pytest.fixture(scope="session")
def make_conditions():
    return build_conditions


def random_clips(count, num_latents=4, height=32, width=32, channels=4, seed=0):
    """Encoded clips of noise with one or two tracks, as `training.precompute` writes them."""
    rng, ways = np.random.default_rng(seed), ("up", "down", "left", "right", "around", "away")
    frames, rows = 4 * num_latents - 3, []
    for i in range(count):
        xy = rng.uniform(0, 1, (frames, 1 + i % 2, 2)).astype(np.float32)
        arrays = TrackArrays(xy, rng.random(xy.shape[:2]) < 0.8, rng.random(xy.shape[:2]).astype(np.float32))
        tracks = Rows(arrays, (None,) * xy.shape[1])
        latents, motion = torch.from_numpy(
            rng.normal(size=(2, channels, num_latents, height // 8, width // 8)).astype(np.float32)
        )
        picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        caption = f"a star moves {ways[i % 6]}"
        rows.append(
            pack_clip(
                f"{num_latents}x{height}x{width}-{i}", "noise", caption, picture, tracks, 16.0, latents, HEAT, motion
            )
        )
    return Dataset.from_list(rows, features=FEATURES)


@pytest.fixture(scope="session")
def make_clips():
    return random_clips


@pytest.fixture(scope="session")
def run_inputs(pipeline, tmp_path_factory):
    """A folder with what the stages start from: a VAE, a pipeline, and precomputed latents of six random clips."""
    folder = tmp_path_factory.mktemp("inputs")
    pipeline.vae.save_pretrained(folder / "vae")
    pipeline.save_pretrained(folder / "pipeline")
    random_clips(6).save_to_disk(folder / "latents")
    random_clips(3, 3, 32, 48, seed=1).save_to_disk(folder / "wide")
    return folder


def files_of(folder):
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def weights_in(folder):
    return [content for path, content in files_of(folder).items() if path.suffix == ".safetensors"]


@pytest.fixture(scope="session")
def refuses_another():
    """A function that sees a run refuse to go on under another configuration, with the difference, untouched."""

    def refuses_another(main, before, after, difference):
        assert before.output_dir == after.output_dir
        main(before)
        files = files_of(before.output_dir)
        with pytest.raises(ValueError, match=f"output_dir: the state in .* does not fit this run .*{difference}"):
            main(after)
        assert files_of(before.output_dir) == files
        main(before)

    return refuses_another


@pytest.fixture
def mends_its_export(monkeypatch):
    """A function that kills runs between their last state and its export; the same command then makes it after all."""

    def mends_its_export(main, whole, killed, folder):
        module = sys.modules[main.__module__]
        main(whole)
        exports, exported = module.export, Path(killed.output_dir) / folder

        def kill(*arguments):
            if arguments[-1] == killed.steps - 1:
                raise KeyboardInterrupt
            exports(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(module, "export", kill)
            with pytest.raises(KeyboardInterrupt):
                main(killed)
        assert step_of(find_state(Path(killed.output_dir))) == killed.steps
        expected, older = weights_in(Path(whole.output_dir) / folder), weights_in(exported)
        main(killed)
        assert weights_in(exported) == expected and len(older) == len(expected) and older != expected
        before = {path: path.stat().st_mtime_ns for path in files_of(exported)}
        main(killed)
        assert before == {path: path.stat().st_mtime_ns for path in files_of(exported)}

    return mends_its_export


@pytest.fixture(scope="session")
def state_of():
    """A function that reads the tensors and the facts of the last state of a run."""

    def state_of(config):
        state = find_state(Path(config.output_dir))
        parts = [load_file(path) for path in sorted(state.glob("*.safetensors"))]
        tensors = {name: value for part in parts for name, value in part.items()}
        return tensors, json.loads((state / "state.json").read_text())

    return state_of


@pytest.fixture(scope="session")
def interrupt_at():
    """A function that stops the run of a stage's module in the middle of a step, as a power cut would."""

    def interrupt_at(patch, module, step):
        check = module.require_finite

        def stop(loss, now):
            check(loss, now)
            if now == step:
                raise KeyboardInterrupt

        patch.setattr(module, "require_finite", stop)

    return interrupt_at
