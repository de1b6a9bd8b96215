"""Sessions that never end: the resident memory of a process of its own stays where it was, which no tracer sees."""

import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[2]
MEBIBYTES = 12
"""What 20,000 rows of three tracks, their control at each latent, and the noise of the measure may need."""
CODE = """
import math, sys
import numpy as np, psutil, torch
from PIL import Image
from tests.conftest import SIDE, build_tiny_pipeline
from app_assets.take import Take
from ardrag.tracks.tracks import Tracks

torch.set_num_threads(1)
latents, kind = int(sys.argv[1]), sys.argv[2]
pipeline = build_tiny_pipeline({"sigmas": [1.0, 0.0], "num_inference_steps": 1})
picture = Image.effect_noise((SIDE, SIDE), 60).convert("RGB")
begin = lambda: pipeline.start_session(picture, history_latents=0 if kind == "plain" else 8)
take = Take(begin, Tracks.empty(4 * latents + 1), 4 * latents + 1, paced=False)
process = psutil.Process()
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
@pytest.mark.parametrize("kind, latents", [("plain", 1500), ("history", 1500), ("take", 5000)])
def test_resident_memory_is_flat(kind, latents):
    command = [sys.executable, "-c", CODE, str(latents), kind]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    early, late = map(int, said.split())
    assert late - early < MEBIBYTES, f"{early} MiB after {latents // 5} latents, {late} after {latents}"
