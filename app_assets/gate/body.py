"""Bodies of requests on their way in: how large, how slow, and how many at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.types import Message, Receive, Send


BODY_SECONDS = 60.0
"""In which a request must have been sent."""
MAX_COMING = 256 << 20
"""Bytes of all bodies that are on their way in."""


class TooMuch(Exception):
    """A request that says more, or more slowly, than it may."""


@dataclass
class Coming:
    """Bytes of all bodies that are on their way in."""

    size: int = 0


class Answer:
    """An ASGI ``send`` that knows whether an answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def send(self, message: Message) -> None:
        """Pass one message on."""
        self.begun = True
        await self._send(message)


class Body:
    """An ASGI ``receive`` for at most ``most`` bytes within `BODY_SECONDS`, which adds to what all bodies hold.

    Raises:
        TooMuch: from `receive` and `whole`.
    """

    def __init__(self, receive: Receive, most: int, coming: Coming) -> None:
        self._receive, self._most, self._coming = receive, most, coming
        self._end = asyncio.get_running_loop().time() + BODY_SECONDS
        self._size = 0
        self._done = False
        self._read: list[bytes] = []

    async def receive(self) -> Message:
        """The next part, from the beginning if `whole` has read it."""
        if self._read:
            return {"type": "http.request", "body": self._read.pop(), "more_body": False}
        return await (self._receive() if self._done else self._part())

    async def whole(self) -> bytes:
        """All of it."""
        parts: list[bytes] = []
        while not self._done:
            parts.append((await self._part()).get("body", b""))
        self._read = [b"".join(parts)]
        return self._read[0]

    def close(self) -> None:
        """It is needed no more."""
        self._coming.size -= self._size

    async def _part(self) -> Message:
        try:
            left = self._end - asyncio.get_running_loop().time()
            message = await asyncio.wait_for(self._receive(), left)
        except asyncio.TimeoutError:
            raise TooMuch(f"message: it took more than {BODY_SECONDS:g} s to arrive; try again") from None
        size = len(message.get("body", b""))
        self._size += size
        self._coming.size += size
        self._done = not message.get("more_body", False)
        if self._size > self._most:
            raise TooMuch(f"message: it has more than {self._most} bytes; send less")
        if self._coming.size > MAX_COMING:
            raise TooMuch("server: it is busy; try again in a minute")
        return message
