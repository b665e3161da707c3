"""Rows on derivatives: ties, single extremes, medians, std at zero, first and second order."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from readouts.testing.conformance.row import behaves_like, column, gradient, one_graph, random, row
from readouts.testing.conformance.snippets import Case, equal
from readouts.testing.conformance.target import Subject


def _gradient(part: Subject, values: list[float], expected: list[float]) -> Case:
    given = f"x, batch = {column(values)}.requires_grad_(), {one_graph(len(values))}"
    return Case(given, f"{gradient(part.call(size=1))}.flatten().tolist()", equal(expected))


def _extremes(subject: Subject, values: list[float], expected: list[float]) -> Iterator[Case]:
    for kind, part in subject.blocks("max", "min"):
        sign = 1.0 if kind == "max" else -1.0
        yield _gradient(part, [sign * entry for entry in values], expected)


@row(
    "ties share the gradient",
    "Nodes that are tied for the maximum or minimum get equal shares of the gradient.",
    behaves_like("max", "min"),
)
def _ties(subject: Subject) -> Iterator[Case]:
    for value in (3.0, 0.0):
        yield from _extremes(subject, [value, value, value - 2, value - 1], [0.5, 0.5, 0.0, 0.0])
        yield from _extremes(subject, [value] * 4, [0.25] * 4)


@row(
    "single extreme",
    "A single node with the extreme value gets the whole gradient, also if the value is 0.",
    behaves_like("max", "min"),
)
def _single_extreme(subject: Subject) -> Iterator[Case]:
    yield from _extremes(subject, [0.0, -1.0, -2.0], [1.0, 0.0, 0.0])
    yield from _extremes(subject, [1.0, 3.0, 2.0], [0.0, 1.0, 0.0])


@row(
    "median gradient",
    "Nodes that are tied at the median get equal shares of the gradient.",
    behaves_like("median"),
)
def _median(subject: Subject) -> Iterator[Case]:
    for _, part in subject.blocks("median"):
        yield _gradient(part, [1.0, 5.0, 2.0], [0.0, 0.0, 1.0])
        yield _gradient(part, [0.0, 5.0, 5.0], [0.0, 0.5, 0.5])
        yield _gradient(part, [5.0, 5.0, 5.0, 5.0, 7.0], [0.25, 0.25, 0.25, 0.25, 0.0])


@row("std gradient at 0", "The gradient of std is 0 where std is 0.", behaves_like("std"))
def _std_at_zero(subject: Subject) -> Iterator[Case]:
    for _, part in subject.blocks("std"):
        yield _gradient(part, [2.0, 2.0], [0.0, 0.0])
        yield _gradient(part, [0.0], [0.0])


def _checked(subject: Subject, check: str) -> Iterator[Case]:
    x = random(5, subject.features, dtype="torch.float64")
    given = f"{subject.double()}{x}; batch = torch.tensor([0, 0, 0, 2, 2])"
    call = f"torch.autograd.{check}(lambda x: {subject.call(size=3)}, x.requires_grad_())"
    yield Case(given, call, equal(True))


FIRST = row("first derivative", "gradcheck passes in float64.")(partial(_checked, check="gradcheck"))
SECOND = row("second derivative", "gradgradcheck passes in float64.")(
    partial(_checked, check="gradgradcheck")
)
