"""Check that outputs stay, or move with the nodes, when nodes are relabelled and edges reordered."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from readouts.testing.counterexample import Shuffle, lines, shrink
from readouts.testing.engine import Examination, Question, Trial, examine, outputs
from readouts.testing.inputs import Graphs, permute, read, shuffled
from readouts.testing.isolation import Model
from readouts.testing.outputs import moving, staying
from readouts.testing.report import Report
from readouts.testing.verdict import Verdict


def check_permutation_invariance(model: Model, *inputs: Any, permutations: int = 10, seed: int = 0) -> Report:
    """Compare the outputs of a model before and after its nodes are relabelled and its edges reordered.

    Every output must stay as it is. Nodes move within their graph, with their features, positions, masks and
    all else that has a row per node; edges move with their attributes. Some permutations are repeated on
    features with ties, and on nodes that all have the same features.

    Args:
        model: any callable; it is copied, and neither it nor the inputs are changed.
        inputs: as the model takes them: ``Data``, ``Batch``, or tensors x, ``edge_index`` and ``batch``,
            as far as it takes them.
        permutations: number of random permutations.
        seed: seed of the permutations.

    Returns:
        The report; see `Report`.

    Raises:
        TypeError, ValueError: the inputs cannot be understood, or have nothing to permute.

    Example:
        >>> print(check_permutation_invariance(model, x, edge_index, batch))
    """
    question = Question("permutation invariance", outputs, staying)
    return examine(model, question, shuffles(read(inputs), permutations, seed), _show)


def check_permutation_equivariance(
    model: Model, *inputs: Any, permutations: int = 10, seed: int = 0
) -> Report:
    """Compare the outputs of a model, moved with its nodes and edges, before and after a relabelling.

    Outputs with a row per node must move with the nodes, those with a row per edge with the edges; all
    others must stay. For the arguments see `check_permutation_invariance`.
    """
    question = Question("permutation equivariance", outputs, moving)
    return examine(model, question, shuffles(read(inputs), permutations, seed), _show)


def assert_permutation_invariant(
    model: Model, *inputs: Any, permutations: int = 10, seed: int = 0, allow: str = "rounding"
) -> None:
    """Raise AssertionError with the report unless the outputs stay as they are.

    Args:
        model, inputs, permutations, seed: as for `check_permutation_invariance`.
        allow: ``"rounding"``, or ``"identical"`` for identical bits alone.
    """
    report = check_permutation_invariance(model, *inputs, permutations=permutations, seed=seed)
    report.raise_unless(allow)


def assert_permutation_equivariant(
    model: Model, *inputs: Any, permutations: int = 10, seed: int = 0, allow: str = "rounding"
) -> None:
    """Raise AssertionError with the report unless the outputs move with the nodes.

    For the arguments see `assert_permutation_invariant`.
    """
    report = check_permutation_equivariance(model, *inputs, permutations=permutations, seed=seed)
    report.raise_unless(allow)


def shuffles(graphs: Graphs, permutations: int, seed: int) -> list[list[Trial]]:
    """Return trials of random relabellings, and a third as many on tied features and on equal ones.

    Raises:
        ValueError: there is nothing to permute, or no permutation is asked for.
    """
    if permutations < 1:
        raise ValueError(f"permutations: expected at least 1, got {permutations}")
    if torch.bincount(graphs.member).max() < 2:
        raise ValueError("inputs: expected a graph of two nodes or more, got single nodes only")
    generator = torch.Generator().manual_seed(seed)
    groups = [[_shuffle(graphs, f"permutation {k}", generator) for k in range(permutations)]]
    for label, change in (("tied", _two_values), ("equal", _one_value)):
        tied = graphs.change_features(change)
        if any(not value.equal(graphs.nodes[name]) for name, value in tied.nodes.items()):
            third = range((permutations + 2) // 3)
            groups.append([_shuffle(tied, f"permutation {k}, {label} features", generator) for k in third])
    return groups


def _shuffle(graphs: Graphs, label: str, generator: torch.Generator) -> Trial:
    order, edges = shuffled(graphs.member, generator), shuffled(graphs.edge_member, generator)
    return Trial(label, graphs, *permute(graphs, order, edges))


def _two_values(value: Tensor) -> Tensor:
    """Replace every entry by the lower or the upper quartile of its column."""
    ordered = value.sort(dim=0).values
    low, high = ordered[len(value) // 4], ordered[3 * len(value) // 4]
    return torch.where(value > ordered[len(value) // 2], high, low)


def _one_value(value: Tensor) -> Tensor:
    return value[:1].expand_as(value).clone()


def simplest(examination: Examination, trial: Trial, verdict: Verdict, output: str) -> Shuffle:
    """Shrink a trial to a simpler shuffle with the same verdict on the same output."""
    case = Shuffle(trial.first, trial.match.nodes.argsort(), trial.match.edges.argsort())
    return shrink(case, examination.shows(verdict, output))


def _show(examination: Examination, trial: Trial, verdict: Verdict, output: str) -> str:
    case = simplest(examination, trial, verdict, output)
    return lines(case, output, *examination.describe(case.trial(), output))
