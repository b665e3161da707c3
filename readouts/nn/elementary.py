"""Sum, mean, max, min, variance and standard deviation as modules."""

from __future__ import annotations

from torch import Tensor

from readouts.functional.checks import cast_back, to_compute_dtype
from readouts.functional.elementary import readout
from readouts.nn.base import Readout
from readouts.segments import Segments


class _ElementaryReadout(Readout):
    """A readout without parameters, for the end of a model or as `aggr=` of a convolution."""

    reduce: str

    def forward(
        self,
        x: Tensor,
        index: Tensor | Segments | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
        *,
        max_num_elements: int | None = None,
    ) -> Tensor:
        """Reduce x along `dim`, the dimension of the nodes; see `readouts.readout` and `Readout.forward`."""
        if (
            isinstance(index, Tensor) and isinstance(x, Tensor) and x.dim() == 2 and dim in (0, -2)
        ):  # saves making `Segments`
            return readout(x, index, self.reduce, size=dim_size, empty=self.empty)
        return super().forward(x, index, ptr, dim_size, dim)

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        return readout(x, segments, self.reduce, empty=self.empty)


class SumReadout(_ElementaryReadout):
    """Sum the nodes: sum_i x_i. Empty graph: `empty`.

    Example:
        >>> SumReadout()(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1]))
        tensor([[3.],
                [4.]])

    Keeps the number of nodes of each kind.

    Source: Xu et al., arXiv 1810.00826.
    """

    reduce = "sum"

    def contribution(self, x: Tensor, segments: Segments, weight: Tensor | None = None) -> Tensor:
        """Return x_i."""
        return x.clone() if x.is_floating_point() else x.long()


class MeanReadout(_ElementaryReadout):
    """Average the nodes: sum_i x_i / n. Empty graph: `empty`.

    Example:
        >>> MeanReadout()(torch.tensor([[1.0], [3.0], [4.0]]), torch.tensor([0, 0, 1]))
        tensor([[2.],
                [4.]])

    Keeps the proportion of each kind of node, not the number of nodes.

    Source: Lin et al., "Network in network" (arXiv 1312.4400), whose global average pooling this is on
    graphs.
    """

    reduce = "mean"

    def contribution(self, x: Tensor, segments: Segments, weight: Tensor | None = None) -> Tensor:
        """Return x_i / n."""
        count = segments.count[segments.index].view(-1, *[1] * (x.dim() - 1))
        return cast_back(to_compute_dtype(x) / count, x)


class _ExtremeReadout(_ElementaryReadout):
    def contribution(self, x: Tensor, segments: Segments, weight: Tensor | None = None) -> Tensor:
        """Return the extreme value over the number of nodes that have it, for each such node; else 0."""
        wins = (x == readout(x, segments, self.reduce)[segments.index]) | x.isnan()
        return cast_back(
            to_compute_dtype(x.where(wins, 0)) / readout(wins, segments, "sum")[segments.index], x
        )


class MaxReadout(_ExtremeReadout):
    """Take the maximum over the nodes: max_i x_i. Empty graph: `empty`.

    Example:
        >>> MaxReadout()(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1]))
        tensor([[2.],
                [4.]])

    Keeps which kinds of nodes are present. The gradient is shared equally among tied nodes.
    """

    reduce = "max"


class MinReadout(_ExtremeReadout):
    """Take the minimum over the nodes: min_i x_i. Empty graph: `empty`.

    Example:
        >>> MinReadout()(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1]))
        tensor([[1.],
                [4.]])

    The gradient is shared equally among tied nodes.
    """

    reduce = "min"


class VarReadout(_ElementaryReadout):
    """Compute the population variance: sum_i (x_i - mu)^2 / n, with mu the mean. Empty graph: `empty`.

    Example:
        >>> VarReadout()(torch.tensor([[0.0], [4.0]]))
        tensor([[4.]])
    """

    reduce = "var"


class StdReadout(_ElementaryReadout):
    """Compute the population standard deviation: sqrt(sum_i (x_i - mu)^2 / n). Empty graph: `empty`.

    Example:
        >>> StdReadout()(torch.tensor([[0.0], [4.0]]))
        tensor([[2.]])

    The gradient is 0 where the standard deviation is 0.
    """

    reduce = "std"


ELEMENTARY = (SumReadout, MeanReadout, MaxReadout, MinReadout, VarReadout, StdReadout)
