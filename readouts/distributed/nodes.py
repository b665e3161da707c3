"""`RankNodes`: the local nodes of graphs that are spread over ranks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from readouts.distributed.ranks import Ranks
from readouts.segments import Segments


class RankNodes(Segments):
    """`Segments` with the local nodes and the global node counts of graphs that all ranks have agreed on.

    Attributes:
        index, ptr, order: as in `Segments`, for the nodes of this rank; B is the same on all ranks.
        ranks: the ranks of the process group.
        wants_grad: whether any rank wants gradients.
    """

    def __init__(self, segments: Segments, ranks: Ranks, wants_grad: bool) -> None:
        """Sum the local node counts over all ranks, in one message."""
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
    """Wrap a backward so that it raises a RuntimeError when a second derivative is requested."""

    @functools.wraps(backward)
    def checked(ctx: Any, *grads: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("readouts.distributed: expected a first derivative, got create_graph=True")
        return backward(ctx, *grads)

    return checked
