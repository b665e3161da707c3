"""Exact sums over the nodes of all ranks.

Every rank adds up its own nodes in the words of `readouts.kernels.wide`. The ranks tell one another which
words they use, add these up as integers, and round the sum once: the result knows nothing of the ranks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from readouts.distributed.ranks import Ranks
from readouts.kernels import wide


class Sums(NamedTuple):
    """Exact sums: words [L + 1, B, F], and what they mean."""

    words: Tensor
    format: wide.Format

    def rounded(self, dtype: torch.dtype, divisor: Tensor | None = None) -> Tensor:
        """Return the sums [B, F], over `divisor` [B] if given, rounded once; integers modulo 2^64."""
        return wide.rounded(self.words, self.format, dtype, divisor)


def local_sums(rows: Tensor, index: Tensor, size: int) -> Sums:
    """Add up the rows [N, F] of this rank that share an index."""
    return Sums(wide.sums(rows, index, size), wide.format_of(rows.dtype))


def over_ranks(ranks: Ranks, local: Sums) -> Sums:
    """Add up the sums of all ranks, in two messages: which words there are, and these words."""
    words, format = local
    special = bool(words[-1].any())
    low, high = wide.window(words)
    (bounds,) = ranks.max(torch.tensor([-low, high, special], device=words.device))
    low, high, special = -int(bounds[0]), int(bounds[1]), bool(bounds[2])
    used = wide.cut(words, low, high) if special else words[low:high]
    (used,) = ranks.sum(used)
    total = torch.zeros_like(words)
    total[low:high] = used[: max(high - low, 0)]
    if special:
        total[-1] = used[-1]
    wide.carry(total)
    return Sums(total, format)


def sum_over(ranks: Ranks, rows: Tensor, index: Tensor, size: int) -> Sums:
    """Add up the rows [N, F] of all ranks that share an index, in two messages."""
    return over_ranks(ranks, local_sums(rows, index, size))
