"""`Segments`: made once, checked once, shared."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from readouts import Segments, readout

graph_of_node = st.lists(st.integers(0, 5), max_size=30).map(
    lambda graphs: torch.tensor(graphs, dtype=torch.int64)
)


@given(graph_of_node)
def test_order_and_ptr_list_the_nodes_of_every_graph(index):
    segments = Segments.from_batch(index, size=7)
    assert (segments.size, segments.num_nodes) == (7, len(index))
    for graph in range(7):
        order = torch.arange(len(index)) if segments.order is None else segments.order
        nodes = order[segments.ptr[graph] : segments.ptr[graph + 1]]
        assert nodes.tolist() == (index == graph).nonzero().flatten().tolist()
        assert segments.count[graph] == len(nodes)


@given(graph_of_node)
def test_ptr_and_batch_say_the_same(index):
    index = index.sort().values
    segments = Segments.from_batch(index.int(), size=7)
    again = Segments.from_ptr(segments.ptr.int(), len(index))
    assert again.index.equal(index)
    assert again.count.equal(segments.count)
    assert again.index.dtype == again.count.dtype == again.ptr.dtype == segments.ptr.dtype == torch.int64
    assert again.order is None  # the nodes are in order as they are
    assert segments.order is None


def test_sizes_without_nodes():
    assert Segments.from_batch(torch.tensor([], dtype=torch.int64)).size == 0
    assert Segments.from_ptr(torch.tensor([0]), 0).size == 0
    assert Segments.from_ptr(torch.tensor([0, 0, 0]), 0).count.tolist() == [0, 0]
    single = Segments.single(0)
    assert (single.size, single.count.tolist()) == (1, [0])


def test_repr():
    assert repr(Segments.from_batch(torch.tensor([0, 2]))) == "Segments(size=3, num_nodes=2)"


def test_shared_segments_are_checked_once(monkeypatch):
    segments = Segments.from_batch(torch.tensor([0, 1, 1]))
    monkeypatch.setattr(Segments, "from_batch", None)
    x = torch.tensor([1.0, 2.0, 4.0])
    assert readout(x, segments, "sum").tolist() == [1, 6]
    assert readout(x, segments, "max", size=2).tolist() == [1, 4]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
@pytest.mark.parametrize(
    "segments", [Segments.from_batch(torch.tensor([1, 0, 1])), Segments.single(3)], ids=str
)
def test_copies_are_segments(copied, segments):
    x = torch.tensor([1.0, 2.0, 4.0])
    again = copied(segments)
    assert readout(x, again, "sum").equal(readout(x, segments, "sum"))
    assert repr(again) == repr(segments)


def test_a_copy_does_not_hide_that_the_batch_has_changed():
    segments = Segments.from_batch(torch.tensor([0, 1, 1]))
    again = copy.deepcopy(segments)
    again.index[0] = 1
    with pytest.raises(IndexError, match="batch: expected the graphs that were counted"):
        readout(torch.ones(3), again)
    segments.index[0] = 1
    with pytest.raises(IndexError, match="batch: expected the graphs that were counted"):
        pickle.dumps(segments)
