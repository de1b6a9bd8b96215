"""A mailbox by path: messages for a generator that may run in another process (a ZeroGPU worker is a fork)."""

from __future__ import annotations

from pathlib import Path

from app_assets.gate.expiring_folder import ExpiringFolder


MAX_BYTES = 16 << 20
MAX_SESSIONS = 64
"""Mailboxes; one more takes the place of that to which nothing was sent for the longest time."""


class Mailbox:
    """An append-only file of one-line messages; one reader, any number of writers."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def send(self, text: str) -> None:
        """Append one message.

        Raises:
            ValueError: if the session is over, or sends more than anybody would.
        """
        if not self._path.exists():
            raise ValueError("session: it is over; reload the page")
        if self._path.stat().st_size + len(text) > MAX_BYTES:
            raise ValueError("session: too many messages; reload the page")
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text.replace("\n", " ") + "\n")

    def receive(self) -> list[str]:
        """All whole messages that came since the last call."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(newline)
        return whole.decode("utf-8").split("\n") if newline else []

    def close(self) -> None:
        """Remove it; sending to it is an error from now on."""
        self._path.unlink(missing_ok=True)


class Mailboxes(ExpiringFolder):
    """Mailboxes of all sessions."""

    def __init__(self) -> None:
        super().__init__("ardrag-mail-", max_entries=MAX_SESSIONS)

    def open(self) -> str:
        """A new mailbox; gives its session's name."""
        place = self.new_place()
        place.touch(mode=0o600)
        return place.name

    def find(self, name: str) -> Mailbox:
        """The mailbox of a session.

        Raises:
            ValueError: if there is none.
        """
        known = {path.name: path for path in self.folder.iterdir()}
        if name not in known:
            raise ValueError("session: unknown or over; reload the page")
        return Mailbox(known[name])
