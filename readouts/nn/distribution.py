"""Readouts of the whole distribution: moments, the greatest nodes, mean and size."""

from __future__ import annotations

import torch
from torch import Tensor

from readouts import ops
from readouts.functional import readout
from readouts.nn.base import Readout
from readouts.segments import Segments
from readouts.weighted import check_features, computed, expand, fill_empty, moments, rounded


class MomentReadout(Readout):
    """Mean, standard deviation, skewness and kurtosis side by side: [N, F] -> [B, 4 F]. Empty graph: `empty`.

    Sees centre, width, lean and tails of the values, not the size; see `readouts.weighted.moments`. Skewness
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
        mean = computed(readout(x, segments, "mean"))
        size = segments.count.clamp(min=1).to(mean.dtype).log()
        column = size.view(-1, *[1] * (x.dim() - 1)).expand(*mean.shape[:-1], 1)
        return rounded(fill_empty(torch.cat([mean, column], dim=-1), segments, self.empty), x)


class SortReadout(Readout):
    """The k greatest nodes, one behind the other: [N, F] -> [B, k F]. Missing nodes, empty graph: `empty`.

    Nodes are compared by their last feature, ties by the one before it, and so on: nodes that tie to the
    end are equal, and nobody can see their order. NaN counts as the greatest value, and a zero is +0. Equal
    nodes share their gradient equally, also with those beyond the k. Features are looked at while there are
    ties; each takes a sort of all nodes.

    Args:
        k: number of nodes to keep.
        empty: value that fills the rows of missing nodes.

    Raises:
        ValueError: k is below 1, x is not [N, F].

    Source: Zhang et al., "An end-to-end deep learning architecture for graph classification", AAAI 2018.
    """

    def __init__(self, k: int, *, empty: float = 0) -> None:
        """Set the number of nodes to keep and the value of missing ones."""
        super().__init__(empty=empty)
        if k < 1:
            raise ValueError(f"k: expected at least 1, got {k}")
        self.k = k

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        if x.dim() != 2:
            raise ValueError(f"x: expected node features [N, F], got shape {tuple(x.shape)}")
        x = x + 0.0
        rank = ops.ranks(x.detach(), segments.index)
        nobody = len(x)
        equal = Segments.from_batch(rank, nobody + 1)
        rows = readout(x, equal, "max", empty=self.empty)
        by_place = torch.cat([rank.sort().values, rank.new_tensor([nobody])])
        place = segments.ptr[:-1, None] + torch.arange(self.k, device=x.device)
        kept = by_place[torch.where(place < segments.ptr[1:, None], place, nobody)]
        return expand(rows, Segments.from_batch(kept.flatten(), nobody + 1)).view(
            segments.size, self.k * x.shape[1]
        )

    def _settings(self) -> list[str]:
        return [f"k={self.k}", *super()._settings()]
