"""The base class of readout modules: PyG's interface, `Segments` as index, the value of an empty graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch_geometric.nn import MLP
from torch_geometric.nn.aggr import Aggregation

from readouts.functional.checks import cast_back, check_empty, check_x, segments_of, to_compute_dtype
from readouts.functional.elementary import nodes_first
from readouts.segments import Segments


class Readout(Aggregation):
    """A readout with PyG's interface; a subclass computes `_read`, nodes first: [N, ..., F] -> [B, ..., *].

    Attributes:
        undistributed: why `DistributedReadout` rejects this readout, in one sentence; empty if it does not.
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
        """Accept `Segments` as well as an index, which PyG's checks of tensors would reject."""
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
        """Read out x along `dim`, the dimension of the nodes; for the formula see the class.

        Args:
            x: node features [..., N, ...].
            index: graph of every node, int64 or int32 [N], in any order, or `Segments`.
            ptr: offsets of sorted graphs (CSR pointer), int64 or int32 [B + 1]; ignored if `index` is given.
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
        """Return the contribution of every node, nodes first; see `readouts.attribution.contributions`.

        Raises:
            ValueError: the output is not a sum over nodes.
        """
        raise ValueError(f"reduce: expected a readout that is a sum of what its nodes give, got {self!r}")

    def _settings(self) -> list[str]:
        return [] if self.empty == 0 else [f"empty={self.empty}"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._settings())})"


def apply(module: Module | None, x: Tensor, segments: Segments) -> Tensor:
    """Apply a network to the nodes, if there is one; pass the batch to PyG's MLP, whose norms need it."""
    if module is None:
        return x
    return module(x, batch=segments.index, batch_size=segments.size) if isinstance(module, MLP) else module(x)


def call(readout: Aggregation, x: Tensor, segments: Segments) -> Tensor:
    """Apply a readout, or one of PyG's aggregations, along the first dimension of x."""
    if isinstance(readout, Readout):
        return readout(x, segments, dim=0)
    return readout(x, segments.index, dim_size=segments.size, dim=0)


def slopes_times_values(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """Return values times the slopes of a function, block by block.

    The function is linear or piecewise linear in the values.
    """
    leaf = to_compute_dtype(values).detach().requires_grad_()
    with torch.enable_grad():
        out = function(leaf)
        blocks = [out] if leaf.dim() == 1 else out.split(max(leaf.shape[-1], 1), dim=-1)
        slopes = [torch.autograd.grad(block.sum(), leaf, retain_graph=True)[0] for block in blocks]
    parts = [torch.where(slope == 0, 0, leaf.detach() * slope) for slope in slopes]
    return cast_back(torch.cat(parts, dim=-1), values)
