"""How many kernels a training compiles: none after its first batch."""

import pytest
import torch

pytest.importorskip("triton", reason="needs Triton")

from emulated.driver import specialisations

from readouts.kernels.triton import elementary as gpu
from readouts.kernels.triton import order as order_statistics

TRIPLE, ALL = ("sum", "mean", "max"), ("sum", "mean", "max", "min", "var", "std")
GRAPHS, BATCHES = 128, 12
KINDS = [  # each once in a process: only the first call of a kind starts all of its kernels
    *((nodes, TRIPLE, features) for nodes, features in ((18, 48), (30, 80), (100, 112), (30, 17))),
    *((nodes, ALL, features) for nodes, features in ((18, 48), (30, 80), (100, 112))),
    (30, ("max",), 1),
    (30, ("sum",), 1),
]


def train_on(nodes_of_a_graph, names, features):
    """Reduce a random batch of molecules, forward and backward."""
    sizes = torch.randint(1, 2 * nodes_of_a_graph, (GRAPHS,))
    ptr = torch.nn.functional.pad(sizes.cumsum(0), (1, 0))
    index = torch.arange(GRAPHS).repeat_interleave(sizes)
    x = torch.randn(len(index), features)
    batch = index, ptr, None, names
    out, kept = gpu.reduce_keeping(x, *batch)
    for statistics in (kept, None):
        gpu.reduce_backward(torch.ones_like(out), x, out, *batch, statistics)


@pytest.mark.parametrize(("nodes_of_a_graph", "names", "features"), KINDS, ids=str)
def test_nothing_is_compiled_after_the_first_batch(nodes_of_a_graph, names, features):
    with specialisations() as found:
        train_on(nodes_of_a_graph, names, features)
        first = set(found)
        for _ in range(3 * BATCHES):
            train_on(nodes_of_a_graph, names, features)
    assert first
    assert found == first


def test_other_numbers_of_features_are_compiled_for():
    with specialisations() as found:
        train_on(18, TRIPLE, 144)
        first = len(found)
        train_on(18, TRIPLE, 3)
        assert len(found) > first


def test_order_statistics_are_compiled_once_for_a_dtype():
    """For any sizes, numbers of features and of ranks."""
    with specialisations() as found:
        for nodes, features, ranks in ((30, 17, 2), (30, 1, 1), (64, 256, 16), (5000, 3, 5)):
            ptr = torch.arange(GRAPHS + 1) * (nodes // GRAPHS)
            x = torch.randn(nodes, features)
            order_statistics.select(x, ptr, ptr, None, torch.zeros(GRAPHS, ranks, dtype=torch.int64))
    assert len(found) == 1
