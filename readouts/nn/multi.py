"""Several readouts side by side, and readouts by name."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import ModuleList
from torch_geometric.nn.aggr import Aggregation
from torch_geometric.nn.inits import reset

from readouts.functional import readout
from readouts.nn.attention import AttentionReadout, MultiheadAttentionReadout, Set2SetReadout
from readouts.nn.base import Readout, call
from readouts.nn.deep_sets import DeepSetsReadout
from readouts.nn.distribution import MomentReadout, SizeAwareMeanReadout, SortReadout
from readouts.nn.elementary import (
    MaxReadout,
    MeanReadout,
    MinReadout,
    StdReadout,
    SumReadout,
    VarReadout,
)
from readouts.nn.order import MedianReadout, QuantileReadout, TrimmedMeanReadout
from readouts.nn.weighted import LogSumExpReadout, PowerMeanReadout, SoftmaxReadout, WeightedMeanReadout
from readouts.segments import Segments
from readouts.weighted import check_features

ELEMENTARY = (SumReadout, MeanReadout, MaxReadout, MinReadout, VarReadout, StdReadout)
CLASSES: dict[str, type[Readout]] = {
    "sum": SumReadout,
    "add": SumReadout,
    "mean": MeanReadout,
    "max": MaxReadout,
    "min": MinReadout,
    "var": VarReadout,
    "std": StdReadout,
    "attention": AttentionReadout,
    "deepsets": DeepSetsReadout,
    "logsumexp": LogSumExpReadout,
    "median": MedianReadout,
    "moment": MomentReadout,
    "multiheadattention": MultiheadAttentionReadout,
    "powermean": PowerMeanReadout,
    "quantile": QuantileReadout,
    "set2set": Set2SetReadout,
    "sizeawaremean": SizeAwareMeanReadout,
    "softmax": SoftmaxReadout,
    "sort": SortReadout,
    "trimmedmean": TrimmedMeanReadout,
    "weightedmean": WeightedMeanReadout,
}


def readout_resolver(query: str | Aggregation, **options: Any) -> Aggregation:
    """Return a readout by its name, like `torch_geometric.nn.resolver.aggregation_resolver`.

    Args:
        query: the name of a class, with or without "Readout", in any case, with or without hyphens and
            underscores: ``"mean"``, ``"logsumexp"``, ``"size_aware_mean"``; ``"add"`` is sum. A module
            comes back as it is.
        options: arguments of the class.

    Raises:
        TypeError: `query` is neither a name nor an aggregation, or the class needs other options.
        ValueError: there is no readout of that name.
    """
    return query if isinstance(query, Aggregation) else _made(query, options)


def _made(query: str, options: dict[str, Any]) -> Readout:
    """Make a readout by its name; raise where it needs other options."""
    kind = _named(query)
    try:
        inspect.signature(kind).bind(**options)
    except TypeError as problem:
        raise TypeError(f"readout: {query!r} needs other options ({problem}) or a module") from None
    return kind(**options)


def _named(query: str) -> type[Readout]:
    if not isinstance(query, str):
        raise TypeError(f"readout: expected a name or an aggregation, got {type(query).__name__}")
    name = query.lower().translate(str.maketrans("", "", "-_ ")).removesuffix("readout")
    if name not in CLASSES:
        raise ValueError(f"readout: expected one of {', '.join(CLASSES)}, got {query!r}")
    return CLASSES[name]


class MultiReadout(Readout):
    """Several readouts side by side: [N, F] -> [B, F_1 + F_2 + ...], blocks in the order given.

    Sum, mean, max, min, var and std among them are made in one pass over x; all share the bookkeeping of
    the batch. As `aggr=` of a convolution it widens the messages, which most convolutions do not expect;
    where PyG takes a list, ``aggr=[SumReadout(), MaxReadout()]`` fits. Empty graph: that of each readout.

    Args:
        reduce: names such as ``["sum", "mean", "max"]``, see `readout_resolver`, and modules: readouts, or
            aggregations of PyG's.
        empty: value of an empty graph of readouts given by name.

    Raises:
        TypeError, ValueError: there are no readouts, or names that are unknown.
    """

    def __init__(self, reduce: str | Sequence[str | Aggregation], *, empty: float = 0) -> None:
        """Set the readouts and the value of an empty graph."""
        super().__init__(empty=empty)
        queries = [reduce] if isinstance(reduce, str) else reduce
        if not isinstance(queries, list | tuple):
            raise TypeError(f"reduce: expected a name or a sequence of readouts, got {type(reduce).__name__}")
        if not queries:
            raise ValueError(f"reduce: expected at least one of {', '.join(CLASSES)}, got none")
        members: list[Any] = [self._member(query) for query in queries]
        self.readouts = ModuleList(members)
        self._names = [query if isinstance(query, str) else None for query in queries]
        self._fused: dict[float, list[int]] = {}
        for place, member in enumerate(members):
            if type(member) in ELEMENTARY:
                self._fused.setdefault(member.empty, []).append(place)

    def _member(self, query: str | Aggregation) -> Aggregation:
        if isinstance(query, Aggregation):
            return query
        options: dict[str, Any] = {} if self.empty == 0 else {"empty": self.empty}
        return _made(query, options)

    def reset_parameters(self) -> None:
        """Reset every readout."""
        for member in self.readouts:
            reset(member)

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        members: list[Any] = list(self.readouts)
        parts: dict[int, Tensor] = {}
        for empty, places in self._fused.items():
            names = [members[place].reduce for place in places]
            out = readout(x, segments, names, empty=empty)
            if len(places) == len(members):
                return out
            parts.update(zip(places, out.chunk(len(places), dim=-1), strict=True))
        check_features(x)
        for place, member in enumerate(members):
            if place not in parts:
                parts[place] = call(member, x, segments)
        return torch.cat([parts[place] for place in range(len(members))], dim=-1)

    def _settings(self) -> list[str]:
        members = zip(self._names, self.readouts, strict=True)
        shown = ", ".join(repr(member if name is None else name) for name, member in members)
        return [f"[{shown}]", *super()._settings()]
