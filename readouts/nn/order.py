"""Order statistics: median, quantiles, trimmed mean, and the nodes in sorted order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from readouts import ops
from readouts.functional import order
from readouts.functional.elementary import readout
from readouts.nn.base import Readout, slopes_times_values
from readouts.segments import Segments


class _OrderStatistic(Readout):
    def contribution(self, x: Tensor, segments: Segments, weight: Tensor | None = None) -> Tensor:
        """Return each value that is averaged, times its share, over the number of nodes that have it."""
        return slopes_times_values(lambda values: self._read(values, segments), x)


class MedianReadout(_OrderStatistic):
    """The middle value: [N, F] -> [B, F]; half of the nodes may be outliers. Empty graph: `empty`.

    Sees the proportions as far as they move the middle, not the size; see `readouts.median`.
    Nodes that have the value share the gradient.

    Args:
        interpolation: of the two middle values of an even number of nodes ``"lower"`` (as in PyG),
            ``"higher"``, or ``"midpoint"`` for their mean.
        empty: value of an empty graph.
    """

    def __init__(self, interpolation: str = "midpoint", *, empty: float = 0) -> None:
        """Set which of two middle values it is, and the value of an empty graph."""
        super().__init__(empty=empty)
        order.check_choice("interpolation", interpolation, order.MIDDLES)
        self.interpolation = interpolation

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        return order.median(x, segments, interpolation=self.interpolation, empty=self.empty)

    def _settings(self) -> list[str]:
        named = [] if self.interpolation == "midpoint" else [f"interpolation={self.interpolation!r}"]
        return [*named, *super()._settings()]


class QuantileReadout(_OrderStatistic):
    """Quantiles: [N, F] -> [B, Q * F], a block for every q in the order given. Empty graph: `empty`.

    Sees the distribution at Q points, not the size; see `readouts.quantile`.

    Args:
        q: a number from 0 to 1, or several.
        interpolation: a name of `numpy.quantile`'s: ``"linear"``, ``"lower"``, ``"higher"``, ``"midpoint"``,
            ``"nearest"``, ``"hazen"``, ``"weibull"``, ``"median_unbiased"`` or ``"normal_unbiased"``.
        learnable: whether q is learned, as the sigmoid of the parameter `logit` [Q]; the interpolation
            has to be a linear one, and every q lies strictly between 0 and 1.
        empty: value of an empty graph.
    """

    def __init__(
        self,
        q: float | Sequence[float],
        interpolation: str = "linear",
        *,
        learnable: bool = False,
        empty: float = 0,
    ) -> None:
        """Set the quantiles, how to interpolate, whether q is learned, and the value of an empty graph."""
        super().__init__(empty=empty)
        levels = order.levels_of(q)
        names = tuple(order.CONTINUOUS) if learnable else order.INTERPOLATIONS
        order.check_choice("interpolation", interpolation, names)
        self.q = q if isinstance(q, int | float) else tuple(q)
        self.interpolation = interpolation
        self.learnable = learnable
        if learnable:
            if not all(0 < level < 1 for level in levels):
                raise ValueError(f"q: expected numbers between 0 and 1 to learn from, got {q}")
            self.logit = Parameter(torch.empty(len(levels)))
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set a learned q to its first values."""
        if self.learnable:
            with torch.no_grad():
                self.logit.copy_(torch.logit(torch.tensor(self.q, dtype=torch.float64)))

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        q = self.logit.sigmoid() if self.learnable else self.q
        return order.quantile(x, segments, q, interpolation=self.interpolation, empty=self.empty)

    def _settings(self) -> list[str]:
        named = [] if self.interpolation == "linear" else [f"interpolation={self.interpolation!r}"]
        learned = ["learnable=True"] if self.learnable else []
        return [f"q={self.q}", *named, *learned, *super()._settings()]


class TrimmedMeanReadout(_OrderStatistic):
    """The mean without a share of the least and greatest values: [N, F] -> [B, F]. Empty graph: `empty`.

    Between the mean (0) and the median (next to 1/2): sees the proportions in the middle, not the size.
    See `readouts.trimmed_mean`.

    Args:
        proportion: share of the nodes left out at either end, from 0 to less than 1/2.
        empty: value of an empty graph.
    """

    def __init__(self, proportion: float, *, empty: float = 0) -> None:
        """Set the share that is left out at either end, and the value of an empty graph."""
        super().__init__(empty=empty)
        order.check_proportion(proportion)
        self.proportion = proportion

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        return order.trimmed_mean(x, segments, self.proportion, empty=self.empty)

    def _settings(self) -> list[str]:
        return [f"proportion={self.proportion}", *super()._settings()]


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

    undistributed = "it returns whole nodes, and those on other processes are not sent"

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
        table = Segments.from_batch(kept.flatten(), nobody + 1)
        return table.expand(rows).view(segments.size, self.k * x.shape[1])

    def _settings(self) -> list[str]:
        return [f"k={self.k}", *super()._settings()]
