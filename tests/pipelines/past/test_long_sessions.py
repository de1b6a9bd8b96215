"""Sessions that never end: the resident memory of a process of its own stays where it was, which no tracer sees."""

import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[3]
MEBIBYTES = 12
"""What 20,000 rows of three tracks, their control at each latent, and the noise of the measure may need."""
KINDS = {"plain": 1000, "take": 5000}
"""Latents of a session that remembers nothing but its window, and of a take in the Space, which can be rewound.

Kept arrays break up the heap from the first latents on: three tiny ones a frame cost 13 MiB in 500 latents here.
"""
CODE = """
import math, sys
import psutil, torch
from PIL import Image
from tests.conftest import SIDE, build_tiny_pipeline
from app_assets.take import Take
from ardrag.tracks.tracks import Tracks

torch.set_num_threads(1)
few = {"sigmas": [1.0, 0.0], "num_inference_steps": 1}
pipeline = build_tiny_pipeline(few, image_encoder=False)
picture = Image.effect_noise((SIDE, SIDE), 60).convert("RGB")
process = psutil.Process()
for said in sys.argv[1:]:
    kind, latents = said.split("=")[0], int(said.split("=")[1])
    begin = lambda: pipeline.start_session(picture, history_latents=0 if kind == "plain" else 8)
    take = Take(begin, Tracks.empty(4 * latents + 1), 4 * latents + 1, paced=False)
    for latent in range(latents):
        angle = latent / 7
        place = (0.5 + 0.3 * math.cos(angle), 0.5 + 0.3 * math.sin(angle))
        if kind == "take":
            take.control.move(1 + latent // 1000, [(40.0 * latent, *place, 1.0)])
            take.step()
        else:
            take.session.step([place, place[::-1], None if latent % 3 else place])
        if latent in (latents // 5, latents - 1):
            print(process.memory_info().rss >> 20)
"""


@pytest.mark.slow
def test_resident_memory_is_flat():
    command = [sys.executable, "-c", CODE, *(f"{kind}={latents}" for kind, latents in KINDS.items())]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    for (kind, latents), early, late in zip(KINDS.items(), said[::2], said[1::2], strict=True):
        grown = int(late) - int(early)
        assert grown < MEBIBYTES, f"{kind}: {early} MiB after {latents // 5} latents, {late} after {latents}"
