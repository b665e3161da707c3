"""Code snippets that show what a readout returns, run exactly as they are printed."""

from __future__ import annotations

import io
import itertools
import json
import logging
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch

Snippet = tuple[str, str, str]  # a line that makes the readout, one that makes its input, an expression


@dataclass(frozen=True)
class Outcome:
    """Value of a snippet, or the error that it raised."""

    value: Any = None
    error: str = ""

    def __str__(self) -> str:
        text = self.error or repr(self.value)
        return text if len(text) <= 160 else text[:157] + "..."


@dataclass(frozen=True)
class Expected:
    """Outcome by the contract, as text and as a test."""

    text: str
    holds: Callable[[Outcome], bool]


@dataclass(frozen=True)
class Case:
    """An input, an expression, and its expected outcome.

    Attributes:
        given: the line that makes the input.
        shows: the expression.
        expected: the expected outcome.
        isolated: whether it could write out of bounds, and has to run in another process.
    """

    given: str
    shows: str
    expected: Expected
    isolated: bool = False


def equal(value: Any) -> Expected:
    """Expect exactly this value; NaN equals NaN, and nested lists are compared entry by entry."""
    return Expected(repr(value), lambda outcome: not outcome.error and _same(outcome.value, value))


def close(value: float, tolerance: float) -> Expected:
    """Expect a number within a relative tolerance, or an absolute one where `value` is 0."""
    limit = tolerance * abs(value) if value else tolerance
    text = f"{value} within {100 * tolerance:g} %" if value else f"at most {tolerance}"
    return Expected(text, lambda outcome: not outcome.error and abs(outcome.value - value) <= limit)


RAISES = Expected("an exception", lambda outcome: bool(outcome.error) and outcome.error != CRASHED)
CRASHED = "the process crashed"
READY, END_OF_ROW = "ready", "end of row"
_NUMBERS = itertools.count()


def run(snippet: Snippet) -> Outcome:
    """Run a snippet in this process with output suppressed; the random state does not change.

    Each has a file name of its own: torch.compile takes shapes as dynamic that differ between two functions
    at one place of one file.
    """
    setup, given, shows = snippet
    file = f"example-{next(_NUMBERS)}.py"
    scope: dict[str, Any] = {"__name__": "__main__"}
    with torch.random.fork_rng(devices=[]), _silence():
        try:
            exec(compile(f"{setup}\n{given}", file, "exec"), scope)
            return Outcome(eval(compile(shows, file, "eval"), scope))
        except Exception as error:
            return Outcome(error=described(error))


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress warnings, logs and prints, as of compilers and tracers."""
    level = logging.root.manager.disable
    logging.disable()
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(level)


def run_isolated(rows: Sequence[Sequence[Snippet]]) -> list[list[Outcome]]:
    """Run rows of snippets that must raise in another process, each row up to the first that does not.

    If the process crashes, the row is run again in a new process, so that earlier rows cannot be the cause.

    Raises:
        RuntimeError: the other process cannot start.
    """
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    command = [sys.executable, "-P", __file__]  # this file alone, without the rest of its package
    found: list[list[Outcome]] = []
    while len(found) < len(rows):
        process = subprocess.run(
            command,
            input=json.dumps(rows[len(found) :]),
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )
        ready, *lines = process.stdout.splitlines() or [""]
        if ready != READY:
            raise RuntimeError(f"the process for isolated snippets cannot start: {process.stderr[-500:]}")
        came: list[list[Outcome]] = [[]]
        for line in map(json.loads, lines):
            if line == END_OF_ROW:
                came.append([])
            else:
                came[-1].append(Outcome(*line))
        *finished, begun = came
        found += finished or [[*begun, Outcome(error=CRASHED)]]
    return found


def serve() -> None:
    """Run rows of snippets, read as JSON from the standard input; see `run_isolated`.

    Their values must be values of JSON.
    """
    print(READY, flush=True)
    for row in json.loads(sys.stdin.read()):
        for snippet in row:
            outcome = run(snippet)
            print(json.dumps([outcome.value, outcome.error]), flush=True)
            if not outcome.error:
                break
        print(json.dumps(END_OF_ROW), flush=True)


def described(error: BaseException) -> str:
    """Write an exception as its type and the first line of its text, which may be empty."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_same, first, second))
    if isinstance(first, float) and isinstance(second, float) and math.isnan(second):
        return math.isnan(first)
    return type(first) is type(second) and first == second


if __name__ == "__main__":
    serve()
