"""Inputs of a model: read them, permute, restrict and join their graphs, and write them back as arguments."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, Dataset
from torch_geometric.utils import cumsum

from readouts.reductions import INDEX_DTYPES

ROLES = ("edge_index", "batch")
ALIASES = {"batch": "index"}  # in aggregations of PyG
OF_NODES = ("x", "z", "pos", "node_attr", "node_features")


@dataclass(frozen=True)
class Graphs:
    """A batch of graphs, and the form in which the model takes it.

    Attributes:
        nodes: tensors with one row per node, by name.
        edges: tensors with one row per edge, by name.
        links: tensors of node indices, by name; the columns of ``edge_index`` are the edges.
        member: graph of every node, int64 [N].
        size: number of graphs B.
        form: ``"tensors"``, ``"data"`` or ``"batch"``.
        arguments: for tensors, every argument as passed, by name, in the order of the call; the fields above
            replace those that they contain.
        examples: for ``Data`` the object itself, for ``Batch`` one object per graph; they hold the
            attributes that belong neither to nodes nor to edges.
        keywords: names of the last arguments, which are passed by keyword.
        by_target: whether edges stay sorted by their target.
    """

    nodes: dict[str, Tensor]
    edges: dict[str, Tensor]
    links: dict[str, Tensor]
    member: Tensor
    size: int
    form: str
    arguments: dict[str, Any] = field(default_factory=dict)
    examples: tuple[Data, ...] = field(default=(), repr=False)
    keywords: tuple[str, ...] = ()
    by_target: bool = False

    @property
    def num_nodes(self) -> int:
        """Number of nodes N."""
        return len(self.member)

    @property
    def num_edges(self) -> int:
        """Number of edges E."""
        return self.links["edge_index"].shape[1] if "edge_index" in self.links else 0

    @property
    def counts(self) -> tuple[int, int, int]:
        """Numbers of nodes, edges and graphs."""
        return self.num_nodes, self.num_edges, self.size

    @property
    def edge_member(self) -> Tensor:
        """Graph of every edge, int64 [E]."""
        return self.member[self.links["edge_index"][0]] if self.num_edges else self.member[:0]

    def to_dtype(self, dtype: torch.dtype) -> Graphs:
        """Cast all floats, those of the examples and of other arguments included."""

        def cast(value: Any) -> Any:
            return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

        return replace(
            self,
            nodes={name: cast(value) for name, value in self.nodes.items()},
            edges={name: cast(value) for name, value in self.edges.items()},
            arguments={name: cast(value) for name, value in self.arguments.items()},
            examples=tuple(example.clone().apply(cast) for example in self.examples),
        )

    def change_features(self, change: Callable[[Tensor], Tensor]) -> Graphs:
        """Apply a function to the float features of the nodes."""
        changed = {name: change(value) for name, value in self.nodes.items() if value.is_floating_point()}
        return replace(self, nodes={**self.nodes, **changed})

    def call(self) -> tuple[Any, ...]:
        """Return copies of the arguments of the model, which it may change."""
        if self.form == "tensors":
            known = {**self.nodes, **self.edges, **self.links, "batch": self.member}
            return tuple(copy.deepcopy(known.get(name, rest)) for name, rest in self.arguments.items())
        return (self._data(),) if self.form == "data" else (self._batch(),)

    def _data(self) -> Data:
        data = copy.deepcopy(self.examples[0])
        for name, value in {**self.nodes, **self.edges, **self.links}.items():
            data[name] = value.clone()
        if "batch" in data:
            data.batch = self.member.clone()
        if "ptr" in data:
            data.ptr = cumsum(torch.bincount(self.member, minlength=self.size))
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


def read(inputs: tuple[Any, ...], named: dict[str, Any] | None = None, model: Any = None) -> Graphs:
    """Read the arguments of a model: ``Data``, ``Batch``, a list of ``Data``, or tensors; all on the CPU.

    The first tensor is x. An integer [2, E] is ``edge_index`` and an integer [N] is ``batch`` unless the
    model has parameters of these names; any other tensor with N rows belongs to the nodes, one with E rows
    to the edges. All else is passed on as it is.

    Args:
        inputs: the arguments by position.
        named: the arguments by keyword.
        model: the model, whose parameters name the arguments.

    Raises:
        TypeError: the first argument is neither a tensor, nor ``Data`` nor ``Batch``, or one is sparse.
        ValueError: an edge joins two graphs, there are no nodes, or rows may be nodes as well as edges.
    """
    named = named or {}
    every = (*inputs, *named.values())
    lone = _as_data(every[0]) if len(every) == 1 else None
    if lone is not None:
        data = copy.deepcopy(lone.clone().detach().cpu())
        separable = isinstance(data, Batch) and hasattr(data, "_slice_dict")
        graphs = replace(_read_batch(data) if separable else _read_data(data), keywords=tuple(named))
    elif every and isinstance(every[0], Tensor):
        names = [*_positional_names(model, len(inputs)), *named]
        graphs = replace(_read_tensors(every, names), keywords=tuple(named))
    else:
        kinds = ", ".join(type(value).__name__ for value in every) or "nothing"
        raise TypeError(f"inputs: expected Data, Batch, or tensors that begin with x, got {kinds}")
    if graphs.num_nodes == 0:
        raise ValueError("inputs: expected at least one node, got none")
    if graphs.num_edges:
        ends = graphs.member[graphs.links["edge_index"]]
        if not ends[0].equal(ends[1]):
            raise ValueError("edge_index: expected edges within graphs, got edges between two graphs")
    return graphs


def _as_data(value: Any) -> Data | None:
    """Return ``Data`` or ``Batch`` as it is, and join a list or data set of ``Data``; None for all else."""
    if isinstance(value, Data):
        return value
    if isinstance(value, list | tuple | Dataset) and len(value) and isinstance(value[0], Data):
        return Batch.from_data_list(list(value))
    return None


def _positional_names(model: Any, count: int) -> list[str]:
    """Return the names of a model's first parameters; "" where it has no name for an argument."""
    try:
        parameters = inspect.signature(getattr(model, "forward", model)).parameters.values()
    except (TypeError, ValueError):
        return [""] * count
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [parameter.name for parameter in parameters if parameter.kind in kinds]
    return [*names, *[""] * count][:count]


def _read_tensors(inputs: tuple[Any, ...], names: list[str]) -> Graphs:
    values = list(map(_copied, inputs))
    count = values[0].shape[0] if values[0].dim() else 0
    roles = _roles(values, names, count)
    fallback = ["x", *(f"argument_{place}" for place in range(1, len(values)))]
    arguments: dict[str, Any] = {}
    for place, (value, name) in enumerate(zip(values, names, strict=True)):
        taken = name in arguments or name in ROLES
        arguments[roles.get(place, fallback[place] if taken or not name else name)] = value
    links = {name: value for name, value in arguments.items() if name == "edge_index"}
    columns = links["edge_index"].shape[1] if links else -1
    nodes: dict[str, Tensor] = {}
    edges: dict[str, Tensor] = {}
    for place, (name, value) in enumerate(arguments.items()):
        rows = value.shape[0] if isinstance(value, Tensor) and value.dim() else None
        if name in ROLES or rows not in (count, columns):
            continue
        if place and count == columns and not (name.startswith("edge") or name in OF_NODES):
            text = f"{name}: expected rows of nodes or of edges, got {count} nodes and {count} edges"
            raise ValueError(f"{text}; pass Data, whose names distinguish them")
        of_edges = place > 0 and (rows != count or (rows == columns and name.startswith("edge")))
        (edges if of_edges else nodes)[name] = value
    member = arguments["batch"].long() if "batch" in arguments else torch.zeros(count, dtype=torch.int64)
    size = int(member.max()) + 1 if count else 0
    return Graphs(nodes, edges, links, member, size, "tensors", arguments)


def _roles(values: list[Any], names: list[str], count: int) -> dict[int, str]:
    """Return which arguments are ``edge_index`` and ``batch``: by their names, else the first that fit."""
    fits = {
        "edge_index": lambda value: value.dim() == 2 and value.shape[0] == 2,
        "batch": lambda value: tuple(value.shape) == (count,),
    }
    found: dict[int, str] = {}
    for role, fit in fits.items():
        integers = [
            place
            for place, value in enumerate(values)
            if place and isinstance(value, Tensor) and value.dtype in INDEX_DTYPES and fit(value)
        ]
        by_name = [place for place in integers if names[place] in (role, ALIASES.get(role))]
        free = [place for place in integers if place not in found and names[place] not in OF_NODES]
        for place in (by_name or free)[:1]:
            found[place] = role
    return found


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
    nodes, edges, links = _split_by_owner(data)
    return Graphs(nodes, edges, links, member, size, "data", examples=(data,))


def _read_batch(batch: Batch) -> Graphs:
    examples = tuple(batch.get_example(graph) for graph in range(batch.num_graphs))
    nodes, edges, links = _split_by_owner(batch)
    one_each = torch.arange(batch.num_graphs + 1)
    if not batch.ptr.equal(one_each):  # as many rows as graphs belong to the graphs, not to nodes or edges
        per_graph = {name for name in (*nodes, *edges) if batch._slice_dict[name].equal(one_each)}
        nodes = {name: value for name, value in nodes.items() if name not in per_graph}
        edges = {name: value for name, value in edges.items() if name not in per_graph or "edge" in name}
    return Graphs(nodes, edges, links, batch.batch.long(), batch.num_graphs, "batch", examples=examples)


def _split_by_owner(data: Data) -> tuple[dict[str, Tensor], ...]:
    """Return the tensors of nodes, of edges, and of node indices, by PyG's own rules."""
    nodes: dict[str, Tensor] = {}
    edges: dict[str, Tensor] = {}
    links: dict[str, Tensor] = {}
    for name, value in data.to_dict().items():
        if not isinstance(value, Tensor) or name in ("batch", "ptr"):
            if name == "adj_t":
                raise TypeError("adj_t: expected edges as edge_index, got a sparse adjacency matrix")
            continue
        if value.layout != torch.strided:
            raise TypeError(f"{name}: expected a dense tensor, got layout {value.layout}")
        if value.dtype in INDEX_DTYPES and value.dim() == 2 and ("index" in name or name == "face"):
            links[name] = value
        elif data.is_node_attr(name):
            nodes[name] = value
        elif data.is_edge_attr(name):
            edges[name] = value
    return nodes, edges, links


@dataclass(frozen=True)
class Match:
    """Positions of the nodes, edges and graphs of one input in another.

    Attributes:
        nodes: position of every node in the other input, int64 [N].
        edges: position of every edge, int64 [E].
        graphs: position of every graph, int64 [B].
        others: numbers of nodes, edges and graphs of the other input.
    """

    nodes: Tensor
    edges: Tensor
    graphs: Tensor
    others: tuple[int, int, int]


def same(graphs: Graphs) -> Match:
    """Match an input with itself."""
    nodes, edges, members = map(torch.arange, graphs.counts)
    return Match(nodes, edges, members, graphs.counts)


def permute(graphs: Graphs, nodes: Tensor, edges: Tensor) -> tuple[Graphs, Match]:
    """Move node ``nodes[i]`` to place i with all that belongs to it, and edge ``edges[j]`` to place j.

    For `by_target`, edges are then sorted by their target, those of one target in the order given.
    """
    if graphs.by_target and graphs.num_edges:
        place = nodes.argsort()
        edges = edges[place[graphs.links["edge_index"][1][edges].long()].argsort(stable=True)]
    permuted = take(graphs, nodes, edges, range(graphs.size))
    return permuted, Match(nodes.argsort(), edges.argsort(), torch.arange(graphs.size), graphs.counts)


def sorted_by_target(graphs: Graphs) -> bool:
    """Return whether the targets of the edges ascend."""
    target = graphs.links["edge_index"][1]
    return bool((target[1:] >= target[:-1]).all())


def sort_by_target(graphs: Graphs) -> Graphs:
    """Sort the edges by their target, as loaders do."""
    order = graphs.links["edge_index"][1].argsort(stable=True)
    return take(graphs, range(graphs.num_nodes), order, range(graphs.size))


def shuffled(member: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a random order that moves every item within its graph, int64 [N]."""
    order, random = torch.empty_like(member), torch.randperm(len(member), generator=generator)
    order[member.argsort(stable=True)] = random[member[random].argsort(stable=True)]
    return order


def take(
    graphs: Graphs, nodes: Tensor | Sequence[int], edges: Tensor | Sequence[int], kept: Sequence[int]
) -> Graphs:
    """Keep some nodes and graphs, in the order given, and those of some edges whose two ends are kept."""
    nodes, edges = (torch.as_tensor(some, dtype=torch.int64) for some in (nodes, edges))
    place = torch.full((graphs.num_nodes,), -1)
    place[nodes] = torch.arange(len(nodes))
    graph_place = torch.full((graphs.size,), -1)
    graph_place[list(kept)] = torch.arange(len(kept))
    links = {}
    for name, value in graphs.links.items():
        value = value[:, edges] if name == "edge_index" else value
        moved = place[value.long()]
        inside = (moved >= 0).all(dim=0)
        links[name] = moved[:, inside].to(value.dtype)
        if name == "edge_index":
            edges = edges[inside]
    return replace(
        graphs,
        nodes={name: value[nodes] for name, value in graphs.nodes.items()},
        edges={name: value[edges] for name, value in graphs.edges.items()},
        links=links,
        member=graph_place[graphs.member[nodes]],
        size=len(kept),
        examples=tuple(graphs.examples[graph] for graph in kept)
        if graphs.form == "batch"
        else graphs.examples,
    )


def parts_of(graphs: Graphs, kept: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the nodes and the edges of some graphs, in the order of these graphs."""
    nodes, edges = (
        torch.cat([(member == graph).nonzero().flatten() for graph in kept])
        for member in (graphs.member, graphs.edge_member)
    )
    return nodes, edges


def only(graphs: Graphs, kept: Sequence[int]) -> Graphs:
    """Keep some graphs whole, in the order given."""
    return take(graphs, *parts_of(graphs, kept), kept)


def join(parts: Sequence[Graphs]) -> Graphs:
    """Concatenate batches; the form, and what belongs to no graph, is that of the first."""
    first = parts[0]
    members, links, nodes, graphs = [], [], 0, 0
    for part in parts:
        members.append(part.member + graphs)
        links.append({name: value + nodes for name, value in part.links.items()})
        nodes, graphs = nodes + part.num_nodes, graphs + part.size
    examples = tuple(example for part in parts for example in part.examples)
    return replace(
        first,
        nodes={name: torch.cat([part.nodes[name] for part in parts]) for name in first.nodes},
        edges={name: torch.cat([part.edges[name] for part in parts]) for name in first.edges},
        links={name: torch.cat([link[name] for link in links], dim=1) for name in first.links},
        member=torch.cat(members),
        size=graphs,
        examples=examples if first.form == "batch" else first.examples,
    )


def fuse(graphs: Graphs) -> Graphs:
    """Return the disjoint union of the graphs of a batch as one graph."""
    examples = graphs.examples[:1]
    return replace(graphs, member=torch.zeros_like(graphs.member), size=1, examples=examples)
