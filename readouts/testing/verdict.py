"""Identical bits, rounding, or broken: decided by how a difference shrinks from a narrow float to a wide one.

A difference that comes from rounding is proportional to the unit of rounding: in float64 it is 2^29 times
smaller than in float32. A difference that comes from a fault keeps its size. The two cases are so far apart
that the border needs no tuning: it lies half way, at a factor of 2^14.5, the geometric mean of the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from readouts.testing.outputs import row_differences, row_sizes, same_bits


class Verdict(StrEnum):
    """What the trials showed."""

    IDENTICAL = "identical bits"
    ROUNDING = "rounding"
    BROKEN = "broken"
    RANDOM = "random"


@dataclass(frozen=True)
class Pair:
    """Two tensors that ought to be equal, as computed by the model and in the other float dtype.

    Attributes:
        name: name of the output.
        trial: number of the trial.
        own: the two tensors in the dtype of the model.
        other: the same in the other dtype; None where that could not be had.
    """

    name: str
    trial: int
    own: tuple[Tensor, Tensor]
    other: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Judgement:
    """The verdict on some pairs, with the numbers of the worst row.

    Attributes:
        verdict: what they show.
        name: the output.
        trial: the trial.
        difference: largest difference in the narrow dtype, relative to the largest entry of its row.
        wide_difference: the same in the wide dtype; None where that was not needed or could not be had.
        error: largest difference between the narrow and the wide result, relative in the same way.
        reason: one sentence.
    """

    verdict: Verdict
    name: str = ""
    trial: int = -1
    difference: float = 0.0
    wide_difference: float | None = None
    error: float | None = None
    reason: str = ""


def judge(pairs: Sequence[Pair], narrow: torch.dtype, wide: torch.dtype, own: torch.dtype) -> Judgement:
    """Judge pairs that share their first tensors; see the head of this file.

    The noise of a row is the largest of: the differences in the narrow dtype, the errors of the narrow
    results measured against the wide ones, and half a unit of rounding of the row. The row is broken if
    a difference in the wide dtype exceeds the noise times sqrt(eps of wide / eps of narrow).
    """
    differing = [pair for pair in pairs if not same_bits(*pair.own)]
    if not differing:
        return Judgement(Verdict.IDENTICAL, reason="every bit is the same")
    for pair in differing:
        first, second = pair.own
        if first.shape != second.shape or first.dtype != second.dtype:
            reason = f"{_kind(first)} became {_kind(second)}"
            return Judgement(Verdict.BROKEN, pair.name, pair.trial, math.inf, reason=reason)
    names = dict.fromkeys(pair.name for pair in differing)
    found = [
        _judge_output([pair for pair in pairs if pair.name == name], narrow, wide, own) for name in names
    ]
    broken = [judgement for judgement in found if judgement.verdict is Verdict.BROKEN]
    return max(broken or found, key=lambda judgement: judgement.difference)


def _judge_output(
    pairs: Sequence[Pair], narrow: torch.dtype, wide: torch.dtype, own: torch.dtype
) -> Judgement:
    differing = [pair for pair in pairs if not same_bits(*pair.own)]
    others = [pair.other for pair in differing if pair.other is not None]
    expected = (narrow if own == wide else wide) if pairs[0].own[0].dtype.is_floating_point else None
    if len(others) < len(differing) or any(expected and other[0].dtype != expected for other in others):
        return _judge_alone(differing, own)
    wider = [pair.own if own == wide else other for pair, other in zip(differing, others, strict=True)]
    narrower = [other if own == wide else pair.own for pair, other in zip(differing, others, strict=True)]
    moved = torch.stack([row_differences(*two) for two in narrower])
    wide_moved = torch.stack([row_differences(*two) for two in wider])
    errors = [
        row_differences(one, exact)
        for two, exacts in zip(narrower, wider, strict=True)
        for one, exact in zip(two, exacts, strict=True)
    ]
    error = torch.stack(errors).amax(dim=0)
    size = torch.stack([row_sizes(two[0]) for two in wider]).amax(dim=0)
    noise = torch.maximum(torch.maximum(moved.amax(dim=0), error), size * torch.finfo(narrow).eps / 2)
    limit = math.sqrt(torch.finfo(wide).eps / torch.finfo(narrow).eps)
    wide_most = wide_moved.amax(dim=0)
    unstable = (error > size * math.sqrt(torch.finfo(narrow).eps)) & (2 * error >= wide_most)
    over = (wide_most > noise * limit) & ~unstable
    verdict = Verdict.BROKEN if over.any() else Verdict.ROUNDING
    scale = torch.where(size > 0, size, 1.0)
    worst = torch.where(over, wide_moved, -1.0) if over.any() else moved
    trial, row = divmod(int((worst / scale).argmax()), len(scale))
    return Judgement(
        verdict,
        differing[trial].name,
        differing[trial].trial,
        float(moved[trial, row] / scale[row]),
        float(wide_moved[trial, row] / scale[row]),
        float(error[row] / scale[row]),
        _reason(verdict, bool((unstable & (wide_most > noise * limit)).any())),
    )


def _judge_alone(pairs: Sequence[Pair], own: torch.dtype) -> Judgement:
    """Without a second dtype: a difference beyond sqrt(eps), half way from rounding to 1, is a fault."""
    relative = [
        float((row_differences(*pair.own) / row_sizes(pair.own[0]).clamp(min=1e-300)).max()) for pair in pairs
    ]
    worst = max(range(len(pairs)), key=relative.__getitem__)
    broken = relative[worst] > math.sqrt(torch.finfo(own).eps)
    verdict = Verdict.BROKEN if broken else Verdict.ROUNDING
    reason = "judged by size alone, for the model cannot be run in a second float dtype"
    return Judgement(verdict, pairs[worst].name, pairs[worst].trial, relative[worst], reason=reason)


def _reason(verdict: Verdict, amplified: bool) -> str:
    if verdict is Verdict.ROUNDING and amplified:
        return "rounding, amplified: float32 and float64 differ as much on one and the same input"
    if verdict is Verdict.BROKEN:
        return "the difference keeps its size in float64, so it is no rounding"
    return "the difference shrinks in float64 as rounding does"


def _kind(value: Tensor) -> str:
    return f"{value.dtype} {list(value.shape)}"
