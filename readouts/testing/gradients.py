"""Check that gradients are permuted like the nodes, also where features are tied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from readouts.testing.counterexample import gradient_lines
from readouts.testing.engine import Examination, Question, Trial, examine
from readouts.testing.inputs import Graphs, Match, read
from readouts.testing.isolation import Model, arguments_in, call, copy_in, roots
from readouts.testing.locate import Event, last_disagreement, parts, watch
from readouts.testing.outputs import moving, tensors
from readouts.testing.permutations import shuffles, simplest
from readouts.testing.report import Report
from readouts.testing.verdict import Judgement

PARAMETER = "parameter "


def check_gradient_equivariance(
    model: Model, *inputs: Any, permutations: int = 10, seed: int = 0, **named: Any
) -> Report:
    """Compare the gradients of a model before and after its nodes are relabelled.

    Example:
        >>> def pool(x):  # the gradient goes to one of the tied nodes only
        ...     return x.max(dim=0).values
        >>> print(check_gradient_equivariance(pool, torch.tensor([[1.0], [2.0], [2.0]])).verdict)
        broken

    The loss is the sum over all float outputs of column c times c + 1. Its gradients with respect to node
    and edge features must be permuted like the nodes and edges, those with respect to the parameters must
    not change. This finds gradients that only the first of several tied nodes gets. The outputs themselves
    are not compared. Where a gradient jumps, as that of a standard deviation does at zero, rounding alone can
    change it; such a difference counts as rounding. For the arguments see `check_permutation_invariance`.

    Raises:
        ValueError: no float input or parameter has a gradient.
    """
    groups, notes = shuffles(model, read(inputs, named, model), permutations, seed)
    return examine(model, QUESTION, groups, show_gradients, notes)


def assert_gradient_equivariant(
    model: Model,
    *inputs: Any,
    permutations: int = 10,
    seed: int = 0,
    allow: str = "rounding",
    **named: Any,
) -> None:
    """Raise AssertionError with the report unless the gradients are permuted like the nodes and edges.

    Example:
        >>> from readouts.nn import MaxReadout
        >>> assert_gradient_equivariant(MaxReadout(), torch.tensor([[1.0], [2.0], [2.0]]))

    Args:
        model, inputs, permutations, seed, named: as for `check_gradient_equivariance`.
        allow: ``"rounding"``, or ``"identical"`` for identical bits alone.
    """
    __tracebackhide__ = True
    report = check_gradient_equivariance(model, *inputs, permutations=permutations, seed=seed, **named)
    report.raise_unless(allow)


def gradients(model: Model, graphs: Graphs, dtype: torch.dtype | None, seed: int) -> dict[str, Tensor]:
    """Return the gradients of the loss with respect to features and parameters, by name."""
    copied, arguments = copy_in(model, dtype), arguments_in(graphs, dtype)
    leaves = dict(_leaves(copied, graphs, arguments))
    loss(call(copied, arguments, dtype, seed, graphs.keywords)).backward()
    found = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    for leaf in leaves.values():  # parameters are shared by the copies of the model
        leaf.grad = None
    if not found:
        raise ValueError("model: expected an output with a gradient, got none")
    return found


def loss(output: Any) -> Tensor:
    """Sum column c of all float outputs, times c + 1."""
    floats = [part for _, part in tensors(output) if part.is_floating_point() and part.requires_grad]
    if not floats:
        raise ValueError("model: expected an output with a gradient, got none")
    weighted = [part * torch.arange(1, part.shape[-1] + 1) if part.dim() else part for part in floats]
    return torch.stack([part.sum() for part in weighted]).sum()


def backward_trace(model: Model, graphs: Graphs, dtype: torch.dtype | None, seed: int) -> list[Event]:
    """Return the events of a run, with the gradients of the tensors instead of their values."""
    copied, arguments = copy_in(model, dtype), arguments_in(graphs, dtype)
    dict(_leaves(copied, graphs, arguments))  # makes the features require gradients
    events = watch(copied, parts)
    output = call(copied, arguments, dtype, seed, graphs.keywords)
    for event in events:
        for value in event.values:
            if value.requires_grad:
                value.retain_grad()
    loss(output).backward()
    for event in events:
        given = [value.grad for value in event.values if value.requires_grad]
        event.values = [gradient for gradient in given if gradient is not None]
    return events


def _leaves(model: Model, graphs: Graphs, arguments: tuple[Any, ...]) -> Iterator[tuple[str, Tensor]]:
    """Yield float features, made to require gradients, and parameters, by name."""
    tensors = graphs.form == "tensors"
    given = dict(zip(graphs.arguments, arguments, strict=True)) if tensors else arguments[0]
    for name in (*graphs.nodes, *graphs.edges):
        if given[name].is_floating_point():
            yield name, given[name].requires_grad_()
    for root, module in roots(model):
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                yield f"{PARAMETER}{root}.{name}" if root else f"{PARAMETER}{name}", parameter


def _rows(name: str, first: Tensor, second: Tensor, match: Match) -> str:
    return "" if name.startswith(PARAMETER) else moving(name, first, second, match)


QUESTION = Question(
    "gradient equivariance", gradients, _rows, backward_trace, last_disagreement, may_jump=True
)


def show_gradients(examination: Examination, trial: Trial, worst: Judgement) -> str:
    """Write the counterexample of a gradient."""
    case, output = simplest(examination, trial, worst), worst.name
    rows, close = examination.describe(case.trial(), output)
    leaf, owner = output.removeprefix(PARAMETER), ""
    if leaf != output:
        named = [root for root, _ in roots(examination.model) if root and leaf.startswith(f"{root}.")]
        owner = named[0] if named else "model"
        leaf = leaf.removeprefix(f"{owner}.") if named else leaf
    return gradient_lines(case, leaf, owner, rows, close)
