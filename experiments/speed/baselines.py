"""What memory allows: a plain read; two reads and one fresh write; on a GPU a copy.

The write goes to fresh memory, as a gradient does: the operating system has to find and clear its pages.
"""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.speed.cases import FORWARD, Case
from experiments.speed.timing import Thunk

READ, FRESH, COPY = "plain read", "two reads, fresh write", "device copy"
BASELINES = (READ, FRESH, COPY)


def baselines(case: Case, x: Tensor) -> dict[str, tuple[Thunk, int]]:
    """The baselines of a case: calls, and the bytes that each moves."""
    x = x.detach()
    found: dict[str, tuple[Thunk, int]] = {READ: (x.sum, x.nbytes)}
    if case.direction != FORWARD:
        found[FRESH] = (lambda: read_twice_and_write(x), 3 * x.nbytes)
    if x.is_cuda:
        target = torch.empty_like(x)
        found[COPY] = (lambda: target.copy_(x), 2 * x.nbytes)
    return found


def read_twice_and_write(x: Tensor) -> None:
    """Read x twice, and write as much once."""
    x.sum()
    x.sum()
    torch.empty_like(x).fill_(1)
