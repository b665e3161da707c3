"""How every command ends: tables and sentences are printed, and kept as a section for the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from rich.table import Table

from datasets import GraphSet
from experiments.console import say
from experiments.report import verdicts as judged
from experiments.report.headlines import headline
from experiments.report.sections import ENDING, Provenance, Section, Sheet, command_line, command_name
from experiments.rows import Row, read_rows
from experiments.speed import tables as timed

SPEED = "speed"


def conclude(
    command: Callable[..., object],
    values: Mapping[str, object],
    path: Path,
    rows: Sequence[Row],
    tables: Iterable[Table],
    figures: Iterable[Path],
    notes: Iterable[str],
    verdicts: Iterable[str],
    sets: Iterable[GraphSet],
) -> None:
    """Print an experiment and write its section beside its rows at `path`.

    `values` are those of the command's options, as `locals()` has them; what loading did to the `sets` was
    said when they were loaded, and is kept.
    """
    tables, notes, verdicts, sets = list(tables), list(notes), list(verdicts), list(sets)
    say(*tables, *notes, *verdicts)
    Section(
        name=command_name(command),
        command=command_line(command, values),
        data=[graphs.name for graphs in sets],
        headline=headline(command_name(command), rows),
        verdicts=verdicts,
        notes=[*(f"{graphs.name}: {note}" for graphs in sets for note in graphs.notes), *notes],
        sheets=[Sheet.of(table) for table in tables],
        figures=[figure.stem for figure in figures if figure.suffix == ".svg"],
        provenance=Provenance.of(path.name, rows),
    ).write(path.parent)


def recover_speed(folder: Path) -> None:
    """Write the section of `speed` where its rows came without one, from rows of the code that ran last.

    Timings are not repeated to make a page: they want a quiet machine, which may be another one.
    """
    path = folder / f"{SPEED}.jsonl"
    if not path.exists() or (folder / f"{SPEED}{ENDING}").exists():
        return
    found = list(read_rows(path))
    rows = [row for row in found if row["code"] == found[-1]["code"] and "contender" in row]
    if rows:
        Section(
            name=SPEED,
            command="python -m experiments speed" + (" --quick" if rows[-1]["quick"] else ""),
            data=[],
            headline=headline(SPEED, rows),
            verdicts=list(judged.of_speed(rows)),
            notes=[*timed.refusals(rows), *timed.noise(rows)],
            sheets=[Sheet.of(table) for table in timed.tables(rows)],
            figures=[SPEED] if (folder / f"{SPEED}.svg").exists() else [],
            provenance=Provenance.of(path.name, rows),
        ).write(folder)
