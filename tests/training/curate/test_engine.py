"""One worker, several processes or a Ray cluster: the same answers."""

import os

import pytest

from training.curate import engine
from training.curate.engine import Clock, run_tasks


class Adder:
    """Adds; says in which process."""

    def __init__(self, amount):
        self.amount = amount

    def __call__(self, task):
        if task["number"] < 0:
            os._exit(9)
        return {"number": task["number"] + self.amount, "process": os.getpid()}


TASKS = [{"number": number} for number in range(7)]


@pytest.mark.parametrize(
    ("workers", "ray"),
    [(1, False), pytest.param(2, False, marks=pytest.mark.slow), pytest.param(2, True, marks=pytest.mark.slow)],
)
def test_every_task_is_answered_once(workers, ray):
    if ray:
        cluster = pytest.importorskip("ray")
        cluster.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    answers = list(run_tasks(Adder, (10,), TASKS, workers, ray))
    if ray:
        cluster.shutdown()
    assert sorted(answer["number"] for answer in answers) == list(range(10, 17))
    assert (os.getpid() in {answer["process"] for answer in answers}) == (workers == 1)


def test_no_task_needs_no_worker():
    assert list(run_tasks(None, (), [], 4)) == []


@pytest.mark.slow
def test_a_process_that_dies_is_reported():
    with pytest.raises(RuntimeError, match="num_workers: a process died"):
        list(run_tasks(Adder, (1,), [{"number": -1}], 2))


def test_ray_must_be_there(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray.data", None)
    with pytest.raises(ValueError, match="ray: it is not installed; pip install"):
        list(run_tasks(Adder, (1,), TASKS, 1, True))


@pytest.fixture
def work(monkeypatch):
    """Lets so many seconds of a core pass."""
    now = [100.0]
    monkeypatch.setattr(engine.time, "process_time", lambda: now[0])

    def work(seconds, answer=None):
        now[0] += seconds
        return answer

    return work


def test_a_second_is_counted_once_for_the_innermost_part(work):
    clock = Clock(["cut", "decode", "track"])
    work(1)
    with clock("cut"):
        work(2)
        with clock("decode"):
            work(4)
        work(8)
    work(16)
    assert clock.read() == {"cut": 10, "decode": 4, "track": 0, "rest": 17}
    work(32)
    assert clock.read()["rest"] == 49


def test_what_makes_items_is_told_from_what_takes_them(work):
    clock = Clock(["cut", "decode"])
    made = (work(4, number) for number in range(3))
    with clock("cut"):
        assert [work(1, item) for item in clock.each("decode", made)] == [0, 1, 2]
    assert clock.read() == {"cut": 3, "decode": 12, "rest": 0}


def test_a_part_that_fails_is_counted_too(work):
    clock = Clock(["track"])
    with pytest.raises(ZeroDivisionError), clock("track"):
        work(1 / work(2, 0))
    assert clock.read() == {"track": 2, "rest": 0}
