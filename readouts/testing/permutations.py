"""Does the output stay, or move along, when the nodes are relabelled and the edges reordered?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from readouts.testing.align import moving, staying
from readouts.testing.counterexample import Shuffle, shrink
from readouts.testing.graphs import Graphs, read
from readouts.testing.judgement import insist
from readouts.testing.moves import permute, shuffled
from readouts.testing.report import Report
from readouts.testing.running import Model
from readouts.testing.snippet import lines
from readouts.testing.trials import Examination, Question, Trial, examine, outputs
from readouts.testing.verdict import Verdict


def check_permutation_invariance(model: Model, *inputs: Any, permutations: int = 10, seed: int = 0) -> Report:
    """Compare the outputs of a model before and after its nodes are relabelled and its edges reordered.

    Every output must stay as it is. A relabelling moves nodes within their graph, with their features,
    positions, masks and all else that has a row per node; edges take their attributes along. Some
    permutations are repeated on features with ties, and on nodes that all have the same features.

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
    return _examine(model, inputs, question, permutations, seed)


def check_permutation_equivariance(
    model: Model, *inputs: Any, permutations: int = 10, seed: int = 0
) -> Report:
    """Compare the outputs of a model before and after a relabelling that they ought to follow.

    Outputs with a row per node must move with the nodes, those with a row per edge with the edges; all
    others must stay. For the arguments see `check_permutation_invariance`.
    """
    question = Question("permutation equivariance", outputs, moving)
    return _examine(model, inputs, question, permutations, seed)


def assert_permutation_invariant(
    model: Model, *inputs: Any, permutations: int = 10, seed: int = 0, allow: str = "rounding"
) -> None:
    """Raise AssertionError with the report unless the outputs stay as they are.

    Args:
        model, inputs, permutations, seed: as for `check_permutation_invariance`.
        allow: ``"rounding"``, or ``"identical"`` to insist on identical bits.
    """
    insist(check_permutation_invariance(model, *inputs, permutations=permutations, seed=seed), allow)


def assert_permutation_equivariant(
    model: Model, *inputs: Any, permutations: int = 10, seed: int = 0, allow: str = "rounding"
) -> None:
    """Raise AssertionError with the report unless the outputs move with the nodes; as above."""
    insist(check_permutation_equivariance(model, *inputs, permutations=permutations, seed=seed), allow)


def _examine(
    model: Model, inputs: tuple[Any, ...], question: Question, permutations: int, seed: int
) -> Report:
    return examine(model, question, shuffles(read(inputs), permutations, seed), _show)


def shuffles(graphs: Graphs, permutations: int, seed: int) -> list[list[Trial]]:
    """Random relabellings and reorderings, a third as many on tied features and on equal ones.

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
        tied = _changed(graphs, change)
        if tied is not None:
            third = range((permutations + 2) // 3)
            groups.append([_shuffle(tied, f"permutation {k}, {label} features", generator) for k in third])
    return groups


def _shuffle(graphs: Graphs, label: str, generator: torch.Generator) -> Trial:
    order, edges = shuffled(graphs.member, generator), shuffled(graphs.edge_member, generator)
    return Trial(label, graphs, *permute(graphs, order, edges))


def _changed(graphs: Graphs, change: Callable[[Tensor], Tensor]) -> Graphs | None:
    """Change the float features of the nodes; None where that changes nothing."""
    changed = {name: change(value) for name, value in graphs.nodes.items() if value.is_floating_point()}
    if all(value.equal(graphs.nodes[name]) for name, value in changed.items()):
        return None
    return replace(graphs, nodes={**graphs.nodes, **changed})


def _two_values(value: Tensor) -> Tensor:
    """Move every entry to the lower or the upper quartile of its column."""
    ordered = value.sort(dim=0).values
    low, high = ordered[len(value) // 4], ordered[3 * len(value) // 4]
    return torch.where(value > ordered[len(value) // 2], high, low)


def _one_value(value: Tensor) -> Tensor:
    return value[:1].expand_as(value).clone()


def simplest(examination: Examination, trial: Trial, verdict: Verdict, output: str) -> Shuffle:
    """Shrink a trial to the simplest shuffle with the same verdict on the same output."""
    case = Shuffle(trial.first, trial.match.nodes.argsort(), trial.match.edges.argsort())
    return shrink(case, examination.shows(verdict, output))


def _show(examination: Examination, trial: Trial, verdict: Verdict, output: str) -> str:
    case = simplest(examination, trial, verdict, output)
    return lines(case, output, *examination.describe(case.trial(), output))
