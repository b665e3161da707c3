"""Variances of an accumulator, compared with fractions: wide exponents, subnormal numbers, cancellation."""

import math
from fractions import Fraction

import pytest
import torch
from bits import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from readouts import Accumulator
from readouts.numerics.superaccumulator import nearest

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


def rounded(value, dtype):
    return nearest(value.numerator, value.denominator, dtype)


def defined(column):
    """Return sum_i (x_i - mu)^2 / n as a fraction, mu the float64 mean."""
    exact = [Fraction(value) for value in column]
    mean = Fraction(rounded(sum(exact) / len(exact), torch.float64))
    return sum((value - mean) ** 2 for value in exact) / len(exact)


@st.composite
def columns(draw, dtype):
    """Numbers of any size up to roots of the greatest, and their near negatives and neighbours."""
    if not dtype.is_floating_point:
        low, high = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
        near = st.integers(max(low, high - 3), high)
        return draw(st.lists(st.one_of(st.integers(low, high), near), min_size=1, max_size=12))
    limits = torch.finfo(dtype)
    top = math.frexp(limits.max)[1] // (2 if dtype == torch.float64 else 1) - 4
    least = round(math.log2(limits.smallest_normal * limits.eps))
    exponents = st.one_of(st.integers(least, top - 1), st.integers(-3, 3), st.integers(least, least + 12))
    mantissas = st.floats(1, 2, exclude_max=True, allow_subnormal=False)
    values = draw(st.lists(st.builds(math.ldexp, mantissas, exponents), min_size=1, max_size=8))
    offset = draw(st.sampled_from([0.0, 0.0, values[0], -values[0]]))
    values = [draw(st.sampled_from([1, -1])) * value + offset for value in values]
    values += [-value * draw(st.sampled_from([1, 1 + limits.eps])) for value in values[::2]]
    return torch.tensor(values, dtype=torch.float64).to(dtype).tolist()


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS, ids=str)
@settings(max_examples=25)
@given(st.data())
def test_var_and_std_are_those_of_fractions(dtype, data):
    column = data.draw(columns(dtype))
    x = torch.tensor(column, dtype=dtype).view(-1, 1)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(x)), max_size=3)))
    total = Accumulator(("var", "std"), 1)
    for chunk in x.tensor_split(cuts):
        part = Accumulator(("var", "std"), 1) if data.draw(st.booleans()) else total
        part.update(chunk)
        if part is not total:
            total.merge(part)
    result = dtype if dtype.is_floating_point else torch.get_default_dtype()
    seen = column if dtype.is_floating_point else [float(value) for value in column]  # as variances see them
    var = defined(seen)
    std = math.sqrt(rounded(var, torch.float64))
    expected = torch.tensor([[rounded(var, result), std]], dtype=torch.float64).to(result)
    assert_same_bits(total.result(), expected)
