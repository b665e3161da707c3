"""A graph isomorphism network whose every step gives equal nodes equal bits.

`torch.nn.Linear` does not: the last bits of an output row depend on where in the batch the row stands,
because a matrix product adds in another order at the edges of its blocks. Two graphs that no message passing
can tell apart would then be told apart by noise. `RowLinear` removes that noise.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GINConv

from readouts.nn import MaxReadout, MeanReadout, MinReadout, StdReadout, SumReadout

READOUTS: dict[str, Callable[[], nn.Module]] = {
    "sum": SumReadout,
    "mean": MeanReadout,
    "max": MaxReadout,
    "min": MinReadout,
    "std": StdReadout,
}
GRID_BITS = 22


class GIN(nn.Module):
    """`layers` rounds of injective message passing, a readout, and a linear head (Xu et al. 2019)."""

    def __init__(self, features: int, outputs: int, readout: str, width: int = 32, layers: int = 3) -> None:
        """Draw the weights from torch's generator."""
        super().__init__()
        widths = [features] + [width] * layers
        self.convolutions = nn.ModuleList(
            GINConv(perceptron(before, after), aggr=SumReadout()) for before, after in pairwise(widths)
        )
        self.readout = READOUTS[readout]()
        self.head = RowLinear(width, outputs)

    def nodes(self, data: Data) -> Tensor:
        """Node states after the last round, float [N, width]."""
        x = data.x
        for convolution in self.convolutions:
            x = convolution(x, data.edge_index).relu()
        return x

    def forward(self, data: Data) -> Tensor:
        """Logits of the graphs of a batch, float [B, outputs]."""
        return self.head(self.readout(self.nodes(data), data.batch, dim_size=data.num_graphs))


def perceptron(before: int, after: int) -> nn.Sequential:
    """Two layers, the least that can be injective on sums."""
    return nn.Sequential(RowLinear(before, after), nn.ReLU(), RowLinear(after, after))


class RowLinear(nn.Linear):
    """`nn.Linear` whose output row is, in evaluation, a function of the bits of its input row alone.

    Inputs and weights are rounded to `GRID_BITS` bits of the largest entry of their row, so that the products
    and their sums are exact in float64, in any order, for up to 512 inputs; the result is rounded once.
    Training takes the plain product, which is faster and has a gradient.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_features] to [N, out_features]."""
        if self.training:
            return super().forward(x)
        return (on_grid(x) @ on_grid(self.weight).T).to(x.dtype) + self.bias


def on_grid(rows: Tensor) -> Tensor:
    """Round each row to multiples of 2^-GRID_BITS times the power of two above its largest entry; float64."""
    rows = rows.double()
    largest = rows.abs().amax(dim=-1, keepdim=True)
    unit = torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent - GRID_BITS)
    return (rows / unit).round() * unit
