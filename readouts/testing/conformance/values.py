"""Rows on values: empty graphs, NaN, infinities, medians, variances, integers, narrow floats, rounding."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from readouts.testing.conformance.probe import value
from readouts.testing.conformance.row import agree, behaves_like, column, numbers, one_graph, random, row
from readouts.testing.conformance.snippets import Case, close, equal
from readouts.testing.conformance.target import Subject

NAN, INF = float("nan"), float("inf")
CLOSE = [1000.001, 1000.002, 1000.003, 1000.0]
CANCELLING = ([1e8, 1.0, -1e8], [2.0**24, 1.0, 1.0], [3e38, 3e38, -3e38], [1e-45, 1.0, -1.0])
MEDIANS = "x.view(1000, 3).median(dim=1, keepdim=True).values"


def _one(part: Subject, kind: str, values: list[float], dtype: torch.dtype = torch.float32) -> Case:
    """Return a case of one graph with one feature, whose value must be exactly that of the contract."""
    given = f"x, batch = {column(values, dtype)}, {one_graph(len(values))}"
    exact = numbers(torch.tensor(values, dtype=dtype))
    return Case(given, f"{part.call(size=1)}.tolist()", equal([[value(kind, exact, dtype)]]))


def _near(part: Subject, kind: str, values: list[float], tolerance: float) -> Case:
    """Return a case as `_one`, whose value must be near that of the contract."""
    given = f"x, batch = {column(values)}, {one_graph(len(values))}"
    exact = value(kind, numbers(torch.tensor(values)))
    return Case(given, f"{part.call(size=1)}.item()", close(exact, tolerance))


@row(
    "empty graph",
    "A graph without nodes, in the middle or after the others, is 0; "
    "for readouts of unknown kind, a constant that does not depend on the data.",
)
def _empty(subject: Subject) -> Iterator[Case]:
    if subject.known:
        zeros = [[0.0] * len(subject.kinds)]
        given = f"x, batch = {column([-1.0, -2.0, -4.0])}, torch.tensor([0, 0, 2])"
        yield Case(given, f"{subject.call(size=3)}[1:2].tolist()", equal(zeros))
        if subject.size:
            yield Case(given, f"{subject.call(size=4)}[3:].tolist()", equal(zeros))
        return
    given = f"{random(3, subject.features)}; batch = torch.tensor([0, 0, 2])"
    middle = f"{subject.call(size=3)}[1]"
    yield agree(given, middle, f"{subject.call('2 * x', size=3)}[1]")
    if subject.size:
        yield agree(given, f"{subject.call(size=4)}[3]", middle)


@row("NaN", "NaN stays in its graph and feature.")
def _nan(subject: Subject) -> Iterator[Case]:
    width = 2 if subject.apart else subject.features
    clean = f"{random(6, width)}; batch = torch.tensor([0, 0, 1, 1, 2, 2])"
    given = f"{clean}; y = x.clone(); y[3, 0] = torch.nan"
    yield agree(given, f"{subject.call('y', size=3)}[[0, 2]]", f"{subject.call(size=3)}[[0, 2]]")
    if subject.apart:
        share = f"{subject.call('y', size=3)}[1].isnan().float().view(-1, 2).mean(dim=0).tolist()"
        yield Case(given, share, equal([1.0, 0.0]))


@row(
    "infinities",
    "Infinities follow IEEE 754: inf - inf is NaN, the maximum of -inf is -inf.",
    behaves_like("sum", "mean", "max", "min", "median", "var", "std"),
)
def _infinities(subject: Subject) -> Iterator[Case]:
    for kind, part in subject.blocks("sum", "mean", "max", "min", "median", "var", "std"):
        given = f"x, batch = {column([INF, 2.0])}, torch.tensor([0, 1])"
        others = [[value(kind, [INF])], [value(kind, [2.0])]]
        yield Case(given, f"{part.call(size=2)}.tolist()", equal(others))
        for values in ([-INF, -INF], [INF, INF], [INF, 1.0], [INF, -INF], [INF, INF, 1.0]):
            by_index = _one(part, kind, values)
            yield by_index
            if part.uses_ptr:
                given = f"x, ptr = {column(values)}, torch.tensor([0, {len(values)}])"
                yield Case(given, f"{part.call(ptr='ptr')}.tolist()", by_index.expected)


@row("signed zeros", "A sum that is zero is +0; -0 is below +0.", behaves_like("sum", "mean", "max", "min"))
def _signed_zeros(subject: Subject) -> Iterator[Case]:
    for kind, part in subject.blocks("sum", "mean", "max", "min"):
        for values in ([-0.0, -0.0], [0.0, -0.0], [-0.0, 0.0]):
            negative = str(value(kind, values)).startswith("-")
            given = f"x, batch = {column(values)}, {one_graph(2)}"
            yield Case(given, f"{part.call(size=1)}.signbit().tolist()", equal([[negative]]))


@row(
    "median",
    "The median of an even number of nodes is the midpoint of the two middle values.",
    behaves_like("median"),
)
def _median(subject: Subject) -> Iterator[Case]:
    for kind, part in subject.blocks("median"):
        for values in ([1.0, 2.0, 4.0, 8.0], [3.0, 1.0], [5.0, 1.0, 2.0], [7.0]):
            yield _one(part, kind, values)


@row(
    "median in bfloat16",
    "The median of each of 1000 graphs of 3 nodes is its middle value.",
    behaves_like("median"),
)
def _median_of_many(subject: Subject) -> Iterator[Case]:
    for _, part in subject.blocks("median"):
        narrow = "readout = readout.bfloat16(); " if part.module else ""
        given = f"{narrow}{random(3000, 1)}.bfloat16(); batch = torch.arange(1000).repeat_interleave(3)"
        wrong = f"({part.call(size=1000)} != {MEDIANS}).sum().item()"
        yield Case(given, wrong, equal(0))


@row(
    "variance of close values",
    "var and std are computed from deviations from the mean, so that close values keep their variance.",
    behaves_like("var", "std"),
)
def _close_values(subject: Subject) -> Iterator[Case]:
    for kind, part in subject.blocks("var", "std"):
        for values in (CLOSE, [0.0, 0.004], [1e5, 1e5 + 1.0]):
            yield _near(part, kind, values, 1e-3)


@row(
    "population variance", "var and std divide by the number of nodes (ddof = 0).", behaves_like("var", "std")
)
def _population(subject: Subject) -> Iterator[Case]:
    for kind, part in subject.blocks("var", "std"):
        for values in ([0.0, 2.0], [1.0, 2.0, 3.0, 6.0], [5.0]):
            yield _near(part, kind, values, 1e-5)


@row(
    "integers",
    "Integer sums and extremes are exact beyond 2^53; means and variances of integers are floats.",
    behaves_like("sum", "mean", "max", "min", "var", "std"),
)
def _integers(subject: Subject) -> Iterator[Case]:
    big = 2**53
    exact = {"sum": 2 * big + 1, "max": big + 1, "min": big}
    for kind, part in subject.blocks(*exact):
        if len(subject.kinds) == 1:  # several readouts at once have one dtype
            given = f"x, batch = torch.tensor([[{big}], [{big + 1}]]), {one_graph(2)}"
            yield Case(given, f"{part.call(size=1)}.tolist()", equal([[exact[kind]]]))
    for kind, part in subject.blocks("mean", "var", "std"):
        given = f"x, batch = torch.tensor([[1], [2]]), {one_graph(2)}"
        yield Case(given, f"{part.call(size=1)}.tolist()", equal([[value(kind, [1.0, 2.0])]]))


@row(
    "narrow floats",
    "float16 and bfloat16 are accumulated in a wider dtype, without overflow, and rounded once.",
    behaves_like("sum", "mean", "std", "median"),
)
def _narrow(subject: Subject) -> Iterator[Case]:
    half, brain = torch.float16, torch.bfloat16
    for kind, part in subject.blocks("sum", "mean"):
        yield _one(part, kind, [60000.0, 60000.0, -60000.0], half)
        for dtype in (half, brain):
            given = f"x, batch = torch.full((4000, 1), 0.1, dtype={dtype}), torch.zeros(4000).long()"
            exact = value(kind, [torch.tensor(0.1, dtype=dtype).item()] * 4000, dtype)
            yield Case(given, f"{part.call(size=1)}.tolist()", equal([[exact]]))
    for kind, part in subject.blocks("std"):
        yield _one(part, kind, [300.0, -300.0], half)
    for kind, part in subject.blocks("median"):
        yield _one(part, kind, [60000.0, 60000.0], half)


@row(
    "correctly rounded",
    "sum and mean are the floats nearest to the true values.",
    behaves_like("sum", "mean"),
)
def _rounded(subject: Subject) -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)
    for kind, part in subject.blocks("sum", "mean"):
        for values in CANCELLING:
            yield _one(part, kind, values)
        yield _one(part, kind, [1e16, 1.0, -1e16], torch.float64)
        for scale in (1.0, 8.0, 40.0):
            powers = scale * torch.randn(8, 7, generator=generator).clamp(-2, 2)
            signs = torch.randn(8, 7, generator=generator).sign()
            for entries in signs * torch.exp2(powers):
                yield _one(part, kind, numbers(entries))
