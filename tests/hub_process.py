"""A process that takes a `HubServer` for the Hub: the client reads the Hub's address when it is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import warnings
from functools import partial
from pathlib import Path

from tests.hub_server import HubServer


ROOT = Path(__file__).resolve().parent.parent
WORKER = """
import contextlib, io, json, os, sys
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # libraries that write to the descriptor itself do not come in between
for line in sys.stdin:
    printed, error = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        try:
            exec(compile(json.loads(line), "<test>", "exec"), {"__name__": "test"})
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
    print(json.dumps([printed.getvalue(), error]), file=answers, flush=True)
"""


class HubProcess:
    """Runs pieces of Python one after another, so that importing torch and diffusers is paid for once.

    It belongs to alice, who may write, unless another ``token`` is given; ``home`` holds its caches, it runs in
    ``folder``, and ``more`` are further environment variables.
    """

    def __init__(self, hub: HubServer, home: Path, folder: Path, token: str = "hf_alice", **more: str) -> None:
        variables = {**os.environ, **hub.environment(home, token), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        variables |= more
        self._errors = (home / "stderr.txt").open("w+")
        self._begin = partial(
            subprocess.Popen,
            [sys.executable, "-c", WORKER],
            cwd=folder,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._process = self._begin()

    def run(self, code: str) -> str:
        """What ``code`` prints.

        Raises:
            RuntimeError: with type and message of what it raised.
        """
        self.start(code)
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            self._errors.seek(0)
            raise RuntimeError(f"the process is gone: {self._errors.read()[-2000:]}")
        printed, error = json.loads(answer)
        if error is not None:
            raise RuntimeError(error)
        return printed

    def start(self, code: str) -> None:
        """Begin ``code`` without waiting for its end.

        A process that has ended while it waited, as one does that something outside kills, is started again with a
        warning that says how it ended: the tests that follow are not about that.
        """
        if self._process.poll() is not None:
            self._errors.seek(0)
            how = f"exit code {self._process.returncode}: {self._errors.read()[-500:]}"
            warnings.warn(f"a process of the Hub's tests was gone ({how}); another one takes its place", stacklevel=2)
            self._process = self._begin()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(textwrap.dedent(code)) + "\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """End the process at once, as a power cut would."""
        self._process.kill()
        self.wait()
        self._errors.close()

    def wait(self) -> None:
        """Until the process has ended."""
        self._process.wait()
