"""Sum, mean, max, min, variance and standard deviation."""

from __future__ import annotations

from torch import Tensor

from readouts.functional.checks import cast_back, to_compute_dtype
from readouts.functional.elementary import readout
from readouts.nn.base import Readout
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
        """Reduce x along `dim`, the dimension of the nodes; see `readouts.readout` and `Readout.forward`."""
        if isinstance(index, Tensor) and x.dim() == 2 and dim in (0, -2):  # without `Segments` in between
            return readout(x, index, self.reduce, size=dim_size, empty=self.empty)
        return super().forward(x, index, ptr, dim_size, dim)

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        return readout(x, segments, self.reduce, empty=self.empty)


class SumReadout(_ElementaryReadout):
    """sum_i x_i: sees how many nodes of each kind a graph has. Empty graph: `empty`.

    Source: Xu et al., arXiv 1810.00826.
    """

    reduce = "sum"

    def contribution(self, x: Tensor, segments: Segments, weight: Tensor | None = None) -> Tensor:
        """Return x_i."""
        return x.clone() if x.is_floating_point() else x.long()


class MeanReadout(_ElementaryReadout):
    """sum_i x_i / n: sees the proportion of each kind of node, not the size. Empty graph: `empty`.

    Global average pooling on graphs (Lin et al., "Network in network", arXiv 1312.4400).
    """

    reduce = "mean"

    def contribution(self, x: Tensor, segments: Segments, weight: Tensor | None = None) -> Tensor:
        """Return x_i / n."""
        count = segments.count[segments.index].view(-1, *[1] * (x.dim() - 1))
        return cast_back(to_compute_dtype(x) / count, x)


class _ExtremeReadout(_ElementaryReadout):
    def contribution(self, x: Tensor, segments: Segments, weight: Tensor | None = None) -> Tensor:
        """Return the extreme value over the number of nodes that have it, for each of these."""
        wins = (x == readout(x, segments, self.reduce)[segments.index]) | x.isnan()
        return cast_back(
            to_compute_dtype(x.where(wins, 0)) / readout(wins, segments, "sum")[segments.index], x
        )


class MaxReadout(_ExtremeReadout):
    """max_i x_i: sees which kinds of nodes are there. Tied nodes share the gradient. Empty graph: `empty`."""

    reduce = "max"


class MinReadout(_ExtremeReadout):
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


ELEMENTARY = (SumReadout, MeanReadout, MaxReadout, MinReadout, VarReadout, StdReadout)
