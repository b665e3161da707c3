"""Rows on what a graph's result may not depend on: the order of its nodes, the graphs beside it."""

from __future__ import annotations

from collections.abc import Iterator

from readouts.testing.conformance.programs import Case, Expected, close, equal
from readouts.testing.conformance.row import Row, biggest, gradient, random
from readouts.testing.conformance.subject import Subject

BITS = equal(0.0)
VALUES = close(0.0, 1e-6)
GRAPHS = 5
NODES = 60


def _shuffled(subject: Subject, expected: Expected, wide: bool) -> Iterator[Case]:
    """Shuffle the nodes within their graphs, on random features and on ties."""
    for seed in range(3):
        for x in _features(subject, wide):
            shuffled = f"{subject.call(size=GRAPHS)} - {subject.call('x[order]', size=GRAPHS)}"
            yield Case(_given(subject, seed, x, wide), biggest(shuffled), expected)


def _gradients(subject: Subject, expected: Expected, wide: bool) -> Iterator[Case]:
    for seed in range(3):
        for x in _features(subject, wide):
            given = f"{_given(subject, seed, x, wide)}; x.requires_grad_()"
            before = gradient(f"{subject.call(size=GRAPHS)}.square()")
            after = gradient(f"{subject.call('x[order]', size=GRAPHS)}.square()")
            yield Case(given, biggest(f"{before} - {after}"), expected)


def _given(subject: Subject, seed: int, x: str, wide: bool) -> str:
    double = subject.double() if wide else ""
    batch = f"batch = torch.randint({GRAPHS}, ({NODES},)).sort().values"
    order = f"order = torch.randperm({NODES}); order = order[batch[order].argsort()]"
    return f"{double}torch.manual_seed({seed}); x = {x}; {batch}; {order}"


def _features(subject: Subject, wide: bool) -> tuple[str, str]:
    shape, dtype = f"{NODES}, {subject.features}", ", dtype=torch.float64" if wide else ""
    return f"torch.randn({shape}{dtype})", f"torch.randint(3, ({shape})).{'double' if wide else 'float'}()"


def _company(subject: Subject, expected: Expected, wide: bool) -> Iterator[Case]:
    """Run the first graph alone, then beside a larger one, one of large values, and one of few nodes."""
    dtype = "torch.float64" if wide else ""
    double = subject.double() if wide else ""
    for others, larger in ((7, ""), (7, "x[3:] *= 1000; "), (1, "")):
        x = random(3 + others, subject.features, dtype=dtype)
        given = f"{double}{x}; {larger}batch = torch.tensor({[0] * 3 + [1] * others})"
        alone = subject.call("x[:3]", "batch[:3]", size=1)
        yield Case(given, biggest(f"{alone}[0] - {subject.call(size=2)}[0]"), expected)


ROWS = (
    Row(
        "order of the nodes",
        "The output does not change when the nodes are shuffled (float64, up to rounding).",
        lambda subject: _shuffled(subject, VALUES, wide=True),
    ),
    Row(
        "order, to the bit",
        "The output has the same bits when the nodes are shuffled.",
        lambda subject: _shuffled(subject, BITS, wide=False),
    ),
    Row(
        "gradient and order",
        "The gradient moves with the nodes when they are shuffled (float64, up to rounding).",
        lambda subject: _gradients(subject, VALUES, wide=True),
    ),
    Row(
        "gradient and order, to the bit",
        "The gradient moves with the nodes, with the same bits.",
        lambda subject: _gradients(subject, BITS, wide=False),
    ),
    Row(
        "other graphs",
        "A graph's output does not depend on the other graphs of its batch (float64, up to rounding).",
        lambda subject: _company(subject, VALUES, wide=True),
    ),
    Row(
        "other graphs, to the bit",
        "A graph's output has the same bits alone and in company.",
        lambda subject: _company(subject, BITS, wide=False),
    ),
)
