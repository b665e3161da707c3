"""The graphs that a model is called with, in whichever form, and what can be done to them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

INTEGERS = (torch.int64, torch.int32)


@dataclass(frozen=True)
class Graphs:
    """A batch of graphs, and the form in which the model takes it.

    Attributes:
        nodes: tensors with one row per node, by name.
        edges: tensors with one row per edge, by name.
        links: tensors of node numbers, by name; the columns of ``edge_index`` are the edges.
        member: graph of every node, int64 [N].
        size: number of graphs B.
        form: ``"tensors"``, ``"data"`` or ``"batch"``.
        arguments: for tensors, the names in the order of the call, and whatever else is passed on.
        examples: for ``Data`` the object itself, for ``Batch`` one object per graph; they carry
            all that is neither node, edge nor link.
    """

    nodes: dict[str, Tensor]
    edges: dict[str, Tensor]
    links: dict[str, Tensor]
    member: Tensor
    size: int
    form: str
    arguments: tuple[tuple[str, Any], ...] = ()
    examples: tuple[Data, ...] = field(default=(), repr=False)

    @property
    def num_nodes(self) -> int:
        """Number of nodes N."""
        return len(self.member)

    @property
    def num_edges(self) -> int:
        """Number of edges E."""
        return self.links["edge_index"].shape[1] if "edge_index" in self.links else 0

    @property
    def edge_member(self) -> Tensor:
        """Graph of every edge, int64 [E]."""
        return self.member[self.links["edge_index"][0]] if self.num_edges else self.member[:0]

    def change(self, change: Callable[[Tensor], Tensor]) -> Graphs:
        """Apply a function to every tensor of numbers, those of the examples included."""
        examples = tuple(example.clone().apply(change) for example in self.examples)
        nodes = {name: change(value) for name, value in self.nodes.items()}
        edges = {name: change(value) for name, value in self.edges.items()}
        rest = tuple(
            (name, change(value) if isinstance(value, Tensor) else value) for name, value in self.arguments
        )
        return replace(self, nodes=nodes, edges=edges, arguments=rest, examples=examples)

    def call(self) -> tuple[Any, ...]:
        """Return fresh arguments for the model; it may change them without harm to anyone."""
        if self.form == "tensors":
            known = {**self.nodes, **self.edges, **self.links, "batch": self.member}
            return tuple(copy.deepcopy(known.get(name, rest)) for name, rest in self.arguments)
        return (self._data(),) if self.form == "data" else (self._batch(),)

    def _data(self) -> Data:
        data = copy.deepcopy(self.examples[0])
        for name, value in {**self.nodes, **self.edges, **self.links}.items():
            data[name] = value.clone()
        if "batch" in data:
            data.batch = self.member.clone()
        if "ptr" in data:
            count = torch.bincount(self.member, minlength=self.size)
            data.ptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
        if "num_nodes" in data:
            data.num_nodes = self.num_nodes
        return data

    def _batch(self) -> Batch:
        count = torch.bincount(self.member, minlength=self.size)
        start = count.cumsum(0) - count
        columns = torch.bincount(self.edge_member, minlength=self.size).tolist()
        parts = [copy.deepcopy(example) for example in self.examples]
        for store, pieces in ((self.nodes, count.tolist()), (self.edges, columns)):
            for name, value in store.items():
                for part, piece in zip(parts, value.clone().split(pieces), strict=True):
                    part[name] = piece
        for name, value in self.links.items():
            owner = self.member[value[0]]
            sizes = torch.bincount(owner, minlength=self.size).tolist()
            local = (value - start[owner]).split(sizes, dim=-1)
            for part, piece in zip(parts, local, strict=True):
                part[name] = piece
        for part, nodes in zip(parts, count.tolist(), strict=True):
            if "num_nodes" in part or not self.nodes:
                part.num_nodes = nodes
        return Batch.from_data_list(parts)


def read(inputs: tuple[Any, ...]) -> Graphs:
    """Understand the arguments of a model: ``Data``, ``Batch``, or tensors.

    Of tensors the first is x, an integer [2, E] is ``edge_index``, an integer [N] is ``batch``; any
    other with N rows belongs to the nodes, with E rows to the edges, and the rest is passed on. All are
    copied to the CPU.

    Raises:
        TypeError: the first argument is neither a tensor, nor ``Data`` nor ``Batch``, or one is sparse.
        ValueError: an edge joins two graphs, there are no nodes, or rows may be nodes as well as edges.
    """
    if len(inputs) == 1 and isinstance(inputs[0], Data):
        data = copy.deepcopy(inputs[0].clone().detach().cpu())
        separable = isinstance(data, Batch) and hasattr(data, "_slice_dict")
        graphs = _read_batch(data) if separable else _read_data(data)
    elif inputs and isinstance(inputs[0], Tensor):
        graphs = _read_tensors(inputs)
    else:
        kinds = ", ".join(type(value).__name__ for value in inputs) or "nothing"
        raise TypeError(f"inputs: expected Data, Batch, or tensors that begin with x, got {kinds}")
    if graphs.num_nodes == 0:
        raise ValueError("inputs: expected at least one node, got none")
    if graphs.num_edges:
        ends = graphs.member[graphs.links["edge_index"]]
        if not ends[0].equal(ends[1]):
            raise ValueError("edge_index: expected edges within graphs, got edges between two graphs")
    return graphs


def _read_tensors(inputs: tuple[Any, ...]) -> Graphs:
    inputs = tuple(_copied(value) for value in inputs)
    x = inputs[0]
    count = x.shape[0] if x.dim() else 0
    nodes: dict[str, Tensor] = {"x": x}
    edges: dict[str, Tensor] = {}
    links: dict[str, Tensor] = {}
    arguments: list[tuple[str, Any]] = [("x", None)]
    member, unknown = torch.zeros(count, dtype=torch.int64), []
    for place, value in enumerate(inputs[1:], 1):
        shape = tuple(value.shape) if isinstance(value, Tensor) else ()
        whole = isinstance(value, Tensor) and value.dtype in INTEGERS
        known = [name for name, _ in arguments]
        if whole and len(shape) == 2 and shape[0] == 2 and "edge_index" not in known:
            links["edge_index"] = value
            arguments.append(("edge_index", None))
        elif whole and shape == (count,) and "batch" not in known:
            member = value.long()
            arguments.append(("batch", None))
        else:
            unknown.append(place)
            arguments.append((f"argument_{place}", value))
    columns = links["edge_index"].shape[1] if links else -1
    for place in unknown:
        name, value = arguments[place]
        rows = value.shape[0] if isinstance(value, Tensor) and value.dim() else None
        if rows == count == columns:
            text = f"{name}: expected rows of nodes or of edges, got {count} nodes and {count} edges"
            raise ValueError(f"{text}; pass Data, whose names tell them apart")
        if rows in (count, columns):
            (nodes if rows == count else edges)[name] = value
            arguments[place] = (name, None)
    size = int(member.max()) + 1 if count else 0
    return Graphs(nodes, edges, links, member, size, "tensors", tuple(arguments))


def _copied(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return copy.deepcopy(value)
    if value.layout != torch.strided:
        raise TypeError(f"inputs: expected dense tensors, got layout {value.layout}")
    return value.detach().cpu().clone()


def _read_data(data: Data) -> Graphs:
    alone = torch.zeros(data.num_nodes or 0, dtype=torch.int64)
    member = data.batch.long() if "batch" in data else alone
    size = max(int(member.max()) + 1 if len(member) else 0, len(data.ptr) - 1 if "ptr" in data else 0)
    nodes, edges, links = _sorted_out(data, data.to_dict())
    return Graphs(nodes, edges, links, member, size, "data", examples=(data,))


def _read_batch(batch: Batch) -> Graphs:
    examples = tuple(batch.get_example(graph) for graph in range(batch.num_graphs))
    nodes, edges, links = _sorted_out(batch, batch.to_dict())
    one_each = torch.arange(batch.num_graphs + 1)
    if not batch.ptr.equal(one_each):  # as many rows as graphs belong to the graphs, not to nodes or edges
        per_graph = {name for name in (*nodes, *edges) if batch._slice_dict[name].equal(one_each)}
        nodes = {name: value for name, value in nodes.items() if name not in per_graph}
        edges = {name: value for name, value in edges.items() if name not in per_graph or "edge" in name}
    return Graphs(nodes, edges, links, batch.batch.long(), batch.num_graphs, "batch", examples=examples)


def _sorted_out(data: Data, values: Mapping[str, Any]) -> tuple[dict[str, Tensor], ...]:
    """Tell node, edge and link tensors apart by PyG's own rules."""
    nodes: dict[str, Tensor] = {}
    edges: dict[str, Tensor] = {}
    links: dict[str, Tensor] = {}
    for name, value in values.items():
        if not isinstance(value, Tensor) or name in ("batch", "ptr"):
            if name == "adj_t":
                raise TypeError("adj_t: expected edges as edge_index, got a sparse adjacency matrix")
            continue
        if value.layout != torch.strided:
            raise TypeError(f"{name}: expected a dense tensor, got layout {value.layout}")
        if value.dtype in INTEGERS and value.dim() == 2 and ("index" in name or name == "face"):
            links[name] = value
        elif data.is_node_attr(name):
            nodes[name] = value
        elif data.is_edge_attr(name):
            edges[name] = value
    return nodes, edges, links
