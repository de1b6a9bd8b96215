"""What a run costs and what pulls at it: speed against what the device can do, memory, gradients of each loss term."""

from __future__ import annotations

import itertools
import math
import resource
import sys
import time
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode


PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100": 989e12,
    "H20": 148e12,
    "A100": 312e12,
    "L40S": 362e12,
    "4090": 165e12,
}
"""Dense bfloat16 operations a second, by part of a device's name; the makers' numbers."""


def peak_of(device: torch.device) -> float | None:
    """What ``device`` can do at most, if that is known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def memory_gib(device: torch.device) -> float:
    """Most memory in use so far: of the device, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


class Meter:
    """Clips, tokens and arithmetic between two readings.

    The arithmetic of a kind of step is counted, operation by operation, when one comes for the first time; attention
    and recomputed activations are in it. Where the device's peak is unknown nothing is counted.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator, self._peak = accelerator, peak_of(accelerator.device)
        self._known: dict[str, float] = {}
        self._counter: FlopCounterMode | None = None
        self._reset()

    def _reset(self) -> None:
        self._since = time.monotonic()
        self._clips = self._tokens = 0
        self._operations = 0.0

    def begin(self, kind: str) -> None:
        """A step of this kind begins."""
        self._kind = kind
        if self._peak is not None and kind not in self._known:
            self._counter = FlopCounterMode(display=False)
            self._counter.__enter__()

    def add(self, latents: Tensor, patch: int) -> None:
        """Clips ``[B, C, F, H, W]`` that this process has worked on, ``patch`` latents to a token."""
        self._clips += len(latents)
        self._tokens += latents[:, 0].numel() // patch

    def end(self) -> None:
        """The step is done."""
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self._known[self._kind] = float(self._counter.get_total_flops())
            self._counter = None
        self._operations += self._known.get(self._kind, 0.0)

    def read(self) -> dict[str, float]:
        """Means over all processes since the last reading, and the most memory in use."""
        seconds, world = max(time.monotonic() - self._since, 1e-9), self._accelerator.num_processes
        found = {
            "time/samples_per_second": self._clips * world / seconds,
            "time/tokens_per_second": self._tokens * world / seconds,
            "time/memory_gib": memory_gib(self._accelerator.device),
        }
        if self._peak is not None:
            found["time/mfu"] = self._operations / seconds / self._peak
        self._reset()
        return found


def term_gradients(terms: Mapping[str, Tensor], at: Tensor) -> dict[str, float]:
    """How strongly each term of a loss pulls at a tensor, and whether two of them pull the same way (the cosine).

    The graph is kept for the backward pass that follows.
    """
    pulls = {name: torch.autograd.grad(term, at, retain_graph=True)[0].float() for name, term in terms.items()}
    norms = {name: float(pull.norm()) for name, pull in pulls.items()}
    found = {f"pull/{name}": norm for name, norm in norms.items()}
    for one, other in itertools.combinations(pulls, 2):
        product = norms[one] * norms[other]
        cosine = float((pulls[one] * pulls[other]).sum()) / product if product else math.nan
        found[f"pull/cosine_{one}_{other}"] = cosine
    return found
