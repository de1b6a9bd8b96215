"""Sessions that never end: the memory of a process, which no tracer sees, and the work of a latent stay the same."""

import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[3]
MEBIBYTES = 4
"""What 3,600 rows of three tracks and their control at each latent need is 0.7; the rest is noise of the measure."""
KINDS = {"plain": 600, "take": 900}
"""Latents of a session that remembers nothing but its window, and of a take in the Space, which can be rewound.

Kept arrays break up the heap: three tiny ones a frame cost 16 MiB between the 300th latent of a take and its last.
"""
CODE = """
import math, sys
import psutil, torch
from PIL import Image
from tests.conftest import SIDE, build_tiny_pipeline
from torch.utils._python_dispatch import TorchDispatchMode
from app_assets.take import Take
from ardrag.tracks.tracks import Tracks

class Work(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.operators, self.numbers = self.operators + 1, self.numbers + sum(
            part.numel() for part in (made if isinstance(made, (tuple, list)) else [made]) if torch.is_tensor(part))
        return made

    def of(self, step):
        self.operators = self.numbers = self.calls = 0
        with self:
            step()
        def count(frame, event, argument):
            self.calls += event == "call"
        sys.setprofile(count)
        step()
        sys.setprofile(None)
        print("work", self.operators, self.numbers, self.calls)

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
            step = lambda: take.session.step([place, place[::-1], None if latent % 3 else place])
            Work().of(step) if latent in (48, latents - 4) else step()
        if latent in (latents // 5, latents - 1):
            print(process.memory_info().rss >> 20)
"""


@pytest.mark.slow
def test_memory_and_work_of_a_latent_are_flat():
    """Work: operators of a latent, the numbers that they make, and calls of Python functions; none of it is a time."""
    command = [sys.executable, "-c", CODE, *(f"{kind}={latents}" for kind, latents in KINDS.items())]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    young, old = (line.split()[1:] for line in lines if line.startswith("work"))
    assert all(int(late) <= 1.05 * int(early) for early, late in zip(young, old, strict=True)), (young, old)
    said = [line for line in lines if line.isdecimal()]
    for (kind, latents), early, late in zip(KINDS.items(), said[::2], said[1::2], strict=True):
        grown = int(late) - int(early)
        assert grown < MEBIBYTES, f"{kind}: {early} MiB after {latents // 5} latents, {late} after {latents}"
