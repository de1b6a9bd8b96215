"""Kills two processes while they save a model that they share, at random moments, again and again, for `test_kill`.

python tests/training/processes/kill_process.py FOLDER ROUNDS

Every tensor of a state holds the number of its step, so that a state of two saves cannot pass for one. Processes are
forked, so that importing torch is paid for once.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from tests.training.run.shard_process import Training
from training.run.checkpoint import find_state


PROCESSES = 2
UNUSED = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
"""What accelerate asks for; the processes meet in a file."""


def fork(work, *arguments):
    """Number of a process that does ``work``, and nothing of what this one has yet to do."""
    pid = os.fork()
    if pid == 0:
        try:
            work(*arguments)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def tensors(training):
    return {**training.state.weights(), **training.state.memories()}


def save_for_ever(folder, meeting, rank):
    """What one of the processes does: go on from what is there, and save one step after the other."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(PROCESSES), **UNUSED}
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=PROCESSES)
    training = Training(folder)
    assert training.twin is not None
    step = training.state.load()
    for p in training.trained:
        p.grad = torch.zeros_like(p)
    training.optimizer.step()
    while True:
        step += 1
        for value in tensors(training).values():
            value.fill_(step)
        training.state.save(step)


def require_whole(folder):
    """Go on alone from the state of the two: all of it is of one step."""
    training = Training(folder)
    step = training.state.load()
    assert step > 0
    found = {name: value.unique().tolist() for name, value in tensors(training).items()}
    assert len(found) > 3 * len(training.trained)
    assert all(values == [step] for values in found.values()), found


def require_success(pid):
    assert os.waitpid(pid, 0)[1] == 0


def last_step(folder):
    """By the pointer alone: the state it names may be gone for the next one before it can be looked into."""
    state = find_state(folder)
    return int(state.name) if state else 0


def kill(folder, number, chance):
    """Start, wait for a state and part of the next one, kill both, look at what there is; returns its step."""
    before, began = last_step(folder), time.monotonic()
    pids = [fork(save_for_ever, folder, folder / f"meeting {number}", rank) for rank in range(PROCESSES)]
    while last_step(folder) == before:
        assert not any(os.waitpid(pid, os.WNOHANG)[0] for pid in pids), "a process has ended by itself"
        time.sleep(0.01)
    first, at = last_step(folder), time.monotonic()
    while last_step(folder) == first and time.monotonic() - began < 60:
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 1.5 * (time.monotonic() - at)))
    for pid in chance.sample(pids, PROCESSES):
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)
    half = [path.name for path in (folder / "state").iterdir() if path.is_dir() and path != find_state(folder)]
    require_success(fork(require_whole, folder))
    return before, last_step(folder), half


if __name__ == "__main__":
    chance = random.Random(0)
    for number in range(int(sys.argv[2])):
        before, after, half = kill(Path(sys.argv[1]), number, chance)
        assert after > before
        print(f"killed after state {after}; in work: {', '.join(half) or 'nothing'}", flush=True)
