"""Graphs that occur again are found by what they are, whatever the order of their nodes."""

from __future__ import annotations

import random

import networkx as nx
import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from datasets import rings
from datasets.duplicates import same_graphs


def cycle(nodes: int) -> Tensor:
    forth = torch.stack([torch.arange(nodes), (torch.arange(nodes) + 1) % nodes])
    return torch.cat([forth, forth.flip(0)], dim=1)


def of_network(network: nx.Graph) -> Data:
    ends = list(nx.convert_node_labels_to_integers(network).to_directed().edges())
    edge_index = torch.tensor(ends, dtype=torch.int64).reshape(-1, 2).T
    return Data(node_label=torch.zeros(len(network)).long(), edge_index=edge_index, num_nodes=len(network))


def shuffled(one: Data, seed: int) -> Data:
    order = torch.randperm(one.num_nodes, generator=torch.Generator().manual_seed(seed))
    fields = {key: one[key][order] for key in ("node_label", "node_attr") if key in one}
    fields |= {key: one[key] for key in ("edge_label", "edge_attr") if key in one}
    return Data(edge_index=torch.argsort(order)[one.edge_index], num_nodes=one.num_nodes, **fields)


def test_shuffled_graphs_are_the_same_graph() -> None:
    distinct = rings.load().graphs[::3]
    copies = [shuffled(one, seed) for seed in range(2) for one in distinct]
    assert same_graphs([*distinct, *copies]).tolist() == 3 * list(range(len(distinct)))


def test_any_difference_makes_another_graph() -> None:
    hexagon = Data(node_label=torch.zeros(6).long(), edge_index=cycle(6), num_nodes=6)
    triangles = torch.cat([cycle(3), cycle(3) + 3], dim=1)
    label, attr = torch.tensor([0, 0, 0, 0, 0, 1]), torch.ones(6, 1)
    near = torch.tensor([1, 1] + 10 * [0])
    unlike = [
        hexagon,
        Data(node_label=hexagon.node_label, edge_index=triangles),  # alike for every message passing network
        Data(node_label=label, edge_index=cycle(6)),
        Data(node_label=label, edge_index=cycle(6), node_attr=attr),
        Data(node_label=label, edge_index=cycle(6), node_attr=2 * attr),
        Data(node_label=hexagon.node_label, edge_index=cycle(6), edge_label=near[torch.arange(12)]),
        Data(node_label=hexagon.node_label, edge_index=cycle(6), edge_attr=torch.arange(12.0)[:, None]),
        Data(node_label=torch.zeros(0).long(), edge_index=torch.zeros(2, 0).long()),
    ]
    for one in unlike:
        one.num_nodes = len(one.node_label)
    again = [shuffled(one, 5) for one in unlike]
    assert same_graphs([*unlike, *again]).tolist() == 2 * list(range(len(unlike)))
    assert same_graphs([]).tolist() == []


def test_copies_of_random_graphs_are_found() -> None:
    draw = random.Random(0)
    made = []
    for _ in range(40):
        pairs = [(u, v) for u in range(6) for v in range(u) if draw.random() < 0.5]
        both = torch.tensor([*pairs, *((v, u) for u, v in pairs)]).reshape(-1, 2).T
        made.append(Data(node_label=torch.zeros(6).long(), edge_index=both, num_nodes=6))
    groups = same_graphs([*made, *(shuffled(one, 9) for one in made)])
    assert np.array_equal(groups[:40], groups[40:])
    networks = [nx.DiGraph(one.edge_index.T.tolist()) for one in made]
    for network in networks:
        network.add_nodes_from(range(6))
    expected = [[nx.is_isomorphic(one, other) for other in networks] for one in networks]
    assert (groups[:40, None] == groups[None, :40]).tolist() == expected


def test_graphs_that_message_passing_cannot_tell_apart() -> None:
    rook = nx.line_graph(nx.complete_bipartite_graph(4, 4))
    shrikhande = nx.Graph(
        ((a, b), ((a + c) % 4, (b + d) % 4))
        for a in range(4)
        for b in range(4)
        for c, d in ((1, 0), (0, 1), (1, 1))
    )
    regular = [nx.random_regular_graph(4, 40, seed=seed) for seed in range(2)]
    unlike = [of_network(network) for network in (rook, shrikhande, *regular)]
    again = [shuffled(one, 2) for one in unlike]
    assert same_graphs([*unlike, *again]).tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


def test_graphs_of_many_equal_parts() -> None:
    pairs = of_network(nx.disjoint_union_all([nx.path_graph(2)] * 60))
    whole, star = of_network(nx.complete_graph(40)), of_network(nx.star_graph(50))
    unlike = [pairs, whole, star]
    assert same_graphs([*unlike, *(shuffled(one, 1) for one in unlike)]).tolist() == [0, 1, 2, 0, 1, 2]
