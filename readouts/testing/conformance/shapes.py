"""Rows on shapes, strides, and the arguments that assign nodes to graphs: batch, ptr and size."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from readouts.testing.conformance.row import agree, gradient, random, row, treats_features_apart
from readouts.testing.conformance.snippets import RAISES, Case, equal
from readouts.testing.conformance.target import Subject


def _has_size(subject: Subject) -> str:
    return "" if subject.size else "has no parameter for the number of graphs"


def _has_ptr(subject: Subject) -> str:
    return "" if subject.ptr else "cannot be called with ptr alone"


def _uses_ptr(subject: Subject) -> str:
    return "" if subject.uses_ptr else "does not take ptr"


def _takes_no_size(subject: Subject) -> str:
    return _has_size(subject) or ("" if subject.sizeless else f"needs {subject.size}")


def _takes_none(subject: Subject) -> str:
    return "" if subject.optional else "needs a batch"


def _takes_dimensions(subject: Subject) -> str:
    if subject.dim:
        return treats_features_apart(subject)
    return "has no parameter for the dimension of the nodes"


@row("no nodes", "N = 0 works; all graphs are then empty.", _has_size)
def _no_nodes(subject: Subject) -> Iterator[Case]:
    given = f"x, batch = torch.zeros(0, {subject.features}), torch.zeros(0).long()"
    yield Case(given, f"{subject.call(size=3)}.isfinite().all(dim=1).tolist()", equal([True] * 3))


@row("no graphs", "B = 0 works.", _has_size)
def _no_graphs(subject: Subject) -> Iterator[Case]:
    given = f"x, batch = torch.zeros(0, {subject.features}), torch.zeros(0).long()"
    yield Case(given, f"len({subject.call(size=0)})", equal(0))


@row("no features", "F = 0 works.", treats_features_apart)
def _no_features(subject: Subject) -> Iterator[Case]:
    given = "x, batch = torch.zeros(4, 0), torch.tensor([0, 0, 1, 1])"
    yield Case(given, f"list({subject.call(size=2)}.shape)", equal([2, 0]))


@row("one dimension", "x [N] has the values of x [N, 1].", treats_features_apart)
def _one_dimension(subject: Subject) -> Iterator[Case]:
    given = f"{random(4, 1)}; batch = torch.tensor([0, 0, 1, 1])"
    flat = subject.call("x.flatten()", size=2, flat=False)
    yield agree(given, f"{flat}.flatten()", f"{subject.call(size=2)}.flatten()")


@row("more dimensions", "x [N, 2, 3] has the values of its slices.", _takes_dimensions)
def _more_dimensions(subject: Subject) -> Iterator[Case]:
    given = "torch.manual_seed(0); x = torch.randn(4, 2, 3); batch = torch.tensor([0, 0, 1, 1])"
    call = subject.call(size=2, flat=False)
    yield agree(given, f"{call}[:, 1]", subject.call("x[:, 1]", size=2))


@row("strides", "A non-contiguous x has the values of its contiguous copy.")
def _strides(subject: Subject) -> Iterator[Case]:
    twice = f"{random(6, 2 * subject.features)}; batch = torch.tensor([0, 0, 1, 1, 1, 1])"
    for view in ("x[:, ::2]", f"x.t().contiguous().t()[:, :{subject.features}]"):
        yield agree(twice, subject.call(view, size=2), subject.call(f"{view}.contiguous()", size=2))


@row("int32 batch", "A batch of dtype int32 gives the same values and gradients.")
def _int32(subject: Subject) -> Iterator[Case]:
    width = 4 if subject.apart else subject.features  # PyG's gradients are right for one feature
    given = f"{random(5, width)}; batch = torch.tensor([0, 0, 1, 1, 1])"
    narrow, wide = subject.call(batch="batch.int()", size=2), subject.call(size=2)
    yield agree(given, narrow, wide)
    first, second = (gradient(f"{call}.square()") for call in (narrow, wide))
    yield agree(f"{given}; x.requires_grad_()", first, second)


@row("batch in any order", "The batch need not be sorted.")
def _any_order(subject: Subject) -> Iterator[Case]:
    x = f"{random(6, subject.features)}; batch = torch.tensor([0, 0, 0, 1, 1, 1])"
    given = f"{x}; order = torch.tensor([3, 0, 4, 1, 5, 2])"
    yield agree(given, subject.call("x[order]", "batch[order]", size=2), subject.call(size=2))


@row("ptr", "Offsets of sorted graphs work instead of the batch, int64 and int32.", _has_ptr)
def _ptr(subject: Subject) -> Iterator[Case]:
    given = f"{random(5, subject.features)}; batch = torch.tensor([0, 0, 2, 2, 2])"
    for dtype in ("", ", dtype=torch.int32"):
        ptr = f"ptr = torch.tensor([0, 2, 2, 5]{dtype})"
        yield agree(f"{given}; {ptr}", subject.call(ptr="ptr"), subject.call(size=3))


@row("no batch", "Without a batch all nodes are one graph.", _takes_none)
def _no_batch(subject: Subject) -> Iterator[Case]:
    given = f"{random(5, subject.features)}; batch = torch.zeros(5).long()"
    yield agree(given, subject.call(batch="None", size=1), subject.call(size=1))


@row("no size", "Without a size, the number of graphs is taken from the batch.", _takes_no_size)
def _no_size(subject: Subject) -> Iterator[Case]:
    given = f"{random(4, subject.features)}; batch = torch.tensor([0, 0, 2, 2])"
    yield agree(given, subject.call(), subject.call(size=3))


def _raises(subject: Subject, batches: tuple[str, ...]) -> Iterator[Case]:
    for batch in batches:
        given = f"x, batch = torch.ones(3, {subject.features}), torch.tensor({batch})"
        yield Case(given, f"{subject.call(size=2)}.tolist()", RAISES, isolated=True)


BEYOND = row("index out of range", "An index beyond the last graph raises.", _has_size, level="validation")(
    partial(_raises, batches=("[0, 0, 2]", "[0, 0, 100000]"))
)
NEGATIVE = row("negative index", "A negative index raises.", level="validation")(
    partial(_raises, batches=("[-1, 0, 1]", "[-100000, 0, 1]"))
)
LENGTH = row(
    "batch of another length", "A batch that is shorter or longer than x raises.", level="validation"
)(partial(_raises, batches=("[0, 1]", "[0, 0, 1, 1]", "[0]")))


@row(
    "ptr that is no partition", "Offsets that decrease or do not span x raise.", _uses_ptr, level="validation"
)
def _bad_ptr(subject: Subject) -> Iterator[Case]:
    for ptr in ("[0, 3, 1, 4]", "[0, 2, 3]", "[0, 2, 100000]", "[-2, 2, 4]"):
        given = f"x, ptr = torch.ones(4, {subject.features}), torch.tensor({ptr})"
        yield Case(given, f"{subject.call(ptr='ptr')}.tolist()", RAISES, isolated=True)
