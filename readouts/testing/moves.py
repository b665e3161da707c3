"""Relabelled, restricted and joined graphs, and where the nodes, edges and graphs of one stand in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from readouts.testing.graphs import Graphs


@dataclass(frozen=True)
class Match:
    """Where the nodes, edges and graphs of one input stand in another.

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
    """Match of an input with itself."""
    sizes = (graphs.num_nodes, graphs.num_edges, graphs.size)
    nodes, edges, members = (torch.arange(size) for size in sizes)
    return Match(nodes, edges, members, sizes)


def permute(graphs: Graphs, nodes: Tensor, edges: Tensor) -> tuple[Graphs, Match]:
    """Put node ``nodes[i]`` at place i with all that belongs to it, and edge ``edges[j]`` at place j."""
    place, edge_place = nodes.argsort(), edges.argsort()
    links = {name: place[value.long()].to(value.dtype) for name, value in graphs.links.items()}
    if "edge_index" in links:
        links["edge_index"] = links["edge_index"][:, edges]
    permuted = replace(
        graphs,
        nodes={name: value[nodes] for name, value in graphs.nodes.items()},
        edges={name: value[edges] for name, value in graphs.edges.items()},
        links=links,
        member=graphs.member[nodes],
    )
    sizes = (graphs.num_nodes, graphs.num_edges, graphs.size)
    return permuted, Match(place, edge_place, torch.arange(graphs.size), sizes)


def shuffled(member: Tensor, generator: torch.Generator) -> Tensor:
    """Random order that moves every item within its graph only, int64 [N]."""
    order, random = torch.empty_like(member), torch.randperm(len(member), generator=generator)
    order[member.argsort(stable=True)] = random[member[random].argsort(stable=True)]
    return order


def take(graphs: Graphs, nodes: Tensor, edges: Tensor, kept: Sequence[int]) -> Graphs:
    """Keep some nodes and graphs, and those of some edges whose two ends are kept."""
    place = torch.full((graphs.num_nodes,), -1)
    place[nodes] = torch.arange(len(nodes))
    graph_place = torch.full((graphs.size,), -1)
    graph_place[list(kept)] = torch.arange(len(kept))
    links, per_graph = {}, graphs.form == "batch"
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
        examples=tuple(graphs.examples[graph] for graph in kept) if per_graph else graphs.examples,
    )


def only(graphs: Graphs, kept: Sequence[int]) -> Graphs:
    """Keep some graphs whole, in the order given."""
    nodes = [(graphs.member == graph).nonzero().flatten() for graph in kept]
    edges = [(graphs.edge_member == graph).nonzero().flatten() for graph in kept]
    empty = torch.zeros(0, dtype=torch.int64)
    return take(graphs, torch.cat([empty, *nodes]), torch.cat([empty, *edges]), kept)


def join(parts: Sequence[Graphs]) -> Graphs:
    """Put batches behind one another; the form, and what belongs to no graph, is that of the first."""
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
    """Make one graph of a batch: the disjoint union of its graphs."""
    examples = graphs.examples[:1]
    return replace(graphs, member=torch.zeros_like(graphs.member), size=1, examples=examples)
