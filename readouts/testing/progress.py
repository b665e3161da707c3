"""Progress of a running check: its stages, its verdict as soon as it is known, and a time limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from readouts.testing.report import Report


class TimeUpError(BaseException):
    """Raised when the time limit is exceeded; handlers of `Exception` in the model do not catch it."""


@dataclass(frozen=True)
class Listener:
    """Callbacks of a running check.

    Attributes:
        stage: called with a few words on what is being done, and which share of it is done if that is known.
        verdict: called with the report before the culprit and the counterexample are searched.
        shrink: whether counterexamples are made smaller.
        explain_rounding: whether the culprit and the counterexample of rounding are searched too.
    """

    stage: Callable[[str, float | None], None] = lambda text, share: None
    verdict: Callable[[Report], None] = lambda report: None
    shrink: bool = True
    explain_rounding: bool = True


_LISTENER: ContextVar[Listener] = ContextVar("listener", default=Listener())  # noqa: B039 (it is immutable)


def listener() -> Listener:
    """Return the listener of the running checks."""
    return _LISTENER.get()


@contextmanager
def listening(now: Listener) -> Iterator[None]:
    """Call this listener within the block."""
    token = _LISTENER.set(now)
    try:
        yield
    finally:
        _LISTENER.reset(token)
