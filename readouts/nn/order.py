"""Order statistics as modules: median, quantiles, trimmed mean, and the k greatest nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from readouts import ops
from readouts.functional import order
from readouts.functional.checks import check_count
from readouts.functional.elementary import readout
from readouts.nn.base import Readout, slopes_times_values
from readouts.segments import Segments


class _OrderStatistic(Readout):
    def contribution(self, x: Tensor, segments: Segments, weight: Tensor | None = None) -> Tensor:
        """Return each averaged value times its weight, divided by the number of nodes that have it."""
        return slopes_times_values(lambda values: self._read(values, segments), x)


class MedianReadout(_OrderStatistic):
    """Take the middle value: [N, F] -> [B, F]. Empty graph: `empty`.

    Example:
        >>> MedianReadout()(torch.tensor([[1.0], [2.0], [100.0]]))
        tensor([[2.]])

    Tolerates outliers in just under half of the nodes. Does not keep the number of nodes. The gradient is
    shared equally among nodes tied at the value; see `readouts.median`.

    Args:
        interpolation: for an even number of nodes, which of the two middle values: ``"lower"`` (as in PyG),
            ``"higher"``, or ``"midpoint"`` for their mean.
        empty: value of an empty graph.
    """

    _renamed: Mapping[str, str | None] = {"q": None}

    def __init__(self, interpolation: str = "midpoint", *, empty: float = 0) -> None:
        """Set the interpolation and the value of an empty graph."""
        super().__init__(empty=empty)
        order.check_choice("interpolation", interpolation, order.MIDDLES)
        self.interpolation = interpolation

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        return order.median(x, segments, interpolation=self.interpolation, empty=self.empty)

    def _settings(self) -> list[str]:
        named = [] if self.interpolation == "midpoint" else [f"interpolation={self.interpolation!r}"]
        return [*named, *super()._settings()]


class QuantileReadout(_OrderStatistic):
    """Take quantiles: [N, F] -> [B, Q * F], a block for every q in the order given. Empty graph: `empty`.

    Example:
        >>> QuantileReadout([0.5, 1.0])(torch.tensor([[0.0], [1.0], [4.0], [9.0]]))
        tensor([[2.5000, 9.0000]])

    Keeps Q points of the distribution, not the number of nodes; see `readouts.quantile`.

    Args:
        q: a number from 0 to 1, or several.
        interpolation: a name that `numpy.quantile` uses: ``"linear"``, ``"lower"``, ``"higher"``,
            ``"midpoint"``, ``"nearest"``, ``"hazen"``, ``"weibull"``, ``"median_unbiased"`` or
            ``"normal_unbiased"``.
        learnable: whether q is learned, as the sigmoid of the parameter `logit` [Q]. Then the
            interpolation must be linear, and every q must lie strictly between 0 and 1.
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
        """Set the quantiles, the interpolation, whether q is learned, and the value of an empty graph."""
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
        """Reset a learned q to its initial values."""
        if self.learnable:
            with torch.no_grad():
                self.logit.copy_(torch.logit(torch.tensor(self.q, dtype=torch.float64)))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Compare the quantiles that PyG's twin stores as a buffer with those of this readout."""
        theirs = state_dict.pop(prefix + "q", None)
        own = torch.tensor(order.levels_of(self.q))
        if theirs is not None and (
            theirs.numel() != own.numel() or not theirs.cpu().view(-1).float().equal(own)
        ):
            arguments[-1].append(f"{prefix}q: expected {self.q}, got {theirs.flatten().tolist()}")
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        q = self.logit.sigmoid() if self.learnable else self.q
        q = q[0] if isinstance(q, Tensor) and isinstance(self.q, int | float) else q
        return order.quantile(x, segments, q, interpolation=self.interpolation, empty=self.empty)

    def _settings(self) -> list[str]:
        named = [] if self.interpolation == "linear" else [f"interpolation={self.interpolation!r}"]
        learned = ["learnable=True"] if self.learnable else []
        return [f"q={self.q}", *named, *learned, *super()._settings()]


class TrimmedMeanReadout(_OrderStatistic):
    """Average without a share of the least and greatest values: [N, F] -> [B, F]. Empty graph: `empty`.

    Example:
        >>> TrimmedMeanReadout(0.2)(torch.tensor([[0.0], [1.0], [2.0], [3.0], [100.0]]))
        tensor([[2.]])

    Interpolates between the mean (proportion 0) and the median (proportion close to 1/2). Does not keep the
    number of nodes. See `readouts.trimmed_mean`.

    Args:
        proportion: share of the nodes left out at either end, from 0 to less than 1/2.
        empty: value of an empty graph.
    """

    def __init__(self, proportion: float, *, empty: float = 0) -> None:
        """Set the share left out at either end, and the value of an empty graph."""
        super().__init__(empty=empty)
        order.check_proportion(proportion)
        self.proportion = proportion

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        return order.trimmed_mean(x, segments, self.proportion, empty=self.empty)

    def _settings(self) -> list[str]:
        return [f"proportion={self.proportion}", *super()._settings()]


class SortReadout(Readout):
    """Concatenate the k greatest nodes: [N, F] -> [B, k F]. Missing nodes and empty graphs: `empty`.

    Example:
        >>> SortReadout(2)(torch.tensor([[7.0, 1.0], [8.0, 3.0], [9.0, 2.0]]))
        tensor([[8., 3., 9., 2.]])

    Nodes are compared by their last feature, ties by the feature before it, and so on. Nodes that tie in all
    features are equal, so their order does not show in the output. NaN counts as the greatest value, and a
    zero is +0. The gradient is shared among equal nodes, including those beyond the k. Every feature that has
    to be compared takes a sort of all nodes.

    Args:
        k: number of nodes to keep.
        empty: value that fills the rows of missing nodes.

    Raises:
        TypeError, ValueError: k is no integer or below 1, x is not [N, F].

    Source: Zhang et al., "An end-to-end deep learning architecture for graph classification", AAAI 2018.
    """

    undistributed = "it returns whole nodes, and those on other processes are not sent"

    def __init__(self, k: int, *, empty: float = 0) -> None:
        """Set the number of nodes to keep and the value of missing nodes."""
        super().__init__(empty=empty)
        check_count("k", k)
        self.k = k

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        x = x.unsqueeze(1) if x.dim() == 1 else x
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
