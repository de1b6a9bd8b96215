"""A thread beside the caller's, for work that does not depend on his.

The models are small and their operations short: two threads of torch that share each operation mostly wait for one
another, and for whatever else the machine runs. Two independent parts, each with one thread of torch, do not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch


Result = TypeVar("Result")
Other = TypeVar("Other")


def pays_off(device: torch.device) -> bool:
    """Whether the caller may use a second core: he is on the CPU and was given two threads of torch or more."""
    return device.type == "cpu" and torch.get_num_threads() > 1


@functools.cache
def _core() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="ardrag-core")


def submit(work: Callable[[], Result]) -> Future[Result]:
    """Do ``work`` on the second core with one thread of torch, without gradients, after all that was given before."""
    inference = torch.is_inference_mode_enabled()

    def alone() -> Result:
        if torch.get_num_threads() > 1:
            torch.set_num_threads(1)
        with torch.inference_mode(inference), torch.no_grad():
            return work()

    return _core().submit(alone)


def on_two_cores(other: Callable[[], Other], own: Callable[[], Result], is_on: bool) -> tuple[Other, Result]:
    """What ``other`` and ``own`` give, which do not depend on each other: at the same time on two cores if ``is_on``.

    Both are over when this returns or raises. A caller under autocast, which is his thread's own, does one after the
    other.
    """
    if not is_on or torch.is_autocast_enabled("cpu"):
        return other(), own()
    job = submit(other)
    try:
        with one_thread():
            made = own()
    finally:
        wait([job])
    return job.result(), made


@contextmanager
def one_thread() -> Iterator[None]:
    """The caller's own operations with one thread of torch, while the second core is at work."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)
