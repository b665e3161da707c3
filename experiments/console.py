"""How experiments talk: tables and sentences on stdout, progress on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich import progress
from rich.console import Console
from rich.table import Table as RichTable

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


def tracked(items: Iterable[Item], description: str, total: int | None = None) -> Iterable[Item]:
    """Walk through the items with a progress bar and the time left, which only a terminal gets to see."""
    console = Console(stderr=True)
    return walk(items, description, total, console) if console.is_terminal else items


def walk(items: Iterable[Item], description: str, total: int | None, console: Console) -> Iterator[Item]:
    """The same on a terminal; the time left is estimated from all items so far, however long one takes."""
    description_of, done = progress.TextColumn("{task.description}"), progress.MofNCompleteColumn()
    times = progress.TimeElapsedColumn(), progress.TimeRemainingColumn()
    columns = description_of, progress.BarColumn(), done, *times
    bar = progress.Progress(*columns, console=console, transient=True, speed_estimate_period=float("inf"))
    with bar:
        yield from bar.track(items, total, description=description)


@dataclass(frozen=True)
class Table:
    """Lines of cells under columns, with a rule at each empty line; the first `text_columns` are text."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence[str]]
    text_columns: int = 1

    def __rich__(self) -> RichTable:
        """Lay it out for a terminal."""
        laid_out = RichTable(title=self.title, title_justify="left", title_style="bold")
        for position, column in enumerate(self.columns):
            if position < self.text_columns:
                laid_out.add_column(column, overflow="fold")
            else:
                laid_out.add_column(column, justify="right", no_wrap=True)
        for line in self.lines:
            if line:
                laid_out.add_row(*line)
            else:
                laid_out.add_section()
        return laid_out


def table(title: str, columns: Sequence[str], lines: Iterable[Sequence[str]], text_columns: int = 1) -> Table:
    """A table of lines that are still to be made."""
    return Table(title, columns, list(lines), text_columns)


def share(value: float) -> str:
    """Format a share with three decimals: .931, and 1.000 for all."""
    return f"{value:.3f}".removeprefix("0")


def percent(value: float) -> str:
    """Format a share in percent with one decimal."""
    return f"{100 * value:.1f}"


def tiny(value: float) -> str:
    """Exactly 0, or how small."""
    return "0" if value == 0 else f"{value:.0e}"
