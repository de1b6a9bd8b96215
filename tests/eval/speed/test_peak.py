"""What a piece of work took."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from eval.speed import peak
from eval.speed.peak import measured, own_bytes


MIB = 1 << 20
HOLDING = "import json; from eval.speed.peak import measured; made, cost = measured(lambda: b'x' * (96 << 20)); "


def test_memory_is_what_the_work_held():
    """In a process of its own, where nothing else is given back meanwhile."""
    command = [sys.executable, "-c", HOLDING + "print(json.dumps([len(made), cost.peak, cost.seconds]))"]
    repository = Path(__file__).parents[3]
    said = subprocess.run(command, cwd=repository, check=True, stdout=subprocess.PIPE, text=True).stdout
    length, most, seconds = json.loads(said)
    assert length == 96 * MIB and 0.9 < most / (96 * MIB) < 1.2 and seconds > 0


def test_what_was_held_only_for_a_while_counts(monkeypatch):
    looked = threading.Event()

    def held() -> int:
        if threading.current_thread() is threading.main_thread():
            return 10
        looked.set()
        return 50

    monkeypatch.setattr(peak, "own_bytes", held)
    made, cost = measured(looked.wait)
    assert made is True and cost.peak == 40


def test_a_failure_of_the_work_is_its_own():
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        measured(lambda: 1 / 0)
    assert own_bytes() > MIB and threading.active_count() == before
