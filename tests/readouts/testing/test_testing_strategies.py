"""Strategies give the awkward cases, and shrink to small ones."""

import hypothesis
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from readouts.testing import graph_batches, graphs, permutations_of


def find(strategy, condition):
    settings = hypothesis.settings(
        max_examples=1000, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    return hypothesis.find(strategy, condition, settings=settings)


def repeated_row(data):
    return len(data.x) > len(data.x.unique(dim=0))


def test_repeated_row_shrinks_to_two_nodes():
    found = find(graphs(), repeated_row)
    assert found.x.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert found.num_edges == 0


def test_tie_within_one_column_shrinks_to_two_nodes():
    found = find(graphs(), lambda data: len(data.x) > len(data.x[:, 0].unique()) and not repeated_row(data))
    assert found.x.shape == (2, 2)
    assert found.x[0, 0] == found.x[1, 0]


def test_edge_shrinks_to_one_loop():
    found = find(graphs(), lambda data: data.num_edges > 0)
    assert found.edge_index.tolist() == [[0], [0]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_huge_and_tiny_numbers_occur(dtype):
    limits = torch.finfo(dtype)
    for strange in (
        lambda data: (data.x.abs() > limits.max / 2**21).any(),
        lambda data: ((data.x != 0) & (data.x.abs() < limits.tiny)).any(),
        lambda data: ((data.x == 0) & data.x.signbit()).any(),
    ):
        found = find(graphs(dtype=dtype, features=1), strange)
        assert found.x.shape == (1, 1)
        assert found.x.dtype == dtype


def test_empty_graph_beside_another_shrinks_to_one_node():
    found = find(graph_batches(min_graphs=2), lambda batch: len(batch.batch.unique()) < batch.num_graphs)
    assert (found.num_graphs, found.num_nodes) == (2, 1)


def test_permutation_shrinks_to_one_swap():
    batch = torch.tensor([0, 0, 0, 1, 1, 2])
    found = find(permutations_of(batch), lambda order: not order.equal(torch.arange(6)))
    assert int((found != torch.arange(6)).sum()) == 2


@given(st.data())
def test_permutations_stay_within_graphs(data):
    batch = data.draw(graph_batches())
    order = data.draw(permutations_of(batch))
    assert order.dtype == torch.int64
    assert order.sort().values.equal(torch.arange(batch.num_nodes))
    assert batch.batch[order].equal(batch.batch)
    unsorted = batch.batch.flip(0)
    assert unsorted[data.draw(permutations_of(unsorted))].equal(unsorted)


@given(graphs(features=3, min_nodes=2, max_nodes=4))
def test_graphs_are_undirected_and_of_the_size_asked_for(data):
    assert 2 <= data.num_nodes <= 4
    assert data.x.shape == (data.num_nodes, 3)
    data.validate()
    edges = set(map(tuple, data.edge_index.t().tolist()))
    assert edges == {(target, source) for source, target in edges}
    assert data.x.isfinite().all()
