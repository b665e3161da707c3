"""Cells of the grid: all that rows say about one case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from experiments.records import Row
from experiments.speed.grid import EAGER, NORMAL, SORTED
from experiments.speed.implementations import READ
from experiments.speed.measure import RIGHT, SECONDS, SPREAD, case_of

NOISY = 1.5
ENOUGH, SLOWEST = 1e5, 1e9  # bytes, and bytes a second of a read


@dataclass
class Cell:
    """Verdict and numbers of every contender of a case."""

    case: Row
    verdicts: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, dict[str, float]] = field(default_factory=dict)

    def number(self, contender: str | None, metric: str = SECONDS) -> float | None:
        """One number of a contender, if it was measured."""
        return self.numbers.get(contender or "", {}).get(metric)

    def fastest(self, contenders: Iterable[str]) -> str | None:
        """The fastest of those that were timed."""
        times = {name: time for name in contenders if (time := self.number(name)) is not None}
        return min(times, key=times.__getitem__, default=None)

    def noisy(self, contender: str | None) -> bool:
        """Return whether p80 is half as long again as p20, or other processes held the cores all the time.

        In the latter case, even a plain read is implausibly slow.
        """
        read = self.number(READ)
        if read is not None and self.bytes >= ENOUGH and self.bytes < SLOWEST * read:
            return True
        fast, slow = self.number(contender, "p20"), self.number(contender, "p80")
        return fast is not None and slow is not None and slow > NOISY * fast

    @property
    def bytes(self) -> int:
        """Size of x."""
        item = getattr(torch, self.case["dtype"]).itemsize
        return int(self.case["nodes"] * self.case["features"] * item)

    @property
    def outputs(self) -> float:
        """Size of sum, mean and max."""
        return 3 * self.case["graphs"] * self.bytes / self.case["nodes"]

    @property
    def name(self) -> str:
        """The shape, and what is not usual about it."""
        usual = ("float32", NORMAL, SORTED, EAGER)
        unusual = [self.case[key] for key in ("dtype", "kind", "layout", "timing")]
        return ", ".join([self.case["data"], *(value for value in unusual if value not in usual)])

    @property
    def title(self) -> str:
        """The case in words: shape, reductions and direction."""
        return f"{self.name}, {self.case['readout']}, {self.case['direction']}"

    def has(self, **fields: Any) -> bool:
        """Return whether the case is of this kind."""
        return fields.items() <= self.case.items()


def gather(rows: Sequence[Row]) -> list[Cell]:
    """One cell a case, the small ones first."""
    cells: dict[str, Cell] = {}
    for row in rows:
        cell = cells.setdefault(case_of(row), Cell(row | {"device": row["run"]["device"]}))
        contender = row["contender"]
        cell.verdicts[contender] = row["verdict"]
        numbers = cell.numbers.setdefault(contender, {})
        numbers[row["metric"]] = row["value"]
        if row["verdict"] == RIGHT:
            numbers |= {name: row[name] for name in SPREAD if name in row}
    return sorted(cells.values(), key=lambda cell: cell.bytes)
