"""Order statistics: median, quantiles, trimmed mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from readouts import order_statistics
from readouts.nn.base import Readout
from readouts.segments import Segments


class MedianReadout(Readout):
    """The middle value: [N, F] -> [B, F]; half of the nodes may be outliers. Empty graph: `empty`.

    Sees the proportions as far as they move the middle, not the size; see `readouts.order_statistics.median`.
    Nodes that have the value share the gradient.

    Args:
        interpolation: of the two middle values of an even number of nodes ``"lower"`` (as in PyG),
            ``"higher"``, or ``"midpoint"`` for their mean.
        empty: value of an empty graph.
    """

    def __init__(self, interpolation: str = "midpoint", *, empty: float = 0) -> None:
        """Set which of two middle values it is, and the value of an empty graph."""
        super().__init__(empty=empty)
        order_statistics.check_choice("interpolation", interpolation, order_statistics.MIDDLES)
        self.interpolation = interpolation

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        return order_statistics.median(x, segments, interpolation=self.interpolation, empty=self.empty)

    def _settings(self) -> list[str]:
        named = [] if self.interpolation == "midpoint" else [f"interpolation={self.interpolation!r}"]
        return [*named, *super()._settings()]


class QuantileReadout(Readout):
    """Quantiles: [N, F] -> [B, Q * F], a block for every q in the order given. Empty graph: `empty`.

    Sees the distribution at Q points, not the size; see `readouts.order_statistics.quantile`.

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
        levels = order_statistics.levels_of(q)
        names = tuple(order_statistics.CONTINUOUS) if learnable else order_statistics.INTERPOLATIONS
        order_statistics.check_choice("interpolation", interpolation, names)
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
        return order_statistics.quantile(x, segments, q, interpolation=self.interpolation, empty=self.empty)

    def _settings(self) -> list[str]:
        named = [] if self.interpolation == "linear" else [f"interpolation={self.interpolation!r}"]
        learned = ["learnable=True"] if self.learnable else []
        return [f"q={self.q}", *named, *learned, *super()._settings()]


class TrimmedMeanReadout(Readout):
    """The mean without a share of the least and greatest values: [N, F] -> [B, F]. Empty graph: `empty`.

    Between the mean (0) and the median (next to 1/2): sees the proportions in the middle, not the size.
    See `readouts.order_statistics.trimmed_mean`.

    Args:
        proportion: share of the nodes left out at either end, from 0 to less than 1/2.
        empty: value of an empty graph.
    """

    def __init__(self, proportion: float, *, empty: float = 0) -> None:
        """Set the share that is left out at either end, and the value of an empty graph."""
        super().__init__(empty=empty)
        order_statistics.check_proportion(proportion)
        self.proportion = proportion

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        return order_statistics.trimmed_mean(x, segments, self.proportion, empty=self.empty)

    def _settings(self) -> list[str]:
        return [f"proportion={self.proportion}", *super()._settings()]
