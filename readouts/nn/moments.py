"""Readouts of the whole distribution: moments, mean and size."""

from __future__ import annotations

import torch
from torch import Tensor

from readouts.functional.checks import cast_back, check_features, fill_empty, to_compute_dtype
from readouts.functional.elementary import readout
from readouts.functional.moments import moments
from readouts.nn.base import Readout
from readouts.segments import Segments


class MomentReadout(Readout):
    """Mean, standard deviation, skewness and kurtosis side by side: [N, F] -> [B, 4 F]. Empty graph: `empty`.

    Sees centre, width, lean and tails of the values, not the size; see `readouts.moments`. Skewness
    and kurtosis of a graph whose nodes are equal are 0, and so are their gradients.

    Source: Corso et al., arXiv 2004.05718.
    """

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        return moments(x, segments, empty=self.empty)


class SizeAwareMeanReadout(Readout):
    """[sum_i x_i / n, log n]: [N, F] -> [B, F + 1]. Empty graph: `empty` in all columns.

    The mean keeps its scale for all sizes, and the size is there beside it: with it a graph and its copies
    differ. log n has no gradient.
    """

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        check_features(x)
        mean = to_compute_dtype(readout(x, segments, "mean"))
        size = segments.count.clamp(min=1).to(mean.dtype).log()
        column = size.view(-1, *[1] * (x.dim() - 1)).expand(*mean.shape[:-1], 1)
        return cast_back(fill_empty(torch.cat([mean, column], dim=-1), segments, self.empty), x)
