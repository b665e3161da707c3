"""A linear layer that gives equal rows equal bits.

`torch.nn.Linear` does not: the last bits of an output row depend on where in the batch the row stands,
because a matrix product adds in another order at the edges of its blocks. Two graphs that no message passing
can tell apart would then be told apart by noise. `RowLinear` removes that noise.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

GRID_BITS = 22


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
