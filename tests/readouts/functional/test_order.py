"""Median, quantiles and trimmed mean: values, gradients, contract, invariance, transforms."""

import copy
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from batches import batches, floats
from bits import AS_INTEGERS, assert_same_bits
from hypothesis import given
from hypothesis import strategies as st
from tasks import tasks
from torch.autograd import gradcheck, gradgradcheck
from torch_geometric.nn import MLP, GINConv, aggr

from readouts import Segments, ops, readout
from readouts.functional import order as order_statistics
from readouts.functional.order import median, quantile, trimmed_mean
from readouts.kernels.native import order as native
from readouts.kernels.native.library import core
from readouts.kernels.portable import elementary
from readouts.kernels.portable import order as portable
from readouts.kernels.reference import round_once
from readouts.nn.order import MedianReadout, QuantileReadout, TrimmedMeanReadout

if core.isa is None:
    native = portable
NAN, INF = math.nan, math.inf
SIZES = (0, 1, 2, 3, 31, 32, 33, 48, 49, 0, 100, 511, 512, 513, 5000, 0)
INDEX = torch.tensor([3, 0, 0, 1, 3, 3, 0])
X = torch.randn(7, 4, generator=torch.Generator().manual_seed(1))
FUNCTIONS = {
    "midpoint": lambda x, batch, **options: median(x, batch, **options),
    "lower": lambda x, batch, **options: median(x, batch, interpolation="lower", **options),
    "higher": lambda x, batch, **options: median(x, batch, interpolation="higher", **options),
    "linear": lambda x, batch, **options: quantile(x, batch, (0.1, 0.5, 0.9), **options),
    "hazen": lambda x, batch, **options: quantile(x, batch, 0.3, interpolation="hazen", **options),
    "nearest": lambda x, batch, **options: quantile(x, batch, 0.7, interpolation="nearest", **options),
    "trimmed": lambda x, batch, **options: trimmed_mean(x, batch, 0.2, **options),
}


@pytest.fixture(params=[portable, 1, 3], ids=["portable", "one-thread", "three-threads"])
def kernel(request):
    if request.param is portable:
        yield portable
        return
    with tasks(request.param):
        yield native


@pytest.fixture(params=FUNCTIONS)
def function(request):
    return FUNCTIONS[request.param]


def mixed_batch(features, dtype, seed=0):
    """Graphs of all SIZES, their nodes in any order, with ties, zeros of both signs, NaN and infinities."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.arange(len(SIZES)).repeat_interleave(torch.tensor(SIZES))
    index = index[torch.randperm(len(index), generator=generator)]
    x = torch.randn(len(index), features, generator=generator)
    x[:, ::2] = (2 * x[:, ::2]).round() / 2
    x = x.to(dtype)
    x[torch.rand(x.shape, generator=generator) < 0.01] = -0.0
    x[torch.rand(x.shape, generator=generator) < 0.005] = INF
    x[torch.rand(x.shape, generator=generator) < 0.005] = -INF
    for graph in (3, 8, 13):
        x[(index == graph).nonzero()[0], 0] = NAN
        x[(index == graph).nonzero()[-1], -1] = math.copysign(NAN, -1)
    return x, index


def groups_of(index, size=16):
    segments = Segments.from_batch(index, size)
    return segments.index, segments.ptr, segments.order


def in_order(column):
    """Sort a column, -0 below +0."""
    return sorted(column, key=lambda value: (value, math.copysign(1, value)))


def selected(x, index, ranks):
    """Order statistics by Python's sort, a column at a time."""
    out = torch.zeros(*ranks.shape, x.shape[1], dtype=x.dtype)
    for graph in range(len(ranks)):
        for feature in range(x.shape[1]):
            column = x[index == graph, feature].tolist()
            if not column:
                continue
            ordered = [NAN] * len(column) if any(map(math.isnan, column)) else in_order(column)
            places = ranks[graph].clamp(0, len(column) - 1).tolist()
            out[graph, :, feature] = torch.tensor([ordered[place] for place in places], dtype=x.dtype)
    return out


class TestSelection:
    @pytest.mark.parametrize("features", [1, 16, 19])
    def test_any_size_of_graph(self, kernel, dtype, features):
        x, index = mixed_batch(features, dtype)
        n = torch.tensor(SIZES)
        ranks = torch.stack([(n - 1) // 2, n // 2, n // 3, n // 3 + 1, 0 * n, n - 1, n, 0 * n - 1], dim=1)
        assert_same_bits(kernel.select(x, *groups_of(index), ranks), selected(x, index, ranks))

    @given(st.data())
    def test_any_values(self, dtype, data):
        x, index, count = data.draw(batches(dtype).filter(lambda batch: len(batch.x) > 0))
        ranks = torch.tensor(data.draw(st.lists(st.integers(-1, 31), min_size=2, max_size=2))).expand(
            len(count), 2
        )
        for kernel in (portable, native):
            actual = kernel.select(x, *groups_of(index, len(count)), ranks)
            assert_same_bits(actual, selected(x, index, ranks))

    @given(st.data())
    def test_any_values_by_counting(self, dtype, data):
        """A graph too large to be sorted, made of few values."""
        values = data.draw(st.lists(floats(dtype), min_size=1, max_size=8))
        x = torch.tensor(values, dtype=torch.float64).to(dtype).repeat(512 + 1)[:, None]
        index, ranks = torch.zeros(len(x), dtype=torch.int64), torch.tensor([[0, 1, 513, 514, 600, 9999]])
        actual = native.select(x, *groups_of(index, 1), ranks)
        assert_same_bits(actual, selected(x, index, ranks))

    @pytest.mark.parametrize("nodes", [10, 700])
    def test_every_16_bit_pattern(self, nodes):
        for dtype in (torch.float16, torch.bfloat16):
            patterns = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
            patterns = patterns[~patterns.isnan()][torch.randperm(int((~patterns.isnan()).sum()))]
            x = patterns[: len(patterns) // nodes * nodes].view(nodes, -1)
            groups = groups_of(torch.zeros(nodes, dtype=torch.int64), 1)
            ranks = torch.tensor([[0, nodes // 2 - 1, nodes // 2, nodes - 1]])
            expected = portable.select(x, *groups, ranks)
            assert_same_bits(native.select(x, *groups, ranks), expected)
            assert expected[0].float().equal(x.float().sort(0).values[ranks[0]])

    @pytest.mark.parametrize(
        "dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
    )
    def test_integers(self, dtype):
        limits = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
        x = torch.tensor([[limits[0]], [limits[1]], [limits[1]], [1], [0]]).to(dtype)
        index, ranks = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([[0, 1, 2], [0, 1, 1]])
        out = ops.select(x, *groups_of(index, 2), ranks)
        assert out.dtype == dtype
        assert out.flatten().tolist() == [limits[0], limits[1], limits[1], 0, 1, 1]


def test_positions_are_exact_for_millions_of_nodes():
    n = 3_000_000
    x = torch.randperm(n).double().unsqueeze(1)
    assert median(x).item() == (n - 1) / 2
    assert median(x, interpolation="lower").item() == n // 2 - 1
    assert quantile(x, None, 0.3, interpolation="higher").item() == math.ceil(0.3 * (n - 1))
    assert trimmed_mean(x, None, 0.25).item() == (n - 1) / 2


def middle(column, dtype):
    """The exact mean of the two middle values, rounded once."""
    ordered = in_order(column)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    if math.inf in (-low, high):
        return low + high
    return round_once((Fraction(low) + Fraction(high)) / 2, dtype)


def test_midpoint_is_rounded_once(dtype):
    bits = 8 * dtype.itemsize
    patterns = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, (2, 3000))
    x = patterns.to(AS_INTEGERS[dtype.itemsize]).view(dtype).nan_to_num()
    x[1, ::3] = x[0, ::3] * 0.75  # of like magnitude
    largest, least = torch.finfo(dtype).max, torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    x[:, :6] = torch.tensor(
        [[largest, largest, least, least, -0.0, -INF], [largest, -largest, 0, 2 * least, 0, INF]]
    )
    out = median(x)
    assert_same_bits(out, torch.tensor([[middle(column, dtype) for column in x.T.tolist()]], dtype=dtype))


@pytest.mark.parametrize("interpolation", [*order_statistics.CONTINUOUS, *order_statistics.DISCRETE])
def test_quantiles_of_numpy(interpolation, dtype):
    levels = [0.0, 0.1, 0.25, 0.5, 1 / 3, 0.77, 1.0]
    x = torch.randn(160, 3).to(dtype)
    index = torch.arange(5).repeat_interleave(torch.tensor([1, 2, 9, 48, 100]))[torch.randperm(160)]
    out = quantile(x, index, levels, interpolation=interpolation, size=6)
    assert out.shape == (6, 21)
    for graph in range(5):
        column = x[index == graph].double().numpy()
        expected = np.quantile(column, levels, axis=0, method=interpolation).reshape(-1)
        torch.testing.assert_close(out[graph], torch.from_numpy(expected).to(dtype))
    assert out[5].eq(0).all()
    one = quantile(x, index, 0.77, interpolation=interpolation)
    assert_same_bits(one, out[:5, 15:18])
    assert_same_bits(
        quantile(x, index, torch.tensor(levels, dtype=torch.float64), interpolation=interpolation), out[:5]
    )


def test_constant_graphs_keep_their_value(dtype):
    x = torch.full((7, 1), 0.1).to(dtype)
    for q in (0.15, 0.3, 0.9):
        assert_same_bits(quantile(x, None, q), x[:1])


def kept_values(column, proportion):
    cut = int(proportion * len(column))
    return in_order(column)[cut : len(column) - cut]


@pytest.mark.parametrize("proportion", [0, 0.1, 0.25, 0.49])
def test_trimmed_mean_is_exact(proportion, dtype):
    x, index = mixed_batch(5, dtype)
    x = torch.where(x.isfinite(), x, 1) * torch.tensor([1, 1e-3, 1e3, 1, 1]).to(dtype)
    out = trimmed_mean(x, index, proportion, size=len(SIZES))
    for graph in (graph for graph in range(len(SIZES)) if SIZES[graph]):
        for feature in range(5):
            kept = kept_values(x[index == graph, feature].tolist(), proportion)
            assert out[graph, feature].item() == round_once(sum(map(Fraction, kept)) / len(kept), dtype)


def test_trimmed_mean_of_infinities():
    x = torch.tensor(
        [[-INF, 1, -INF, -INF], [2, 2, INF, 2], [3, 3, -INF, -INF], [4, INF, INF, 6], [INF, INF, 5, NAN]]
    )
    expected = torch.tensor([[3, INF, NAN, NAN]])
    groups = groups_of(torch.zeros(5, dtype=torch.int64), 1)
    bounds = portable.select(x, *groups, torch.tensor([[1, 3]]))
    for kernel in (portable, native):
        rows, offsets = kernel.keep(x, bounds, *groups, torch.tensor([1]))
        assert offsets.tolist() == [0, 3, 5]
        assert_same_bits(readout(rows[:3]), expected)
    assert_same_bits(trimmed_mean(x, None, 0.2), expected)


def tie_gradient(column, weights):
    """Share the weight of every rank among the nodes that have its value; NaN shares everything."""
    if any(map(math.isnan, column)):
        ties = sum(map(math.isnan, column))
        return [sum(weights) / ties if math.isnan(value) else 0.0 for value in column]
    shared = {value: [] for value in column}
    for value, weight in zip(sorted(column), weights, strict=True):
        shared[value].append(weight)
    return [sum(shared[value]) / len(shared[value]) for value in column]


def weights_of(name, n):
    """What every rank adds to the value."""
    weights = np.zeros(n)
    if name == "trimmed":
        cut = int(0.2 * n)
        weights[cut : n - cut] = 1 / (n - 2 * cut)
    elif name == "linear":
        below = math.floor(0.3 * (n - 1))
        weights[below] += 1 - (0.3 * (n - 1) - below)
        weights[min(below + 1, n - 1)] += 0.3 * (n - 1) - below
    else:
        weights[(n - 1) // 2] += {"midpoint": 0.5, "lower": 1, "higher": 0}[name]
        weights[n // 2] += {"midpoint": 0.5, "lower": 0, "higher": 1}[name]
    return weights.tolist()


@pytest.mark.parametrize("name", ["midpoint", "lower", "higher", "linear", "trimmed"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_ties_share_the_gradient(name, dtype):
    x, index = mixed_batch(3, dtype)
    x.requires_grad_()
    functions = {**FUNCTIONS, "linear": lambda x, batch, **options: quantile(x, batch, 0.3, **options)}
    out = functions[name](x, index, size=len(SIZES))
    slope = torch.randn(out.shape).to(dtype)
    (actual,) = torch.autograd.grad(out, x, slope)
    for graph in (graph for graph in range(len(SIZES)) if SIZES[graph]):
        for feature in range(3):
            column = x[index == graph, feature].tolist()
            shares = tie_gradient(column, weights_of(name, len(column)))
            expected = slope[graph, feature].double() * torch.tensor(shares, dtype=torch.float64)
            found = actual[index == graph, feature]
            torch.testing.assert_close(
                found, expected.to(dtype), rtol=64 * torch.finfo(dtype).eps, atol=1e-30
            )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, -1.0, 5.0], [1, 0, 0]),
        ([0.0, 0.0, -2.0, 3.0], [1 / 2, 1 / 2, 0, 0]),
        ([1.0, 2.0, 3.0, 4.0], [0, 1 / 2, 1 / 2, 0]),
        ([1.0, 2.0, 3.0, 2.0, 3.0, 3.0], [0, 1 / 4, 1 / 6, 1 / 4, 1 / 6, 1 / 6]),
        ([0.0, -0.0, 1.0], [1 / 2, 1 / 2, 0]),
        ([NAN, 1.0, NAN], [1 / 2, 0, 1 / 2]),
        ([INF, INF, 1.0], [1 / 2, 1 / 2, 0]),
    ],
    ids=str,
)
def test_gradient_of_the_median_by_hand(values, expected):
    x = torch.tensor(values, requires_grad=True)
    median(x).backward(torch.ones(1))
    assert x.grad.tolist() == torch.tensor(expected).tolist()


def test_kernels_agree_on_the_gradient_of_the_trimmed_mean(dtype):
    x, index = mixed_batch(19, dtype)
    groups, cut = groups_of(index), (torch.tensor(SIZES) * 0.2).long()
    ranks = torch.stack([cut, torch.tensor(SIZES) - 1 - cut], dim=1)
    bounds = portable.select(x, *groups, ranks)
    grad = torch.randn(len(SIZES), 19).to(dtype)
    expected = portable.spread(grad, x, bounds, *groups, cut)
    for number in (1, 3):
        with tasks(number):
            assert_same_bits(native.spread(grad, x, bounds, *groups, cut), expected)


class TestDerivatives:
    def distinct(self):
        return torch.randperm(36).double().view(12, 3).requires_grad_()

    index = torch.tensor([0, 2, 0, 2, 2, 0, 4, 0, 2, 2, 0, 0])

    def test_finite_differences(self, function):
        def value(x):
            return function(x, self.index, size=5) ** 2

        assert gradcheck(value, self.distinct(), check_forward_ad=True)
        assert gradgradcheck(value, self.distinct(), check_fwd_over_rev=True)

    def test_finite_differences_for_q(self):
        x, q = self.distinct(), torch.tensor([0.13, 0.52, 0.88], dtype=torch.float64, requires_grad=True)
        for interpolation in order_statistics.CONTINUOUS:
            value = lambda x, q, name=interpolation: quantile(x, self.index, q, size=5, interpolation=name)  # noqa: E731
            assert gradcheck(value, (x, q))
            assert gradgradcheck(value, (x, q))

    def test_infinities_leave_the_gradient_of_q_finite(self):
        q = torch.tensor(0.3, requires_grad=True)
        x = torch.tensor([[1.0, 0.0], [2.0, 1.0], [3.0, INF], [INF, INF]])
        out = quantile(x, None, q)
        assert out.tolist() == [[pytest.approx(1.9), pytest.approx(0.9)]]
        out.sum().backward()
        assert q.grad.item() == pytest.approx(6)

    def test_functional_derivatives(self, function):
        x = self.distinct().detach()
        total = lambda x: (function(x, self.index, size=5) ** 2).sum()  # noqa: E731
        expected = torch.autograd.functional.hessian(total, x)
        assert expected.abs().sum() > 0
        for hessian in (torch.func.jacrev(torch.func.jacrev(total)), torch.func.hessian(total)):
            torch.testing.assert_close(hessian(x), expected, rtol=1e-12, atol=1e-12)

    def test_integers_have_no_gradient(self):
        assert not trimmed_mean(torch.ones(3, 2, dtype=torch.int64), None, 0.1).requires_grad


class TestContract:
    @pytest.mark.parametrize("empty", [0, -1.5, NAN, -INF])
    def test_empty_graphs_anywhere(self, function, empty, dtype):
        x = torch.tensor([[-1.0], [-2.0], [-3.0]], dtype=dtype)
        out = function(x, torch.tensor([1, 1, 3]), size=5, empty=empty)
        filled = function(x, torch.tensor([0, 0, 1]))
        gap = torch.full_like(filled[:1], empty)
        assert_same_bits(out, torch.cat([gap, filled[:1], gap, filled[1:], gap]))

    def test_nan_stays_in_its_graph_and_feature(self, function, dtype):
        x, index = torch.randn(60, 3).to(dtype), torch.arange(60) % 3
        clean = function(x, index).unflatten(1, (-1, 3))
        x[4, 1] = NAN
        x.requires_grad_()
        out = function(x, index)
        clean[1, :, 1] = NAN
        assert_same_bits(out.detach(), clean.flatten(1))
        out.nansum().backward()
        elsewhere = torch.ones(60, 3, dtype=torch.bool)
        elsewhere[1::3, 1] = False
        assert x.grad[elsewhere].isfinite().all()

    def test_infinities(self):
        x = torch.tensor([[-INF, -INF, 1.0], [INF, -INF, INF]])
        assert_same_bits(median(x), torch.tensor([[NAN, -INF, INF]]))
        assert_same_bits(median(x, interpolation="lower"), torch.tensor([[-INF, -INF, 1.0]]))
        assert_same_bits(quantile(x, None, [0.0, 0.5]), torch.tensor([[-INF, -INF, 1.0, NAN, -INF, INF]]))
        assert_same_bits(quantile(x, None, 1.0), torch.tensor([[INF, -INF, INF]]))

    @pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool])
    def test_dtypes_of_integers(self, dtype):
        x, index = torch.tensor([[1], [0], [1]]).to(dtype), torch.tensor([0, 0, 1])
        for interpolation in ("lower", "higher"):
            assert median(x, index, interpolation=interpolation).dtype == dtype
            assert quantile(x, index, 0.5, interpolation=interpolation).dtype == dtype
        for out in (median(x, index), quantile(x, index, 0.5), trimmed_mean(x, index, 0.1)):
            assert out.dtype == torch.get_default_dtype()
            assert out.tolist() == [[0.5], [1.0]]

    @pytest.mark.parametrize("features", [(), (1,), (4,), (2, 3)], ids=str)
    @pytest.mark.parametrize("nodes", [0, 1, 5])
    def test_shapes(self, features, nodes):
        x, index = torch.randn(nodes, *features), torch.arange(nodes) % 3
        assert median(x, index, size=3).shape == (3, *features)
        assert trimmed_mean(x, index, 0.1, size=3).shape == (3, *features)
        assert quantile(x, index, 0.1, size=3).shape == (3, *features)
        several = quantile(x, index, [0.1, 0.2], size=3)
        assert several.shape == ((3, *features[:-1], 2 * features[-1]) if features else (3, 2))
        assert_same_bits(
            several[..., : features[-1] if features else 1].reshape(3, *features),
            quantile(x, index, 0.1, size=3),
        )

    def test_no_features_and_no_graphs(self, function):
        for shape, size in (((3, 0), 2), ((0, 4), 0), ((0, 0), 3)):
            x = torch.randn(shape, requires_grad=True)
            out = function(x, torch.zeros(shape[0], dtype=torch.int64), size=size)
            assert out.shape[0] == size
            out.sum().backward()
            assert x.grad.equal(torch.zeros(shape))

    def test_non_contiguous_input_ptr_and_segments(self, function):
        x = torch.randn(6, 4, 2)[:, :, 0].t().repeat(2, 1)
        index = torch.tensor([0, 0, 0, 1, 1, 1, 3, 3])
        expected = function(x.contiguous(), index)
        assert_same_bits(function(x, index), expected)
        assert_same_bits(function(x, index.int()), expected)
        assert_same_bits(function(x, Segments.from_batch(index, 4)), expected)
        assert_same_bits(function(x, None, ptr=torch.tensor([0, 3, 6, 6, 8])), expected)

    def test_many_quantiles(self):
        levels = [place / 40 for place in range(41)]
        x = torch.randn(41, 2, requires_grad=True)
        out = quantile(x, None, levels).view(41, 2)
        torch.testing.assert_close(out, x.sort(0).values)
        out.sum().backward()
        torch.testing.assert_close(x.grad, torch.ones(41, 2))

    def test_median_as_a_reduction(self):
        x, index = torch.randn(9, 2), torch.tensor([0, 1, 0, 1, 1, 3, 3, 0, 3])
        alone = median(x, index)
        assert_same_bits(readout(x, index, "median"), alone)
        names = ("median", "sum", "max", "median", "std")
        expected = torch.cat([readout(x, index, name) for name in names], dim=1)
        assert_same_bits(readout(x, index, names), expected)
        assert readout(x.long(), index, ("max", "median")).dtype == torch.get_default_dtype()


class TestInvariance:
    def test_same_bits_after_every_shuffle(self, function, dtype, node_permutations):
        x, index = mixed_batch(3, dtype, seed=5)

        def results(x, index):
            x = x.clone().requires_grad_()
            out = function(x, index, size=len(SIZES))
            (out * torch.linspace(0.3, 1, out.shape[1]).to(dtype)).sum().backward()
            return out.detach(), x.grad

        out, gradient = results(x, index)
        for order in node_permutations(len(x)):
            shuffled, moved = results(x[order], index[order])
            assert_same_bits(shuffled, out)
            assert_same_bits(moved, gradient[order])

    def test_company_in_the_batch_does_not_matter(self, function):
        x, index = mixed_batch(17, torch.float32)
        together = function(x, index, size=len(SIZES))
        for graph in (1, 4, 12, 13, 14):
            assert_same_bits(together[graph : graph + 1], function(x[index == graph], None))


MODULES = [
    MedianReadout(),
    MedianReadout("lower", empty=-1.0),
    QuantileReadout(0.3),
    QuantileReadout([0.1, 0.9], "median_unbiased"),
    QuantileReadout((0.2, 0.5), learnable=True),
    TrimmedMeanReadout(0.2),
]


class TestModules:
    def test_names_and_settings_show(self):
        assert [repr(module) for module in MODULES] == [
            "MedianReadout()",
            "MedianReadout(interpolation='lower', empty=-1.0)",
            "QuantileReadout(q=0.3)",
            "QuantileReadout(q=(0.1, 0.9), interpolation='median_unbiased')",
            "QuantileReadout(q=(0.2, 0.5), learnable=True)",
            "TrimmedMeanReadout(proportion=0.2)",
        ]

    def test_twins_of_pyg(self):
        x, index = torch.randn(100, 4, requires_grad=True), torch.randint(0, 9, (100,)).sort().values
        pairs = [(MedianReadout("lower"), aggr.MedianAggregation())]
        for name in ("linear", "lower", "higher", "midpoint", "nearest"):
            pairs.append((QuantileReadout([0.2, 0.7], name), aggr.QuantileAggregation([0.2, 0.7], name)))
        for ours, theirs in pairs:
            actual, expected = ours(x, index, dim_size=10), theirs(x, index, dim_size=10)
            torch.testing.assert_close(actual, expected)
            weights = torch.randn(actual.shape)
            gradients = [torch.autograd.grad((out * weights).sum(), x)[0] for out in (actual, expected)]
            torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)

    def test_median_of_bfloat16_where_pyg_is_wrong(self):
        x, index = torch.randn(3000, 1).bfloat16(), torch.arange(3000) // 3
        assert_same_bits(
            MedianReadout()(x, index), x.view(1000, 3).float().median(1, keepdim=True).values.bfloat16()
        )

    @pytest.mark.parametrize("module", MODULES, ids=str)
    def test_copies_segments_and_other_dimensions(self, module):
        expected = module(X, INDEX, dim_size=5)
        for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert repr(twin) == repr(module)
            assert_same_bits(twin(X, Segments.from_batch(INDEX, 5)), expected)
        stacked = torch.stack([X, X + 1])
        assert_same_bits(module(stacked, INDEX, dim_size=5, dim=1)[0], expected)

    @pytest.mark.parametrize("module", MODULES[:1] + MODULES[2:3] + MODULES[5:], ids=str)
    def test_aggregator_of_a_convolution(self, module):
        conv = GINConv(MLP([4, 8, 3], norm=None), aggr=module)
        edges = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [1, 1, 1, 2, 2, 0, 0]])
        assert conv(X, edges).shape == (7, 3)

    def test_quantiles_are_learned(self):
        x, index = torch.randn(400, 1), torch.arange(400) % 4
        module = QuantileReadout([0.5], learnable=True)
        assert list(module.state_dict()) == ["logit"]
        optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
        wanted = quantile(x, index, 0.9)
        for _ in range(150):
            optimizer.zero_grad()
            (module(x, index) - wanted).square().sum().backward()
            optimizer.step()
        assert module.logit.sigmoid().item() == pytest.approx(0.9, abs=0.02)
        module.reset_parameters()
        assert module.logit.item() == 0

    def test_autocast_leaves_the_dtype_of_the_features(self):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for module in MODULES:
                assert module(X, INDEX).dtype == torch.float32
                assert module(X.bfloat16(), INDEX).dtype == torch.bfloat16


class TestTransforms:
    def test_compile_without_graph_breaks(self, function):
        torch._dynamo.reset()
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        results = []
        for call in (compiled, function):
            x = X.clone().requires_grad_()
            out = call(x, INDEX, size=4)
            out.square().sum().backward()
            results.append((out.detach(), x.grad))
        for actual, expected in zip(*results, strict=True):
            assert_same_bits(actual, expected)

    def test_compile_with_changing_sizes(self):
        torch._dynamo.reset()
        function = lambda x, index, size: readout(x, index, ("sum", "median"), size=size)  # noqa: E731
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
        for nodes, size in ((5, 2), (9, 3), (17, 11)):
            x, index = torch.randn(nodes, 3), torch.arange(nodes) % size
            assert_same_bits(compiled(x, index, size), function(x, index, size))

    @pytest.mark.parametrize("module", MODULES, ids=str)
    def test_export(self, module):
        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.readout = module

            def forward(self, x, index):
                return self.readout(x, index, dim_size=4)

        nodes = torch.export.Dim("nodes", min=2)
        program = torch.export.export(Model(), (X, INDEX), dynamic_shapes=({0: nodes}, {0: nodes}))
        for rows in (7, 3):
            assert_same_bits(
                program.module()(X[:rows], INDEX[:rows]), module(X[:rows], INDEX[:rows], dim_size=4)
            )

    def test_vmap(self, function):
        x = torch.randn(7, 3, 5)
        actual = torch.func.vmap(lambda x: function(x, INDEX, size=4), in_dims=1)(x)
        assert_same_bits(actual, torch.stack([function(part, INDEX, size=4) for part in x.unbind(1)]))
        indices = torch.stack([INDEX, INDEX.flip(0), 3 - INDEX])
        actual = torch.func.vmap(lambda index: function(X, index, size=4))(indices)
        assert_same_bits(actual, torch.stack([function(X, index, size=4) for index in indices]))

    def test_operators_keep_the_rules_of_torch_library(self):
        groups, ranks = groups_of(INDEX, 4), torch.tensor([[0, 0], [0, 0], [0, 0], [0, 1]])
        operators = torch.ops.readouts
        bounds, cut = operators.select.default(X, *groups, ranks), torch.zeros(4, dtype=torch.int64)
        bounds = operators.select.default(X, *groups, torch.stack([cut, groups[1].diff() - 1], dim=1))
        for operator, arguments in (
            (operators.select, (X.clone().requires_grad_(), *groups, ranks)),
            (operators.midpoint, (X.clone().requires_grad_(), *groups)),
            (operators.trimmed_mean, (X.clone().requires_grad_(), bounds, *groups, cut)),
            (operators.trimmed_mean_backward, (torch.randn(4, 4), X, bounds, *groups, cut)),
        ):
            verdicts = torch.library.opcheck(operator.default, arguments)
            assert set(verdicts.values()) == {"SUCCESS"}

    def test_nothing_waits_for_a_device_when_the_size_is_given(self, function):
        x = torch.empty(7, 4, device="meta", requires_grad=True)
        out = function(x, torch.empty(7, device="meta", dtype=torch.int64), size=4)
        assert out.shape[0] == 4
        out.sum().backward()


def test_portable_kernels_make_the_same_bits(function, dtype, monkeypatch):
    """What devices other than the CPU compute."""
    x, index = mixed_batch(5, dtype)
    expected = function(x, index, size=len(SIZES))
    monkeypatch.setattr("readouts.ops.elementary.kernel_for", lambda device, dtype, family: elementary)
    monkeypatch.setattr("readouts.ops.order.kernel_for", lambda device, dtype, family: portable)
    assert_same_bits(function(x, index, size=len(SIZES)), expected)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: median(X, INDEX, interpolation="mean"),
            ValueError,
            "interpolation: expected one of midpoint, .* got 'mean'",
        ),
        (lambda: median([1.0]), TypeError, "x: expected a tensor, got list"),
        (
            lambda: median(X, INDEX[:3]),
            ValueError,
            "batch: expected one graph index for each of the 7 nodes, got 3",
        ),
        (
            lambda: median(X.long(), INDEX, interpolation="lower", empty=0.5, size=9),
            ValueError,
            "empty: expected a value of dtype",
        ),
        (lambda: quantile(X, INDEX, 1.1), ValueError, "q: expected numbers from 0 to 1, got 1.1"),
        (lambda: quantile(X, INDEX, NAN), ValueError, "q: expected numbers from 0 to 1, got nan"),
        (lambda: quantile(X, INDEX, []), ValueError, "q: expected at least one number, got none"),
        (lambda: quantile(X, INDEX, "0.5"), TypeError, "q: expected a number or several, got str"),
        (lambda: quantile(X, INDEX, ["0.5"]), TypeError, "q: expected numbers, got str"),
        (lambda: quantile(X, INDEX, torch.ones(2, 2)), ValueError, "q: expected a scalar or one dimension"),
        (
            lambda: quantile(X, INDEX, torch.tensor(1)),
            TypeError,
            "q: expected floating-point numbers, got torch.int64",
        ),
        (
            lambda: quantile(X, INDEX, 0.5, interpolation="cubic"),
            ValueError,
            "interpolation: expected one of linear",
        ),
        (
            lambda: trimmed_mean(X, INDEX, 0.5),
            ValueError,
            "proportion: expected a number from 0 to less than 0.5, got 0.5",
        ),
        (lambda: trimmed_mean(X, INDEX, None), TypeError, "proportion: expected a number, got NoneType"),
        (
            lambda: QuantileReadout(0.5, "nearest", learnable=True),
            ValueError,
            "interpolation: expected one of linear, .* got 'nearest'",
        ),
        (
            lambda: QuantileReadout([0.0, 0.5], learnable=True),
            ValueError,
            "q: expected numbers between 0 and 1",
        ),
        (lambda: MedianReadout("linear"), ValueError, "interpolation: expected one of midpoint"),
        (lambda: TrimmedMeanReadout(-0.1), ValueError, "proportion: expected a number"),
        (
            lambda: readout(X, INDEX, ("mean", "mode")),
            ValueError,
            "reduce: expected one of .*, median, got 'mode'",
        ),
    ],
)
def test_errors_say_what_was_expected(call, error, message):
    with pytest.raises(error, match=message):
        call()
