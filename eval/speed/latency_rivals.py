"""The two other ways to make the same clip with a model of the same size: three latents at a time, and all at once.

Table 1 of the paper has AR-Drag at 0.44 s, Self-Forcing with chunks of three latents at 0.95 s, and its bidirectional
teacher (Table 2) at 45.64 s to the first frame on one H20. Weights do not matter here, so that all three run with
those of the model that is timed.
"""

from __future__ import annotations

import time

import torch

from ardrag.transformer import CausalWanTransformer
from pipelines import ARDragPipeline, Session


CHUNK = 3
PAPER_SECONDS = {"ours": 0.44, "chunk": 0.95, "bidirectional": 45.64}
"""Tables 1 and 2, time to the first frame on one NVIDIA H20."""


def chunked(pipeline: ARDragPipeline, chunk_frames: int = CHUNK) -> ARDragPipeline:
    """The same pipeline with a twin of its transformer that makes ``chunk_frames`` latents at a time."""
    own = pipeline.transformer
    config = {name: value for name, value in own.config.items() if not name.startswith("_")}
    twin = CausalWanTransformer(**{**config, "chunk_frames": chunk_frames})
    twin.load_state_dict(own.state_dict())
    twin = twin.to(own.device, own.dtype).eval().requires_grad_(False)
    settings = {name: pipeline.config[name] for name in ("buckets", "fps")}
    made = ARDragPipeline(**{**pipeline.components, "transformer": twin}, **settings)
    made.set_progress_bar_config(disable=True)
    return made


@torch.no_grad()
def time_control(session: Session, pointer: list[tuple[float, float]], window: int, count: int) -> list[float]:
    """Seconds from a control to the pixels it rules, ``count`` times, with a full cache; the session is closed."""
    while session.position <= window:
        session.step(pointer)
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        session.step(pointer)
        seconds.append(time.perf_counter() - started)
    session.close()
    return seconds
