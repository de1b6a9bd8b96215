"""Where the time of a latent goes, against what its products would take: `python -m eval.latency --profile true`.

The parts are the modules that do the work: the VAE's encoder for the control, the transformer's denoising passes and
its cache pass, the VAE's decoder; what is left is Python between them. One thread, nothing side by side. The floor of
a part is the time of its products (matrix, convolution, attention) at the rates that a large matrix product and a
large convolution reach in the same run; Winograd's products count as what they are, fewer.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from pipelines import ARDragPipeline


PARTS = ("encode", "denoise", "cache", "decode")
TOP = 12
"""Operators in the table."""
TRACED = 2
"""Latents whose every operator is timed."""
Step = Callable[[], Any]


@dataclass
class Part:
    """One part in one latent: seconds of its thread, operators called, and the operations of its products."""

    seconds: list[float] = field(default_factory=list)
    operators: int = 0
    matrix: float = 0.0
    convolution: float = 0.0

    def floor(self, rates: dict[str, float]) -> float:
        """Seconds that the products alone would take."""
        return self.matrix / rates["matrix"] + self.convolution / rates["convolution"]


class Counting(TorchDispatchMode):
    """Counts operators and the operations of products in the parts that are open."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func`` and note what it is, or what it is made of: inference mode does not take it apart."""
        with self:
            made = func.decompose(*args, **(kwargs or {}))
        if made is not NotImplemented:
            return made
        made = func(*args, **(kwargs or {}))
        part = self._watch.parts[self._watch.name]
        part.operators += 1
        name = func.overloadpacket.__name__
        if "convolution" in name:
            part.convolution += 2 * made.numel() * args[1][0].numel()
        elif name in ("mm", "bmm"):
            part.matrix += 2 * made.numel() * args[0].shape[-1]
        elif name in ("addmm", "baddbmm", "baddbmm_"):
            part.matrix += 2 * made.numel() * args[1].shape[-1]
        elif "scaled_dot_product" in name:
            part.matrix += 4 * args[0].numel() * args[1].shape[-2]
        return made


class Watch:
    """Follows which module is at work, by its hooks."""

    def __init__(self, pipeline: ARDragPipeline) -> None:
        self.parts: dict[str, Part] = defaultdict(Part)
        self.name = "between"
        self._began = 0.0
        self._seconds: dict[str, float] = defaultdict(float)
        vae = pipeline.vae
        self._modules = {"encode": vae.encoder, "decode": vae.decoder, "denoise": pipeline.transformer}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Between these the hooks are there."""
        handles = []
        for name, module in self._modules.items():
            handles.append(module.register_forward_pre_hook(self._enter(name), with_kwargs=True))
            handles.append(module.register_forward_hook(lambda *_: self._leave()))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def latent(self, step: Step) -> None:
        """Make one latent and note the seconds of its parts."""
        self._seconds.clear()
        began = time.thread_time()
        step()
        self._seconds["between"] = time.thread_time() - began - sum(self._seconds.values())
        for name, seconds in self._seconds.items():
            self.parts[name].seconds.append(seconds)

    def _enter(self, name: str) -> Callable[..., None]:
        def enter(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            self.name = "cache" if kwargs.get("update_cache") else name
            self._began = time.thread_time()

        return enter

    def _leave(self) -> None:
        self._seconds[self.name] += time.thread_time() - self._began
        self.name = "between"


@torch.no_grad()
def rates() -> dict[str, float]:
    """Operations a second of a matrix product and of a convolution that are large enough to be all arithmetic."""
    matrix, image, kernel = torch.randn(768, 768), torch.randn(1, 48, 64, 64), torch.randn(48, 48, 3, 3)
    image, kernel = (x.contiguous(memory_format=torch.channels_last) for x in (image, kernel))
    works = {
        "matrix": (lambda: matrix @ matrix, 2 * 768**3),
        "convolution": (lambda: F.conv2d(image, kernel, padding=1), 2 * 64 * 64 * 48 * 48 * 9),
    }
    found = {}
    for name, (work, operations) in works.items():
        work()
        seconds = []
        for _ in range(15):
            began = time.thread_time()
            work()
            seconds.append(time.thread_time() - began)
        found[name] = operations / statistics.median(seconds)
    return found


def profile_latents(pipeline: ARDragPipeline, step: Step, count: int) -> dict[str, Any]:
    """Parts, operators and rates over ``count`` calls of ``step``, each a latent with a full cache."""
    watch, before = Watch(pipeline), rates()
    with watch.watching():
        for _ in range(count):
            watch.latent(step)
        with Counting(watch):
            step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(TRACED):
            step()
    after = rates()
    own = [event for event in profiler.key_averages() if event.key.startswith("aten::")]
    own.sort(key=lambda event: -event.self_cpu_time_total)
    operators = [
        (event.key[6:], event.count / TRACED, event.self_cpu_time_total / TRACED / 1e3) for event in own[:TOP]
    ]
    mean = {name: (before[name] + after[name]) / 2 for name in before}
    return {"parts": {name: watch.parts[name] for name in (*PARTS, "between")}, "operators": operators, "rates": mean}


def profile_lines(found: dict[str, Any]) -> list[str]:
    """Both tables as Markdown."""
    rates = found["rates"]
    lines = [
        f"Rates of this run: {rates['matrix'] / 1e9:.0f} GFLOP/s in a matrix product, "
        f"{rates['convolution'] / 1e9:.0f} in a convolution. Milliseconds of one thread's own time, median.",
        "",
        "| part | ms | operators called | GFLOP of products | floor, ms | floor / time |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    total = Part([0.0])
    for name, part in found["parts"].items():
        lines.append(_row(name, part, rates))
        total.seconds[0] += statistics.median(part.seconds)
        total.operators, total.matrix = total.operators + part.operators, total.matrix + part.matrix
        total.convolution += part.convolution
    lines += [_row("all", total, rates), "", "| operator | calls | ms |", "| --- | --- | --- |"]
    return lines + [f"| `{name}` | {calls:.0f} | {ms:.2f} |" for name, calls, ms in found["operators"]]


def _row(name: str, part: Part, rates: dict[str, float]) -> str:
    seconds, floor = statistics.median(part.seconds), part.floor(rates)
    work = (part.matrix + part.convolution) / 1e9
    return (
        f"| {name} | {1e3 * seconds:.1f} | {part.operators} | {work:.2f} | {1e3 * floor:.1f} | {floor / seconds:.2f} |"
    )
