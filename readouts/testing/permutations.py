"""Check that outputs do not change, or are permuted like the nodes, when nodes and edges are reordered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from readouts.testing.counterexample import Shuffle, lines, shrink
from readouts.testing.engine import Examination, Question, Trial, examine, outputs
from readouts.testing.inputs import Graphs, permute, read, shuffled, sorted_by_target
from readouts.testing.isolation import Model, run, untouched
from readouts.testing.outputs import moving, staying
from readouts.testing.report import Report
from readouts.testing.verdict import Judgement


def check_permutation_invariance(
    model: Model, *inputs: Any, permutations: int = 10, seed: int = 0, **named: Any
) -> Report:
    """Compare the outputs of a model before and after its nodes are relabelled and its edges reordered.

    Example:
        >>> from readouts import readout
        >>> x, batch = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1])
        >>> print(check_permutation_invariance(readout, x, batch=batch))
        IDENTICAL BITS: permutation invariance of readout
          why         every bit is the same, in 18 trials

    No output may change. Nodes are permuted within their graph, with their features, positions, masks and
    all else that has a row per node; edges are permuted with their attributes. Some permutations are repeated
    on features with ties, and on nodes that all have the same features.

    Args:
        model: any callable; it is copied, and neither it nor the inputs are changed.
        inputs: as the model takes them: ``Data``, ``Batch``, a list of ``Data``, or tensors x, ``edge_index``
            and ``batch``, as far as it takes them.
        permutations: number of random permutations.
        seed: seed of the permutations.
        named: inputs that the model takes by keyword.

    Returns:
        The report; see `Report`.

    Raises:
        TypeError, ValueError: the inputs cannot be understood, or have nothing to permute.
    """
    return _check(
        model, Question("permutation invariance", outputs, staying), inputs, named, permutations, seed
    )


def check_permutation_equivariance(
    model: Model, *inputs: Any, permutations: int = 10, seed: int = 0, **named: Any
) -> Report:
    """Compare the outputs of a model before and after its nodes and edges are reordered.

    Example:
        >>> from torch_geometric.nn import GCNConv
        >>> x, edge_index = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[0, 1, 2], [1, 2, 1]])
        >>> check_permutation_equivariance(GCNConv(1, 2), x, edge_index).invariant
        True

    Outputs with a row per node must be permuted like the nodes, those with a row per edge like the edges;
    all others must not change. For the arguments see `check_permutation_invariance`.
    """
    return _check(
        model, Question("permutation equivariance", outputs, moving), inputs, named, permutations, seed
    )


def assert_permutation_invariant(
    model: Model,
    *inputs: Any,
    permutations: int = 10,
    seed: int = 0,
    allow: str = "rounding",
    **named: Any,
) -> None:
    """Raise AssertionError with the report if the outputs change.

    Example:
        >>> from readouts import readout
        >>> x, batch = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1])
        >>> assert_permutation_invariant(readout, x, batch=batch, allow="identical")

    Args:
        model, inputs, permutations, seed, named: as for `check_permutation_invariance`.
        allow: ``"rounding"``, or ``"identical"`` for identical bits alone.
    """
    __tracebackhide__ = True
    report = check_permutation_invariance(model, *inputs, permutations=permutations, seed=seed, **named)
    report.raise_unless(allow)


def assert_permutation_equivariant(
    model: Model,
    *inputs: Any,
    permutations: int = 10,
    seed: int = 0,
    allow: str = "rounding",
    **named: Any,
) -> None:
    """Raise AssertionError with the report unless the outputs are permuted like the nodes.

    Example:
        >>> assert_permutation_equivariant(torch.nn.Linear(2, 3), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))

    For the arguments see `assert_permutation_invariant`.
    """
    __tracebackhide__ = True
    report = check_permutation_equivariance(model, *inputs, permutations=permutations, seed=seed, **named)
    report.raise_unless(allow)


def _check(
    model: Model,
    question: Question,
    inputs: tuple[Any, ...],
    named: dict[str, Any],
    permutations: int,
    seed: int,
) -> Report:
    groups, notes = shuffles(model, read(inputs, named, model), permutations, seed)
    return examine(model, question, groups, show_outputs, notes)


def shuffles(
    model: Model, graphs: Graphs, permutations: int, seed: int, nodes: bool = True
) -> tuple[list[list[Trial]], tuple[str, ...]]:
    """Return trials of random reorderings, and a third as many on tied features and on equal ones.

    Edges stay sorted by their target if the model raises otherwise; a note says so.

    Args:
        model: the model.
        graphs: the input.
        permutations: number of reorderings.
        seed: their seed.
        nodes: whether nodes move; otherwise edges alone.

    Raises:
        ValueError: there is nothing to permute, or no permutation is asked for.
    """
    if permutations < 1:
        raise ValueError(f"permutations: expected at least 1, got {permutations}")
    if nodes and torch.bincount(graphs.member).max() < 2:
        raise ValueError("inputs: expected a graph of two nodes or more, got single nodes only")
    if not nodes and graphs.num_edges < 2:
        raise ValueError(f"inputs: expected two edges or more, got {graphs.num_edges}")
    notes: tuple[str, ...] = ()
    if needs_sorted_edges(model, graphs):
        graphs = replace(graphs, by_target=True)
        notes = ("edges stay sorted by their target, because the model raises otherwise",)
    generator = torch.Generator().manual_seed(seed)

    def shuffle(graphs: Graphs, label: str) -> Trial:
        order = shuffled(graphs.member, generator) if nodes else torch.arange(graphs.num_nodes)
        return Trial(label, graphs, *permute(graphs, order, shuffled(graphs.edge_member, generator)))

    groups = [[shuffle(graphs, f"permutation {k}") for k in range(permutations)]]
    for label, change in (("tied", _two_values), ("equal", _one_value)):
        tied = graphs.change_features(change)
        if any(not value.equal(graphs.nodes[name]) for name, value in tied.nodes.items()):
            third = range((permutations + 2) // 3)
            groups.append([shuffle(tied, f"permutation {k}, {label} features") for k in third])
    return groups, notes


def needs_sorted_edges(model: Model, graphs: Graphs) -> bool:
    """Return whether a model takes edges sorted by their target, as loaders sort them, and no others."""
    if not graphs.num_edges or not sorted_by_target(graphs):
        return False
    generator = torch.Generator().manual_seed(0)
    other, _ = permute(graphs, torch.arange(graphs.num_nodes), shuffled(graphs.edge_member, generator))
    return not _runs(model, other) and _runs(model, graphs)


def _runs(model: Model, graphs: Graphs) -> bool:
    with untouched():
        try:
            run(model, graphs)
        except Exception:  # of the code of the model
            return False
    return True


def _two_values(value: Tensor) -> Tensor:
    """Replace every entry by the lower or the upper quartile of its column."""
    ordered = value.sort(dim=0).values
    low, high = ordered[len(value) // 4], ordered[3 * len(value) // 4]
    return torch.where(value > ordered[len(value) // 2], high, low)


def _one_value(value: Tensor) -> Tensor:
    return value[:1].expand_as(value).clone()


def simplest(examination: Examination, trial: Trial, worst: Judgement) -> Shuffle:
    """Shrink a trial to a simpler shuffle with the same verdict on the same output."""
    case = Shuffle(trial.first, trial.match.nodes.argsort(), trial.match.edges.argsort())
    return shrink(case, examination.shows(worst))


def show_outputs(examination: Examination, trial: Trial, worst: Judgement) -> str:
    """Write the counterexample of an output."""
    case = simplest(examination, trial, worst)
    return lines(case, worst.name, *examination.describe(case.trial(), worst.name))
