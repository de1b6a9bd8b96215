"""How fast a visitor may talk: a page never feels it, and who floods is heard later, not at others' cost."""

from __future__ import annotations

import time
from collections.abc import Callable


MESSAGE_COST = 500
"""What a message costs beside its characters."""
PER_SECOND = 200_000.0
"""Characters that are read a second: five pages that drag, or a large plan every few seconds."""
BURST = 2_000_000.0
"""What may come at once after a silence."""


class Pace:
    """A bucket that fills with time and empties with every message.

    Args:
        clock: seconds that pass.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left = BURST
        self._last = clock()

    def wait(self, size: int) -> float:
        """Seconds for which a visitor has to wait who has just sent a message of ``size`` characters."""
        now = self._clock()
        self._left = min(BURST, self._left + (now - self._last) * PER_SECOND) - size - MESSAGE_COST
        self._last = now
        return max(0.0, -self._left / PER_SECOND)
