"""Rows on transforms of PyTorch: compile, export, vmap, autocast, copies and state_dict."""

from __future__ import annotations

from collections.abc import Iterator

from readouts.testing.conformance.row import agree, gradient, random, row
from readouts.testing.conformance.snippets import Case, equal
from readouts.testing.conformance.target import Subject


def _is_module(subject: Subject) -> str:
    return "" if subject.module else "is a function"


def _given(subject: Subject, imports: str = "") -> str:
    return f"{imports}{random(5, subject.features)}; batch = torch.tensor([0, 0, 1, 1, 1])"


@row("torch.compile", "torch.compile(fullgraph=True) works, also backward.")
def _compile(subject: Subject) -> Iterator[Case]:
    function = f"function = lambda x: {subject.call(size=2)}"
    compiled = 'compiled = torch.compile(function, fullgraph=True, backend="aot_eager")'
    given = f"{_given(subject)}; x.requires_grad_(); {function}; {compiled}"
    yield agree(given, "compiled(x)", "function(x)")
    yield agree(given, gradient("compiled(x)"), gradient("function(x)"))


@row("torch.export", "torch.export works.")
def _export(subject: Subject) -> Iterator[Case]:
    forward = f"lambda self, x, batch: {subject.call(size=2)}"
    model = f'model = type("Model", (torch.nn.Module,), dict(forward={forward}))()'
    exported = "torch.export.export(model, (x, batch)).module()(x, batch)"
    yield agree(f"{_given(subject)}; {model}", exported, "model(x, batch)")


@row("torch.func.vmap", "torch.func.vmap maps over several x.")
def _vmap(subject: Subject) -> Iterator[Case]:
    given = f"{_given(subject)}; xs = torch.stack([x, 2 * x])"
    mapped = f"torch.func.vmap(lambda x: {subject.call(size=2)})(xs)[1]"
    yield agree(given, mapped, subject.call("xs[1]", size=2))


@row("autocast", "The output is the same under autocast; where matrices are multiplied, it is finite.")
def _autocast(subject: Subject) -> Iterator[Case]:
    cast = f'torch.autocast("cpu", dtype=torch.bfloat16)(lambda x: {subject.call(size=2)})(x)'
    same = f"torch.equal({cast}, {subject.call(size=2)})"
    yield Case(_given(subject), f"{cast}.isfinite().all().item()" if subject.learned else same, equal(True))


@row("copies", "deepcopy and pickle keep the output.", _is_module)
def _copies(subject: Subject) -> Iterator[Case]:
    first = subject.call(size=2)
    for imports, copied in (
        ("import copy; ", "copy.deepcopy(readout)"),
        ("import pickle; ", "pickle.loads(pickle.dumps(readout))"),
    ):
        given = f"{_given(subject, imports)}; copied = {copied}"
        yield Case(given, f"torch.equal({first.replace('readout(', 'copied(')}, {first})", equal(True))


@row("state_dict", "state_dict and load_state_dict keep the parameters.", _is_module)
def _state_dict(subject: Subject) -> Iterator[Case]:
    first = subject.call(size=2)
    given = (
        f"{_given(subject, 'import copy; ')}; other = copy.deepcopy(readout); "
        "[p.data.add_(1) for p in other.parameters()]; other.load_state_dict(readout.state_dict())"
    )
    yield Case(given, f"torch.equal({first.replace('readout(', 'other(')}, {first})", equal(True))
