"""Exact sums in limbs: against rational arithmetic, the loop against plain torch, merged in any way."""

from fractions import Fraction

import pytest
import torch
from batches import batches, floats
from bits import assert_same_bits
from hypothesis import given
from hypothesis import strategies as st
from tasks import tasks

from readouts.kernels import reference
from readouts.kernels.portable import superaccumulator as portable
from readouts.numerics import superaccumulator
from readouts.ops import superaccumulator as operators
from readouts.ops.superaccumulator import add, sums
from readouts.reductions import result_dtype

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


def rationals(x, index, size, power):
    """The sums [B][F] of the finite numbers."""
    numbers = x.double() if power == 2 and not x.is_floating_point() else x
    table = [[Fraction(0)] * x.shape[1] for _ in range(size)]
    for row, graph in zip(numbers.tolist(), index.tolist(), strict=True):
        for feature, number in enumerate(row):
            if abs(number) < float("inf"):
                table[graph][feature] += Fraction(number) ** power
    return [value for row in table for value in row]


def exact_values(limbs, format):
    integers, exponent = superaccumulator.integers(limbs, format)
    return [Fraction(2) ** exponent * value for value in integers]


def plain_sums(x, index, size, power):
    format = superaccumulator.format_of(x.dtype, power)
    limbs = superaccumulator.zeros(format, size, x.shape[1])
    portable.add(limbs, x, index, superaccumulator.Layout.of(x.dtype, format, power))
    superaccumulator.carry(limbs)
    return limbs


@pytest.mark.parametrize("power", [1, 2])
@given(data=st.data())
def test_floats_against_rationals(dtype, power, data):
    x, index, count = data.draw(batches(dtype, max_nodes=12))
    limbs = sums(x, index, len(count), power)
    format = superaccumulator.format_of(dtype, power)
    assert exact_values(limbs, format) == rationals(x, index, len(count), power)
    assert limbs.equal(plain_sums(x, index, len(count), power))
    special = torch.zeros(len(count), x.shape[1], dtype=torch.float64)
    special.index_add_(0, index, torch.where(x.isfinite(), 0, x**power).double())
    assert_same_bits(superaccumulator.special(limbs), special)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_against_rationals(dtype, power):
    bits = torch.randint(-(2**63), 2**63 - 1, (40, 3))
    x, index = bits.to(dtype), torch.randint(0, 3, (40,))
    if dtype != torch.bool:
        limits = torch.iinfo(dtype)
        x[:10], x[10:20], index[:20] = limits.min, limits.max, 1
    limbs = sums(x, index, 4, power)
    assert exact_values(limbs, superaccumulator.format_of(dtype, power)) == rationals(x, index, 4, power)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_and_the_least_numbers_fit(dtype, power, sign):
    limits = torch.finfo(dtype)
    least = limits.smallest_normal * limits.eps
    x = sign * torch.tensor([[limits.max, least, limits.smallest_normal]] * 5, dtype=dtype)
    limbs, index = sums(x, torch.zeros(5, dtype=torch.int64), 1, power), torch.zeros(5).long()
    format = superaccumulator.format_of(dtype, power)
    assert exact_values(limbs, format) == rationals(x, index, 1, power)
    assert limbs.equal(plain_sums(x, index, 1, power))
    for _ in range(58):  # 5 * 2**58 of the largest numbers
        limbs += limbs.clone()
        superaccumulator.carry(limbs)
    expected = [2**58 * value for value in rationals(x, index, 1, power)]
    assert exact_values(limbs, format) == expected


@given(data=st.data())
def test_equal_sums_have_equal_words(dtype, data):
    """Whatever the order, the cuts and the number of additions between two carries."""
    x, index, count = data.draw(batches(dtype, max_nodes=12))
    power = data.draw(st.sampled_from([1, 2]))
    whole, format = sums(x, index, len(count), power), superaccumulator.format_of(dtype, power)
    order = torch.tensor(data.draw(st.permutations(range(len(x)))), dtype=torch.int64)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(x)), max_size=3)))
    total = superaccumulator.zeros(format, len(count), x.shape[1])
    for part in order.tensor_split(cuts):
        limbs = superaccumulator.zeros(format, len(count), x.shape[1])
        add(limbs, x[part], index[part], format, power)
        if data.draw(st.booleans()):
            superaccumulator.carry(limbs)
        low, high = superaccumulator.window(limbs)
        total += superaccumulator.pasted(superaccumulator.cut(limbs, low, high), low, format)
    superaccumulator.carry(total)
    assert total.equal(whole)


@pytest.mark.parametrize("block", [1, 3, 7])
def test_blocks_do_not_show(dtype, monkeypatch, block):
    x = torch.randn(20, 2).to(dtype)
    x[3, 0], x[9, 1], x[10, 1] = float("nan"), float("inf"), float("inf")
    index = torch.randint(0, 3, (20,))
    whole = sums(x, index, 3)
    monkeypatch.setattr(operators, "ROOM", block)
    monkeypatch.setattr(portable, "ELEMENTS", 4 * block)
    assert sums(x, index, 3).equal(whole)
    assert plain_sums(x, index, 3, 1).equal(whole)


def test_threads_do_not_show(dtype):
    x, index = torch.randn(50, 70).to(dtype), torch.randint(0, 3, (50,))
    one = sums(x, index, 3)
    with tasks(5):
        assert sums(x, index, 3).equal(one)


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=8))
def test_carry_keeps_the_value_and_is_unique(values):
    limbs = torch.tensor([*values, 0]).view(-1, 1, 1)
    format = superaccumulator.Format(0, len(values))
    before = exact_values(limbs, format)
    assert before == [sum(value << 32 * place for place, value in enumerate(values))]
    superaccumulator.carry(limbs)
    assert exact_values(limbs, format) == before
    assert all(-(2**31) <= limb < 2**31 for limb in limbs[:-2].flatten().tolist())


def test_small_negative_sums_have_a_small_window():
    limbs = sums(torch.tensor([[-1.0], [0.25]]), torch.tensor([0, 1]), 3)
    low, high = superaccumulator.window(limbs)
    assert high - low == 1
    assert superaccumulator.cut(limbs, low, high).shape == (2, 3, 1)
    assert superaccumulator.window(
        superaccumulator.zeros(superaccumulator.format_of(torch.float32), 3, 1)
    ) == (10, 0)


@given(data=st.data())
def test_rounded_as_the_reference(dtype, data):
    x, index, count = data.draw(batches(dtype, max_nodes=12))
    limbs, format = sums(x, index, len(count)), superaccumulator.format_of(dtype)
    expected = reference.reduce(x, index, count, ("sum", "mean"))
    assert_same_bits(superaccumulator.rounded(limbs, format, dtype), expected[:, 0])
    assert_same_bits(superaccumulator.rounded(limbs, format, dtype, count), expected[:, 1])


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_rounded_as_the_reference(dtype):
    x, index = torch.randint(-(2**52), 2**52, (40, 3)).to(dtype), torch.randint(0, 3, (40,))
    count = torch.bincount(index, minlength=4)
    limbs, format = sums(x, index, 4), superaccumulator.format_of(dtype)
    for name, divisor in (("sum", None), ("mean", count)):
        expected = reference.reduce(x, index, count, (name,))[:, 0]
        assert_same_bits(
            superaccumulator.rounded(limbs, format, result_dtype(name, dtype), divisor), expected
        )


def test_integer_sums_are_modulo_two_to_the_64():
    x = torch.tensor([[2**63 - 1], [2**63 - 1], [5]])
    limbs = sums(x, torch.zeros(3, dtype=torch.int64), 1)
    assert superaccumulator.rounded(limbs, superaccumulator.format_of(torch.int64), torch.int64).item() == 3


@given(data=st.data())
def test_large_divisors(dtype, data):
    x, index, count = data.draw(batches(dtype, finite=True, max_nodes=12))
    divisor = torch.tensor(data.draw(st.lists(st.integers(2**31, 2**62), min_size=6, max_size=6)))
    limbs, format = sums(x, index, len(count)), superaccumulator.format_of(dtype)
    exact = rationals(x, index, len(count), 1)
    nodes = divisor[: len(count)].view(-1, 1).expand(-1, x.shape[1]).flatten().tolist()
    values = [reference.round_once(v / n, dtype) for v, n in zip(exact, nodes, strict=True)]
    expected = torch.tensor(values, dtype=torch.float64).to(dtype).view(len(count), -1)
    assert_same_bits(superaccumulator.rounded(limbs, format, dtype, divisor[: len(count)]), expected)


@given(data=st.data())
def test_nearest_as_the_reference(dtype, data):
    """Between two numbers of the dtype: at them, in the middle, and next to it."""
    low = Fraction(data.draw(floats(dtype, finite=True)))
    high = Fraction(data.draw(floats(dtype, finite=True)))
    value = (low + high) / 2 + data.draw(st.sampled_from([0, 1, -1])) * Fraction(1, 2**1200)
    scale = data.draw(st.integers(1, 2**70))
    found = superaccumulator.nearest(value.numerator * scale, value.denominator * scale, dtype)
    expected = reference.round_once(value, dtype)
    assert torch.tensor(found, dtype=torch.float64).to(dtype).item() == expected


@given(data=st.data())
def test_nearest_at_ties(dtype, data):
    number = torch.tensor(data.draw(floats(dtype, finite=True)), dtype=torch.float64).to(dtype)
    above = number.nextafter(torch.tensor(float("inf"), dtype=dtype))
    if above.isfinite():
        value = (Fraction(number.item()) + Fraction(above.item())) / 2
        assert superaccumulator.nearest(*value.as_integer_ratio(), dtype) == reference.round_once(
            value, dtype
        )


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0)])
def test_nothing_to_add(dtype, shape):
    index = torch.zeros(shape[0], dtype=torch.int64)
    limbs, format = sums(torch.ones(shape, dtype=dtype), index, 2), superaccumulator.format_of(dtype)
    assert limbs.shape == (format.limbs + 1, 2, shape[1])
    assert_same_bits(superaccumulator.rounded(limbs, format, dtype), torch.zeros(2, shape[1], dtype=dtype))
    assert exact_values(limbs, format) == [0] * (2 * shape[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("power", [1, 2])
def test_the_gpu_has_the_same_words(dtype, power):
    x, index = torch.randn(1000, 5).to(dtype), torch.randint(0, 7, (1000,))
    limbs = sums(x.cuda(), index.cuda(), 7, power)
    assert limbs.cpu().equal(sums(x, index, 7, power))
    format = superaccumulator.format_of(dtype, power)
    assert_same_bits(
        superaccumulator.rounded(limbs, format, dtype).cpu(),
        superaccumulator.rounded(limbs.cpu(), format, dtype),
    )
