"""A thread pool for kernels that release the interpreter lock, safe to share and safe to fork."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

_pool: ThreadPoolExecutor | None = None
_workers = 0
_lock = Lock()


def run_in_parallel(task: Callable[[int], object], tasks: int) -> None:
    """Run task(0), ..., task(tasks - 1) at the same time, the last of them in the calling thread.

    Any number of threads may call this at once: workers never wait for one another.
    """
    futures = (
        [_workers_for(tasks - 1).submit(task, number) for number in range(tasks - 1)] if tasks > 1 else []
    )
    task(tasks - 1)
    errors = [error for future in futures if (error := future.exception())]  # waits for all of them
    if errors:
        raise errors[0]


def _workers_for(number: int) -> ThreadPoolExecutor:
    global _pool, _workers
    with _lock:
        if _pool is None or _workers < number:
            _pool, _workers = ThreadPoolExecutor(number, thread_name_prefix="readouts"), number
        return _pool


def _forget_pool() -> None:
    """Threads do not survive a fork: a child starts its own."""
    global _pool, _workers, _lock
    _pool, _workers, _lock = None, 0, Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
