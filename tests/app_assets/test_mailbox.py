"""Mailboxes: whole messages in order, also from another process; nothing under a wrong name."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app_assets import mailbox
from app_assets.gate import expiring_folder
from app_assets.mailbox import Mailboxes


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def boxes():
    boxes = Mailboxes()
    yield boxes
    boxes.close()


def test_messages_arrive_once_in_order(boxes):
    name = boxes.open()
    reader, writer = boxes.find(name), boxes.find(name)
    assert reader.receive() == []
    writer.send('{"a": 1}')
    writer.send('{"b":\n2}')
    assert reader.receive() == ['{"a": 1}', '{"b": 2}']
    assert reader.receive() == []


def test_half_a_message_waits_for_the_rest(boxes):
    box = boxes.find(boxes.open())
    with box._path.open("a") as file:
        file.write("first\nsec")
        file.flush()
        assert box.receive() == ["first"]
        file.write("ond\n")
        file.flush()
    assert box.receive() == ["second"]


def test_another_process_writes(boxes):
    box = boxes.find(boxes.open())
    code = "import sys, pathlib, app_assets.mailbox as m; m.Mailbox(pathlib.Path(sys.argv[1])).send('hi')"
    subprocess.run([sys.executable, "-c", code, str(box._path)], check=True, cwd=ROOT)
    assert box.receive() == ["hi"]


@pytest.mark.parametrize("name", ["", "unknown", "..", "../../etc/passwd", "."])
def test_wrong_names_are_nobodys(boxes, name):
    boxes.open()
    with pytest.raises(ValueError, match="session: unknown or over"):
        boxes.find(name)


def test_names_are_long_and_never_the_same(boxes):
    names = {boxes.open() for _ in range(50)}
    assert len(names) == 50 and min(map(len, names)) >= 32


def test_closed_and_full_boxes_refuse(boxes, monkeypatch):
    box = boxes.find(boxes.open())
    monkeypatch.setattr(mailbox, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="too many messages"):
        box.send("x" * 11)
    box.close()
    with pytest.raises(ValueError, match="it is over"):
        box.send("x")


def test_boxes_of_those_who_left_are_removed(boxes):
    old = boxes.open()
    hour_ago = time.time() - expiring_folder.KEEP_SECONDS - 1
    os.utime(boxes.find(old)._path, (hour_ago, hour_ago))
    boxes.open()
    with pytest.raises(ValueError):
        boxes.find(old)
