"""How much memory a process took for a piece of work, and how long it was at it."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


SAMPLE_SECONDS = 0.05
STATUS = Path("/proc/self/status")


class Cost(NamedTuple):
    """Wall seconds, and bytes of memory of its own that the process had more, at most, than before."""

    seconds: float
    peak: int


def own_bytes() -> int:
    """Resident memory of this process that is not a mapped file: a checkpoint that is read is no memory of a model."""
    found = re.search(r"RssAnon:\s+(\d+) kB", STATUS.read_text())
    assert found is not None, "the kernel does not tell (Linux does)"
    return int(found[1]) << 10


def measured(work: Callable[[], Any]) -> tuple[Any, Cost]:
    """What ``work`` gives, and what it took; looked at many times a second from a thread."""
    before = most = own_bytes()
    over = threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(SAMPLE_SECONDS):
            most = max(most, own_bytes())

    thread = threading.Thread(target=watch, daemon=True)
    started = time.perf_counter()
    thread.start()
    try:
        made = work()
    finally:
        over.set()
        thread.join()
    return made, Cost(time.perf_counter() - started, max(most, own_bytes()) - before)
