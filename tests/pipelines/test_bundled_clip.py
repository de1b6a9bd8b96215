"""The bundled checkpoint makes the pixels that it made before: bit for bit on the machine that wrote them down.

Who means to change them replaces the hash, and the picture by `Image.fromarray(averages(clip)).save(AVERAGES)`.
"""

import hashlib
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ardrag.home import bundled
from ardrag.tracks.tracks import Tracks
from pipelines import ARDragPipeline


FRAMES, BLOCK = 13, 16
AVERAGES = Path(__file__).with_name("bundled_clip.png")
"""Averages over blocks of 16 pixels: the frames beside each other, of which the hash is below."""
PIXELS = {
    "cpu family 25, model 1, AVX2, torch 2.13.0, diffusers 0.42.1, transformers 5.24.0": (
        "5e8fc1d800848a2c58723fe26da9186e5e5db79c6e7b2976b31235bb5dcf49b4"
    ),
}
"""SHA-256 of the frames, by what decides how sums are rounded."""


def kind_of_machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    versions = [f"{name} {version(name).partition('+')[0]}" for name in ("torch", "diffusers", "transformers")]
    cpu = f"cpu family {fields.get('cpu family')}, model {fields.get('model')}"
    return ", ".join([cpu, torch.backends.cpu.get_cpu_capability(), *versions])


def averages(frames: np.ndarray) -> np.ndarray:
    """uint8 `[T, H, W, 3]` -> `[H/16, T*W/16, 3]`."""
    count, height, width, _ = frames.shape
    blocks = frames.reshape(count, height // BLOCK, BLOCK, width // BLOCK, BLOCK, 3).mean((2, 4))
    return np.concatenate(list(blocks.round().astype(np.uint8)), axis=1)


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    pipe = ARDragPipeline.from_pretrained(bundled("checkpoints/ardrag-tiny"))
    tracks = Tracks.load(bundled("examples/circle.tracks.json")).retimed(FRAMES)
    image, generator = Image.open(bundled("examples/circle.png")), torch.Generator().manual_seed(0)
    video = pipe(image, prompt="a circle moves", tracks=tracks, generator=generator, output_type="np").frames[0]
    return (video * 255).round().astype(np.uint8)


@pytest.mark.slow
def test_pixels_are_those_of_before(clip: np.ndarray) -> None:
    kind = kind_of_machine()
    if kind not in PIXELS:
        pytest.skip(f"no hash was written down for {kind}; the averages are compared")
    assert hashlib.sha256(clip.tobytes()).hexdigest() == PIXELS[kind]


@pytest.mark.slow
def test_averages_are_those_of_before_on_any_machine(clip: np.ndarray) -> None:
    expected = np.asarray(Image.open(AVERAGES)).astype(int)
    assert clip.shape == (FRAMES, 128, 128, 3) and expected.std() > 20
    assert np.abs(averages(clip) - expected).max() <= 2
    assert np.abs(averages(clip[::-1]) - expected).max() > 50  # the comparison would notice another clip
