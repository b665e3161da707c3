"""`RankNodes`: the nodes of this rank among the graphs of all ranks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from readouts.distributed.ranks import Ranks
from readouts.segments import Segments


class RankNodes(Segments):
    """The nodes of this rank, in graphs that all ranks have agreed on.

    Attributes:
        index, ptr, order: as in `Segments`, of the nodes of this rank; there are B graphs on all ranks.
        ranks: the processes.
        wants_grad: whether some rank wants gradients.
    """

    def __init__(self, segments: Segments, ranks: Ranks, wants_grad: bool) -> None:
        """Count the nodes of every graph, in one message."""
        super().__init__(segments.index, segments.ptr, segments.order)
        self.ranks, self.wants_grad = ranks, wants_grad
        (self._count,) = ranks.sum(self.count_here)

    @property
    def count(self) -> Tensor:
        """Number of nodes of every graph on all ranks, int64 [B]."""
        return self._count

    @property
    def count_here(self) -> Tensor:
        """Number of nodes of every graph on this rank, int64 [B]."""
        return self.ptr.diff()


def first_derivative(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Make a backward that raises a RuntimeError where it is to be differentiated in turn."""

    @functools.wraps(backward)
    def checked(ctx: Any, *grads: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("readouts.distributed: expected a first derivative, got create_graph=True")
        return backward(ctx, *grads)

    return checked
