"""Limit the time of a command, and print its progress on the standard error."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from readouts.commands.target import CannotRunError
from readouts.testing.progress import TimeUpError

PATIENCE = 5.0  # seconds before the first line of progress, and between two of them


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TimeUpError in the block after so many seconds, wherever it is."""
    if seconds is None:
        yield
        return
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        raise CannotRunError("--timeout: expected a system with timers and the main thread")

    def stop(*_: Any) -> None:
        raise TimeUpError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Progress:
    """Prints a stage on the standard error when nothing was printed for some seconds."""

    def __init__(self, timeout: float | None) -> None:
        self.start = self.last = time.monotonic()
        self.timeout = timeout

    def __call__(self, text: str) -> None:
        """Print a stage; raise TimeUpError if the limit is over, in case a callback swallowed its signal."""
        now = time.monotonic()
        if self.timeout is not None and now - self.start > self.timeout:
            raise TimeUpError
        if now - self.last >= PATIENCE:
            self.last = now
            print(f"{now - self.start:5.0f} s  {text}", file=sys.stderr, flush=True)
