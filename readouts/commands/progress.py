"""Print on the standard error what a command is doing, and how much time is left."""

from __future__ import annotations

import sys
import time

PATIENCE = 3.0  # seconds before the first line, and between two of them


class Progress:
    """Prints a line when nothing was printed for some seconds.

    The work may have several phases, each of which is done by a share that grows from 0 to 1. The time left
    is that of the phase.
    """

    def __init__(self) -> None:
        self.start = self.last = self.begun = time.monotonic()
        self.share = 0.0

    def __call__(self, text: str, share: float | None = None) -> None:
        """Note what is being done, and which share of the phase is done, if that is known."""
        now = time.monotonic()
        if share is None or share < self.share:
            self.begun = now
        self.share = share or 0.0
        if now - self.last >= PATIENCE:
            self.last = now
            left = f", about {self._left(now):.0f} s left" if self.share else ""
            print(f"{now - self.start:5.0f} s  {text}{left}", file=sys.stderr, flush=True)

    def _left(self, now: float) -> float:
        return (now - self.begun) * (1 - self.share) / self.share
