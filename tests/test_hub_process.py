"""The process of the Hub's tests: what it prints, what it raises, and that the next code runs after a kill."""

import os
import signal

import pytest


def test_it_runs_again_after_a_kill(hub_process):
    assert hub_process.run("print(6 * 7)") == "42\n"
    with pytest.raises(RuntimeError, match="^ValueError: no$"):
        hub_process.run("raise ValueError('no')")
    pid = int(hub_process.run("import os; print(os.getpid())"))
    os.kill(pid, signal.SIGKILL)
    hub_process.wait()
    with pytest.warns(UserWarning, match="was gone .exit code -9"):
        assert hub_process.run("print('again')") == "again\n"
