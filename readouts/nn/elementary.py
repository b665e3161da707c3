"""Sum, mean, max, min, variance and standard deviation."""

from __future__ import annotations

from torch import Tensor

from readouts.functional import readout
from readouts.nn.base import Readout, nodes_first
from readouts.segments import Segments


class _ElementaryReadout(Readout):
    """A readout without parameters; works as the end of a model and as `aggr=` of a convolution."""

    reduce: str

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
            ptr: offsets of sorted graphs, int64 or int32 [B + 1]; not needed where `index` is given.
            dim_size: number of graphs B.
            dim: dimension of the nodes.
        """
        x, back = nodes_first(x, dim)
        ptr = ptr if index is None else None
        out = readout(x, index, self.reduce, ptr=ptr, size=dim_size, empty=self.empty)
        return out if back is None else out.movedim(0, back)


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
