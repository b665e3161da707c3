"""Every kernel returns the bits of the reference, forward and backward."""

import math
from fractions import Fraction

import pytest
import torch
from batches import MULTIPLE, batches, floats
from bits import assert_same_bits
from hypothesis import given
from hypothesis import strategies as st

from readouts import ops
from readouts.kernels import reference
from readouts.kernels.portable import elementary as portable
from readouts.kernels.portable import grouping
from readouts.numerics.limbs import exact_sums, rounded
from readouts.ops.registry import kernel_for
from readouts.reductions import ELEMENTARY

ONE_GRAPH = torch.tensor([0])


def column(*values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype).view(-1, 1)


def reduce_one_graph(kernel, x, reduce=ELEMENTARY):
    return kernel.reduce(x, torch.zeros(len(x), dtype=torch.int64), torch.tensor([len(x)]), reduce)


def assert_agrees_on_one_graph(kernel, x):
    assert_same_bits(reduce_one_graph(kernel, x), reduce_one_graph(reference, x))


@given(st.data())
def test_forward(kernel, dtype, data):
    x, index, count = data.draw(batches(dtype))
    reduce = data.draw(st.sampled_from(MULTIPLE))
    assert_same_bits(kernel.reduce(x, index, count, reduce), reference.reduce(x, index, count, reduce))


@given(st.data())
def test_backward(kernel, dtype, data):
    x, index, count = data.draw(batches(dtype))
    reduce = data.draw(st.sampled_from(MULTIPLE))
    shape = len(count), len(reduce), x.shape[1]
    numbers = math.prod(shape)
    grad = (
        torch.tensor(data.draw(st.lists(floats(dtype), min_size=numbers, max_size=numbers)))
        .to(dtype)
        .view(shape)
    )
    out = reference.reduce(x, index, count, reduce)
    actual = kernel.reduce_backward(grad, x, out, index, count, reduce)
    assert_same_bits(actual, reference.reduce_backward(grad, x, index, count, reduce))


@pytest.mark.parametrize("name", ["sum", "mean"])
def test_backward_of_linear_reductions_needs_no_features(kernel, dtype, name):
    index = torch.tensor([1, 0, 1, 1])
    grad = torch.randn(3, 1, 2).to(dtype)
    count = torch.bincount(index, minlength=3)
    actual = kernel.reduce_backward(grad, None, None, index, count, (name,))
    features = torch.randn(4, 2).to(dtype)
    assert_same_bits(actual, reference.reduce_backward(grad, features, index, count, (name,)))


@given(st.data())
def test_integers(kernel, data):
    dtype = data.draw(st.sampled_from([torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]))
    limits = torch.iinfo(dtype)
    # a graph's sum may not leave int64
    bound = min(limits.max, 2**58)
    values = data.draw(st.lists(st.integers(max(limits.min, -bound), bound), min_size=1, max_size=20))
    for name in ELEMENTARY:
        x = torch.tensor(values, dtype=dtype).view(-1, 1)
        assert_same_bits(reduce_one_graph(kernel, x, (name,)), reduce_one_graph(reference, x, (name,)))


@pytest.mark.parametrize("reduce", ELEMENTARY)
def test_bool(kernel, reduce):
    x = torch.tensor([[True, False, True], [False, False, True]])
    assert_same_bits(reduce_one_graph(kernel, x, (reduce,)), reduce_one_graph(reference, x, (reduce,)))


HALF = 2.0**-24  # half a unit in the last place of a float32 between 1 and 2
LARGEST = torch.finfo(torch.float32).max


@pytest.mark.parametrize(
    "values",
    [
        (1.0, HALF),
        (1.0, HALF, 2.0**-149),
        (1.0, HALF, -(2.0**-149)),
        (1.0 + 2 * HALF, HALF),
        (-1.0, -HALF, -(2.0**-100)),
        (LARGEST, LARGEST),
        (LARGEST, LARGEST * HALF / 2),
        (LARGEST, LARGEST * HALF / 2, 2.0**-149),
        (LARGEST, LARGEST, -LARGEST, -LARGEST, 1.0),
        (LARGEST, 2.0**-149, -LARGEST),
        (2.0**-149, 2.0**-149, 2.0**-149),
        (2.0**-149, -(2.0**-149)),
        (2.0**100, 1.0, -(2.0**100), 2.0**-60),
        (-(2.0**-149), 0.0, 0.0),
    ],
    ids=str,
)
def test_roundings_that_catch_a_careless_sum(kernel, values):
    assert_agrees_on_one_graph(kernel, column(*values))


def test_float64_at_the_ends_of_its_range(kernel):
    largest, least = torch.finfo(torch.float64).max, 2.0**-1074
    x = column(largest, largest / 3, least, -largest, 1.0, -least, least, dtype=torch.float64)
    for rows in (x, x[:1], x[:3], x[2:3], torch.cat([x, x]), x * 2.0**-60):
        assert_agrees_on_one_graph(kernel, rows)


def test_infinite_range_of_scales_in_one_graph(kernel, dtype):
    powers = torch.arange(-1080.0, 1030, dtype=torch.float64)
    x = torch.pow(2.0, powers).to(dtype).view(-1, 1)
    x = torch.where(x.isinf(), 1, x)
    assert_agrees_on_one_graph(kernel, torch.cat([x, -x[::3], x[::5]]))


@pytest.mark.parametrize("nodes", [1, 2**10 + 1, 2**20, 2**20 + 1])
def test_long_sums_against_integers(kernel, nodes):
    """Beyond a million nodes: float32 numbers that are integers times 2**-20, summed by int64."""
    generator = torch.Generator().manual_seed(nodes)
    integers = torch.randint(-(2**24), 2**24, (nodes, 1), generator=generator)
    x = (integers.double() * 2.0**-20).float()
    out = reduce_one_graph(kernel, x, ("sum", "mean"))
    total = Fraction(int(integers.sum()), 2**20)
    expected = [reference.round_once(value, torch.float32) for value in (total, total / nodes)]
    assert out.flatten().tolist() == expected


def test_bfloat16_sum_of_five_thousand_ones(kernel):
    out = reduce_one_graph(kernel, torch.ones(5000, 1, dtype=torch.bfloat16), ("sum", "mean"))
    assert out.flatten().tolist() == [4992.0, 1.0]  # 4992 is the bfloat16 nearest to 5000
    x = torch.ones(5000, 1, dtype=torch.bfloat16)
    x[::2] = 1.0078125
    assert_agrees_on_one_graph(kernel, x)


def test_variance_far_from_zero(kernel):
    x = column(1000.001, 1000.002, 1000.003, 1000.0)
    out = reduce_one_graph(kernel, x, ("var", "std")).flatten()
    torch.testing.assert_close(out, torch.tensor([1.25e-6, 0.00112]), rtol=1e-2, atol=0)
    assert_agrees_on_one_graph(kernel, x)


@pytest.mark.parametrize("shape", [(0, 3, 2), (4, 0, 2), (0, 0, 1), (0, 2, 0)], ids=str)
def test_no_work(shape):
    nodes, features, size = shape
    index = torch.zeros(nodes, dtype=torch.int64)
    groups = index, torch.zeros(size + 1, dtype=torch.int64), None
    x, grad = torch.ones(nodes, features), torch.ones(size, 2, features)
    assert_same_bits(ops.reduce(x, *groups, ("sum", "max")), torch.zeros(size, 2, features))
    actual = ops.reduce_backward(grad, x, grad, *groups, ("sum", "max"))
    assert_same_bits(actual, torch.zeros(nodes, features))


limbs_of_sums = st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=6)


@given(limbs_of_sums, st.integers(-1074, 900), st.none() | st.integers(1, 2**31))
def test_rounding_of_limbs_is_that_of_fractions(dtype, limbs, exponent, divisor):
    value = (
        sum(Fraction(limb) * 2 ** (32 * place) for place, limb in enumerate(limbs)) * Fraction(2) ** exponent
    )
    tensor = torch.tensor(limbs).view(-1, 1, 1)
    actual = rounded(tensor, exponent, dtype, None if divisor is None else torch.tensor([divisor]))
    assert actual.item() == reference.round_once(value / (divisor or 1), dtype)


@given(st.data())
def test_limbs_are_the_exact_sum(dtype, data):
    x, index, count = data.draw(batches(dtype, finite=True))
    limbs, exponent = exact_sums(x, index, len(count))
    for graph in range(len(count)):
        for feature in range(x.shape[1]):
            digits = limbs[:, graph, feature].tolist()
            value = sum(digit * Fraction(2) ** (exponent + 32 * place) for place, digit in enumerate(digits))
            assert value == sum(map(Fraction, x[index == graph, feature].tolist()))


@given(st.floats(allow_nan=False))
def test_narrowing_rounds_once(dtype, value):
    actual = portable.narrowed(torch.tensor([value], dtype=torch.float64), dtype)
    expected = value if abs(value) == float("inf") else reference.round_once(Fraction(value), dtype)
    assert actual.item() == expected


def test_narrowing_where_float32_on_the_way_would_round_twice():
    value = 1 + 2.0**-8 + 2.0**-40  # just above the middle of two bfloat16 numbers
    assert portable.narrowed(torch.tensor([value], dtype=torch.float64), torch.bfloat16).item() == 1.0078125


@given(st.lists(st.integers(0, 5), max_size=20), st.integers(6, 8))
def test_portable_grouping_is_that_of_the_operators(graphs, size):
    index = torch.tensor(graphs, dtype=torch.int64)
    ptr, order = grouping.group(index, size)
    native_ptr, native_order = ops.group(index, size)
    assert_same_bits(native_ptr, ptr)
    assert (order is None) == (native_order is None) == index.equal(index.sort().values)
    assert order is None or order.equal(native_order)
    assert_same_bits(grouping.expand_ptr(ptr, len(index)), index.sort().values)


@pytest.mark.parametrize(("index", "wrong"), [([0, 3], 3), ([-2, 0], -2)])
def test_portable_grouping_names_a_graph_that_is_not_there(index, wrong):
    for group in (grouping.group, ops.group):
        with pytest.raises(IndexError, match=f"batch: expected graphs from 0 to 2 .* got {wrong}"):
            group(torch.tensor(index), 3)


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64, torch.bool], ids=str)
def test_every_dtype_has_kernels_on_every_device(device, dtype):
    for family in ("elementary", "order"):
        assert kernel_for(torch.device(device), dtype, family).supports(dtype)
    assert kernel_for(torch.device(device), torch.int64, "grouping").supports(torch.int64)


@pytest.mark.parametrize("family", ["elementary", "order"])
def test_floats_have_triton_kernels_on_cuda(family):
    pytest.importorskip("triton")
    chosen = {
        dtype: kernel_for(torch.device("cuda"), dtype, family) for dtype in (torch.float16, torch.int32)
    }
    assert chosen[torch.float16].__name__ == f"readouts.kernels.triton.{family}"
    assert chosen[torch.int32].__name__ == f"readouts.kernels.portable.{family}"
