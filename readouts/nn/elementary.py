"""Sum, mean, max, min, variance and standard deviation, alone or together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import Module
from torch_geometric.nn.aggr import Aggregation

from readouts.functional import check_exact_and_empty, readout, reduce_names
from readouts.segments import Segments


class _ElementaryReadout(Aggregation):
    """A readout without parameters; works as the end of a model and as `aggr=` of a convolution."""

    reduce: str | tuple[str, ...]

    def __init__(self, *, exact: bool = True, empty: float = 0) -> None:
        """Set whether sums are exact (max and min always are) and the value of an empty graph."""
        super().__init__()
        check_exact_and_empty(exact, empty)
        self.exact = exact
        self.empty = empty

    def __call__(
        self, x: Tensor, index: Tensor | Segments | None = None, *arguments: Any, **options: Any
    ) -> Tensor:
        """Take `Segments` in the place of an index, too; PyG's checks are for tensors."""
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
        """Reduce x along `dim`, the dimension of the nodes; see `readouts.readout`.

        Args:
            x: node features [..., N, ...].
            index: graph of every node, int64 or int32 [N], in any order, or `Segments`.
            ptr: borders of sorted graphs, int64 or int32 [B + 1]; not needed where `index` is given.
            dim_size: number of graphs B.
            dim: dimension of the nodes.
        """
        ptr = ptr if index is None else None
        out = readout(
            x.movedim(dim, 0), index, self.reduce, ptr=ptr, size=dim_size, exact=self.exact, empty=self.empty
        )
        return out.movedim(0, dim)

    def _settings(self) -> list[str]:
        settings = [] if self.exact else ["exact=False"]
        return settings if self.empty == 0 else [*settings, f"empty={self.empty}"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._settings())})"


class SumReadout(_ElementaryReadout):
    """sum_i x_i: sees how many nodes of each kind a graph has. Empty graph: `empty`.

    Source: Xu et al., arXiv 1810.00826.
    """

    reduce = "sum"


class MeanReadout(_ElementaryReadout):
    """sum_i x_i / n: sees the proportion of each kind of node, not the size. Empty graph: `empty`.

    Global average pooling on graphs (Lin et al., "Network in network", arXiv 1312.4400).
    """

    reduce = "mean"


class MaxReadout(_ElementaryReadout):
    """max_i x_i: sees which kinds of nodes are there. Tied nodes share the gradient. Empty graph: `empty`."""

    reduce = "max"


class MinReadout(_ElementaryReadout):
    """min_i x_i. Tied nodes share the gradient. Empty graph: `empty`."""

    reduce = "min"


class VarReadout(_ElementaryReadout):
    """sum_i (x_i - mu)^2 / n, the population variance about the mean mu. Empty graph: `empty`."""

    reduce = "var"


class StdReadout(_ElementaryReadout):
    """sqrt(sum_i (x_i - mu)^2 / n), the population standard deviation. Empty graph: `empty`.

    Its gradient is 0 where it is 0.
    """

    reduce = "std"


class MultiReadout(_ElementaryReadout):
    """Several readouts side by side, made in one pass over x: [N, F] -> [B, R * F].

    Args:
        reduce: names such as ``["sum", "mean", "max"]``; blocks come out in this order.
            As `aggr=` of a convolution it widens the messages R times, which most convolutions do not
            expect; where PyG takes a list, ``aggr=[SumReadout(), MaxReadout()]`` fits.
        exact: whether sums are exact.
        empty: value of an empty graph.
    """

    def __init__(self, reduce: Sequence[str], *, exact: bool = True, empty: float = 0) -> None:
        """Set the names, whether sums are exact and the value of an empty graph."""
        super().__init__(exact=exact, empty=empty)
        self.reduce = reduce_names(reduce)

    def _settings(self) -> list[str]:
        return [str(list(self.reduce)), *super()._settings()]
