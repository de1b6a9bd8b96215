"""Seats: how many visitors the model serves at once, and who is next."""

from __future__ import annotations

import asyncio
from collections import deque


class Ticket:
    """A visitor's place: ``position`` 0 is a seat, 1 is next."""

    def __init__(self) -> None:
        self.position = -1
        self._moved = asyncio.Event()

    def move(self, position: int) -> None:
        """Note a new position and wake whoever waits for it."""
        if position != self.position:
            self.position = position
            self._moved.set()

    async def moved(self) -> int:
        """Wait for the next change; gives the position."""
        await self._moved.wait()
        self._moved.clear()
        return self.position


class Lobby:
    """First come, first served.

    Args:
        seats: visitors served at once.
        waiting: visitors that may wait; more are turned away.
    """

    def __init__(self, seats: int, waiting: int) -> None:
        if seats < 1 or waiting < 0:
            raise ValueError(f"seats: {seats}, waiting: {waiting}; use at least one seat and no negative queue")
        self.seats, self.waiting = seats, waiting
        self._seated: set[Ticket] = set()
        self._queue: deque[Ticket] = deque()

    @property
    def taken(self) -> int:
        """Seats in use."""
        return len(self._seated)

    @property
    def queued(self) -> int:
        """Visitors that wait."""
        return len(self._queue)

    def enter(self) -> Ticket:
        """Take a seat, or the last place of the queue.

        Raises:
            ValueError: if the queue is full.
        """
        if len(self._seated) >= self.seats and len(self._queue) >= self.waiting:
            raise ValueError(f"queue: {self.waiting} visitors wait already; try again in a minute")
        ticket = Ticket()
        self._queue.append(ticket)
        self._advance()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give the seat, or the place in the queue, back."""
        self._seated.discard(ticket)
        if ticket in self._queue:
            self._queue.remove(ticket)
        self._advance()

    def _advance(self) -> None:
        while self._queue and len(self._seated) < self.seats:
            first = self._queue.popleft()
            self._seated.add(first)
            first.move(0)
        for position, ticket in enumerate(self._queue, start=1):
            ticket.move(position)
