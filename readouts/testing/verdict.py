"""Tell identical bits, rounding and faults apart, by how a difference shrinks from a narrow float to float64.

A difference that comes from rounding is proportional to the unit of rounding: in float64 it is 2^29 times
smaller than in float32. A difference that comes from a fault keeps its size. The threshold is the geometric
mean of the two factors, 2^14.5, and needs no tuning.
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
    """Outcome of a check."""

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
    own: tuple[Tensor, Tensor]
    other: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Judgement:
    """The verdict on some pairs, with the numbers of the worst row.

    Attributes:
        verdict: the verdict.
        name: the output.
        trial: the trial.
        difference: largest difference in the narrow dtype, relative to the largest entry of its row.
        wide_difference: the same in float64; None where it was not needed or the model cannot be run in it.
        error: largest difference between the narrow and the wide result, relative in the same way.
        reason: one sentence on why.
    """

    verdict: Verdict
    name: str = ""
    trial: int = -1
    difference: float = 0.0
    wide_difference: float | None = None
    error: float | None = None
    reason: str = ""


def narrow(own: torch.dtype) -> torch.dtype:
    """Return the dtype that float64 is compared with, for a model of dtype `own`."""
    return torch.float32 if own == torch.float64 else own


def judge(pairs: Sequence[Pair], own: torch.dtype) -> Judgement:
    """Judge pairs that share their first tensors, of a model of dtype `own`.

    The noise of a row is the largest of: the differences in the narrow dtype, the errors of the narrow
    results measured against float64, and half a unit of rounding of the row. The row is broken if a
    difference in float64 exceeds the noise times sqrt(eps of float64 / eps of narrow).
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
    found = [_judge_output([pair for pair in differing if pair.name == name], own) for name in names]
    broken = [judgement for judgement in found if judgement.verdict is Verdict.BROKEN]
    return max(broken or found, key=lambda judgement: judgement.difference)


def _judge_output(pairs: Sequence[Pair], own: torch.dtype) -> Judgement:
    """Judge pairs of one output, whose bits differ."""
    others = [pair.other for pair in pairs if pair.other is not None]
    wanted = narrow(own) if own == torch.float64 else torch.float64
    is_float = pairs[0].own[0].dtype.is_floating_point
    if len(others) < len(pairs) or (is_float and any(other[0].dtype != wanted for other in others)):
        return _judge_in_one_dtype(pairs, own)
    owns = [pair.own for pair in pairs]
    narrower, wider = (others, owns) if own == torch.float64 else (owns, others)
    moved = torch.stack([row_differences(*two) for two in narrower])
    wide_moved = torch.stack([row_differences(*two) for two in wider])
    errors = [
        row_differences(one, exact)
        for two, exacts in zip(narrower, wider, strict=True)
        for one, exact in zip(two, exacts, strict=True)
    ]
    error = torch.stack(errors).amax(dim=0)
    size = torch.stack([row_sizes(two[0]) for two in wider]).amax(dim=0)
    eps = torch.finfo(narrow(own)).eps
    noise = torch.maximum(torch.maximum(moved.amax(dim=0), error), size * eps / 2)
    wide_most = wide_moved.amax(dim=0)
    over = wide_most > noise * math.sqrt(torch.finfo(torch.float64).eps / eps)
    amplified = over & (error > size * math.sqrt(eps)) & (2 * error >= wide_most)
    broken = over & ~amplified
    verdict = Verdict.BROKEN if broken.any() else Verdict.ROUNDING
    scale = torch.where(size > 0, size, 1.0)
    worst = torch.where(broken, wide_moved, -1.0) if broken.any() else moved
    trial, row = divmod(int((worst / scale).argmax()), len(scale))
    return Judgement(
        verdict,
        pairs[trial].name,
        pairs[trial].trial,
        float(moved[trial, row] / scale[row]),
        float(wide_moved[trial, row] / scale[row]),
        float(error[row] / scale[row]),
        _reason(verdict, bool(amplified.any())),
    )


def _judge_in_one_dtype(pairs: Sequence[Pair], own: torch.dtype) -> Judgement:
    """Judge by size: a difference beyond sqrt(eps), the geometric mean of eps and 1, is a fault."""
    relative = [
        float((row_differences(*pair.own) / row_sizes(pair.own[0]).clamp(min=1e-300)).max()) for pair in pairs
    ]
    worst = max(range(len(pairs)), key=relative.__getitem__)
    verdict = Verdict.BROKEN if relative[worst] > math.sqrt(torch.finfo(own).eps) else Verdict.ROUNDING
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
