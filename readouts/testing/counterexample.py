"""Shrink an input that shows a fault: fewer graphs, nodes and edges, a simpler order, plainer values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

import torch
from torch import Tensor

from readouts.testing.graphs import Graphs
from readouts.testing.moves import Match, only, permute, take
from readouts.testing.trials import Trial

BUDGET = 100


@dataclass(frozen=True)
class Shuffle:
    """An input and an order of its nodes and of its edges."""

    graphs: Graphs
    nodes: Tensor
    edges: Tensor

    def trial(self) -> Trial:
        """Return the input before and after."""
        second, match = permute(self.graphs, self.nodes, self.edges)
        return Trial("shuffled", self.graphs, second, match)

    def keep(self, nodes: list[int], edges: list[int], graphs: list[int]) -> Shuffle:
        """Keep some nodes, edges and graphs, and what is left of the two orders."""
        edges = _with_ends(self.graphs, edges, nodes)
        smaller = _kept(self.graphs, nodes, edges, graphs)
        return Shuffle(smaller, _rest(self.nodes, nodes), _rest(self.edges, edges))


def _with_ends(graphs: Graphs, edges: list[int], nodes: list[int]) -> list[int]:
    if not edges:
        return edges
    inside = torch.isin(graphs.links["edge_index"], torch.tensor(nodes)).all(dim=0)
    return [edge for edge in edges if inside[edge]]


def _kept(graphs: Graphs, nodes: list[int], edges: list[int], kept: list[int]) -> Graphs:
    return take(graphs, torch.tensor(nodes, dtype=torch.int64), torch.tensor(edges, dtype=torch.int64), kept)


def _rest(order: Tensor, kept: list[int]) -> Tensor:
    place = torch.full((len(order),), -1)
    place[kept] = torch.arange(len(kept))
    left = place[order]
    return left[left >= 0]


@dataclass(frozen=True)
class Company:
    """A batch, and the number of the graph whose result ought to be the same without the others."""

    graphs: Graphs
    graph: int

    def trial(self) -> Trial:
        """Return the graph alone, and in its batch."""
        return company(self.graphs, self.graph, "in company")

    def keep(self, nodes: list[int], edges: list[int], graphs: list[int]) -> Company:
        """Keep some nodes, edges and graphs, the graph itself among them."""
        smaller = _kept(self.graphs, nodes, edges, graphs)
        return Company(smaller, graphs.index(self.graph))


Case = Shuffle | Company
C = TypeVar("C", Shuffle, Company)


def company(graphs: Graphs, graph: int, label: str) -> Trial:
    """Compare a graph of a batch alone with the same graph in the batch."""
    nodes = (graphs.member == graph).nonzero().flatten()
    edges = (graphs.edge_member == graph).nonzero().flatten()
    sizes = (graphs.num_nodes, graphs.num_edges, graphs.size)
    return Trial(label, only(graphs, [graph]), graphs, Match(nodes, edges, torch.tensor([graph]), sizes))


def shrink(case: C, fails: Callable[[Trial], bool]) -> C:
    """Make a failing case as simple as a limited number of tries allows."""
    tries = BUDGET

    def holds(candidate: Case) -> bool:
        nonlocal tries
        tries -= 1
        try:
            return fails(candidate.trial())
        except Exception:  # the smaller input is none that the model takes
            return False

    before = None
    while case is not before:
        before = case
        for step in (_fewer_graphs, _fewer_nodes, _swaps, _fewer_nodes, _fewer_edges, _plainer_values):
            while (
                simpler := next((each for each in step(case) if tries > 0 and holds(each)), None)
            ) is not None:
                case = simpler
    return case


def _pieces(count: int) -> Iterator[list[int]]:
    """What is left of 0 .. count - 1 without one half, one quarter, ... one item."""
    width = (count + 1) // 2
    while width and count > 1:
        for start in range(0, count, width):
            yield [item for item in range(count) if not start <= item < start + width]
        width = 0 if width == 1 else (width + 1) // 2


def _fewer_graphs(case: C) -> Iterator[C]:
    graphs = case.graphs
    for kept in _pieces(graphs.size):
        inside = torch.isin(graphs.member, torch.tensor(kept)).nonzero().flatten().tolist()
        edges = torch.isin(graphs.edge_member, torch.tensor(kept)).nonzero().flatten().tolist()
        if inside and not (isinstance(case, Company) and case.graph not in kept):
            yield case.keep(inside, edges, kept)


def _fewer_nodes(case: C) -> Iterator[C]:
    graphs = case.graphs
    before = torch.bincount(graphs.member, minlength=graphs.size)
    for kept in _pieces(graphs.num_nodes):
        after = torch.bincount(graphs.member[kept], minlength=graphs.size)
        if not (isinstance(case, Company) and after[case.graph] == 0):
            filled = ((after > 0) | (before == 0)).nonzero().flatten().tolist()
            yield case.keep(kept, list(range(graphs.num_edges)), filled)


def _fewer_edges(case: C) -> Iterator[C]:
    graphs: Graphs = case.graphs
    for kept in [[], *_pieces(graphs.num_edges)]:
        if len(kept) < graphs.num_edges:
            yield case.keep(list(range(graphs.num_nodes)), kept, list(range(graphs.size)))


def _swaps(case: C) -> Iterator[C]:
    """A simpler order: nodes alone, edges alone, two nodes swapped, two edges swapped."""
    if isinstance(case, Company):
        return
    graphs = case.graphs
    nodes, edges = torch.arange(graphs.num_nodes), torch.arange(graphs.num_edges)
    moved = [int((case.nodes != nodes).sum()), int((case.edges != edges).sum())]
    if all(moved):
        yield replace(case, edges=edges)
        yield replace(case, nodes=nodes)
    if moved[0] > 2:
        for one, two in _pairs(graphs.member):
            yield replace(case, nodes=_swapped(nodes, one, two), edges=edges)
    if moved[1] > 2:
        for one, two in _pairs(graphs.edge_member):
            yield replace(case, nodes=nodes, edges=_swapped(edges, one, two))


def _pairs(member: Tensor) -> list[tuple[int, int]]:
    """Up to thirty pairs of items of one graph."""
    near = combinations(range(min(len(member), 60)), 2)
    pairs = [(one, two) for one, two in near if member[one] == member[two]]
    return pairs[:: max(1, len(pairs) // 30)][:30]


def _swapped(order: Tensor, one: int, two: int) -> Tensor:
    order = order.clone()
    order[[one, two]] = order[[two, one]]
    return order


def _plainer_values(case: C) -> Iterator[C]:
    """Zeros, small integers or a few digits in the place of whole tensors or columns."""
    graphs = case.graphs
    for name, value in {**graphs.nodes, **graphs.edges}.items():
        for plain in _plain(value) if value.is_floating_point() else ():
            if not plain.equal(value):
                nodes = {**graphs.nodes, name: plain} if name in graphs.nodes else graphs.nodes
                edges = {**graphs.edges, name: plain} if name in graphs.edges else graphs.edges
                yield replace(case, graphs=replace(graphs, nodes=nodes, edges=edges))


def _plain(value: Tensor) -> Iterator[Tensor]:
    yield torch.zeros_like(value)
    if not value.equal(value.round()):
        yield value.sign() + 0.0  # no -0
        yield value.round() + 0.0
        yield (value * 4).round() / 4 + 0.0
    for column in range(value.shape[1]) if value.dim() == 2 else ():
        plainer = value.clone()
        plainer[:, column] = 0
        yield plainer
