"""Weighted averages as modules: weights that are given, come from a gate, or from the values themselves."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch_geometric.nn.inits import reset

from readouts.functional import weighted
from readouts.functional.checks import (
    check_clamps,
    check_count,
    check_number,
    check_power,
    check_values,
    check_x,
    segments_of,
    to_compute_dtype,
)
from readouts.functional.elementary import nodes_back, nodes_first
from readouts.nn.base import Readout, apply, check_network, slopes_times_values
from readouts.segments import Segments


class WeightedMeanReadout(Readout):
    """Average with given or computed weights: sum_i w_i x_i / sum_i w_i, [N, F] -> [B, F].

    Example:
        >>> x, weight = torch.tensor([[1.0], [4.0]]), torch.tensor([1.0, 3.0])
        >>> WeightedMeanReadout()(x, weight=weight)
        tensor([[3.2500]])

    Keeps the weighted proportion of each kind of node, not the number of nodes; see `readouts.weighted_mean`.
    Empty graph: `empty`.

    Args:
        gate: network from x [N, F] to weights [N, 1] or [N, F], such as one that ends in Softplus; used
            if no weights are given.
        empty: value of an empty graph.
    """

    def __init__(self, gate: Module | None = None, *, empty: float = 0) -> None:
        """Set the gate and the value of an empty graph."""
        super().__init__(empty=empty)
        check_network("gate", gate)
        self.gate = gate

    def reset_parameters(self) -> None:
        """Reset the gate."""
        reset(self.gate)

    def forward(
        self,
        x: Tensor,
        index: Tensor | Segments | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
        weight: Tensor | None = None,
        *,
        max_num_elements: int | None = None,
    ) -> Tensor:
        """Average x along `dim`, the dimension of the nodes.

        Args:
            x, index, ptr, dim_size, dim: as for every readout.
            weight: [N] for one weight per node, or as many dimensions as x; takes precedence over the gate.

        Raises:
            ValueError: there is neither a weight nor a gate, or the weight does not match x.
        """
        check_x(x)
        x, back = nodes_first(x, dim)
        segments = segments_of(x, index, ptr if index is None else None, dim_size)
        if isinstance(weight, Tensor) and weight.dim() > 1:
            weight = nodes_first(weight, dim)[0]
        weight = self._weights(x, segments, weight)
        return nodes_back(weighted.weighted_mean(x, weight, segments, empty=self.empty), back)

    def _weights(self, x: Tensor, segments: Segments, weight: Tensor | None) -> Tensor:
        """Return the given weights, or those of the gate."""
        if weight is not None:
            return weight
        if self.gate is None:
            raise ValueError("weight: expected weights of the nodes, because there is no gate, got None")
        weight = apply(self.gate, x, segments, "gate")
        check_values("gate", weight, x)
        return weight

    def attention(self, x: Tensor, segments: Segments, weight: Tensor | None = None) -> Tensor:
        """Return w_i / sum_j w_j, [N, F]."""
        ones = torch.ones_like(to_compute_dtype(x))
        weight = self._weights(x, segments, weight)
        return slopes_times_values(lambda values: self(values, segments, dim=0, weight=weight), ones)

    def contribution(self, x: Tensor, segments: Segments, weight: Tensor | None = None) -> Tensor:
        """Return a_i x_i, with a_i the normalised weight."""
        weight = self._weights(x, segments, weight)
        return slopes_times_values(lambda values: self(values, segments, dim=0, weight=weight), x)

    def _settings(self) -> list[str]:
        return [*([] if self.gate is None else [f"gate={self.gate}"]), *super()._settings()]


class _NumberedReadout(Readout):
    """A readout with one number, given or learned: one for all channels, or one per channel."""

    _symbol: str

    def __init__(self, value: float, learn: bool, channels: int, empty: float) -> None:
        super().__init__(empty=empty)
        check_number(self._symbol, value)
        check_count("channels", channels)
        if channels != 1 and not learn:
            raise ValueError(f"channels: expected 1 where {self._symbol} is not learned, got {channels}")
        self.learn, self.channels, self._value = learn, channels, value
        setattr(self, self._symbol, Parameter(torch.empty(channels)) if learn else value)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset a learned number to its initial value."""
        if self.learn:
            torch.nn.init.constant_(getattr(self, self._symbol), self._value)

    def number_for(self, x: Tensor) -> float | Parameter:
        """Return the number, or one per channel; raise unless there are as many as x has features."""
        features = x.shape[-1] if x.dim() > 1 else 1
        if self.channels not in (1, features):
            raise ValueError(f"x: expected {self.channels} features, one for each channel, got {features}")
        return getattr(self, self._symbol)

    def _settings(self) -> list[str]:
        settings = [f"{self._symbol}={self._value}"]
        settings += ["learn=True"] if self.learn else []
        settings += [f"channels={self.channels}"] if self.channels != 1 else []
        return [*settings, *super()._settings()]


class SoftmaxReadout(_NumberedReadout):
    """Average with softmax weights: sum_i exp(t x_i) x_i / sum_i exp(t x_i), [N, F] -> [B, F].

    Example:
        >>> SoftmaxReadout(t=0.0)(torch.tensor([[1.0], [4.0]]))
        tensor([[2.5000]])

    Every feature has its own weights. t = 0 is the mean; the value tends to max as t grows, to min as t
    falls. Does not keep the number of nodes. The gradient of node i is a_i (1 + t (x_i - out)), with a_i its
    weight. Empty graph: `empty`.

    Args:
        t: the inverse temperature, or its initial value.
        learn: whether t is learned.
        channels: number of learned t, 1 or F.
        empty: value of an empty graph.

    Raises:
        ValueError: `channels` is not 1 and t is not learned; in `forward`, `channels` is neither 1 nor F.

    Source: Li et al., arXiv 2006.07739.
    """

    t: float | Parameter
    _symbol = "t"

    def __init__(self, t: float = 1.0, learn: bool = False, channels: int = 1, *, empty: float = 0) -> None:
        """Set t, whether t is learned, for how many channels, and the value of an empty graph."""
        super().__init__(t, learn, channels, empty)

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        return weighted.softmax_of_multiples(segments.nodes(x), self.number_for(x), segments, self.empty)

    def attention(self, x: Tensor, segments: Segments, weight: Tensor | None = None) -> Tensor:
        """Return the softmax weights [N, F]."""
        return weighted.softmax_weights(weighted.multiples(x, self.number_for(x), segments), segments)

    def contribution(self, x: Tensor, segments: Segments, weight: Tensor | None = None) -> Tensor:
        """Return a_i x_i, with a_i the softmax weight."""
        scores = weighted.multiples(x, self.number_for(x), segments)
        return slopes_times_values(lambda values: weighted.softmax_mean(values, scores, segments), x)


class PowerMeanReadout(_NumberedReadout):
    """Take the power mean of every feature: (sum_i x_i^p / n)^(1/p), [N, F] -> [B, F]. Empty graph: `empty`.

    Example:
        >>> PowerMeanReadout(p=2.0)(torch.tensor([[3.0], [4.0]]))
        tensor([[3.5355]])

    p = 1 is the mean, 0 the geometric mean, -1 the harmonic mean; the value tends to max as p grows. Does not
    keep the number of nodes. See `readouts.power_mean`.

    Args:
        p: the power, or its initial value.
        learn: whether p is learned.
        channels: number of learned p, 1 or F.
        clamp_min: positive, as power means need positive numbers; smaller values of x are replaced by it.
        clamp_max: greater values of x are replaced by it; None for no bound.
        empty: value of an empty graph.

    Raises:
        ValueError: `channels` is not 1 and p is not learned, `clamp_min` is not positive, p is not finite;
            in `forward`, `channels` is neither 1 nor F.

    Source: Li et al., arXiv 2006.07739.
    """

    p: float | Parameter
    _symbol = "p"

    def __init__(
        self,
        p: float = 1.0,
        learn: bool = False,
        channels: int = 1,
        *,
        clamp_min: float = 1e-4,
        clamp_max: float | None = None,
        empty: float = 0,
    ) -> None:
        """Set p, whether p is learned, for how many channels, the clamp, and the value of an empty graph."""
        super().__init__(p, learn, channels, empty)
        check_clamps(clamp_min, clamp_max)
        check_power(p)
        self.clamp_min, self.clamp_max = clamp_min, clamp_max

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        return weighted.power_mean(
            x,
            self.number_for(x),
            segments,
            clamp_min=self.clamp_min,
            clamp_max=self.clamp_max,
            empty=self.empty,
        )

    def _settings(self) -> list[str]:
        settings = [] if self.clamp_min == 1e-4 else [f"clamp_min={self.clamp_min}"]
        settings += [] if self.clamp_max is None else [f"clamp_max={self.clamp_max}"]
        return [*super()._settings(), *settings]


class LogSumExpReadout(Readout):
    """Take the log-sum-exp of every feature: log sum_i exp(x_i), [N, F] -> [B, F].

    Example:
        >>> LogSumExpReadout()(torch.zeros(2, 1))
        tensor([[0.6931]])

    A smooth maximum, between max and max + log n: k copies of a graph add log k. The gradient of node i is
    exp(x_i) / sum_j exp(x_j). Empty graph: `empty`, not -inf. See `readouts.logsumexp`.

    Source: Pinheiro and Collobert, arXiv 1411.6228.
    """

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        return weighted.logsumexp(x, segments, empty=self.empty)
