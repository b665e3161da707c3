"""Limit the time of a command."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from readouts.commands.progress import Progress
from readouts.commands.target import CannotRunError
from readouts.testing.progress import TimeUpError


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


class LimitedProgress(Progress):
    """Also raises TimeUpError if the limit is over, in case a callback swallowed its signal."""

    def __init__(self, timeout: float | None) -> None:
        super().__init__()
        self.timeout = timeout

    def __call__(self, text: str, share: float | None = None) -> None:
        """Note what is being done."""
        if self.timeout is not None and time.monotonic() - self.start > self.timeout:
            raise TimeUpError
        super().__call__(text, share)
