"""Distinguish identical bits, rounding and faults: how does a difference shrink from float32 to float64?

A difference that comes from rounding is proportional to the unit of rounding: in float64 it is 2^29 times
smaller than in float32. A difference that comes from a fault keeps its size. The threshold is the geometric
mean of the two factors, 2^14.5, and needs no tuning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from readouts.testing.outputs import Two, row_differences, row_sizes, same_bits


class Verdict(StrEnum):
    """Outcome of a check.

    Example:
        >>> [str(verdict) for verdict in Verdict]
        ['identical bits', 'rounding', 'broken', 'random']
    """

    IDENTICAL = "identical bits"
    ROUNDING = "rounding"
    BROKEN = "broken"
    RANDOM = "random"


@dataclass(frozen=True)
class Pair:
    """Two tensors that must be equal, as computed in the dtype of the model and in another one.

    Attributes:
        name: name of the output.
        trial: number of the trial.
        own: the two tensors in the dtype of the model.
        other: the same in the other dtype; None where the model cannot be run in it.
    """

    name: str
    trial: int
    own: Two
    other: Two | None = None


@dataclass(frozen=True)
class Rows:
    """Differences of the rows of a pair, without its tensors.

    Attributes:
        name, trial: as of the pair.
        moved: largest difference in every row in the narrow dtype, float64 [R].
        size: largest magnitude of every row, in the wide dtype if there is one, float64 [R].
        wide_moved: largest difference in the wide dtype; None where the pair is judged in one dtype.
        error: largest difference between the narrow and the wide result.
        changed: how shape or dtype changed; "" if they did not.
    """

    name: str
    trial: int
    moved: Tensor
    size: Tensor
    wide_moved: Tensor | None = None
    error: Tensor | None = None
    changed: str = ""


@dataclass(frozen=True)
class Judgement:
    """The verdict on some pairs, with the numbers of the worst row.

    Attributes:
        verdict: the verdict.
        name: the output.
        trial: the trial.
        difference: largest difference in the narrow dtype, relative to the largest entry of its row; relative
            to the largest number of inputs and results where the row cancels.
        wide_difference: the same in float64; None where it was not needed or the model cannot be run in it.
        error: largest difference between the narrow and the wide result, relative in the same way.
        reason: one sentence on why.
        cancels: whether the row cancels to zero, so that hardly a digit of it is right.
    """

    verdict: Verdict
    name: str = ""
    trial: int = -1
    difference: float = 0.0
    wide_difference: float | None = None
    error: float | None = None
    reason: str = ""
    cancels: bool = False


IDENTICAL = Judgement(Verdict.IDENTICAL, reason="every bit is the same")
Jumps = Callable[[str], Iterable[Tensor]]


def narrow(own: torch.dtype) -> torch.dtype:
    """Return the dtype that float64 is compared with, for a model of dtype `own`."""
    return torch.float32 if own == torch.float64 else own


def judge(pairs: Sequence[Pair], own: torch.dtype) -> Judgement:
    """Judge pairs that share their first tensors, of a model of dtype `own`."""
    return conclude([measure(pair, own) for pair in pairs if not same_bits(*pair.own)], own)


def measure(pair: Pair, own: torch.dtype) -> Rows:
    """Measure the differences of a pair whose bits differ, row by row."""
    first, second = pair.own
    if first.shape != second.shape or first.dtype != second.dtype:
        nothing = torch.zeros(0)
        changed = f"{_kind(first)} became {_kind(second)}"
        return Rows(pair.name, pair.trial, nothing, nothing, changed=changed)
    wanted = narrow(own) if own == torch.float64 else torch.float64
    if pair.other is None or (first.dtype.is_floating_point and pair.other[0].dtype != wanted):
        return Rows(pair.name, pair.trial, row_differences(first, second), row_sizes(first))
    narrower, wider = (pair.other, pair.own) if own == torch.float64 else (pair.own, pair.other)
    one, two = (row_differences(*both) for both in zip(narrower, wider, strict=True))
    return Rows(
        pair.name,
        pair.trial,
        row_differences(*narrower),
        row_sizes(wider[0]),
        row_differences(*wider),
        torch.maximum(one, two),
    )


def conclude(
    rows: Sequence[Rows], own: torch.dtype, largest: float = 0.0, jumps: Jumps = lambda name: ()
) -> Judgement:
    """Judge the rows of pairs that share their first tensors.

    The noise of a row is the largest of: the differences in the narrow dtype, the errors of the narrow
    results measured against float64, and half a unit of rounding of the row. The row is broken if a
    difference in float64 exceeds the noise times sqrt(eps of float64 / eps of narrow).

    Args:
        rows: the rows whose bits differ.
        own: dtype of the model.
        largest: largest magnitude of inputs and results, with which rows that cancel are compared.
        jumps: yields how far the rows of an output jump in float64 when inputs change by rounding alone,
            float64 [R]: as they lie in the first input, then in others. It is called for broken rows.
    """
    if not rows:
        return IDENTICAL
    for each in rows:
        if each.changed:
            return Judgement(Verdict.BROKEN, each.name, each.trial, math.inf, reason=each.changed)
    names = dict.fromkeys(each.name for each in rows)
    found = []
    for name in names:
        some = [each for each in rows if each.name == name]
        one_dtype = any(each.wide_moved is None for each in some)
        found.append(_by_size(some, own) if one_dtype else _by_dtypes(some, own, largest, jumps))
    broken = [judgement for judgement in found if judgement.verdict is Verdict.BROKEN]
    return max(broken or found, key=lambda judgement: judgement.difference)


def _by_dtypes(rows: Sequence[Rows], own: torch.dtype, largest: float, jumps: Jumps) -> Judgement:
    """Judge the rows of one output."""
    moved = torch.stack([each.moved for each in rows])
    wide_moved = torch.stack([each.wide_moved for each in rows if each.wide_moved is not None])
    error = torch.stack([each.error for each in rows if each.error is not None]).amax(dim=0)
    size = torch.stack([each.size for each in rows]).amax(dim=0)
    eps = torch.finfo(narrow(own)).eps
    noise = torch.maximum(torch.maximum(moved.amax(dim=0), error), size * eps / 2)
    wide_most = wide_moved.amax(dim=0)
    limit = noise * math.sqrt(torch.finfo(torch.float64).eps / eps)
    over = wide_most > limit
    amplified = over & (error > size * math.sqrt(eps)) & (2.01 * error >= wide_most)  # 2, but for rounding
    broken = over & ~amplified
    reason = AMPLIFIED if amplified.any() else SHRINKS
    if broken.any():
        broken = _without_jumps(broken, wide_most, limit, jumps(rows[0].name))
        reason = reason if broken.any() else JUMPS
    cancels = (16 * error >= size) & (wide_most <= error)
    scale = torch.where(cancels, max(largest, 0.0), size)
    scale = torch.where(scale > 0, scale, 1.0)
    worst = torch.where(broken, wide_moved, -1.0) if broken.any() else moved
    trial, row = divmod(int((worst / scale).argmax()), len(scale))
    if broken.any():
        reason = KEEPS
    elif cancels[row]:
        reason = CANCELS
    elif reason is SHRINKS and moved[trial, row] > scale[row] * math.sqrt(eps):
        reason = NEARLY_CANCELS
    return Judgement(
        Verdict.BROKEN if broken.any() else Verdict.ROUNDING,
        rows[trial].name,
        rows[trial].trial,
        float(moved[trial, row] / scale[row]),
        float(wide_moved[trial, row] / scale[row]),
        float(error[row] / scale[row]),
        reason,
        bool(cancels[row]),
    )


def _without_jumps(broken: Tensor, moved: Tensor, limit: Tensor, jumps: Iterable[Tensor]) -> Tensor:
    """Return the broken rows that do not jump as far as they moved, by rounding alone.

    A row counts as jumping if it does where it lies in the first input; then it may jump further in another
    order. Tied rows that share a gradient all jump if rounding breaks the tie. Where one of them takes the
    whole gradient, the others do not.
    """
    jumping = broken
    for place, jump in enumerate(jumps):
        jumping = 4 * jump > limit if place == 0 else jumping
        broken = broken & ~(jumping & (4 * jump >= moved))
        if not (broken & jumping).any():
            break
    return broken


def _by_size(rows: Sequence[Rows], own: torch.dtype) -> Judgement:
    """Judge in one dtype: a difference beyond sqrt(eps), the geometric mean of eps and 1, is a fault."""
    relative = [float((each.moved / each.size.clamp(min=1e-300)).max()) for each in rows]
    worst = max(range(len(rows)), key=relative.__getitem__)
    verdict = Verdict.BROKEN if relative[worst] > math.sqrt(torch.finfo(own).eps) else Verdict.ROUNDING
    return Judgement(verdict, rows[worst].name, rows[worst].trial, relative[worst], reason=ONE_DTYPE)


KEEPS = "the difference keeps its size in float64, so it is not rounding"
SHRINKS = "the difference shrinks in float64 as rounding does"
AMPLIFIED = "rounding, amplified: float32 and float64 differ as much on the same input"
NEARLY_CANCELS = "rounding, amplified, because terms nearly cancel; the difference shrinks in float64"
CANCELS = "the terms cancel: the exact value is zero, or nearly so, and what is left is rounding"
JUMPS = "rounding, at a point where the gradient jumps: rounding alone changes it as much in the same order"
ONE_DTYPE = "judged by size alone, because the model cannot be run in a second float dtype"


def _kind(value: Tensor) -> str:
    return f"{value.dtype} {list(value.shape)}"
