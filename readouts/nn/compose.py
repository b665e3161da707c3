"""Readouts made of networks and other readouts, and the resolver of names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Linear, Module, ModuleList, MultiheadAttention
from torch_geometric.nn import HeteroDictLinear
from torch_geometric.nn.aggr import Aggregation
from torch_geometric.nn.inits import reset

from readouts import ops
from readouts.functional.checks import (
    NO_PRODUCT,
    PRODUCTS,
    check_count,
    check_features,
    check_number,
    check_x,
    reduce_names,
    segments_of,
)
from readouts.functional.elementary import readout
from readouts.functional.order import check_choice
from readouts.keywords import explain_keywords
from readouts.nn.attention import AttentionReadout, MultiheadAttentionReadout, Set2SetReadout
from readouts.nn.base import Readout, apply, call, check_network, run
from readouts.nn.elementary import ELEMENTARY, SumReadout
from readouts.nn.moments import MomentReadout, SizeAwareMeanReadout
from readouts.nn.order import MedianReadout, QuantileReadout, SortReadout, TrimmedMeanReadout
from readouts.nn.weighted import LogSumExpReadout, PowerMeanReadout, SoftmaxReadout, WeightedMeanReadout
from readouts.segments import Segments


class DeepSetsReadout(Readout):
    """Apply networks before and after a sum: global_nn(sum_i local_nn(x_i)), [N, F] -> [B, F'].

    Example:
        >>> pool = DeepSetsReadout(torch.nn.Linear(8, 16), torch.nn.Linear(16, 3))
        >>> pool(torch.randn(5, 8), torch.tensor([0, 0, 1, 1, 1])).shape
        torch.Size([2, 3])

    Wide enough networks can approximate every continuous function of sets of bounded size. The sum has the
    same bits for every order of the nodes; a local network may change the last bits of a row when the row
    moves, as matrix products do. Empty graph: global_nn of a row of `empty`.

    Args:
        local_nn: network applied to nodes, [N, F] -> [N, H]; None for x itself.
        global_nn: network applied to graphs, [B, H] -> [B, F']; None for the sums themselves.
        reduce: ``"sum"``, or another name that `readouts.readout` accepts.
        empty: value of the sum of an empty graph.

    Raises:
        TypeError, ValueError: `local_nn` or `global_nn` is no network, `reduce` is unknown.

    Source: Zaheer et al., "Deep sets" (arXiv 1703.06114); on graphs Buterez et al., arXiv 2211.04952.
    """

    _renamed: Mapping[str, str | None] = {"local_mlp": "local_nn", "global_mlp": "global_nn"}

    def __init__(
        self,
        local_nn: Module | None = None,
        global_nn: Module | None = None,
        reduce: str = "sum",
        *,
        empty: float = 0,
    ) -> None:
        """Set the networks, the reduction between them, and its value of an empty graph."""
        super().__init__(empty=empty)
        (self.reduce,) = reduce_names((reduce,))
        check_network("local_nn", local_nn)
        check_network("global_nn", global_nn)
        self.local_nn = local_nn
        self.global_nn = global_nn

    def reset_parameters(self) -> None:
        """Reset the networks."""
        reset(self.local_nn)
        reset(self.global_nn)

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        out = readout(apply(self.local_nn, x, segments, "local_nn"), segments, self.reduce, empty=self.empty)
        return out if self.global_nn is None else run(self.global_nn, out, "global_nn")

    def _settings(self) -> list[str]:
        settings = [f"local_nn={self.local_nn}", f"global_nn={self.global_nn}"]
        settings += [] if self.reduce == "sum" else [f"reduce={self.reduce!r}"]
        return [*settings, *super()._settings()]


LAYERED = ("proj", "attn")
MODES = ("cat", *LAYERED, "sum", "mean", "max", "min", "logsumexp", "std", "var")
OTHERS = (
    AttentionReadout,
    DeepSetsReadout,
    LogSumExpReadout,
    MedianReadout,
    MomentReadout,
    MultiheadAttentionReadout,
    PowerMeanReadout,
    QuantileReadout,
    Set2SetReadout,
    SizeAwareMeanReadout,
    SoftmaxReadout,
    SortReadout,
    TrimmedMeanReadout,
    WeightedMeanReadout,
)
CLASSES: dict[str, type[Readout]] = {
    kind.__name__.removesuffix("Readout").lower(): kind for kind in (*ELEMENTARY, *OTHERS)
} | {"add": SumReadout}


def readout_resolver(query: str | Aggregation, **options: Any) -> Aggregation:
    """Return a readout by its name, like `torch_geometric.nn.resolver.aggregation_resolver`.

    Example:
        >>> readout_resolver("trimmed_mean", proportion=0.1)
        TrimmedMeanReadout(proportion=0.1)

    Args:
        query: the name of a class, with or without "Readout", in any case, with or without hyphens and
            underscores: ``"mean"``, ``"logsumexp"``, ``"size_aware_mean"``; ``"add"`` is sum. A module
            is returned unchanged.
        options: arguments of the class.

    Raises:
        TypeError: `query` is neither a name nor an aggregation, or the class does not accept the options.
        ValueError: no readout has that name.
    """
    return query if isinstance(query, Aggregation) else _made(query, options)


def _made(query: str, options: dict[str, Any]) -> Readout:
    """Make a readout by its name; raise if the class does not accept the options."""
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
        hint = NO_PRODUCT if name in PRODUCTS else ""
        raise ValueError(f"readout: expected one of {', '.join(CLASSES)}, got {query!r}{hint}")
    return CLASSES[name]


class MultiReadout(Readout):
    """Concatenate several readouts: [N, F] -> [B, F_1 + F_2 + ...], blocks in the order given.

    Example:
        >>> MultiReadout(["sum", "max"])(torch.tensor([[1.0], [2.0]]))
        tensor([[3., 2.]])

    Sum, mean, max, min, var and std are computed together in one pass over x; all readouts share the
    `Segments` of the batch. As `aggr=` of a convolution this widens the messages, which most convolutions do
    not expect; pass ``aggr=[SumReadout(), MaxReadout()]`` to those that accept a list. Empty graph: as in
    each readout. x [N] counts as [N, 1]. Loads the state_dict of PyG's `MultiAggregation`.

    Args:
        reduce: names such as ``["sum", "mean", "max"]``, see `readout_resolver`, and modules: readouts or
            PyG's aggregations.
        mode: how the blocks are combined, as in PyG's `MultiAggregation`: ``"cat"`` side by side;
            ``"proj"`` side by side, then a linear layer; ``"attn"`` by attention of the blocks to each other;
            ``"sum"``, ``"mean"``, ``"max"``, ``"min"``, ``"logsumexp"``, ``"std"`` or ``"var"`` over blocks.
        mode_kwargs: for ``"proj"`` and ``"attn"``: ``in_channels`` (the width of every block, or one for
            all), ``out_channels``, and options of the layers, such as ``num_heads``.
        empty: value of an empty graph, for readouts given by name.

    Raises:
        TypeError, ValueError: there is no readout, or a name, a mode or `mode_kwargs` are wrong.
    """

    _renamed: Mapping[str, str | None] = {"aggrs": "readouts"}

    def __init__(
        self,
        reduce: str | Sequence[str | Aggregation],
        mode: str = "cat",
        mode_kwargs: dict[str, Any] | None = None,
        *,
        empty: float = 0,
    ) -> None:
        """Set the readouts, how their blocks are combined, and the value of an empty graph."""
        super().__init__(empty=empty)
        check_choice("mode", mode, MODES)
        queries = [reduce] if isinstance(reduce, str) else reduce
        if not isinstance(queries, list | tuple):
            raise TypeError(f"reduce: expected a name or a sequence of readouts, got {type(reduce).__name__}")
        if not queries:
            raise ValueError(f"reduce: expected at least one of {', '.join(CLASSES)}, got none")
        members: list[Any] = [self._member(query) for query in queries]
        self.readouts = ModuleList(members)
        self._names = [query if isinstance(query, str) else None for query in queries]
        self.mode = mode
        if mode in LAYERED:
            self._add_layers(len(members), mode_kwargs)
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
        if self.mode == "proj":
            reset(self.lin)
        elif self.mode == "attn":
            reset(self.lin_heads)
            self.multihead_attn._reset_parameters()

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        blocks = self._blocks(x, segments)
        if len(blocks) == 1:
            return blocks[0]
        if self.mode == "cat":
            return torch.cat(blocks, dim=-1)
        if self.mode in LAYERED:
            return self._combined(blocks)
        out = getattr(torch, self.mode)(torch.stack(blocks), dim=0)
        return out if isinstance(out, Tensor) else out[0]

    def _add_layers(self, blocks: int, options: dict[str, Any] | None) -> None:
        options = dict(options or {})
        missing = [name for name in ("in_channels", "out_channels") if name not in options]
        if blocks < 2 or missing:
            wanted = f"{missing[0]!r}" if missing else "several readouts"
            raise ValueError(f"mode_kwargs: expected {wanted} for the mode {self.mode!r}, got {options}")
        widths, channels = options.pop("in_channels"), options.pop("out_channels")
        widths = [widths] * blocks if isinstance(widths, int) else list(widths)
        if len(widths) != blocks:
            raise ValueError(f"mode_kwargs: expected {blocks} widths in 'in_channels', got {len(widths)}")
        if self.mode == "proj":
            self.lin = Linear(sum(widths), channels, **options)
        else:
            self.lin_heads = HeteroDictLinear({str(i): width for i, width in enumerate(widths)}, channels)
            self.multihead_attn = MultiheadAttention(channels, options.pop("num_heads", 1), **options)

    def _combined(self, blocks: list[Tensor]) -> Tensor:
        if self.mode == "proj":
            out: Tensor = run(self.lin, torch.cat(blocks, dim=-1), "in_channels")
            return out
        rows = [run(self.lin_heads.lins[str(i)], block, "in_channels") for i, block in enumerate(blocks)]
        x = torch.stack(rows)
        mixed: Tensor = self.multihead_attn(x, x, x)[0]
        return mixed.mean(dim=0)

    def _blocks(self, x: Tensor, segments: Segments) -> list[Tensor]:
        """Return the value of every readout; a single block for all, side by side, if this takes one pass."""
        members: list[Any] = list(self.readouts)
        parts: dict[int, Tensor] = {}
        for empty, places in self._fused.items():
            names = [members[place].reduce for place in places]
            out = readout(x, segments, names, empty=empty)
            if len(places) == len(members) and self.mode == "cat":
                return [out]
            parts.update(zip(places, out.chunk(len(places), dim=-1), strict=True))
        x = x.unsqueeze(1) if x.dim() == 1 else x
        for place, member in enumerate(members):
            if place not in parts:
                parts[place] = call(member, x, segments)
        return [parts[place] for place in range(len(members))]

    def _settings(self) -> list[str]:
        members = zip(self._names, self.readouts, strict=True)
        shown = ", ".join(repr(member if name is None else name) for name, member in members)
        mode = [] if self.mode == "cat" else [f"mode={self.mode!r}"]
        return [f"[{shown}]", *mode, *super()._settings()]


class PartialReadout(Readout):
    """Read out m of the n nodes of every graph in training, all nodes in evaluation.

    Example:
        >>> pool = PartialReadout("mean", count=1).eval()
        >>> pool(torch.tensor([[1.0], [3.0]]))
        tensor([[2.]])

    For the mean and a random choice the result is unbiased: its expectation is the mean of all nodes, its
    variance S^2 (1 - m / n) / m, where S^2 = sum_i (x_i - mu)^2 / (n - 1). Other readouts have the value for
    a smaller graph: on average a sum is m / n times the full sum, and a maximum is too low.

    ``"random"`` draws m nodes without replacement, with equal probability for every set of m nodes. Permuting
    the nodes permutes the distribution, and `check_permutation_invariance` reports "random" for a model in
    training. ``"strided"`` takes the nodes at the positions p = 0 ... n - 1 of the graph where floor((p + 1)
    m / n) exceeds floor(p m / n), that is, the last of every n / m nodes. This choice depends on the order of
    the nodes and is biased unless the order is random; the check reports "broken". In evaluation both modes
    have the bits of the full readout.

    Args:
        readout: a readout or its name, see `readout_resolver`.
        share: m is share * n rounded to an integer, at least 1; 0 < share <= 1.
        count: m is the smaller of count and n. Give either `share` or `count`.
        mode: ``"random"`` or ``"strided"``.

    Raises:
        ValueError: both or neither of `share` and `count` are given, or an argument has an invalid value.

    Source: Cochran, "Sampling techniques" (1977), section 2.
    """

    undistributed = "which nodes it takes depends on all of them"

    def __init__(
        self,
        readout: str | Aggregation = "mean",
        share: float | None = None,
        *,
        count: int | None = None,
        mode: Literal["random", "strided"] = "random",
    ) -> None:
        """Set the readout, the number of nodes to read, and how they are chosen."""
        super().__init__()
        if (share is None) == (count is None):
            raise ValueError(f"share, count: expected one of the two, got {share} and {count}")
        if share is not None:
            check_number("share", share)
            if not 0 < share <= 1:
                raise ValueError(f"share: expected a number above 0 and at most 1, got {share}")
        if count is not None:
            check_count("count", count)
        if mode not in ("random", "strided"):
            raise ValueError(f"mode: expected 'random' or 'strided', got {mode!r}")
        self.readout = readout_resolver(readout)
        self.share, self.count, self.mode = share, count, mode

    def reset_parameters(self) -> None:
        """Reset the readout."""
        self.readout.reset_parameters()

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        if self.training:
            kept = self._chosen(segments)
            x, segments = x[kept], Segments.from_batch(segments.index[kept], segments.size)
        return call(self.readout, x, segments)

    def _chosen(self, segments: Segments) -> Tensor:
        """Return the nodes to read, int64 [M], without repetition."""
        index, ptr, size = segments.index, segments.ptr, segments.size
        nodes = torch.arange(len(index), device=index.device)
        shuffled = torch.randperm(len(index), device=index.device) if self.mode == "random" else nodes
        graph = index[shuffled]  # on a GPU `ops.group` returns the nodes of a graph in any order
        order = shuffled[ops.group(graph, size)[1] if graph.is_cpu else graph.argsort(stable=True)]
        graph = index[order]
        place, n, m = nodes - ptr[graph], segments.count[graph], self._numbers(segments.count)[graph]
        if self.mode == "random":
            return order[place < m]
        return order[(place + 1) * m // n > place * m // n]

    def _numbers(self, n: Tensor) -> Tensor:
        """Return how many of the n nodes of every graph to read."""
        if self.count is not None:
            return n.clamp(max=self.count)
        assert self.share is not None
        return (n.double() * self.share + 0.5).floor().long().clamp(min=1)

    def _settings(self) -> list[str]:
        number = f"share={self.share}" if self.count is None else f"count={self.count}"
        return [str(self.readout), number, f"mode={self.mode!r}"]


class SqueezeExcitation(Module):
    """Scale the channels of every node by a gate computed from its graph: [N, F] -> [N, F].

    Example:
        >>> gate = SqueezeExcitation(channels=8)
        >>> gate(torch.randn(5, 8), torch.tensor([0, 0, 1, 1, 1])).shape
        torch.Size([5, 8])

    The result is x_i * sigmoid(W_2 relu(W_1 z + b_1) + b_2), with z the readout of the graph of node i. Place
    this between convolutions to make every node depend on its whole graph. Matrix products run over graphs
    only, so permuting the nodes permutes the result and its gradients, bit for bit. An empty graph has no
    nodes to scale. The dtype of the result is promoted from those of x and the layers.

    Args:
        channels: F.
        reduction: the gate has max(1, F // reduction) hidden units.
        squeeze: a readout or its name, see `readout_resolver`.
        squeeze_channels: width of the readout's output; None for F.

    Raises:
        ValueError: `reduction` is below 1, or no readout has that name.

    Source: Hu et al., "Squeeze-and-excitation networks" (arXiv 1709.01507).
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 4,
        squeeze: str | Aggregation = "mean",
        squeeze_channels: int | None = None,
    ) -> None:
        """Set the sizes and the readout."""
        super().__init__()
        check_count("channels", channels)
        check_count("reduction", reduction)
        hidden = max(1, channels // reduction)
        self.channels, self.reduction = channels, reduction
        self.squeeze = readout_resolver(squeeze)
        self.lin1 = Linear(channels if squeeze_channels is None else squeeze_channels, hidden)
        self.lin2 = Linear(hidden, channels)

    def reset_parameters(self) -> None:
        """Reset the readout and the gate."""
        for layer in self.children():
            reset(layer)

    @explain_keywords
    def forward(
        self, x: Tensor, batch: Tensor | Segments | None = None, batch_size: int | None = None
    ) -> Tensor:
        """Scale the channels of x.

        Args:
            x: node features [N, F].
            batch: graph of every node, int64 or int32 [N], in any order, `Segments`, or None for one graph.
            batch_size: number of graphs B.
        """
        check_x(x)
        check_features(x, self.channels)
        segments = segments_of(x, batch, None, batch_size)
        squeezed = call(self.squeeze, x, segments)
        if squeezed.shape[-1] != self.lin1.in_features:
            wanted = f"{squeezed.shape[-1]}, the width of {self.squeeze}"
            raise ValueError(f"squeeze_channels: expected {wanted}, got {self.lin1.in_features}")
        return x * segments.expand(self.lin2(self.lin1(squeezed).relu()).sigmoid())

    def __repr__(self) -> str:
        return f"SqueezeExcitation({self.channels}, reduction={self.reduction}, squeeze={self.squeeze})"
