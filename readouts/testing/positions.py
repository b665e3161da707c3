"""Check that outputs do not change when the positions of the nodes are rotated and shifted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from readouts.testing.counterexample import Motion, lines, shrink
from readouts.testing.engine import Examination, Question, Trial, examine, outputs
from readouts.testing.inputs import read
from readouts.testing.isolation import Model
from readouts.testing.outputs import staying
from readouts.testing.report import Report
from readouts.testing.verdict import Judgement

CHECK = "rotation and translation invariance"
# Rotations with rational entries: a third of the first and a fifth of the second.
RATIONAL = {3: (3, [[2, -1, 2], [2, 2, -1], [-1, 2, 2]]), 2: (5, [[3, -4], [4, 3]])}


def check_motion_invariance(
    model: Model, *inputs: Any, motions: int = 10, seed: int = 0, **named: Any
) -> Report:
    """Compare the outputs of a model before and after the positions of its nodes are rotated and shifted.

    Example:
        >>> def distances(pos):
        ...     return torch.pdist(pos).sum()
        >>> pos = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
        >>> check_motion_invariance(distances, pos=pos).invariant
        True

    No output may change, including those with a row per node. The positions are rounded to few bits
    and rotated by matrices with rational entries, so that rotating and shifting them causes no rounding.

    Args:
        model: any callable; it is copied, and neither it nor the inputs are changed.
        inputs: as for `check_permutation_invariance`.
        motions: number of random motions; every other one shifts as well.
        seed: seed of the motions.
        named: inputs that the model takes by keyword.

    Returns:
        The report; see `Report`.

    Raises:
        ValueError: there are no positions [N, 2] or [N, 3] that are called ``pos``.
    """
    if motions < 1:
        raise ValueError(f"motions: expected at least 1, got {motions}")
    graphs = read(inputs, named, model)
    pos = graphs.nodes.get("pos")
    if pos is None or not pos.is_floating_point() or pos.dim() != 2 or pos.shape[1] not in RATIONAL:
        got = "none" if pos is None else f"{pos.dtype} {list(pos.shape)}"
        raise ValueError(f"pos: expected float positions [N, 2] or [N, 3] named pos, got {got}")
    divisor, _ = RATIONAL[pos.shape[1]]
    unit = _unit(pos)
    rounded = (pos.double() / (unit * divisor)).round() * unit * divisor
    start = replace(graphs, nodes={**graphs.nodes, "pos": rounded.to(pos.dtype)})
    generator = torch.Generator().manual_seed(seed)
    cases = [Motion(start, *_motion(pos.shape[1], unit, k % 2 == 1, generator)) for k in range(motions)]
    trials = [replace(case.trial(), label=_label(k)) for k, case in enumerate(cases)]

    def show(examination: Examination, trial: Trial, worst: Judgement) -> str:
        case = shrink(cases[trials.index(trial)], examination.shows(worst))
        return lines(case, worst.name, *examination.describe(case.trial(), worst.name))

    return examine(model, Question(CHECK, outputs, staying), [trials], show)


def assert_motion_invariant(
    model: Model, *inputs: Any, motions: int = 10, seed: int = 0, allow: str = "rounding", **named: Any
) -> None:
    """Raise AssertionError with the report if the outputs change when positions are rotated and shifted.

    Example:
        >>> pos = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
        >>> assert_motion_invariant(lambda pos: torch.pdist(pos).sum(), pos=pos)

    Args:
        model, inputs, motions, seed, named: as for `check_motion_invariance`.
        allow: ``"rounding"``, or ``"identical"`` for identical bits alone.
    """
    __tracebackhide__ = True
    check_motion_invariance(model, *inputs, motions=motions, seed=seed, **named).raise_unless(allow)


def _label(k: int) -> str:
    return f"rotation {k}" + (" with a translation" if k % 2 else "")


def _unit(pos: Tensor) -> float:
    """Return a power of two of which positions are small multiples: half of the bits are left free."""
    largest = float(pos.double().nan_to_num(0.0, 0.0, 0.0).abs().max()) or 1.0
    bits = {torch.float64: 20, torch.float32: 12, torch.float16: 5, torch.bfloat16: 3}[pos.dtype]
    return 2.0 ** (torch.tensor(largest).log2().ceil().item() - bits)


def _motion(width: int, unit: float, shifts: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a rotation, a rational one between two of multiples of 90 degrees, and a shift; both float64."""
    divisor, entries = RATIONAL[width]
    middle = torch.tensor(entries, dtype=torch.float64) / divisor
    one, two = _turns(width, generator)
    steps = torch.randint(-64, 65, (width,), generator=generator) if shifts else torch.zeros(width)
    return one @ middle @ two, steps.double() * unit


def _turns(width: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield two random rotations by multiples of 90 degrees."""
    for _ in range(2):
        turn = torch.eye(width, dtype=torch.float64)[torch.randperm(width, generator=generator)]
        turn = turn * (2 * torch.randint(2, (width, 1), generator=generator) - 1)
        turn[0] *= torch.linalg.det(turn).round()
        yield turn
