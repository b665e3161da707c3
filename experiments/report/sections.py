"""What an experiment leaves for the report beside its rows and figures: `NAME.section.json`.

A section is made of rows and nothing else, so that the same rows give the same section: its tables as text,
what was said of them, and where every number comes from. The report only reads sections.
"""

from __future__ import annotations

import inspect
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from experiments.console import UserError, writing
from experiments.rows import Row

ENDING = ".section.json"
OF_THE_READER = ("mirror", "out", "jobs", "scheduler")


@dataclass(frozen=True)
class Sheet:
    """A table as data; `rules` are the numbers of the lines that a rule follows."""

    title: str
    columns: list[str]
    numeric: list[bool]
    lines: list[list[str]]
    rules: list[int]

    @classmethod
    def of(cls, table: Table) -> Sheet:
        """The cells of a table that was laid out for a terminal."""
        cells = [[str(cell) for cell in column.cells] for column in table.columns]
        return cls(
            title=str(table.title or ""),
            columns=[str(column.header) for column in table.columns],
            numeric=[column.justify == "right" for column in table.columns],
            lines=[list(line) for line in zip(*cells, strict=True)],
            rules=[number for number, row in enumerate(table.rows) if row.end_section],
        )


@dataclass(frozen=True)
class Provenance:
    """Where numbers come from: a file of rows, and what these say of themselves."""

    file: str
    rows: int
    code: list[str]
    commits: list[str]
    dates: list[str]
    devices: list[str]
    seeds: list[int]
    versions: dict[str, str]

    @classmethod
    def of(cls, file: str, rows: Sequence[Row]) -> Provenance:
        """Gather it; `dates` are the first and the last day of measuring."""
        days = sorted(row["date"][:10] for row in rows)
        versions: dict[str, set[str]] = {}
        for row in rows:
            for package, version in row["versions"].items():
                versions.setdefault(package, set()).add(version)
        return cls(
            file=file,
            rows=len(rows),
            code=distinct(rows, "code"),
            commits=distinct(rows, "commit"),
            dates=list(dict.fromkeys(days[:1] + days[-1:])),
            devices=sorted({str(row.get("machine", row["device"])) for row in rows}),
            seeds=distinct(rows, "seed"),
            versions={package: ", ".join(sorted(found)) for package, found in versions.items()},
        )


@dataclass(frozen=True)
class Section:
    """One experiment as it came out: `refused` says of sets why they have no numbers."""

    name: str
    command: str
    data: list[str]
    headline: dict[str, str] | None = None
    verdicts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sheets: list[Sheet] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    provenance: Provenance | None = None
    refused: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Write it as JSON."""
        path = folder / f"{self.name}{ENDING}"
        with writing(path):
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path


def distinct(rows: Sequence[Row], name: str) -> list[Any]:
    """The values of a field, sorted, without None."""
    return sorted({row[name] for row in rows} - {None})


def command_line(command: Callable[..., object], values: Mapping[str, object]) -> str:
    """The command with every option that is not at its default.

    Where data come from, where results go and who computes is left to the reader: no number depends on it.
    """
    words = ["python", "-m", "experiments", command_name(command)]
    for name, parameter in inspect.signature(command).parameters.items():
        value = values.get(name, parameter.default)
        if name in OF_THE_READER or value == parameter.default:
            continue
        words.append(f"--{name.replace('_', '-')}")
        if not isinstance(value, bool):
            words += map(str, value) if isinstance(value, list) else [str(value)]
    return shlex.join(words)


def command_name(command: Callable[..., object]) -> str:
    """What a command is called on the command line."""
    return command.__name__.rstrip("_").replace("_", "-")


def read(folder: Path) -> dict[str, Section]:
    """The sections in a folder, by name; raises `UserError` where a file is no section."""
    return {section.name: section for section in map(read_one, sorted(folder.glob(f"*{ENDING}")))}


def read_one(path: Path) -> Section:
    """One section."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        fields["sheets"] = [Sheet(**sheet) for sheet in fields["sheets"]]
        if fields["provenance"]:
            fields["provenance"] = Provenance(**fields["provenance"])
        return Section(**fields)
    except (ValueError, TypeError, KeyError) as problem:
        raise UserError(f"{path} is no section: repeat the experiment that wrote it.") from problem
