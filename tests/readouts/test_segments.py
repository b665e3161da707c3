"""`Segments`: made once, checked once, shared."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from readouts import Segments, readout
from readouts.functional.order import median
from readouts.functional.weighted import softmax_mean
from readouts.kernels.native.library import core

needs_core = pytest.mark.skipif(core.isa is None, reason="PyTorch's operators check for themselves")
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


READOUTS = {
    "std": lambda x, graphs: readout(x, graphs, "std"),
    "several": lambda x, graphs: readout(x, graphs, ("sum", "max")),
    "median": lambda x, graphs: readout(x, graphs, "median"),
    "softmax": lambda x, graphs: softmax_mean(x, x[:, 0], graphs),
}


def with_gradient(function, graphs, between=lambda: None):
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    out = function(x, graphs)
    between()
    out.square().sum().backward()
    return torch.cat([out.detach().flatten(), x.grad.flatten()])


@pytest.mark.parametrize("name", READOUTS)
@pytest.mark.parametrize("moment", ["before", "between"])
def test_buffers_of_the_caller_may_change(name, moment):
    """`ptr` by any operation, the batch vector through NumPy: what was counted is kept."""
    ptr, batch = torch.tensor([0, 10, 10, 50]), torch.randint(0, 3, (50,))
    kept = Segments.from_ptr(ptr.clone(), 50), Segments.from_batch(batch.clone(), 3)
    ours = Segments.from_ptr(ptr, 50), Segments.from_batch(batch, 3)

    def change():
        ptr.copy_(torch.tensor([7, 2**40, -1, 50]))
        batch.numpy()[:] = 2**40

    for segments, expected in zip(ours, kept, strict=True):
        if moment == "before":
            change()
        actual = with_gradient(READOUTS[name], segments, change)
        assert actual.equal(with_gradient(READOUTS[name], expected))


@pytest.mark.parametrize("part", ["index", "ptr", "order"])
def test_a_change_of_each_part_is_noticed(part):
    segments = Segments.from_batch(torch.tensor([1, 0, 1]))
    getattr(segments, part)[1] = 2**40
    with pytest.raises(IndexError, match="batch: expected the graphs that were counted"):
        readout(torch.ones(3, 2), segments)


@needs_core
@pytest.mark.parametrize("name", READOUTS)
def test_order_that_changed_unseen_is_an_error_and_no_wild_read(name):
    segments = Segments.from_batch(torch.randint(0, 3, (50,)), 3)
    segments.order.numpy()[::2] = 2**40
    with pytest.raises(IndexError, match="batch: expected the graphs that were there"):
        with_gradient(READOUTS[name], segments)


@needs_core
@pytest.mark.parametrize("name", ["std", "several", "median"])
def test_memory_that_was_exchanged_is_an_error(name):
    segments = Segments.from_batch(torch.randint(0, 3, (50,)), 3)
    segments.order.data = segments.order.data[:1].clone()
    with pytest.raises(ValueError, match=r"order: expected torch.int64 \(50,\), .* got torch.int64 \(1,\)"):
        with_gradient(READOUTS[name], segments)
    x = torch.randn(50, 3, requires_grad=True)
    out = READOUTS[name](x, torch.arange(50) // 10)
    x.data = torch.zeros(1, 1)
    with pytest.raises(
        ValueError, match=r"x: expected torch.float32 \(50, 3\), .* got torch.float32 \(1, 1\)"
    ):
        out.sum().backward()


@pytest.mark.parametrize("batch", [torch.arange(7) // 3, torch.tensor([2, 0, 1, 0, 2, 2, 0])], ids=str)
def test_compile_takes_segments_of_a_batch_that_was_written_to(batch):
    """As every batch of a DataLoader with workers was."""
    torch._dynamo.reset()
    buffer = torch.empty_like(batch).copy_(batch)
    assert buffer._version > 0
    x, segments = torch.randn(7, 3), Segments.from_batch(buffer)
    compiled = torch.compile(lambda x, s: readout(x, s, ("sum", "std")), fullgraph=True, backend="aot_eager")
    expected = readout(x, batch, ("sum", "std"))
    assert compiled(x, segments).equal(expected)
    buffer.zero_()  # what was counted is kept
    assert compiled(x, segments).equal(expected)


@pytest.mark.parametrize("largest", [2**31, 2**33, 10**12, 2**63 - 1])
@pytest.mark.parametrize("door", [readout, median, lambda x, batch: Segments.from_batch(batch)])
def test_graphs_that_are_not_numbered_from_zero(largest, door):
    batch = torch.tensor([0, 1, largest])
    for x in (torch.ones(3, 2), torch.ones(3, dtype=torch.int64)):
        with pytest.raises(
            IndexError, match=f"batch: expected graphs .* got {largest} for 3 nodes; .*unique"
        ):
            door(x, batch)
    with pytest.raises(ValueError, match=r"size: expected .* got .* numbered from 0 on"):
        readout(torch.ones(3, 2), batch, size=10**15)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_unusual_tensors():
    nested = torch.nested.nested_tensor([torch.tensor([0, 1]), torch.tensor([0])])
    with pytest.raises(TypeError, match="batch: expected a dense tensor, got a nested tensor"):
        Segments.from_batch(nested)
    with pytest.raises(TypeError, match="x: expected a dense tensor, got a nested tensor"):
        readout(nested)
    with pytest.raises(TypeError, match="num_nodes: expected an integer, got NoneType"):
        Segments.from_ptr(torch.tensor([0, 3]), None)
    negative = torch._neg_view(torch.tensor([0, -1, 0]))
    for x in (torch._neg_view(torch.ones(3, 2)), torch._neg_view(torch.ones(3, 2, dtype=torch.int64))):
        assert readout(x, negative, "sum").tolist() == [[-2, -2], [-1, -1]]
        assert readout(x, Segments.from_batch(negative), "sum").tolist() == [[-2, -2], [-1, -1]]
        assert median(x, negative).tolist() == [[-1, -1], [-1, -1]]
    x, batch = torch.ones(2, 2), torch.tensor([0, 2])
    assert readout(x, batch, "sum", empty=2**70)[1].tolist() == [2.0**70] * 2
    with pytest.raises(ValueError, match="empty: expected a number that fits into a float"):
        readout(x, batch, "sum", empty=2**2000)
