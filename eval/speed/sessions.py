"""How long our own sessions take: to their first pixels, from a control to its pixels, and the same the plain way.

The plain way is what a latent takes with every switch off: parts one after the other, the cache pass before the next
control, convolutions in time by all their taps instead of Winograd's products, and blocks by calling their modules.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ardrag.convolutions.causal import FoldedCausalConv3d
from ardrag.tracks.tracks import Tracks
from eval.speed.latency_report import PARTS
from pipelines import Session


Samples = dict[str, list[float]]


def pointer(latent: int) -> list[tuple[float, float]]:
    """Where the one dragged point is at the end of a latent: on a circle, 0..1 of the canvas."""
    angle = 0.4 * latent
    return [(0.5 + 0.3 * math.cos(angle), 0.5 + 0.3 * math.sin(angle))]


def seconds_of(work: Callable[[], Any]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def time_start(open_session: Callable[[], Session], is_first_encoded: bool) -> tuple[float, float]:
    """Seconds from ``open_session`` to the first pixels, and to the first pixels of a latent that was generated.

    The two are the same unless ``is_first_encoded``: latent 0 is then the encoded reference.
    """
    started = time.perf_counter()
    session = open_session()
    session.step(pointer(0))
    first = time.perf_counter() - started
    if is_first_encoded:
        session.step(pointer(1))
    generated = time.perf_counter() - started
    session.close()
    return first, generated


@contextmanager
def all_taps() -> Iterator[None]:
    """Convolutions in time by all their taps."""
    chosen = FoldedCausalConv3d._takes_products
    FoldedCausalConv3d._takes_products = lambda self, num_frames: False
    try:
        yield
    finally:
        FoldedCausalConv3d._takes_products = chosen


@contextmanager
def called_modules(session: Session) -> Iterator[None]:
    """Blocks of the transformer by their modules."""
    transformer = session._transformer
    transformer.unrolls = False
    try:
        yield
    finally:
        transformer.unrolls = True


def plain_step(session: Session) -> None:
    """The next latent the plain way; ``session`` was started without `overlap`."""
    with all_taps(), called_modules(session):
        session.step(pointer(session.position))
        session.settle()


def time_steady(session: Session, plain: Session, num_latents: int, window: int) -> Samples:
    """Seconds per latent, whole and by part, with a full cache; and pixel frames per second over all of them.

    ``plain`` goes the plain way, latent by latent in turn with the other.
    """
    for one in (session, plain):
        while one.position <= window:
            one.step(pointer(one.position))
    samples: Samples = defaultdict(list)
    total, frames, stop = 0.0, 0, session.position + num_latents
    while session.position < stop:
        samples["plain"].append(seconds_of(lambda: plain_step(plain)) / (plain.position - session.position))
        before, started = session.position, time.perf_counter()
        frames += len(session.step(pointer(before)))
        wall = time.perf_counter() - started
        made = session.position - before
        total += wall
        samples["latent"].append(wall / made)
        for part in PARTS:
            samples[part].append(session.seconds[part] / made)
    samples["frames_per_second"].append(frames / total)
    for _ in range(num_latents):
        session.settle()
        samples["settled"].append(seconds_of(lambda: session.step(pointer(session.position))) / made)
    samples["followed"] = time_followed(session, num_latents)
    for one in (session, plain):
        one.close()
    return samples


def time_followed(session: Session, num_latents: int) -> list[float]:
    """Seconds from the pixels of one latent to those of the next along drawn tracks, without the first."""
    first, begun = len(session.frames), session.position
    last = first + 4 * num_latents
    drawn = Tracks.from_points([[(first, *pointer(0)[0]), (last - 1, *pointer(4)[0])]], num_frames=last)
    samples, before = [], time.perf_counter()
    for _ in session.follow(drawn, last):
        now = time.perf_counter()
        samples.append((now - before) / (session.position - begun))
        before, begun = now, session.position
    return samples[1:] or samples
