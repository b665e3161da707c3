"""Averages that are in range although sums, products or powers are not, compared with fractions."""

import math
from fractions import Fraction

import pytest
import torch
from bits import assert_same_bits
from hypothesis import example, given
from hypothesis import strategies as st
from torch.autograd import grad

from readouts import logsumexp, power_mean, softmax_mean, weighted_mean
from readouts.nn import AttentionReadout, PowerMeanReadout, Set2SetReadout, SoftmaxReadout

INF, NAN = math.inf, math.nan
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
AVERAGES = {
    "softmax": lambda x: SoftmaxReadout()(x),
    "softmax, t = 10": lambda x: SoftmaxReadout(10.0)(x),
    "softmax, t = -10": lambda x: SoftmaxReadout(-10.0)(x),
    "softmax, learned": lambda x: SoftmaxReadout(7.0, learn=True)(x),
    "softmax_mean": lambda x: softmax_mean(x, torch.zeros_like(x[:, :1])),
    "equal weights": lambda x: weighted_mean(x, torch.ones(len(x), dtype=x.dtype)),
    "large weights": lambda x: weighted_mean(x, torch.full_like(x, torch.finfo(x.dtype).max)),
    "small weights": lambda x: weighted_mean(x, torch.full_like(x, torch.finfo(x.dtype).smallest_normal)),
    "attention": lambda x: AttentionReadout(torch.nn.Identity())(x),
    "set2set": lambda x: Set2SetReadout(x.shape[1], 2).to(x.dtype)(x)[:, x.shape[1] :],
    "logsumexp": lambda x: logsumexp(x[:1]),
    **{
        f"power mean, p = {p}": lambda x, p=p: power_mean(x.abs(), p, clamp_min=1e-300) * x[0].sign()
        for p in (-300.0, -1.0, 0.0, 1.0, 2.0, 300.0)
    },
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", AVERAGES)
@pytest.mark.parametrize("least", [False, True], ids=["greatest", "least"])
def test_average_of_equal_numbers_is_that_number(name, dtype, least):
    """Also at both ends of the range, where sums overflow and products vanish."""
    limits = torch.finfo(dtype)
    value = max(limits.smallest_normal, 1e-290) if least else limits.max
    for sign in (1, -1):
        x = torch.full((3, 2), sign * value, dtype=dtype, requires_grad=True)
        out = AVERAGES[name](x)
        rtol = 8 * limits.eps
        torch.testing.assert_close(out, torch.full((1, 2), sign * value, dtype=dtype), rtol=rtol, atol=0)
        (gradient,) = grad(out.sum(), x)
        assert gradient.isfinite().all()
        if name not in ("set2set", "logsumexp"):
            assert (gradient.double() - 1 / 3).abs().max() <= 8 * limits.eps


numbers = st.builds(
    lambda exponent, mantissa: math.ldexp(mantissa, exponent),
    st.one_of(st.integers(-4, 4), st.integers(-1040, 1020)),
    st.floats(-1, 1),
)


@example(pairs=[(1.0, 2.0), (0.0, 8.683634040564e-311)], cancel=True)
@given(pairs=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=6), cancel=st.booleans())
def test_weighted_mean_in_float64_is_that_of_fractions(pairs, cancel):
    pairs = [*pairs, (pairs[0][0] * (1 + 2.0**-30), -pairs[0][1])] if cancel else pairs
    total = sum(Fraction(weight) for _, weight in pairs)
    if total == 0:
        return
    expected = sum(Fraction(value) * Fraction(weight) for value, weight in pairs) / total
    x, weight = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    out = weighted_mean(x, weight).item()
    if abs(expected) < Fraction(2) ** 1024:
        assert abs(Fraction(out) - expected) <= abs(expected) * Fraction(2) ** -51 + Fraction(2) ** -1073


@given(pairs=st.lists(st.tuples(st.floats(-9, 9, width=32), st.floats(-9, 9)), min_size=1, max_size=9))
def test_float32_with_float64_weights(pairs):
    """The weighted sum is exact also where its terms cancel."""
    values, weights = zip(*pairs, strict=True)
    total = sum(map(Fraction, weights))
    if total == 0:
        return
    expected = sum(Fraction(v) * Fraction(w) for v, w in pairs) / total
    out = weighted_mean(torch.tensor(values), torch.tensor(weights, dtype=torch.float64))
    assert out.dtype == torch.float32
    if abs(expected) < 2.0**127:
        assert (
            abs(Fraction(out.item()) - expected) <= abs(expected) * Fraction(1, 2**23) + Fraction(2) ** -149
        )


@pytest.mark.parametrize("columns", [1, 20])
def test_graphs_that_take_care_do_not_change_others(columns):
    """Values and gradients in float64 are those of each graph alone, also where others leave the range."""
    torch.manual_seed(0)
    x, weight = torch.randn(24, 20, dtype=torch.float64), torch.rand(24, columns, dtype=torch.float64)
    slope = torch.randn(6, 20, dtype=torch.float64)
    index = torch.arange(24) // 4
    x[4:8] *= 1e300
    weight[8:12] *= 1e-300
    x[12:16] = 0
    weight[16] = 0
    x[16] = INF
    slope[5] *= 1e290

    def results(x, weight, index, slope):
        x, weight = (tensor.clone().requires_grad_() for tensor in (x, weight))
        out = weighted_mean(x, weight, index)
        return [out.detach(), *grad(out, (x, weight), slope)]

    together = results(x, weight, index, slope)
    assert all(value.isfinite().all() for value in together)
    for graph in range(6):
        nodes = index == graph
        alone = results(x[nodes], weight[nodes], index[nodes] * 0, slope[[graph]])
        for part, whole in zip(alone, together, strict=True):
            assert_same_bits(part, whole[graph : graph + 1] if len(whole) == 6 else whole[nodes])


def test_gradients_of_small_weights():
    """x of 1e-20 and weights of 1e-200: products vanish in float64, the mean and its gradients do not."""
    x = torch.tensor([1e-20, 3e-20, 0.0], dtype=torch.float64, requires_grad=True)
    weight = torch.full((3,), 1e-200, dtype=torch.float64, requires_grad=True)
    out = weighted_mean(x, weight)
    for_x, for_weight = grad(out.sum(), (x, weight))
    torch.testing.assert_close(
        out.detach(), torch.tensor([4e-20 / 3], dtype=torch.float64), rtol=1e-15, atol=0
    )
    torch.testing.assert_close(for_x, torch.full_like(x, 1 / 3), rtol=1e-15, atol=0)
    expected = (x.detach() - out.detach()) / 3e-200
    torch.testing.assert_close(for_weight, expected, rtol=1e-14, atol=0)


def test_derivatives_in_float64():
    index = torch.tensor([0, 0, 2, 0, 2, 2])
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    for shape in ((6,), (6, 1), (6, 3)):
        weight = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        function = lambda x, w: weighted_mean(x, w, index, size=3)[[0, 2]]  # noqa: E731
        assert torch.autograd.gradcheck(function, (x, weight), check_forward_ad=True)
        assert torch.autograd.gradgradcheck(function, (x, weight))
    mapped = torch.func.vmap(lambda x: weighted_mean(x, weight, index, size=3))(torch.stack([x, 2 * x]))
    assert_same_bits(mapped[0], weighted_mean(x, weight, index, size=3))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_nodes_left_out_do_not_show(dtype, value):
    """A score of -inf or a weight of 0: neither in values nor in gradients, also under `create_graph`."""
    x = torch.tensor([[value, value], [1.0, 2.0], [3.0, 4.0]], dtype=dtype, requires_grad=True)
    scores = torch.tensor([-INF, 0.0, 0.0], dtype=dtype, requires_grad=True)
    weights = torch.tensor([0.0, 1.0, 1.0], dtype=dtype)
    for create_graph in (False, True):
        out = softmax_mean(x, scores)
        for_x, for_scores = grad(out.sum(), (x, scores), create_graph=create_graph)
        assert out.tolist() == [[2.0, 3.0]]
        assert for_x.tolist() == [[0, 0], [0.5, 0.5], [0.5, 0.5]]
        assert for_scores[0] == 0
        assert for_scores.isfinite().all()
        out = weighted_mean(x, weights)
        assert out.tolist() == [[2.0, 3.0]]
        assert grad(out.sum(), x, create_graph=create_graph)[0].tolist() == for_x.tolist()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("t", [10.0, -10.0])
def test_multiples_that_overflow(dtype, t):
    """t x is beyond the range; the weights are those of the greatest or least value."""
    large = torch.finfo(dtype).max
    x = torch.tensor([[large], [large], [-large], [-INF if t > 0 else INF], [2.0], [2.0]], dtype=dtype)
    module = SoftmaxReadout(t, learn=True).to(dtype)
    x.requires_grad_()
    index = torch.tensor([0, 0, 0, 0, 1, 1])
    out = module(x, index)
    assert out.tolist() == [[large if t > 0 else -large], [2.0]]
    gradients = grad(out[0].sum(), (x, module.t), retain_graph=True)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert_same_bits(out[1:], module(x[4:]))


def test_power_mean_stays_between_its_bounds():
    x = (torch.rand(50, 4, dtype=torch.float64) + 0.5) * 1e300
    for p in (-2.0, 0.5, 3.0):
        out = PowerMeanReadout(p)(x)
        assert out.isfinite().all()
        torch.testing.assert_close(out, PowerMeanReadout(p)(x / 2.0**900) * 2.0**900, rtol=1e-14, atol=0)
    assert PowerMeanReadout(2.0, clamp_max=3.0)(torch.tensor([[1.0], [50.0]])).item() == pytest.approx(5**0.5)
