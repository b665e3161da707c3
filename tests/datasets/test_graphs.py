"""A set of graphs is indexed, sliced and shuffled like a data set of PyG."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.loader import DataLoader

from datasets import load

RINGS = load("rings")


@pytest.mark.parametrize(
    ("position", "places"),
    [
        (slice(2, 8, 3), [2, 5]),
        (slice(None, 0.1), [0, 1, 2, 3]),
        (slice(-2, None), [38, 39]),
        ([3, -1], [3, 39]),
        ((1, 1), [1, 1]),
        (range(4, 6), [4, 5]),
        ([], []),
        (torch.tensor([5, 0]), [5, 0]),
        (torch.arange(40) >= 38, [38, 39]),
        (np.array([7, 2], np.int32), [7, 2]),
        (np.arange(40) < 1, [0]),
    ],
)
def test_a_part_of_a_set_is_a_set(position: Any, places: list[int]) -> None:
    part = RINGS[position]
    assert [id(graph) for graph in part] == [id(RINGS.graphs[place]) for place in places]
    assert (part.name, part.classes, part.node_names) == (RINGS.name, RINGS.classes, RINGS.node_names)


@pytest.mark.parametrize("position", [3, -37, np.int64(3), torch.tensor(3)])
def test_an_index_is_a_graph(position: Any) -> None:
    assert RINGS[position] is RINGS.graphs[3]


@pytest.mark.parametrize("position", [40, [40], torch.rand(3), torch.zeros(2, 2).long(), [True, False]])
def test_other_positions_are_refused(position: Any) -> None:
    with pytest.raises(IndexError):
        RINGS[position]


def test_shuffled_sets_and_the_names_of_pyg() -> None:
    shuffled, order = RINGS.shuffle(return_perm=True)
    assert sorted(order.tolist()) == list(range(40))
    assert all(graph is RINGS[place] for graph, place in zip(shuffled, order, strict=True))
    assert len(RINGS.shuffle()) == 40
    assert RINGS.num_features == RINGS.num_node_features == RINGS[0].x.shape[1]
    assert RINGS.num_classes == RINGS.classes == 4
    assert RINGS.num_edge_features == 0
    assert repr(RINGS) == "rings(40)"
    assert next(iter(DataLoader(RINGS[:4], batch_size=4))).num_graphs == 4
