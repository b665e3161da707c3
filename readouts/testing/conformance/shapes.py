"""Rows on shapes and on what tells the graphs apart: sizes of zero, dimensions, strides, indices, borders."""

from __future__ import annotations

from collections.abc import Iterator

from readouts.testing.conformance.programs import RAISES, Case, close, equal
from readouts.testing.conformance.row import Row, biggest, random, treats_features_apart
from readouts.testing.conformance.subject import Subject

SAME = close(0.0, 1e-5)  # up to rounding: bits are the business of other rows


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


def _no_nodes(subject: Subject) -> Iterator[Case]:
    given = f"x, batch = torch.zeros(0, {subject.features}), torch.zeros(0).long()"
    yield Case(given, f"{subject.call(size=3)}.isfinite().all(dim=1).tolist()", equal([True] * 3))


def _no_graphs(subject: Subject) -> Iterator[Case]:
    given = f"x, batch = torch.zeros(0, {subject.features}), torch.zeros(0).long()"
    yield Case(given, f"len({subject.call(size=0)})", equal(0))


def _no_features(subject: Subject) -> Iterator[Case]:
    given = "x, batch = torch.zeros(4, 0), torch.tensor([0, 0, 1, 1])"
    yield Case(given, f"list({subject.call(size=2)}.shape)", equal([2, 0]))


def _one_dimension(subject: Subject) -> Iterator[Case]:
    given = f"{random(4, 1)}; batch = torch.tensor([0, 0, 1, 1])"
    flat = subject.call("x.flatten()", size=2, flat=False)
    yield Case(given, biggest(f"{flat}.flatten() - {subject.call(size=2)}.flatten()"), SAME)


def _more_dimensions(subject: Subject) -> Iterator[Case]:
    given = "torch.manual_seed(0); x = torch.randn(4, 2, 3); batch = torch.tensor([0, 0, 1, 1])"
    call = subject.call(size=2, flat=False)
    yield Case(given, biggest(f"{call}[:, 1] - {subject.call('x[:, 1]', size=2)}"), SAME)


def _strides(subject: Subject) -> Iterator[Case]:
    twice = f"{random(6, 2 * subject.features)}; batch = torch.tensor([0, 0, 1, 1, 1, 1])"
    for view in ("x[:, ::2]", f"x.t().contiguous().t()[:, :{subject.features}]"):
        views = f"{subject.call(view, size=2)} - {subject.call(f'{view}.contiguous()', size=2)}"
        yield Case(twice, biggest(views), SAME)


def _int32(subject: Subject) -> Iterator[Case]:
    given = f"{random(5, subject.features)}; batch = torch.tensor([0, 0, 1, 1, 1])"
    narrow = subject.call(batch="batch.int()", size=2)
    yield Case(given, biggest(f"{narrow} - {subject.call(size=2)}"), SAME)


def _any_order(subject: Subject) -> Iterator[Case]:
    x = f"{random(6, subject.features)}; batch = torch.tensor([0, 0, 0, 1, 1, 1])"
    given = f"{x}; order = torch.tensor([3, 0, 4, 1, 5, 2])"
    mixed = subject.call("x[order]", "batch[order]", size=2)
    yield Case(given, biggest(f"{mixed} - {subject.call(size=2)}"), SAME)


def _ptr(subject: Subject) -> Iterator[Case]:
    for dtype in ("", ", dtype=torch.int32"):
        given = (
            f"{random(5, subject.features)}; batch = torch.tensor([0, 0, 2, 2, 2]); "
            f"ptr = torch.tensor([0, 2, 2, 5]{dtype})"
        )
        difference = f"{subject.call(ptr='ptr')} - {subject.call(size=3)}"
        yield Case(given, biggest(difference), SAME)


def _no_batch(subject: Subject) -> Iterator[Case]:
    given = f"{random(5, subject.features)}; batch = torch.zeros(5).long()"
    yield Case(given, biggest(f"{subject.call(batch='None', size=1)} - {subject.call(size=1)}"), SAME)


def _no_size(subject: Subject) -> Iterator[Case]:
    given = f"{random(4, subject.features)}; batch = torch.tensor([0, 0, 2, 2])"
    yield Case(given, biggest(f"{subject.call()} - {subject.call(size=3)}"), SAME)


def _out_of_range(subject: Subject) -> Iterator[Case]:
    for batch in ("[0, 0, 2]", "[0, 0, 100000]"):
        given = f"x, batch = torch.ones(3, {subject.features}), torch.tensor({batch})"
        yield Case(given, f"{subject.call(size=2)}.tolist()", RAISES, isolated=True)


def _negative(subject: Subject) -> Iterator[Case]:
    for batch in ("[-1, 0, 1]", "[-100000, 0, 1]"):
        given = f"x, batch = torch.ones(3, {subject.features}), torch.tensor({batch})"
        yield Case(given, f"{subject.call(size=2)}.tolist()", RAISES, isolated=True)


def _another_length(subject: Subject) -> Iterator[Case]:
    for batch in ("[0, 1]", "[0, 0, 1, 1]", "[0]"):
        given = f"x, batch = torch.ones(3, {subject.features}), torch.tensor({batch})"
        yield Case(given, f"{subject.call(size=2)}.tolist()", RAISES, isolated=True)


def _bad_ptr(subject: Subject) -> Iterator[Case]:
    for ptr in ("[0, 3, 1, 4]", "[0, 2, 3]", "[0, 2, 100000]", "[-2, 2, 4]"):
        given = f"x, ptr = torch.ones(4, {subject.features}), torch.tensor({ptr})"
        yield Case(given, f"{subject.call(ptr='ptr')}.tolist()", RAISES, isolated=True)


ROWS = (
    Row("no nodes", "N = 0 works, all graphs are empty then.", _no_nodes, _has_size),
    Row("no graphs", "B = 0 works.", _no_graphs, _has_size),
    Row("no features", "F = 0 works.", _no_features, treats_features_apart),
    Row("one dimension", "x [N] gives what x [N, 1] gives.", _one_dimension, treats_features_apart),
    Row(
        "more dimensions",
        "x [N, 2, 3] gives what its slices give.",
        _more_dimensions,
        _takes_dimensions,
    ),
    Row("strides", "x that is not contiguous gives what its copy gives.", _strides),
    Row("int32 batch", "A batch of dtype int32 works.", _int32),
    Row("batch in any order", "The batch need not be sorted.", _any_order),
    Row("ptr", "Borders of sorted graphs work in the place of the batch, int64 and int32.", _ptr, _has_ptr),
    Row("no batch", "Without a batch all nodes are one graph.", _no_batch, _takes_none),
    Row("no size", "Without a size the batch tells the number of graphs.", _no_size, _takes_no_size),
    Row("index out of range", "A batch that names a missing graph raises.", _out_of_range, _has_size),
    Row("negative index", "A negative index raises.", _negative),
    Row("batch of another length", "A batch that is shorter or longer than x raises.", _another_length),
    Row(
        "ptr that is no partition",
        "Borders that decrease or do not span x raise.",
        _bad_ptr,
        _uses_ptr,
    ),
)
