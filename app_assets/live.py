"""A visitor's connection: a WebSocket with a seat, or events through Gradio's queue where sockets cannot pass."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from app_assets.gate.pace import Pace
from app_assets.lobby import Lobby
from app_assets.mailbox import Mailbox
from app_assets.messages import pack
from app_assets.player import OVER, Player, Reply


POLL_SECONDS = 0.01
SEND_SECONDS = 20.0
"""In which a visitor must take what is sent; who does not is gone."""
LONG = 1 << 14
"""Characters of a message from which on reading it would keep others waiting."""


def error(text: str) -> Reply:
    """What a visitor reads when something is wrong."""
    return Reply({"type": "error", "message": text, "take": None})


class Connection:
    """One WebSocket: what it says goes into a player, what the player makes goes out.

    Args:
        socket: accepted socket.
        player: the visitor's takes.
        lobby: seats, shared by all.
        worker: the one thread on which the model runs, shared by all: visitors take turns, latent by latent.
        idle_seconds: a seat on which nothing happens for so long is given to the next.
        seat_seconds: so long a visitor may keep a seat for which others wait.
    """

    def __init__(
        self,
        socket: WebSocket,
        player: Player,
        lobby: Lobby,
        worker: Executor,
        idle_seconds: float,
        seat_seconds: float,
    ) -> None:
        self._socket, self._player, self._lobby, self._worker = socket, player, lobby, worker
        self._idle_seconds, self._seat_seconds = idle_seconds, seat_seconds
        self._wake = asyncio.Event()
        self._pace = Pace()

    async def serve(self) -> None:
        """Serve until the visitor is gone; leaves nothing behind."""
        tasks = {asyncio.ensure_future(self._read()), asyncio.ensure_future(self._play())}
        try:
            finished, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                with suppress(WebSocketDisconnect, RuntimeError):  # gone while something was on its way
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # On the worker, behind a step that is still being made; there is none when the server is being stopped.
            with suppress(RuntimeError):
                await asyncio.get_running_loop().run_in_executor(self._worker, self._player.close)

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            content = text if text is not None else message.get("bytes") or b""
            if content == '{"type":"ping"}':
                await self._in_time(self._socket.send_text('{"type":"pong"}'))
                continue
            try:
                if len(content) < LONG:
                    self._player.post(content)
                else:
                    await asyncio.to_thread(self._player.post, content)
                self._wake.set()
            except ValueError as problem:
                await self._send(error(str(problem)))
            await asyncio.sleep(self._pace.wait(len(content)))

    async def _play(self) -> None:
        while True:
            while not self._player.started:
                await self._woken(None)
            try:
                ticket = self._lobby.enter()
            except ValueError as problem:
                self._player.close()
                await self._send(error(str(problem)))
                continue
            try:
                while ticket.position:
                    await self._send(Reply({"type": "queue", "position": ticket.position}))
                    await ticket.moved()
                await self._send(Reply({"type": "seated"}))
                idle = await self._work()
            finally:
                self._lobby.leave(ticket)
            await asyncio.get_running_loop().run_in_executor(self._worker, self._player.close)
            seconds = self._idle_seconds if idle else self._seat_seconds
            await self._send(Reply({"type": "expired", "seconds": seconds, "idle": idle}))

    async def _work(self) -> bool:
        """Answer and make latents until nothing has happened for a while (true), or others have waited for long."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not (self._lobby.queued and loop.time() - began > self._seat_seconds):
            turn = await loop.run_in_executor(self._worker, self._player.turn)
            if turn is OVER:
                if not await self._woken(self._idle_seconds):
                    return True
                continue
            reply = await asyncio.to_thread(turn) if callable(turn) else turn
            if reply is not None:
                await self._send(reply)
        return False

    async def _woken(self, seconds: float | None) -> bool:
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        self._wake.clear()
        return True

    async def _send(self, reply: Reply) -> None:
        if reply.parts:
            await self._in_time(self._socket.send_bytes(pack(reply.header, reply.parts)))
        else:
            await self._in_time(self._socket.send_text(json.dumps(reply.header, allow_nan=False)))

    async def _in_time(self, sending: Coroutine[Any, Any, None]) -> None:
        try:
            await asyncio.wait_for(sending, SEND_SECONDS)
        except asyncio.TimeoutError:
            raise WebSocketDisconnect(1008, "what was sent was not taken") from None


def as_text(reply: Reply) -> str:
    """A reply for a channel without binary messages: its parts as base64."""
    parts = [base64.b64encode(part).decode("ascii") for part in reply.parts]
    return json.dumps({**reply.header, "parts": parts}, allow_nan=False)


def events(
    player: Player, mailbox: Mailbox, run: Callable[[Callable[[], Any]], Any], idle_seconds: float
) -> Iterator[str]:
    """The same player behind a mailbox: yields replies as text until the visitor is idle or ``mailbox`` is closed.

    ``run`` runs a function where the model may run.
    """
    last, pace, busy = time.monotonic(), Pace(), False
    try:
        yield as_text(Reply({"type": "seated"}))
        while time.monotonic() - last < idle_seconds:
            try:
                texts = mailbox.receive()
            except FileNotFoundError:
                return
            for text in texts:
                try:
                    player.post(text)
                except ValueError as problem:
                    yield as_text(error(str(problem)))
                time.sleep(pace.wait(len(text)))
            turn = run(player.turn) if busy or texts else OVER
            busy = turn is not OVER
            if not busy and not texts:
                time.sleep(POLL_SECONDS)
                continue
            reply = turn() if callable(turn) else turn
            if busy and reply is not None:
                yield as_text(reply)
            last = time.monotonic()
        yield as_text(Reply({"type": "expired", "seconds": idle_seconds, "idle": True}))
    finally:
        run(player.close)
        mailbox.close()
