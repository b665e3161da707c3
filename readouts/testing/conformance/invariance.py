"""Rows on invariance: to the order of the nodes, and to the other graphs of the batch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from readouts.testing.conformance.row import agree, gradient, random, row
from readouts.testing.conformance.snippets import Case, close, equal
from readouts.testing.conformance.target import Subject

BITS = equal(0.0)
VALUES = close(0.0, 1e-6)
GRAPHS = 5
NODES = 60


def _shuffled(subject: Subject, wide: bool) -> Iterator[Case]:
    """Shuffle the nodes within their graphs, on random features and on ties."""
    for seed in range(3):
        for x in _features(subject, wide):
            before, after = subject.call(size=GRAPHS), subject.call("x[order]", size=GRAPHS)
            yield agree(_given(subject, seed, x, wide), before, after, VALUES if wide else BITS)


def _gradients(subject: Subject, wide: bool) -> Iterator[Case]:
    for seed in range(3):
        for x in _features(subject, wide):
            given = f"{_given(subject, seed, x, wide)}; x.requires_grad_()"
            before = gradient(f"{subject.call(size=GRAPHS)}.square()")
            after = gradient(f"{subject.call('x[order]', size=GRAPHS)}.square()")
            yield agree(given, before, after, VALUES if wide else BITS)


def _given(subject: Subject, seed: int, x: str, wide: bool) -> str:
    double = subject.double() if wide else ""
    batch = f"batch = torch.randint({GRAPHS}, ({NODES},)).sort().values"
    order = f"order = torch.randperm({NODES}); order = order[batch[order].argsort()]"
    return f"{double}torch.manual_seed({seed}); x = {x}; {batch}; {order}"


def _features(subject: Subject, wide: bool) -> tuple[str, str]:
    shape, dtype = f"{NODES}, {subject.features}", ", dtype=torch.float64" if wide else ""
    return f"torch.randn({shape}{dtype})", f"torch.randint(3, ({shape})).{'double' if wide else 'float'}()"


def _company(subject: Subject, wide: bool) -> Iterator[Case]:
    """Run a graph alone, and before and after another: a larger one, one of large values, a single node."""
    dtype = "torch.float64" if wide else ""
    double = subject.double() if wide else ""
    for others, larger in ((7, ""), (7, "x[3:] *= 1000; "), (1, "")):
        x = random(3 + others, subject.features, dtype=dtype)
        alone = f"{subject.call('x[:3]', 'torch.tensor([0, 0, 0])', size=1)}[0]"
        for graph in (0, 1):
            batch = f"batch = torch.tensor({[graph] * 3 + [1 - graph] * others})"
            order = [*range(3, 3 + others), 0, 1, 2]
            nodes = (f"x[{order}]", f"batch[{order}]") if graph else ("x", "batch")
            given = f"{double}{x}; {larger}{batch}"
            yield agree(given, alone, f"{subject.call(*nodes, size=2)}[{graph}]", VALUES if wide else BITS)


ORDER = row(
    "order of the nodes", "The output does not change when the nodes are shuffled (float64, up to rounding)."
)(partial(_shuffled, wide=True))
ORDER_BITS = row(
    "order, to the bit", "The output has the same bits when the nodes are shuffled.", level="bits"
)(partial(_shuffled, wide=False))
GRADIENT = row(
    "gradient and order",
    "The gradient is permuted like the nodes when they are shuffled (float64, up to rounding).",
)(partial(_gradients, wide=True))
GRADIENT_BITS = row(
    "gradient and order, to the bit",
    "The gradient is permuted like the nodes, with the same bits.",
    level="bits",
)(partial(_gradients, wide=False))
OTHERS = row(
    "other graphs",
    "A graph's output does not depend on the other graphs of its batch (float64, up to rounding).",
)(partial(_company, wide=True))
OTHERS_BITS = row(
    "other graphs, to the bit",
    "A graph's output has the same bits alone and beside other graphs.",
    level="bits",
)(partial(_company, wide=False))
