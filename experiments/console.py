"""How experiments talk: tables and sentences on stdout, progress on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track
from rich.table import Table

WIDTH_WITHOUT_TERMINAL = 100
Item = TypeVar("Item")


class UserError(Exception):
    """Something that the caller can mend, told in one sentence: exit code 2, no traceback."""


def say(*things: object) -> None:
    """Print tables and lines; a table keeps its width when the output is a file or a pipe."""
    width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    console = Console(highlight=False, markup=False, width=width)
    try:
        for thing in things:
            console.print(thing, soft_wrap=isinstance(thing, str))
    except OSError as problem:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try again at exit
        raise UserError(f"Cannot write to standard output: {problem.strerror}.") from problem


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full disk or a folder that cannot be written to into one sentence."""
    try:
        yield
    except OSError as problem:
        raise UserError(f"Cannot write {path}: {problem.strerror or problem}.") from problem


def tracked(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Walk through the items behind a progress bar, which only a terminal gets to see."""
    console = Console(stderr=True)
    return track(items, description, console=console, transient=True, disable=not console.is_terminal)


def table(title: str, columns: Sequence[str], lines: Iterable[Sequence[str]], text_columns: int = 1) -> Table:
    """Lay out lines under columns, ruled off at empty lines; the first `text_columns` are text."""
    result = Table(title=title, title_justify="left", title_style="bold")
    for position, column in enumerate(columns):
        if position < text_columns:
            result.add_column(column, overflow="fold")
        else:
            result.add_column(column, justify="right", no_wrap=True)
    for line in lines:
        if line:
            result.add_row(*line)
        else:
            result.add_section()
    return result


def share(value: float) -> str:
    """Format a share with three decimals: .931, and 1.000 for all."""
    return f"{value:.3f}".removeprefix("0")
