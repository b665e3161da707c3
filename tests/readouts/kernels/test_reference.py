"""The definition of the operators against hand-worked tables and independent oracles."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from bits import assert_same_bits
from hypothesis import given
from hypothesis import strategies as st

from readouts.kernels import reference

NAN, INF = math.nan, math.inf
INDEX = torch.tensor([0, 2, 0, 2, 2])  # graph 1 is empty
COUNT = torch.tensor([2, 0, 3])
X = torch.tensor([[1.0, -4.0], [2.0, 0.0], [3.0, -4.0], [2.0, 1.0], [8.0, 5.0]])
TABLE = {
    "sum": [[4, -8], [0, 0], [12, 6]],
    "mean": [[2, -4], [0, 0], [4, 2]],
    "max": [[3, -4], [0, 0], [8, 5]],
    "min": [[1, -4], [0, 0], [2, 0]],
    "var": [[1, 0], [0, 0], [8, 14 / 3]],
    "std": [[1, 0], [0, 0], [math.sqrt(8), math.sqrt(14 / 3)]],
}
GRADIENTS = {
    "sum": [[1, 1], [1, 1], [1, 1], [1, 1], [1, 1]],
    "mean": [[1 / 2, 1 / 2], [1 / 3, 1 / 3], [1 / 2, 1 / 2], [1 / 3, 1 / 3], [1 / 3, 1 / 3]],
    "max": [[0, 1 / 2], [0, 0], [1, 1 / 2], [0, 0], [1, 1]],
    "min": [[1, 1 / 2], [1 / 2, 1], [0, 1 / 2], [1 / 2, 0], [0, 0]],
    "var": [[-1, 0], [-4 / 3, -4 / 3], [1, 0], [-4 / 3, -2 / 3], [8 / 3, 2]],
    "std": [
        [-1 / 2, 0],
        [-2 / (3 * math.sqrt(8)), -2 / (3 * math.sqrt(14 / 3))],
        [1 / 2, 0],
        [-2 / (3 * math.sqrt(8)), -1 / (3 * math.sqrt(14 / 3))],
        [4 / (3 * math.sqrt(8)), 3 / (3 * math.sqrt(14 / 3))],
    ],
}


@pytest.mark.parametrize("name", TABLE)
def test_hand_worked_values(name, dtype):
    out = reference.reduce(X.to(dtype), INDEX, COUNT, (name,))
    expected = torch.tensor(TABLE[name], dtype=torch.float64)
    torch.testing.assert_close(out[:, 0].double(), expected, rtol=float(torch.finfo(dtype).eps) / 2, atol=0)


@pytest.mark.parametrize("name", GRADIENTS)
def test_hand_worked_gradients(name, dtype):
    out = reference.reduce_backward(torch.ones(3, 1, 2), X.to(dtype), INDEX, COUNT, (name,))
    expected = torch.tensor(GRADIENTS[name], dtype=torch.float64)
    torch.testing.assert_close(out.double(), expected, rtol=float(torch.finfo(dtype).eps) / 2 + 1e-15, atol=0)


def test_gradients_of_several_reductions_add_up():
    grad = torch.tensor([1.0, 10.0, 100.0]).view(1, 3, 1).expand(3, 3, 2)
    out = reference.reduce_backward(grad, X, INDEX, COUNT, ("max", "sum", "mean"))
    parts = [100 / 2, 100 / 2, 100 / 3, 100 / 3, 100 / 2, 100 / 2, 100 / 3, 100 / 3, 100 / 3, 100 / 3]
    winners = [0, 0.5, 0, 0, 1, 0.5, 0, 0, 1, 1]
    expected = [10 + mean + share for mean, share in zip(parts, winners, strict=True)]
    torch.testing.assert_close(out.flatten(), torch.tensor(expected))


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([1.0, NAN], {"sum": NAN, "mean": NAN, "max": NAN, "min": NAN, "var": NAN, "std": NAN}),
        ([1.0, INF], {"sum": INF, "mean": INF, "max": INF, "min": 1.0, "var": NAN, "std": NAN}),
        ([-INF, -INF], {"sum": -INF, "mean": -INF, "max": -INF, "min": -INF, "var": NAN, "std": NAN}),
        ([INF, -INF], {"sum": NAN, "mean": NAN, "max": INF, "min": -INF, "var": NAN, "std": NAN}),
        ([-0.0, -0.0], {"sum": 0.0, "mean": 0.0, "max": -0.0, "min": -0.0, "var": 0.0, "std": 0.0}),
        ([0.0, -0.0], {"sum": 0.0, "mean": 0.0, "max": 0.0, "min": -0.0, "var": 0.0, "std": 0.0}),
        ([-0.0, 0.0], {"sum": 0.0, "mean": 0.0, "max": 0.0, "min": -0.0, "var": 0.0, "std": 0.0}),
    ],
    ids=str,
)
def test_special_values(column, expected, dtype):
    x = torch.tensor(column, dtype=dtype).view(-1, 1)
    out = reference.reduce(x, torch.zeros(len(x), dtype=torch.int64), torch.tensor([len(x)]), tuple(expected))
    assert_same_bits(out.flatten(), torch.tensor(list(expected.values()), dtype=dtype))


@pytest.mark.parametrize(
    ("reduce", "dtype", "expected"),
    [
        ("sum", torch.int64, 2**62 + 3),
        ("max", torch.int64, 2**62),
        ("min", torch.int8, 1),
        ("sum", torch.int8, 7),
        ("mean", torch.int8, 7 / 3),
        ("sum", torch.bool, 3),
        ("max", torch.bool, True),
        ("mean", torch.bool, 1.0),
    ],
    ids=str,
)
def test_integers(reduce, dtype, expected):
    values = {torch.int64: [1, 2**62, 2], torch.int8: [1, 2, 4], torch.bool: [True, True, True]}[dtype]
    x = torch.tensor(values, dtype=dtype).view(-1, 1)
    out = reference.reduce(x, torch.zeros(3, dtype=torch.int64), torch.tensor([3]), (reduce,))
    result_dtypes = {"sum": torch.int64, "mean": torch.float32, "max": dtype, "min": dtype}
    assert_same_bits(out.flatten(), torch.tensor([expected], dtype=result_dtypes[reduce]))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_rounding_agrees_with_numpy(value):
    with np.errstate(over="ignore"):
        assert reference.round_once(Fraction(value), torch.float32) == float(np.float32(value))
        assert reference.round_once(Fraction(value), torch.float16) == float(np.float16(value))


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_rounding_to_bfloat16_agrees_with_torch(value):
    assert reference.round_once(Fraction(value), torch.bfloat16) == torch.tensor(value).bfloat16().item()


@given(st.fractions())
def test_rounding_to_float64_agrees_with_python(value):
    assert reference.round_once(value, torch.float64) == float(value)


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (Fraction(2) ** 128, torch.float32, INF),
        (Fraction(2) ** 128 - Fraction(2) ** 103, torch.float32, INF),
        (Fraction(2) ** 128 - Fraction(2) ** 103 - 1, torch.float32, torch.finfo(torch.float32).max),
        (Fraction(65520), torch.float16, INF),
        (-Fraction(65519), torch.float16, -65504.0),
        (Fraction(2) ** -150, torch.float32, 0.0),
        (Fraction(3, 2) * Fraction(2) ** -149, torch.float32, 2.0**-148),
        (-(Fraction(2) ** -1075), torch.float64, 0.0),
        (Fraction(2) ** 1024 - Fraction(2) ** 969, torch.float64, INF),
    ],
    ids=str,
)
def test_rounding_at_the_edges(value, dtype, expected):
    assert reference.round_once(value, dtype) == expected
    assert math.copysign(1, reference.round_once(value, dtype)) == (1 if expected >= 0 else -1)


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=20))
def test_sum_is_that_of_math_fsum(values):
    x = torch.tensor(values, dtype=torch.float64).view(-1, 1)
    out = reference.reduce(x, torch.zeros(len(x), dtype=torch.int64), torch.tensor([len(x)]), ("sum",))
    assert out.item() == math.fsum(values)
