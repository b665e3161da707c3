"""Moments of the nodes as a module; the mean together with the number of nodes."""

from __future__ import annotations

import torch
from torch import Tensor

from readouts.functional.checks import cast_back, to_compute_dtype
from readouts.functional.elementary import readout
from readouts.functional.moments import moments
from readouts.nn.base import Readout
from readouts.segments import Segments


class MomentReadout(Readout):
    """Concatenate mean, standard deviation, skewness and kurtosis: [N, F] -> [B, 4 F]. Empty graph: `empty`.

    Example:
        >>> MomentReadout()(torch.tensor([[0.0], [2.0]]))
        tensor([[1., 1., 0., 1.]])

    Keeps centre, spread, asymmetry and tail weight of the values, not the number of nodes; see
    `readouts.moments`. If all nodes are equal, skewness, kurtosis and their gradients are 0.

    Source: Corso et al., arXiv 2004.05718.
    """

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        return moments(x, segments, empty=self.empty)


class SizeAwareMeanReadout(Readout):
    """Concatenate mean and log n: [N, F] -> [B, F + 1]. Empty graph: `empty` in all columns.

    Example:
        >>> SizeAwareMeanReadout()(torch.tensor([[1.0], [3.0]]))
        tensor([[2.0000, 0.6931]])

    The scale of the mean does not depend on the number of nodes, and log n distinguishes a graph from copies
    of it. log n has no gradient.
    """

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        x = x.unsqueeze(1) if x.dim() == 1 else x
        mean = to_compute_dtype(readout(x, segments, "mean"))
        size = segments.count.clamp(min=1).to(mean.dtype).log()
        column = size.view(-1, *[1] * (x.dim() - 1)).expand(*mean.shape[:-1], 1)
        return cast_back(segments.fill_empty(torch.cat([mean, column], dim=-1), self.empty), x)
