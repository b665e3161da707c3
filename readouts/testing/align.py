"""Which rows of a tensor of one run correspond to which rows in another."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from readouts.testing.graphs import Graphs
from readouts.testing.moves import Match

Two = tuple[Tensor, Tensor]


def staying(name: str, first: Tensor, second: Tensor, match: Match) -> str:
    """Rows that stay where they are."""
    return ""


def moving(name: str, first: Tensor, second: Tensor, match: Match) -> str:
    """What the rows of two results move with: ``"nodes"``, ``"edges"``, ``"graphs"``, or ``""`` for none."""
    for kind, others in zip(("nodes", "edges", "graphs"), match.others, strict=True):
        if _rows(first) == len(getattr(match, kind)) and _rows(second) == others:
            return kind
    return ""


def aligned(first: Tensor, second: Tensor, rows: str, match: Match) -> Two:
    """Put the rows of the second in the order of the first."""
    return (first, second[getattr(match, rows)]) if rows else (first, second)


def everyhow(first: Tensor, second: Tensor, match: Match, one: Graphs, two: Graphs) -> Iterator[Two]:
    """Every way in which two intermediate results may correspond: by node, edge, graph, or as they are."""
    known = False
    for rows, others, place in _row_matches(match, one, two):
        if _rows(first) == rows and _rows(second) == others:
            known = True
            yield first, second[place]
    nodes = (len(match.nodes), match.others[0])
    if first.dim() > 1 and second.dim() > 1 and (first.shape[1], second.shape[1]) == nodes:
        yield first, second[:, match.nodes]
    yield from _padded(first, second, match, one, two)
    if first.shape == second.shape:
        yield first, second
        flat = first.dim() == 1 and _rows(first) % len(match.nodes) == 0
        if not known and _rows(first) > 1 and not flat:  # some rows in an order of the layer's own
            yield first.sort(dim=0).values, second.sort(dim=0).values


def _row_matches(match: Match, one: Graphs, two: Graphs) -> Iterator[tuple[int, int, Tensor]]:
    """Row counts of the two, and the places of the first's rows in the second: nodes, edges, graphs.

    Edges come as they are and without loops, and either with one loop per node behind them.
    """
    yield len(match.nodes), match.others[0], match.nodes
    yield len(match.graphs), match.others[2], match.graphs
    kept, other_kept = _no_loops(one), _no_loops(two)
    rank = other_kept.cumsum(0) - 1
    for edges, place in (
        (match.others[1], match.edges),
        (int(other_kept.sum()), rank[match.edges[kept]]),
    ):
        yield len(place), edges, place
        looped = torch.cat([place, edges + match.nodes])
        yield len(looped), edges + match.others[0], looped


def _no_loops(graphs: Graphs) -> Tensor:
    if not graphs.num_edges:
        return torch.zeros(0, dtype=torch.bool)
    return graphs.links["edge_index"][0] != graphs.links["edge_index"][1]


def _padded(first: Tensor, second: Tensor, match: Match, one: Graphs, two: Graphs) -> Iterator[Two]:
    """[B, largest graph, ...] with the nodes of a graph at the front of its row."""
    if first.dim() < 2 or _rows(first) != one.size or _rows(second) != two.size:
        return
    if first.dim() != second.dim() or first.shape[2:] != second.shape[2:]:
        return
    rank, other = _ranks(one.member), _ranks(two.member)[match.nodes]
    if first.shape[1] > int(rank.max()) and second.shape[1] > int(other.max()):
        yield first[one.member, rank], second[two.member[match.nodes], other]


def _ranks(member: Tensor) -> Tensor:
    """How many nodes of its graph stand before each node."""
    order = member.argsort(stable=True)
    count = torch.bincount(member)
    rank = torch.empty_like(member)
    rank[order] = torch.arange(len(member)) - (count.cumsum(0) - count)[member[order]]
    return rank


def _rows(value: Tensor) -> int:
    return value.shape[0] if value.dim() else -1
