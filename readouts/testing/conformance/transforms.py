"""Rows on what PyTorch does to a readout: compile, export, map, cast, copy, save."""

from __future__ import annotations

from collections.abc import Iterator

from readouts.testing.conformance.programs import Case, close, equal
from readouts.testing.conformance.row import Row, biggest, gradient, random
from readouts.testing.conformance.subject import Subject

SAME = close(0.0, 1e-5)


def _given(subject: Subject, imports: str = "") -> str:
    return f"{imports}{random(5, subject.features)}; batch = torch.tensor([0, 0, 1, 1, 1])"


def _compile(subject: Subject) -> Iterator[Case]:
    function = f"function = lambda x: {subject.call(size=2)}"
    compiled = 'compiled = torch.compile(function, fullgraph=True, backend="aot_eager")'
    given = f"{_given(subject)}; x.requires_grad_(); {function}; {compiled}"
    yield Case(given, biggest("compiled(x) - function(x)"), SAME)
    slopes = f"{gradient('compiled(x)')} - {gradient('function(x)')}"
    yield Case(given, biggest(slopes), SAME)


def _export(subject: Subject) -> Iterator[Case]:
    forward = f"lambda self, x, batch: {subject.call(size=2)}"
    model = f'model = type("Model", (torch.nn.Module,), dict(forward={forward}))()'
    exported = "torch.export.export(model, (x, batch)).module()(x, batch)"
    yield Case(f"{_given(subject)}; {model}", biggest(f"{exported} - model(x, batch)"), SAME)


def _vmap(subject: Subject) -> Iterator[Case]:
    given = f"{_given(subject)}; xs = torch.stack([x, 2 * x])"
    mapped = f"torch.func.vmap(lambda x: {subject.call(size=2)})(xs)[1]"
    yield Case(given, biggest(f"{mapped} - {subject.call('xs[1]', size=2)}"), SAME)


def _autocast(subject: Subject) -> Iterator[Case]:
    cast = f'torch.autocast("cpu", dtype=torch.bfloat16)(lambda x: {subject.call(size=2)})(x)'
    if subject.learned:
        yield Case(_given(subject), f"{cast}.isfinite().all().item()", equal(True))
    else:
        yield Case(_given(subject), f"torch.equal({cast}, {subject.call(size=2)})", equal(True))


def _copies(subject: Subject) -> Iterator[Case]:
    first = subject.call(size=2)
    for imports, copied in (
        ("import copy; ", "copy.deepcopy(readout)"),
        ("import pickle; ", "pickle.loads(pickle.dumps(readout))"),
    ):
        given = f"{_given(subject, imports)}; copied = {copied}"
        yield Case(given, f"torch.equal({first.replace('readout(', 'copied(')}, {first})", equal(True))


def _state_dict(subject: Subject) -> Iterator[Case]:
    first = subject.call(size=2)
    given = (
        f"{_given(subject, 'import copy; ')}; other = copy.deepcopy(readout); "
        "[p.data.add_(1) for p in other.parameters()]; other.load_state_dict(readout.state_dict())"
    )
    yield Case(given, f"torch.equal({first.replace('readout(', 'other(')}, {first})", equal(True))


def _is_module(subject: Subject) -> str:
    return "" if subject.module else "is a function"


ROWS = (
    Row("torch.compile", "torch.compile(fullgraph=True) works, also backward.", _compile),
    Row("torch.export", "torch.export works.", _export),
    Row("torch.func.vmap", "torch.func.vmap maps over several x.", _vmap),
    Row(
        "autocast",
        "Under autocast the output is that without it; where matrices are multiplied, it is finite.",
        _autocast,
    ),
    Row("copies", "deepcopy and pickle keep the output.", _copies, _is_module),
    Row("state_dict", "The parameters survive state_dict and load_state_dict.", _state_dict, _is_module),
)
