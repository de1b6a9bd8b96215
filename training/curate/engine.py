"""Running a worker over tasks: in this process, in several, or on a Ray cluster.

A worker is a class that is built once in each process (it may hold a tracker) and called with one task after another.
Workers write what they make themselves, so a killed run loses the tasks in flight alone; `datasets.map` would keep
nothing before its end. What each part of the work costs is told in seconds of a core.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar


Task = dict[str, Any]
Worker = Callable[[Task], Task]
T = TypeVar("T")
REST = "rest"


class Clock:
    """Seconds of a core that each part of some work took, all threads of the process counted.

    The clock of the wall would tell what else the machine does. Parts may lie in one another: a second is counted
    once, for the innermost; what is in none is ``rest``.
    """

    def __init__(self, parts: Iterable[str]) -> None:
        self.seconds = dict.fromkeys([*parts, REST], 0.0)
        self._now, self._since = REST, time.process_time()

    def _turn(self, part: str) -> None:
        now = time.process_time()
        self.seconds[self._now] += now - self._since
        self._now, self._since = part, now

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """What runs within is ``part``."""
        around = self._now
        self._turn(part)
        try:
            yield
        finally:
            self._turn(around)

    def each(self, part: str, items: Iterable[T]) -> Iterator[T]:
        """``items``, of which the making is ``part``."""
        left, end = iter(items), object()
        while True:
            with self(part):
                item = next(left, end)
            if item is end:
                return
            yield item  # type: ignore[misc]

    def read(self) -> dict[str, float]:
        """Seconds by part, up to now."""
        self._turn(self._now)
        return dict(self.seconds)


def run_tasks(
    build: Callable[..., Worker], given: Sequence[Any], tasks: Sequence[Task], workers: int, ray: bool = False
) -> Iterator[Task]:
    """Answers of ``build(*given)`` to ``tasks``, as they come.

    Raises:
        ValueError: if Ray is asked for and not installed.
        RuntimeError: if a process died, as when memory runs out.
    """
    if not tasks:
        return
    if ray:
        yield from run_on_ray(build, given, tasks, workers)
    elif workers == 1:
        worker = build(*given)
        yield from (worker(task) for task in tasks)
    else:
        yield from run_in_processes(build, given, tasks, workers)


def run_in_processes(
    build: Callable[..., Worker], given: Sequence[Any], tasks: Sequence[Task], workers: int
) -> Iterator[Task]:
    """At most two tasks for each process are under way at any time."""
    context, left = multiprocessing.get_context("spawn"), iter(tasks)
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(build, *given)) as pool:
        running: set[Future[Task]] = {pool.submit(_work, task) for task in islice(left, 2 * workers)}
        try:
            while running:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(_work, task) for task in islice(left, len(finished))}
                yield from (future.result() for future in finished)
        except BrokenProcessPool as error:
            raise RuntimeError(
                "num_workers: a process died, perhaps for want of memory; all finished clips are kept, run the same "
                "command again with fewer workers"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_worker: dict[str, Worker] = {}


def _begin(build: Callable[..., Worker], *given: Any) -> None:
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _worker["worker"] = build(*given)


def _work(task: Task) -> Task:
    return _worker["worker"](task)


def run_on_ray(
    build: Callable[..., Worker], given: Sequence[Any], tasks: Sequence[Task], workers: int
) -> Iterator[Task]:
    """As actors of Ray Data; the folder must be shared by all machines."""
    try:
        import ray.data
    except ImportError as error:
        raise ValueError("ray: it is not installed; pip install 'ray[data]', or leave --ray out") from error
    plain = [{"task": task} for task in tasks]
    data = ray.data.from_items(plain, override_num_blocks=min(len(plain), 4 * workers))
    settings = {"build": build, "given": tuple(given)}
    answers = data.map(RayWorker, fn_constructor_kwargs=settings, compute=ray.data.ActorPoolStrategy(size=workers))
    yield from (dict(answer) for answer in answers.iter_rows())


class RayWorker:
    """A worker as Ray Data builds and calls it."""

    def __init__(self, build: Callable[..., Worker], given: Sequence[Any]) -> None:
        self.worker = build(*given)

    def __call__(self, row: dict[str, Any]) -> Task:
        """``row["task"]`` is the task."""
        return self.worker(row["task"])
