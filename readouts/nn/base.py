"""What all readout modules share: PyG's protocol, `Segments` as index, the value of an empty graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch_geometric.nn import MLP
from torch_geometric.nn.aggr import Aggregation

from readouts.functional.checks import cast_back, check_empty, check_x, segments_of, to_compute_dtype
from readouts.segments import Segments


class Readout(Aggregation):
    """A readout in PyG's protocol; a subclass computes `_read`, nodes first: [N, ..., F] -> [B, ..., *].

    Attributes:
        undistributed: why nodes on other processes cannot be read out, in one sentence; empty where they can.
    """

    undistributed = ""

    def __init__(self, *, empty: float = 0) -> None:
        """Set the value of an empty graph."""
        super().__init__()
        check_empty(empty)
        self.empty = empty

    def __call__(
        self, x: Tensor, index: Tensor | Segments | None = None, *arguments: Any, **options: Any
    ) -> Tensor:
        """Take `Segments` instead of an index, too; PyG's checks are for tensors."""
        if isinstance(index, Segments):
            return Module.__call__(self, x, index, *arguments, **options)
        return super().__call__(x, index, *arguments, **options)

    def forward(
        self,
        x: Tensor,
        index: Tensor | Segments | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
    ) -> Tensor:
        """Read out x along `dim`, the dimension of the nodes; the formula stands with the class.

        Args:
            x: node features [..., N, ...].
            index: graph of every node, int64 or int32 [N], in any order, or `Segments`.
            ptr: offsets of sorted graphs, int64 or int32 [B + 1]; not needed where `index` is given.
            dim_size: number of graphs B.
            dim: dimension of the nodes.
        """
        check_x(x)
        x, back = nodes_first(x, dim)
        segments = segments_of(x, index, ptr if index is None else None, dim_size)
        out = self._read(x, segments)
        return out if back is None else out.movedim(0, back)

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        raise NotImplementedError

    def contribution(self, x: Tensor, segments: Segments, weight: Tensor | None = None) -> Tensor:
        """Return what every node gave to the output, nodes first; see `readouts.attribution.contributions`.

        Raises:
            ValueError: the output is no sum of what nodes give.
        """
        raise ValueError(f"reduce: expected a readout that is a sum of what its nodes give, got {self!r}")

    def _settings(self) -> list[str]:
        return [] if self.empty == 0 else [f"empty={self.empty}"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._settings())})"


def nodes_first(x: Tensor, dim: int) -> tuple[Tensor, int | None]:
    """Return x with the dimension of its nodes first, and where to move it back to, None for nowhere."""
    if dim == 0 or (dim == -2 and x.dim() == 2):  # a view that is not needed takes as long as a small batch
        return x, None
    return x.movedim(dim, 0), dim


def apply(module: Module | None, x: Tensor, segments: Segments) -> Tensor:
    """Apply a network to the nodes, if there is one; PyG's MLP gets the batch, which its norms need."""
    if module is None:
        return x
    return module(x, batch=segments.index, batch_size=segments.size) if isinstance(module, MLP) else module(x)


def call(readout: Aggregation, x: Tensor, segments: Segments) -> Tensor:
    """Apply a readout, or an aggregation of PyG's, along the first dimension of x."""
    if isinstance(readout, Readout):
        return readout(x, segments, dim=0)
    return readout(x, segments.index, dim_size=segments.size, dim=0)


def slopes_times_values(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """Return values times the slopes of a function that is linear in them, or in pieces, block by block."""
    leaf = to_compute_dtype(values).detach().requires_grad_()
    with torch.enable_grad():
        out = function(leaf)
        blocks = [out] if leaf.dim() == 1 else out.split(max(leaf.shape[-1], 1), dim=-1)
        slopes = [torch.autograd.grad(block.sum(), leaf, retain_graph=True)[0] for block in blocks]
    parts = [torch.where(slope == 0, 0, leaf.detach() * slope) for slope in slopes]
    return cast_back(torch.cat(parts, dim=-1), values)
