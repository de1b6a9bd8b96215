"""Takes and servers on the small random pipeline: real sockets, real threads, a few milliseconds a latent."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from PIL import Image
from websockets.sync.client import ClientConnection, connect

from app_assets.player import Player
from app_assets.server import Limits, Space, launch
from ardrag.tracks.tracks import Tracks


START: dict[str, Any] = {
    "type": "start",
    "picture": "p",
    "prompt": "a red star",
    "seed": 3,
    "steps": 2,
    "num_frames": 13,
    "tracks": None,
    "paced": False,
}
PATH = Tracks.from_points([[(0, 0.2, 0.3), (12, 0.8, 0.6)]], num_frames=13, interp="linear")


def png(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, options.pop("format", "PNG"), **options)
    return buffer.getvalue()


def say(player: Player, **message: Any) -> list[Any]:
    """Post one message and do what it asks; the replies."""
    player.post(json.dumps(message))
    return replies(player)


def replies(player: Player) -> list[Any]:
    """What comes of the turns that are due now."""
    made = [turn() if callable(turn) else turn for turn in player.work()]
    return [reply for reply in made if reply is not None]


def finish(player: Player) -> list[Any]:
    """Work until nothing is due; the replies."""
    said = []
    while player.due:
        said += replies(player)
    return said


def pixels(replies: list[Any]) -> list[bytes]:
    return [part for reply in replies if reply.header["type"] == "frames" for part in reply.parts]


@pytest.fixture
def player(pipeline: Any, picture: Image.Image) -> Iterator[Player]:
    one = Player(pipeline, {"p": picture}.__getitem__, max_frames=101)
    yield one
    one.close()


def until(condition, seconds=20):
    """Wait for ``condition``; whether it came true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


class Visitor:
    """A page, as far as the server can tell: it reads what binary messages hold and remembers everything."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard: list[dict[str, Any]] = []

    def say(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def hear(self, timeout: float = 30) -> dict[str, Any]:
        data = self.socket.recv(timeout)
        if isinstance(data, str):
            message = json.loads(data)
        else:
            size = int.from_bytes(data[:4], "big")
            message = json.loads(data[4 : 4 + size])
            rest, message["parts"] = data[4 + size :], []
            for length in message["sizes"]:
                message["parts"].append(rest[:length])
                rest = rest[length:]
            assert not rest
        self.heard.append(message)
        return message

    def wait(self, kind: str) -> dict[str, Any]:
        while True:
            message = self.hear()
            if message["type"] == kind:
                return message


class Running:
    """A running Space and its address."""

    def __init__(self, space: Space, url: str) -> None:
        self.space, self.url = space, url.rstrip("/")
        self.sockets: list[ClientConnection] = []

    def visit(self, path: str = "/live", **options: Any) -> Visitor:
        socket = connect(self.url.replace("http", "ws") + path, max_size=None, **options)
        self.sockets.append(socket)
        return Visitor(socket)


@contextmanager
def started(pipeline: Any, **limits: Any) -> Iterator[Running]:
    """A Space with the given limits; everything is closed at the end."""
    space = Space(pipeline, Limits(**limits))
    server, url = launch(space, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    one = Running(space, url)
    yield one
    for socket in one.sockets:
        socket.close()
    server.get_blocks().close()
    space.close()


@pytest.fixture
def run_space(pipeline: Any) -> Iterator[Callable[..., Running]]:
    """Starts a Space with the given limits."""
    with ExitStack() as stack:
        yield lambda **limits: stack.enter_context(started(pipeline, **limits))
