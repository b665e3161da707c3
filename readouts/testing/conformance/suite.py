"""Run all rows of the contract on a readout, and report the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from readouts.testing.conformance import gradients, invariance, shapes, transforms, values
from readouts.testing.conformance.row import LEVELS, Row
from readouts.testing.conformance.snippets import Case, Outcome, Snippet, run, run_isolated
from readouts.testing.conformance.target import Subject
from readouts.testing.progress import listener

MODULES = (values, gradients, shapes, invariance, transforms)
ROWS = tuple(row for module in MODULES for row in vars(module).values() if isinstance(row, Row))
SCHEMA = 1
PASSED, FAILED, WITHOUT = "passed", "failed", "not applicable"


@dataclass(frozen=True)
class Result:
    """Result of a row.

    Attributes:
        row: name of the row.
        contract: its sentence.
        result: "passed", "failed" or "not applicable".
        reason: why it does not apply.
        expected: the outcome of the example by the contract.
        got: its actual outcome.
        example: three lines of code that show the failure.
        level: "must", "bits" or "validation".
    """

    row: str
    contract: str
    result: str
    reason: str = ""
    expected: str = ""
    got: str = ""
    example: str = ""
    level: str = "must"

    def line(self, width: int) -> str:
        """Write it in one line, with the name of the row in so many columns."""
        mark = self.result.upper() if self.result == FAILED else self.result
        return f"  {self.row:<{width}}  {mark}{': ' + self.reason if self.reason else ''}"


@dataclass(frozen=True)
class Conformance:
    """Results of all rows for a readout."""

    target: str
    kinds: tuple[str, ...]
    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        """Whether no row failed."""
        return not self.named(FAILED)

    def named(self, result: str) -> tuple[Result, ...]:
        """Return the results that are passed, failed or not applicable."""
        return tuple(found for found in self.results if found.result == result)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as values for JSON."""
        rows = [vars(result) for result in self.results]
        head = {"schema": SCHEMA, "error": None, "target": self.target, "kinds": list(self.kinds)}
        return {**head, "passed": self.passed, "rows": rows}

    @property
    def head(self) -> str:
        """Say what was tested, and what it behaves like."""
        like = "no kind whose values are known" if "other" in self.kinds else ", ".join(self.kinds)
        return f"{self.target}, which behaves like {like}"

    @property
    def details(self) -> str:
        """Return the failures with their examples, and how many rows passed."""
        lines = []
        for found in self.named(FAILED):
            lines += ["", f"{found.row}: {found.contract}"]
            lines += [f"  expected  {found.expected}", f"  got       {found.got}"]
            lines += [f"    {line}" for line in found.example.splitlines()]
        counts = [f"{len(self.named(result))} {result}" for result in (PASSED, FAILED, WITHOUT)]
        return "\n".join([*lines, "", ", ".join(counts)])

    def __str__(self) -> str:
        width = max(len(found.row) for found in self.results)
        return "\n".join([self.head, "", *(found.line(width) for found in self.results), self.details])


def select(
    rows: Sequence[str] = (), skip: Sequence[str] = (), levels: Sequence[str] = LEVELS
) -> tuple[Row, ...]:
    """Return the rows of some names (all without names) and levels, without others.

    Raises:
        ValueError: there is no such row or level, or nothing is left.
    """
    names = [row.name for row in ROWS]
    for known, given, what in ((names, rows, "rows"), (names, skip, "skip"), (LEVELS, levels, "levels")):
        for name in given:
            if name not in known:
                raise ValueError(f"{what}: expected {', '.join(known)}, got {name!r}")
    chosen = [row for row in ROWS if row.name in (rows or names) and row.name not in skip]
    chosen = [row for row in chosen if row.level in levels]
    if not chosen:
        raise ValueError("rows: expected at least one, got none")
    return tuple(chosen)


def assert_conformance(
    target: Any,
    init: Any = None,
    like: str | None = None,
    *,
    rows: Sequence[str] = (),
    skip: Sequence[str] = (),
    levels: Sequence[str] = LEVELS,
) -> None:
    """Raise AssertionError with the failed rows unless a readout keeps the contract.

    Example:
        >>> assert_conformance("readouts.nn:SumReadout", rows=["NaN", "integers"])

    Args:
        target: a class or function that can be imported, or ``package.module:name``.
        init, like: as for `Subject.locate`.
        rows: names of the rows to run; all if none is given.
        skip: names of rows to leave out.
        levels: "must" (values, gradients, shapes), "bits" (equality to the bit) and "validation" (arguments
            that must be refused).

    Raises:
        TargetError, ValueError: the readout cannot be made, or there are no such rows.
    """
    __tracebackhide__ = True
    chosen = select(rows, skip, levels)
    name = target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"
    found = check_conformance(Subject.locate(name, init, like), chosen)
    if not found.passed:
        raise AssertionError(str(found))


def check_conformance(
    subject: Subject, rows: Sequence[Row] = ROWS, tell: Callable[[Result], None] = lambda result: None
) -> Conformance:
    """Run the value contract of this library on a readout.

    Example:
        >>> subject = Subject.locate("torch_geometric.nn.aggr:MaxAggregation")
        >>> check_conformance(subject, select(["single extreme"])).passed  # its gradient at 0 is halved
        False

    Snippets that could read or write out of bounds run in another process.

    Args:
        subject: the readout; see `Subject.locate`.
        rows: the rows to run.
        tell: is called with the result of each row as soon as it is known.
    """
    return next(check_each([subject], rows, tell))


def check_each(
    subjects: Sequence[Subject],
    rows: Sequence[Row] = ROWS,
    tell: Callable[[Result], None] = lambda result: None,
) -> Iterator[Conformance]:
    """Run the contract on several readouts, which share the process for isolated snippets."""
    cases = {
        (subject, row): [] if row.without(subject) else list(row.cases(subject))
        for subject in subjects
        for row in rows
    }
    snippets = {key: [_snippet(key[0], case) for case in some] for key, some in cases.items()}
    listener().stage("rows of calls that must raise, in another process", None)
    isolated = [key for key, some in cases.items() if some and some[0].isolated]
    outcomes = dict(zip(isolated, run_isolated([snippets[key] for key in isolated]), strict=True))
    for position, subject in enumerate(subjects):
        results = []
        for place, row in enumerate(rows):
            done = (position + place / len(rows)) / len(subjects)
            listener().stage(f"{subject.name}: {row.name}", done)
            came = outcomes.get((subject, row)) or map(run, snippets[subject, row])
            results.append(_result(subject, row, zip(cases[subject, row], came, strict=False)))
            tell(results[-1])
        yield Conformance(subject.name, subject.kinds, tuple(results))


def _result(subject: Subject, row: Row, cases: Iterable[tuple[Case, Outcome]]) -> Result:
    """Judge the cases of a row, up to the first that fails."""
    named = row.name, row.contract
    if row.without(subject):
        return Result(*named, WITHOUT, row.without(subject), level=row.level)
    for case, outcome in cases:
        if not case.expected.holds(outcome):
            setup, given, shows = _snippet(subject, case)
            example = f"{setup}\n{given}\nprint({shows})"
            return Result(
                row.name, row.contract, FAILED, "", case.expected.text, str(outcome), example, row.level
            )
    return Result(row.name, row.contract, PASSED, level=row.level)


def _snippet(subject: Subject, case: Case) -> Snippet:
    return subject.setup, case.given, case.shows
