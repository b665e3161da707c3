"""Run all rows of the contract on a readout, and write what came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from readouts.testing.conformance import gradients, invariance, shapes, transforms, values
from readouts.testing.conformance.programs import Case, Outcome, Program, run, run_isolated
from readouts.testing.conformance.row import Row
from readouts.testing.conformance.subject import Subject

ROWS: tuple[Row, ...] = (
    *values.ROWS,
    *gradients.ROWS,
    *shapes.ROWS,
    *invariance.ROWS,
    *transforms.ROWS,
)
PASSED, FAILED, WITHOUT = "passed", "failed", "not applicable"


@dataclass(frozen=True)
class Result:
    """What came of a row.

    Attributes:
        row: name of the row.
        contract: its sentence.
        result: "passed", "failed" or "not applicable".
        reason: why it has no meaning.
        expected: what the contract says of the example.
        came: what came.
        example: three lines that show the failure.
    """

    row: str
    contract: str
    result: str
    reason: str = ""
    expected: str = ""
    came: str = ""
    example: str = ""


@dataclass(frozen=True)
class Conformance:
    """The results of all rows for a readout."""

    target: str
    kinds: tuple[str, ...]
    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        """Whether no row failed."""
        return not self.named(FAILED)

    def named(self, result: str) -> tuple[Result, ...]:
        """Return the results of one sort."""
        return tuple(found for found in self.results if found.result == result)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON knows them."""
        rows = [vars(result) for result in self.results]
        return {"target": self.target, "kinds": list(self.kinds), "passed": self.passed, "rows": rows}

    def __str__(self) -> str:
        like = "no kind whose values are known" if "other" in self.kinds else ", ".join(self.kinds)
        width = max(len(found.row) for found in self.results)
        lines = [f"{self.target}, which behaves like {like}", ""]
        for found in self.results:
            mark = found.result.upper() if found.result == FAILED else found.result
            lines.append(f"  {found.row:<{width}}  {mark}{': ' + found.reason if found.reason else ''}")
        for found in self.named(FAILED):
            lines += ["", f"{found.row}: {found.contract}"]
            lines += [f"  expected  {found.expected}", f"  came      {found.came}"]
            lines += [f"    {line}" for line in found.example.splitlines()]
        counts = [f"{len(self.named(result))} {result}" for result in (PASSED, FAILED, WITHOUT)]
        return "\n".join([*lines, "", ", ".join(counts)])


def check_conformance(subject: Subject, rows: Sequence[Row] = ROWS) -> Conformance:
    """Run the value contract of this library on a readout.

    Programs that might read or write out of bounds run in another process.

    Args:
        subject: the readout; see `Subject.locate`.
        rows: the rows to run.

    Example:
        >>> print(check_conformance(Subject.locate("torch_geometric.nn.aggr:MaxAggregation")))
    """
    return next(check_each([subject], rows))


def check_each(subjects: Sequence[Subject], rows: Sequence[Row] = ROWS) -> Iterator[Conformance]:
    """Run the contract on several readouts, with one other process for all of them."""
    cases = {subject: [_cases(subject, row) for row in rows] for subject in subjects}
    apart = [
        [_program(subject, case) for case in some]
        for subject in subjects
        for some in cases[subject]
        if _is_isolated(some)
    ]
    outcomes = iter(run_isolated(apart))
    for subject in subjects:
        results = []
        for row, some in zip(rows, cases[subject], strict=True):
            came = next(outcomes) if _is_isolated(some) else (run(_program(subject, case)) for case in some)
            results.append(_result(subject, row, zip(some, came, strict=False)))
        yield Conformance(subject.name, subject.kinds, tuple(results))


def _cases(subject: Subject, row: Row) -> list[Case]:
    return [] if row.without(subject) else list(row.cases(subject))


def _is_isolated(cases: Sequence[Case]) -> bool:
    return bool(cases) and cases[0].isolated


def _result(subject: Subject, row: Row, cases: Iterable[tuple[Case, Outcome]]) -> Result:
    """Judge the cases of a row, up to the first that fails."""
    if row.without(subject):
        return Result(row.name, row.contract, WITHOUT, row.without(subject))
    for case, outcome in cases:
        if not case.expected.holds(outcome):
            setup, given, shows = _program(subject, case)
            example = f"{setup}\n{given}\nprint({shows})"
            return Result(row.name, row.contract, FAILED, "", case.expected.text, str(outcome), example)
    return Result(row.name, row.contract, PASSED)


def _program(subject: Subject, case: Case) -> Program:
    return subject.setup, case.given, case.shows
