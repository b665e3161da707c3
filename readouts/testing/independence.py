"""Check that a graph gets the same result in every batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from readouts.testing.counterexample import Company, company, lines, shrink
from readouts.testing.engine import Examination, Question, Trial, examine, outputs
from readouts.testing.inputs import Graphs, fuse, join, only, read, take
from readouts.testing.isolation import Model, modes, run, untouched
from readouts.testing.locate import raising
from readouts.testing.outputs import moving
from readouts.testing.progress import listener
from readouts.testing.report import Report, name_of
from readouts.testing.verdict import Judgement, Verdict

CHECK = "batch independence"
COPIES = 8
FACTOR = 1000.0
COMMON = ("in its batch", "in its batch in reverse order")


def check_batch_independence(model: Model, *inputs: Any, **named: Any) -> Report:
    """Compare the outputs of a model for a graph alone and in several batches.

    Example:
        >>> from readouts import readout
        >>> x, batch = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1])
        >>> print(check_batch_independence(readout, x, batch=batch).verdict)
        identical bits

    Every graph is run alone, in the batch as it is, and with its graphs in reverse order. The first, the
    smallest and the largest graph are also run beside one graph made from them (a copy, a single node, eight
    copies with features a thousand times larger, an empty graph, a copy with NaN features) and, with all
    features positive and with all of them negative, beside larger graphs. Outputs with a row per graph, node
    or edge must agree in the rows of the graph. The notes name the batches on which the model raises.

    Args:
        model: any callable; it is copied, and neither it nor the inputs are changed.
        inputs: ``Data``, ``Batch``, a list of ``Data``, or tensors x, ``edge_index`` and ``batch``, as far as
            it takes them.
        named: inputs that the model takes by keyword.

    Returns:
        The report; see `Report`.

    Raises:
        TypeError, ValueError: the inputs cannot be understood, or have no batch vector.
    """
    graphs = _batched(read(inputs, named, model))
    groups: list[list[Trial]] = []
    notes: set[str] = set()
    with untouched():
        run(model, graphs)
        chosen, backwards = _chosen(graphs), only(graphs, range(graphs.size)[::-1])
        for graph in torch.bincount(graphs.member, minlength=graphs.size).nonzero().flatten().tolist():
            alone = only(graphs, [graph])
            if (failure := _failure(model, alone)) is not None:
                listener().verdict(failure)
                return failure
            groups.append(_trials(model, (graphs, backwards), graph, graph in chosen, notes))
        for change, label in ((torch.abs, "positive"), (lambda value: -value.abs(), "negative")):
            signed = graphs.change_features(change)
            for graph in chosen:
                alone, where = only(signed, [graph]), f"after a larger graph, {label} features"
                together = join([fuse(join([alone, alone])), alone])
                if _runs(model, together, where, notes):
                    groups.append([replace(company(together, 1, where), first=alone)])
        groups = [group for group in groups if group]
        if not groups:
            raise ValueError(f"model: expected one that takes several graphs; it {', '.join(sorted(notes))}")
        return examine(
            model, Question(CHECK, outputs, moving), groups, _show, sorted(notes), shared=(graphs, backwards)
        )


def _trials(
    model: Model, both: tuple[Graphs, Graphs], graph: int, with_others: bool, notes: set[str]
) -> list[Trial]:
    """Return trials of a graph in several batches, and note those on which the model raises.

    Args:
        model: the model.
        both: the batch, and the same with its graphs in reverse order.
        graph: number of the graph.
        with_others: whether the graph also stands beside graphs made from it.
        notes: is extended.
    """
    trials, alone = [], only(both[0], [graph])
    for label, make in _companies(*both, graph, with_others):
        together, place = make()
        if label in COMMON or _runs(model, together, label, notes):
            trials.append(replace(company(together, place, label), first=alone))
    return trials


def _runs(model: Model, graphs: Graphs, label: str, notes: set[str]) -> bool:
    try:
        run(model, graphs)
    except Exception as error:
        notes.add(f"cannot be run {label}: {type(error).__name__}")
        return False
    return True


def assert_batch_independent(model: Model, *inputs: Any, allow: str = "rounding", **named: Any) -> None:
    """Raise AssertionError with the report unless a graph gets the same result in every batch.

    Example:
        >>> from readouts import readout
        >>> x, batch = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1])
        >>> assert_batch_independent(readout, x, batch=batch)

    Args:
        model, inputs, named: as for `check_batch_independence`.
        allow: ``"rounding"``, or ``"identical"`` for identical bits alone.
    """
    __tracebackhide__ = True
    check_batch_independence(model, *inputs, **named).raise_unless(allow)


def _failure(model: Model, alone: Graphs) -> Report | None:
    """Return a report on a model that raises on a graph alone; None if it does not."""
    try:
        run(model, alone)
    except Exception as error:
        text = str(error).partition("\n")[0]
        return Report(
            check=CHECK,
            model=name_of(model),
            verdict=Verdict.BROKEN,
            reason=f"a graph of the batch cannot be run alone: {type(error).__name__}: {text}",
            trials=1,
            mode=modes(model),
            culprit=raising(model, alone),
        )
    return None


def _batched(graphs: Graphs) -> Graphs:
    """Return graphs in a form that allows several: a lone ``Data`` becomes a ``Batch``."""
    if graphs.form == "data" and "batch" not in graphs.examples[0]:
        return replace(graphs, form="batch")
    if graphs.form == "tensors" and "batch" not in graphs.arguments:
        raise ValueError("inputs: expected a batch vector [N], got none")
    return graphs


def _chosen(graphs: Graphs) -> list[int]:
    """Return the first, the smallest and the largest graph that have nodes."""
    count = torch.bincount(graphs.member, minlength=graphs.size)
    filled = count.nonzero().flatten().tolist()
    return list(dict.fromkeys([filled[0], min(filled, key=count.tolist().__getitem__), int(count.argmax())]))


def _companies(
    graphs: Graphs, backwards: Graphs, graph: int, with_others: bool
) -> Iterator[tuple[str, Callable[[], tuple[Graphs, int]]]]:
    """Yield labels and makers of batches that contain the graph, with its position in each."""
    size = graphs.size
    if size > 1:
        yield COMMON[0], lambda: (graphs, graph)
        yield COMMON[1], lambda: (backwards, size - 1 - graph)
    if not with_others:
        return
    alone = only(graphs, [graph])
    nothing, node = take(alone, [], [], [0]), take(alone, [0], [], [0])
    huge = fuse(join([alone] * COPIES)).change_features(lambda value: value * FACTOR)
    yield "beside a copy", lambda: (join([alone, alone]), 1)
    yield "beside a single node", lambda: (join([node, alone]), 1)
    yield "beside a huge graph", lambda: (join([alone, huge]), 0)
    yield "after a huge graph", lambda: (join([huge, alone]), 1)
    yield "after an empty graph", lambda: (join([nothing, alone]), 1)
    if graphs.form == "batch":
        yield "before an empty graph", lambda: (join([alone, nothing]), 0)
    nan = alone.change_features(lambda value: torch.full_like(value, torch.nan))
    if any(value.is_floating_point() for value in graphs.nodes.values()):
        yield "beside a graph of NaN", lambda: (join([nan, alone]), 1)


def _show(examination: Examination, trial: Trial, worst: Judgement) -> str:
    case = shrink(Company(trial.second, int(trial.match.graphs[0])), examination.shows(worst))
    return lines(case, worst.name, *examination.describe(case.trial(), worst.name))
