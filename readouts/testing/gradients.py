"""Do the gradients move with the nodes, also where features are tied?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from readouts.testing import culprit
from readouts.testing.align import moving
from readouts.testing.graphs import Graphs, read
from readouts.testing.judgement import insist
from readouts.testing.moves import Match
from readouts.testing.outputs import tensors
from readouts.testing.permutations import shuffles, simplest
from readouts.testing.report import Report
from readouts.testing.running import Model, arguments_in, call, copy_in, roots
from readouts.testing.snippet import gradient_lines
from readouts.testing.trials import Examination, Question, Trial, examine
from readouts.testing.verdict import Verdict

PARAMETER = "parameter "


def check_gradient_equivariance(model: Model, *inputs: Any, permutations: int = 10, seed: int = 0) -> Report:
    """Compare the gradients of a model before and after its nodes are relabelled.

    The loss is the sum over all float outputs of column c times c + 1. Its gradients with respect to node
    and edge features must move with the nodes and edges, those with respect to the parameters must stay;
    where features are tied, a gradient that is given to the first of the tied nodes shows here. The
    outputs themselves are the business of the other checks. For the arguments see
    `check_permutation_invariance`.

    Raises:
        ValueError: no float input or parameter has a gradient.
    """
    question = Question("gradient equivariance", gradients, _rows, backward_trace, culprit.last_disagreement)
    return examine(model, question, shuffles(read(inputs), permutations, seed), _show)


def assert_gradient_equivariant(
    model: Model, *inputs: Any, permutations: int = 10, seed: int = 0, allow: str = "rounding"
) -> None:
    """Raise AssertionError with the report unless the gradients move along.

    Args:
        model, inputs, permutations, seed: as for `check_gradient_equivariance`.
        allow: ``"rounding"``, or ``"identical"`` to insist on identical bits.
    """
    insist(check_gradient_equivariance(model, *inputs, permutations=permutations, seed=seed), allow)


def gradients(model: Model, graphs: Graphs, dtype: torch.dtype | None, seed: int) -> dict[str, Tensor]:
    """Gradients of the loss with respect to features and parameters, by name."""
    copied, arguments = copy_in(model, dtype), arguments_in(graphs, dtype)
    leaves = dict(_leaves(copied, graphs, arguments))
    loss(call(copied, arguments, dtype, seed)).backward()
    found = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    if not found:
        raise ValueError("model: expected an output with a gradient, got none")
    return found


def loss(output: Any) -> Tensor:
    """Sum column c of all float outputs, times c + 1."""
    parts = [part for _, part in tensors(output) if part.is_floating_point() and part.requires_grad]
    if not parts:
        raise ValueError("model: expected an output with a gradient, got none")
    weighted = [part * torch.arange(1, part.shape[-1] + 1) if part.dim() else part for part in parts]
    return torch.stack([part.sum() for part in weighted]).sum()


def backward_trace(model: Model, graphs: Graphs, dtype: torch.dtype | None, seed: int) -> list[culprit.Event]:
    """Events of a run, with the gradients of the tensors in the place of their values."""
    copied, arguments = copy_in(model, dtype), arguments_in(graphs, dtype)
    dict(_leaves(copied, graphs, arguments))  # the features require gradients now
    events = culprit.watch(copied, culprit.parts)
    output = call(copied, arguments, dtype, seed)
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
    """Float features, made to require gradients, and parameters."""
    for name in (*graphs.nodes, *graphs.edges):
        if graphs.form == "tensors":
            value = arguments[[known for known, _ in graphs.arguments].index(name)]
        else:
            value = arguments[0][name]
        if value.is_floating_point():
            yield name, value.requires_grad_()
    for root, module in roots(model):
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                yield f"{PARAMETER}{root}.{name}" if root else f"{PARAMETER}{name}", parameter


def _rows(name: str, first: Tensor, second: Tensor, match: Match) -> str:
    return "" if name.startswith(PARAMETER) else moving(name, first, second, match)


def _show(examination: Examination, trial: Trial, verdict: Verdict, output: str) -> str:
    case = simplest(examination, trial, verdict, output)
    rows, close = examination.describe(case.trial(), output)
    leaf, owner = output.removeprefix(PARAMETER), ""
    if leaf != output:
        named = [root for root, _ in roots(examination.model) if root and leaf.startswith(f"{root}.")]
        owner = named[0] if named else "model"
        leaf = leaf.removeprefix(f"{owner}.") if named else leaf
    return gradient_lines(case, leaf, owner, rows, close)
