"""Attention as a readout: averages with learned weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import LayerNorm, Linear, LSTMCell, Module, ModuleList, Parameter
from torch.nn.functional import linear
from torch_geometric.nn.inits import reset

from readouts.functional.checks import check_count, check_features, check_values
from readouts.functional.parts import in_parts
from readouts.functional.weighted import per_graph, softmax_averaged, softmax_mean, softmax_weights
from readouts.nn.base import Readout, apply, check_network, slopes_times_values
from readouts.segments import Segments


class AttentionReadout(Readout):
    """Average with attention weights: sum_i a_i nn(x_i), [N, F] -> [B, F']. Empty graph: `empty`.

    Example:
        >>> pool = AttentionReadout(gate_nn=torch.nn.Linear(8, 1))
        >>> pool(torch.randn(5, 8), torch.tensor([0, 0, 1, 1, 1])).shape
        torch.Size([2, 8])

    The weights a are the softmax of gate_nn(x) over the graph. Keeps weighted proportions, not the number of
    nodes. The weighted sum has the same bits for every order of the nodes; a network inside may change the
    last bits of a row when the row moves, as matrix products do.

    Args:
        gate_nn: network from x [N, F] to scores [N, 1], or [N, F'] for one score per feature.
        nn: network from x [N, F] to values [N, F']; None for x itself.
        empty: value of an empty graph.

    Raises:
        TypeError: `gate_nn` or `nn` is no network.

    Source: Li et al., arXiv 1511.05493 and 1904.12787.
    """

    _renamed: Mapping[str, str | None] = {"gate_mlp": "gate_nn", "mlp": "nn"}

    def __init__(self, gate_nn: Module, nn: Module | None = None, *, empty: float = 0) -> None:
        """Set the networks and the value of an empty graph."""
        super().__init__(empty=empty)
        if gate_nn is None:
            raise TypeError("gate_nn: expected a network such as torch.nn.Linear(8, 1), got None")
        check_network("gate_nn", gate_nn)
        check_network("nn", nn)
        self.gate_nn = gate_nn
        self.nn = nn

    def reset_parameters(self) -> None:
        """Reset the networks."""
        reset(self.gate_nn)
        reset(self.nn)

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        values, scores = self._values_and_scores(x, segments)
        return softmax_mean(values, scores, segments, empty=self.empty)

    def _values_and_scores(self, x: Tensor, segments: Segments) -> tuple[Tensor, Tensor]:
        scores = apply(self.gate_nn, x, segments, "gate_nn")
        values = apply(self.nn, x, segments, "nn")
        check_values("gate_nn", scores, values)
        return values, scores

    def attention(self, x: Tensor, segments: Segments, weight: Tensor | None = None) -> Tensor:
        """Return the weights a, [N, 1] or one for each feature [N, F']."""
        return softmax_weights(self._values_and_scores(x, segments)[1], segments)

    def contribution(self, x: Tensor, segments: Segments, weight: Tensor | None = None) -> Tensor:
        """Return a_i nn(x_i), the weight times the value."""
        values, scores = self._values_and_scores(x, segments)
        return slopes_times_values(lambda values: softmax_mean(values, scores, segments), values)

    def _settings(self) -> list[str]:
        return [f"gate_nn={self.gate_nn}", f"nn={self.nn}", *super()._settings()]


class MultiheadAttentionReadout(Readout):
    """Pool by multi-head attention with learned seeds as queries: [N, C] -> [B, seeds * C].

    Example:
        >>> pool = MultiheadAttentionReadout(channels=8, heads=2)
        >>> pool(torch.randn(5, 8), torch.tensor([0, 0, 1, 1, 1])).shape
        torch.Size([2, 8])

    For seed s, head h and d = C / heads, with a the softmax over the graph of the scores (W_q s + b_q)_h .
    (W_k x_i)_h / sqrt(d): o_h = sum_i a_i (W_v x_i)_h + b_h, then y = norm(s + W_o o + b_o), and the output
    is norm(y + relu(W y + b)). Does not keep the number of nodes.

    Scores are computed as x_i . (W_k^T (W_q s + b_q))_h, and o_h as W_v sum_i a_i x_i. This equals the
    formula above and needs no matrix product over nodes, so the bits of outputs and gradients do not depend
    on the order of the nodes. Memory: at most about N * seeds * heads * C numbers. Empty graph: `empty`.

    Args:
        channels: C.
        heads: number of heads; divides C.
        seeds: number of learned queries.
        layer_norm: whether the two norms are applied.
        empty: value of an empty graph.

    Raises:
        TypeError, ValueError: a number is no integer or below 1, or `heads` does not divide `channels`.

    Source: Lee et al., "Set Transformer" (arXiv 1810.00825), without the layer before the pooling.
    """

    def __init__(
        self, channels: int, heads: int = 1, seeds: int = 1, layer_norm: bool = False, *, empty: float = 0
    ) -> None:
        """Set the sizes, whether layers are normalised, and the value of an empty graph."""
        super().__init__(empty=empty)
        for name, number in (("channels", channels), ("heads", heads), ("seeds", seeds)):
            check_count(name, number)
        if channels % heads:
            raise ValueError(f"heads: expected a divisor of the {channels} channels, got {heads}")
        self.channels, self.heads, self.seeds, self.layer_norm = channels, heads, seeds, layer_norm
        self.seed = Parameter(torch.empty(seeds, channels))
        self.query = Linear(channels, channels)
        self.key = Linear(channels, channels, bias=False)
        self.value = Linear(channels, channels)
        self.out = Linear(channels, channels)
        self.norm1 = LayerNorm(channels) if layer_norm else None
        self.lin = Linear(channels, channels)
        self.norm2 = LayerNorm(channels) if layer_norm else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialise the seeds and the layers."""
        torch.nn.init.xavier_uniform_(self.seed)
        for layer in self.children():
            reset(layer)

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        nodes, directions = self._nodes_and_directions(x, segments)
        values = self.value.weight.unflatten(0, (self.heads, -1))
        pooled = _attended(nodes, directions, segments).unflatten(-2, (self.seeds, self.heads))
        heads = torch.einsum("...shc,hdc->...shd", pooled, values).flatten(-2) + self.value.bias
        out = self.seed + self.out(heads)
        out = out if self.norm1 is None else self.norm1(out)
        out = out + self.lin(out).relu()
        out = out if self.norm2 is None else self.norm2(out)
        return segments.fill_empty(out.flatten(-2), self.empty)

    def _nodes_and_directions(self, x: Tensor, segments: Segments) -> tuple[Tensor, Tensor]:
        """Return the nodes [N, ..., 1, C], and the directions [B, ..., seeds * heads, C] of every graph."""
        x = x.unsqueeze(1) if x.dim() == 1 else x
        check_features(x, self.channels)
        split = self.heads, self.channels // self.heads
        queries = self.query(self.seed).unflatten(-1, split) / split[1] ** 0.5
        directions = torch.einsum("shd,hdc->shc", queries, self.key.weight.unflatten(0, split)).flatten(0, 1)
        nodes = segments.nodes(x).unsqueeze(-2)
        return nodes, per_graph(directions, nodes, segments)

    def attention(self, x: Tensor, segments: Segments, weight: Tensor | None = None) -> Tensor:
        """Return the weights of every seed and head, [N, seeds * heads], the heads of a seed side by side."""
        return softmax_weights(_scores(segments, *self._nodes_and_directions(x, segments)), segments).squeeze(
            -1
        )

    def _settings(self) -> list[str]:
        settings = [str(self.channels), f"heads={self.heads}", f"seeds={self.seeds}"]
        return [*settings, *(["layer_norm=True"] if self.layer_norm else []), *super()._settings()]


class Set2SetReadout(Readout):
    """Attend T times, with an LSTM that makes the queries: [N, F] -> [B, 2 F]. Empty graph: `empty`.

    Example:
        >>> pool = Set2SetReadout(in_channels=8, processing_steps=3)
        >>> pool(torch.randn(5, 8), torch.tensor([0, 0, 1, 1, 1])).shape
        torch.Size([2, 16])

    q_t = LSTM(q*_(t-1)), a is the softmax of x_i . q_t over the graph, r_t = sum_i a_i x_i, q*_t = [q_t,
    r_t], and the output is q*_T. Matrix products run over graphs only, so the order of the nodes changes no
    bit. Does not keep the number of nodes.

    Args:
        in_channels: F.
        processing_steps: T.
        num_layers: number of layers of the LSTM; the query is the state of the last one.
        empty: value of an empty graph.

    Loads the state_dict of PyG's `Set2Set`.

    Raises:
        TypeError, ValueError: a number is no integer or below 1.

    Source: Vinyals et al., "Order matters" (arXiv 1511.06391).
    """

    def __init__(
        self, in_channels: int, processing_steps: int, num_layers: int = 1, *, empty: float = 0
    ) -> None:
        """Set the sizes and the value of an empty graph."""
        super().__init__(empty=empty)
        numbers = (("in_channels", in_channels), ("processing_steps", processing_steps))
        for name, number in (*numbers, ("num_layers", num_layers)):
            check_count(name, number)
        self.in_channels, self.processing_steps, self.num_layers = in_channels, processing_steps, num_layers
        self.lstm = LSTMCell(2 * in_channels, in_channels)
        if num_layers > 1:
            self.layers = ModuleList(LSTMCell(in_channels, in_channels) for _ in range(num_layers - 1))
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        places = ["lstm", *(f"layers.{layer}" for layer in range(num_layers - 1))]
        self._renamed = {
            f"lstm.{kind}_l{layer}": f"{place}.{kind}" for layer, place in enumerate(places) for kind in kinds
        }

    def reset_parameters(self) -> None:
        """Reinitialise the LSTM."""
        for cell in self._cells:
            cell.reset_parameters()

    @property
    def _cells(self) -> list[Any]:
        return [self.lstm, *(self.layers if self.num_layers > 1 else ())]

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        return segments.fill_empty(self._attend(x, segments)[0], self.empty)

    def _attend(self, x: Tensor, segments: Segments) -> tuple[Tensor, list[Tensor]]:
        """Return q*_T [B, 2 F] and the queries of every step, each [B, F]."""
        x = x.unsqueeze(1) if x.dim() == 1 else x
        if x.dim() != 2 or x.shape[1] != self.in_channels:
            raise ValueError(f"x: expected node features [N, {self.in_channels}], got {tuple(x.shape)}")
        x = segments.nodes(x)
        start = x.new_zeros(segments.size, self.in_channels)
        states = [(start, start)] * self.num_layers
        out, asked = x.new_zeros(segments.size, 2 * self.in_channels), []
        for _ in range(self.processing_steps):
            query = out
            for layer, cell in enumerate(self._cells):
                states[layer] = _step(cell, query, *states[layer])
                query = states[layer][0]
            asked.append(query)
            out = torch.cat([query, _attended(x, query, segments)], dim=-1)
        return out, asked

    def attention(self, x: Tensor, segments: Segments, weight: Tensor | None = None) -> Tensor:
        """Return the weights of every step, [N, T]."""
        rows, queries = x.flatten(1) if x.dim() > 1 else x.unsqueeze(1), self._attend(x, segments)[1]
        scores = [_scores(segments, rows, query) for query in queries]
        return softmax_weights(torch.cat(scores, dim=-1), segments)

    def _settings(self) -> list[str]:
        settings = [str(self.in_channels), f"processing_steps={self.processing_steps}"]
        settings += [f"num_layers={self.num_layers}"] if self.num_layers > 1 else []
        return [*settings, *super()._settings()]


def _step(cell: LSTMCell, x: Tensor, query: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Compute one step of an LSTM; PyTorch's own step does not support vmap."""
    gates = linear(x, cell.weight_ih, cell.bias_ih) + linear(query, cell.weight_hh, cell.bias_hh)
    let_in, keep, new, let_out = gates.chunk(4, dim=-1)
    memory = keep.sigmoid() * memory + let_in.sigmoid() * new.tanh()
    return let_out.sigmoid() * memory.tanh(), memory


def _attended(nodes: Tensor, directions: Tensor, segments: Segments) -> Tensor:
    """Average the nodes [N, ..., C] of every graph with the softmax of their products with directions."""
    temporaries = 24 * directions.shape[1:].numel() // max(nodes.shape[1:].numel(), 1)
    return in_parts(
        _softmax_of_products, segments, (nodes,), (directions,), temporaries=temporaries, by_columns=False
    )


def _softmax_of_products(segments: Segments, nodes: Tensor, directions: Tensor) -> Tensor:
    nodes = nodes.view_as(nodes)  # its two gradients are added before those of other calls
    return softmax_averaged(nodes, _scores(segments, nodes, directions), segments)


def _scores(segments: Segments, nodes: Tensor, directions: Tensor) -> Tensor:
    """Return the products [N, ..., 1] of nodes and the directions [B, ..., C] of their graphs."""
    return (nodes * segments.expand(directions)).sum(-1, keepdim=True)
