"""Seats: first come, first served, nobody lost."""

import asyncio

import pytest

from app_assets.lobby import Lobby


def test_seats_queue_and_turning_away():
    lobby = Lobby(seats=2, waiting=2)
    tickets = [lobby.enter() for _ in range(4)]
    assert [ticket.position for ticket in tickets] == [0, 0, 1, 2]
    with pytest.raises(ValueError, match="queue: 2 visitors wait already"):
        lobby.enter()
    lobby.leave(tickets[2])
    assert [tickets[3].position, lobby.taken, lobby.queued] == [1, 2, 1]
    lobby.leave(tickets[0])
    assert [tickets[3].position, lobby.taken, lobby.queued] == [0, 2, 0]
    for ticket in tickets:
        lobby.leave(ticket)
    assert (lobby.taken, lobby.queued) == (0, 0)


def test_waiting_visitor_is_told():
    async def wait():
        lobby = Lobby(seats=1, waiting=3)
        first, second, third = (lobby.enter() for _ in range(3))
        assert [await second.moved(), await third.moved()] == [1, 2]
        lobby.leave(first)
        return [await asyncio.wait_for(second.moved(), 1), await asyncio.wait_for(third.moved(), 1)]

    assert asyncio.run(wait()) == [0, 1]


def test_nonsense_is_refused():
    for seats, waiting in ((0, 1), (1, -1)):
        with pytest.raises(ValueError, match="seats"):
            Lobby(seats, waiting)
