"""Check that outputs and gradients do not change when edges alone are reordered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from readouts.testing.engine import Question, examine, outputs
from readouts.testing.gradients import PARAMETER, QUESTION, show_gradients
from readouts.testing.inputs import Match, read
from readouts.testing.isolation import Model
from readouts.testing.outputs import same_bits
from readouts.testing.permutations import show_outputs, shuffles
from readouts.testing.progress import TimeUpError, listener
from readouts.testing.report import Report
from readouts.testing.verdict import Verdict

EDGE_ORDER = "edge order invariance"


def check_edge_order_invariance(
    model: Model, *inputs: Any, permutations: int = 10, seed: int = 0, **named: Any
) -> Report:
    """Compare the outputs and gradients of a model before and after its edges alone are reordered.

    Example:
        >>> from readouts import exact_scatter
        >>> from torch_geometric.nn import GraphConv
        >>> x, edge_index = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[0, 1, 2], [1, 2, 1]])
        >>> with exact_scatter():
        ...     print(check_edge_order_invariance(GraphConv(1, 2), x, edge_index).verdict)
        identical bits

    The columns of ``edge_index`` are permuted with the rows of all that has a row per edge; nodes are not.
    Outputs with a row per edge, and gradients of edge features, must be permuted like the edges; all others
    must not change. For the arguments see `check_permutation_invariance`.

    Raises:
        ValueError: there are fewer than two edges.
    """
    graphs = read(inputs, named, model)
    groups, notes = shuffles(model, graphs, permutations, seed, nodes=False)
    question = Question(EDGE_ORDER, outputs, _with_edges)
    report = examine(model, question, groups, show_outputs, notes, final=False)
    if not report.invariant:
        return report
    gradients = replace(QUESTION, check=EDGE_ORDER, rows=_with_edges)
    try:
        found = examine(model, gradients, groups, show_gradients, notes, final=False)
    except (ValueError, TimeUpError) as error:  # there is no gradient, or no time
        why = "no gradient" if isinstance(error, ValueError) else "no time: the time was up"
        found = replace(report, notes=(*report.notes, f"outputs only, because there is {why}"))
    else:
        rounding = report if found.verdict is Verdict.IDENTICAL else found
        found = replace(rounding, trials=found.trials + report.trials)
    if found.invariant:
        listener().verdict(found)
    return found


def assert_edge_order_invariant(
    model: Model,
    *inputs: Any,
    permutations: int = 10,
    seed: int = 0,
    allow: str = "rounding",
    **named: Any,
) -> None:
    """Raise AssertionError with the report if outputs or gradients change when edges are reordered.

    Example:
        >>> from readouts import exact_scatter
        >>> from torch_geometric.nn import GraphConv
        >>> x, edge_index = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[0, 1, 2], [1, 2, 1]])
        >>> with exact_scatter():
        ...     assert_edge_order_invariant(GraphConv(1, 2), x, edge_index, allow="identical")

    For the arguments see `assert_permutation_invariant`.
    """
    __tracebackhide__ = True
    report = check_edge_order_invariance(model, *inputs, permutations=permutations, seed=seed, **named)
    report.raise_unless(allow)


def _with_edges(name: str, first: Tensor, second: Tensor, match: Match) -> str:
    """Return "edges" for tensors with a row per edge; if nodes or graphs are as many, by which is equal."""
    rows = first.shape[0] if first.dim() else -1
    if name.startswith(PARAMETER) or rows != len(match.edges) or first.shape != second.shape:
        return ""
    if rows not in (len(match.nodes), len(match.graphs)):
        return "edges"
    stays = same_bits(first, second) or not same_bits(first, second[match.edges])
    return "" if stays else "edges"
