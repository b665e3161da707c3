"""Exact sums over the nodes of all ranks.

Every rank accumulates its own nodes in the limbs of `readouts.numerics.superaccumulator`. The ranks exchange
which limbs are in use, add these limbs as integers, and round the sum once. The result does not depend on
how nodes are spread over ranks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from readouts.distributed.ranks import Ranks
from readouts.numerics import superaccumulator
from readouts.ops.superaccumulator import sums


class Sums(NamedTuple):
    """Exact sums: limbs [L + 1, B, F] and their format."""

    limbs: Tensor
    format: superaccumulator.Format

    def rounded(self, dtype: torch.dtype, divisor: Tensor | None = None) -> Tensor:
        """Return the sums [B, F], divided by `divisor` [B] if given, rounded once; integers modulo 2^64."""
        return superaccumulator.rounded(self.limbs, self.format, dtype, divisor)


def local_sums(rows: Tensor, index: Tensor, size: int) -> Sums:
    """Sum the rows [N, F] of this rank that share an index."""
    return Sums(sums(rows, index, size), superaccumulator.format_of(rows.dtype))


def over_ranks(ranks: Ranks, local: Sums) -> Sums:
    """Sum over all ranks, in two messages: the range of limbs in use, and these limbs."""
    limbs, format = local
    special = bool(limbs[-1].any())
    low, high = superaccumulator.window(limbs)
    (bounds,) = ranks.max(torch.tensor([-low, high, special], device=limbs.device))
    low, high, special = -int(bounds[0]), int(bounds[1]), bool(bounds[2])
    used = superaccumulator.cut(limbs, low, high) if special else limbs[low:high]
    (used,) = ranks.sum(used)
    total = torch.zeros_like(limbs)
    total[low:high] = used[: max(high - low, 0)]
    if special:
        total[-1] = used[-1]
    superaccumulator.carry(total)
    return Sums(total, format)


def sum_over(ranks: Ranks, rows: Tensor, index: Tensor, size: int) -> Sums:
    """Sum the rows [N, F] of all ranks that share an index, in two messages."""
    return over_ranks(ranks, local_sums(rows, index, size))
