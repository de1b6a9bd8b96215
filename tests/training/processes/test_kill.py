"""A kill at any moment of a sharded save leaves a whole state, from which two processes go on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.processes import kill_process


ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_killed_ten_times_while_two_processes_save(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, kill_process.__file__, str(tmp_path), "10"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("killed after state") == 10
