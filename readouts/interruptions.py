"""Delay what interrupts a program, such as Ctrl-C, until a change of several tensors is complete."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Run the block, and only then the handlers of the signals that have arrived meanwhile.

    Python calls handlers in the main thread alone, between two instructions; they may raise, as that of
    Ctrl-C does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[Any, Any] = {}
    waiting: list[tuple[Any, FrameType | None]] = []
    try:
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if callable(handler):
                handlers[number] = handler
                signal.signal(number, lambda *arrived: waiting.append(arrived))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for late, frame in waiting:
            handlers[late](late, frame)
