"""The promise: shuffling the nodes changes no bit of the outputs and only permutes the gradients."""

import pytest
import torch
from batches import FLOATS, MULTIPLE, batches
from bits import assert_same_bits
from hypothesis import given
from hypothesis import strategies as st

from readouts import Segments, readout
from readouts.reductions import ELEMENTARY

SIZES = [1, 2, 3, 63, 1000, 100_000]


def gradients(x, index, size, reduce):
    """Return the output, the gradient, and the gradient of a function of the gradient."""
    x = x.clone().requires_grad_()
    out = readout(x, index, reduce, size=size)
    weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    (grad,) = torch.autograd.grad((out * weights).sum(), x, create_graph=True)
    if not grad.requires_grad:
        return out, grad, torch.zeros_like(grad)
    (second,) = torch.autograd.grad((grad * x.detach()).sum(), x, allow_unused=True, materialize_grads=True)
    return out, grad, second


@given(st.data())
def test_any_values(dtype, data):
    x, index, count = data.draw(batches(dtype))
    order = torch.tensor(data.draw(st.permutations(range(len(x)))), dtype=torch.int64)
    reduce = data.draw(st.sampled_from(MULTIPLE))
    expected = gradients(x, index, len(count), reduce)
    actual = gradients(x[order], index[order], len(count), reduce)
    assert_same_bits(actual[0], expected[0])
    assert_same_bits(actual[1], expected[1][order])
    assert_same_bits(actual[2], expected[2][order])


@pytest.mark.parametrize("nodes", SIZES)
def test_any_number_of_nodes(dtype, nodes, node_permutations):
    scales = torch.pow(2.0, torch.randint(-10, 10, (nodes, 1)).double())
    x = (torch.randn(nodes, 3, dtype=torch.float64) * scales).to(dtype)
    x[torch.rand(nodes) < 0.2] = x[0].clone()  # ties
    index = torch.randint(0, max(nodes // 20, 1), (nodes,))
    size = max(nodes // 20, 1) + 1
    expected = gradients(x, index, size, ELEMENTARY)
    for order in list(node_permutations(nodes))[:3]:
        actual = gradients(x[order], index[order], size, ELEMENTARY)
        assert_same_bits(actual[0], expected[0])
        assert_same_bits(actual[1], expected[1][order])
        assert_same_bits(actual[2], expected[2][order])


def test_the_same_check_catches_plain_accumulation(node_permutations):
    x, index = torch.randn(1000, 3), torch.zeros(1000, dtype=torch.int64)
    accumulate = lambda x: torch.zeros(1, 3).index_add_(0, index, x)  # noqa: E731
    shuffled = [accumulate(x[order]) for order in node_permutations(1000)]
    assert any(not out.equal(accumulate(x)) for out in shuffled)
    assert all(
        readout(x[order], index, "sum").equal(readout(x, index, "sum")) for order in node_permutations(1000)
    )


@given(st.data())
def test_companions_in_the_batch_do_not_matter(dtype, data):
    x, index, count = data.draw(batches(dtype))
    together = readout(x, index, ELEMENTARY, size=len(count))
    for graph in range(len(count)):
        alone = readout(x[index == graph], None, ELEMENTARY)
        assert_same_bits(alone[0], together[graph])


@given(st.data())
def test_every_way_to_name_the_graphs_gives_the_same_bits(dtype, data):
    x, index, count = data.draw(batches(dtype))
    expected = readout(x, index, ELEMENTARY, size=len(count))
    segments = Segments.from_batch(index, size=len(count))
    in_order = x if segments.order is None else x[segments.order]
    for actual in (
        readout(x, index.int(), ELEMENTARY, size=len(count)),
        readout(x, segments, ELEMENTARY),
        readout(in_order, index.sort().values, ELEMENTARY, size=len(count)),
        readout(in_order, ptr=segments.ptr, reduce=ELEMENTARY),
        readout(in_order, ptr=segments.ptr.int(), reduce=ELEMENTARY),
    ):
        assert_same_bits(actual, expected)


@given(st.data())
def test_several_reductions_at_once_are_the_single_ones(data):
    x, index, count = data.draw(batches(data.draw(st.sampled_from(FLOATS))))
    names = data.draw(st.lists(st.sampled_from(ELEMENTARY), min_size=1, max_size=4))
    single = [readout(x, index, name, size=len(count)) for name in names]
    assert_same_bits(readout(x, index, names, size=len(count)), torch.cat(single, dim=1))


@given(st.data())
def test_copies_of_a_graph_change_the_sum_alone(data):
    x = data.draw(batches(torch.float32, finite=True)).x
    copies = data.draw(st.integers(2, 5))
    names = tuple(name for name in ELEMENTARY if name != "sum")
    repeated = readout(x.repeat(copies, 1), None, names)
    assert_same_bits(repeated, readout(x, None, names))


def test_number_of_threads_does_not_matter():
    x, index = torch.randn(50_000, 8), torch.randint(0, 100, (50_000,))
    threads = torch.get_num_threads()
    try:
        outputs = []
        for number in (1, 2, 4):
            torch.set_num_threads(number)
            outputs.append(gradients(x, index, 100, ELEMENTARY))
    finally:
        torch.set_num_threads(threads)
    for output in outputs[1:]:
        for actual, expected in zip(output, outputs[0], strict=True):
            assert_same_bits(actual, expected)
