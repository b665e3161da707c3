"""What the weighted averages do at the edges: no weight, infinities, p near 0, ties, 16 bits."""

import math
from fractions import Fraction

import pytest
import torch
from bits import assert_same_bits

from readouts import Segments, logsumexp, moments, power_mean, readout, softmax_mean, weighted_mean
from readouts.nn import (
    LogSumExpReadout,
    MomentReadout,
    PowerMeanReadout,
    SizeAwareMeanReadout,
    SoftmaxReadout,
    SortReadout,
    WeightedMeanReadout,
)

INDEX = torch.tensor([2, 0, 2, 0, 2, 0])
INF, NAN = math.inf, math.nan


class TestExpand:
    @pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 5), (3, 0)], ids=str)
    def test_gives_nodes_the_row_of_their_graph(self, shape):
        values = torch.randn(shape)
        assert_same_bits(Segments.from_batch(INDEX, 3).expand(values), values[INDEX])

    def test_its_gradient_is_the_exact_sum(self, node_permutations):
        segments = Segments.from_batch(torch.zeros(50, dtype=torch.int64), 2)
        values = torch.randn(2, 3, requires_grad=True)
        slopes = torch.randn(50, 3) * 10.0 ** torch.randint(-9, 9, (50, 3))
        for order in node_permutations(50):
            (gradient,) = torch.autograd.grad(segments.expand(values), values, slopes[order])
            for column in range(3):
                total = sum(map(Fraction, slopes[:, column].tolist()))
                assert abs(Fraction(gradient[0, column].item()) - total) <= abs(total) * Fraction(1, 2**24)
            assert gradient[1].eq(0).all()

    def test_second_derivatives(self):
        segments = Segments.from_batch(INDEX, 4)
        values = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradgradcheck(lambda v: segments.expand(v).pow(3), values)


class TestWeightedMean:
    @pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 3)], ids=str)
    def test_weights_of_nodes_and_of_features(self, shape):
        x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
        weight = torch.rand(shape, dtype=torch.float64).requires_grad_()
        out = weighted_mean(x, weight, INDEX, size=3)
        wide = weight.view(6, -1)
        for graph in (0, 2):
            nodes = graph == INDEX
            expected = (wide[nodes] * x[nodes]).sum(0) / wide[nodes].sum(0)
            torch.testing.assert_close(out[graph], expected)
        assert torch.autograd.gradcheck(lambda x, w: weighted_mean(x, w, INDEX, size=3), (x, weight))
        assert_same_bits(WeightedMeanReadout()(x, INDEX, dim_size=3, weight=weight), out)

    def test_equal_weights_are_the_mean(self):
        x = torch.randint(-8, 9, (6, 3)).float()
        weight = torch.full((6,), 0.25)
        torch.testing.assert_close(weighted_mean(x, weight, INDEX), readout(x, INDEX, "mean"))

    def test_integers_and_whole_counts(self):
        """Whole weights are numbers of copies."""
        x, weight = torch.tensor([[1], [5]]), torch.tensor([3, 1])
        assert weighted_mean(x, weight).tolist() == [[2.0]]

    def test_weights_that_cancel(self):
        """A total of 0 is divided by as IEEE 754 says; only a graph without nodes is empty."""
        x = torch.tensor([[1.0], [2.0], [0.0], [3.0], [3.0]])
        weight = torch.tensor([1.0, -1.0, 0.0, 1.0, -1.0])
        out = weighted_mean(x, weight, torch.tensor([0, 0, 1, 2, 2]), size=4, empty=7)
        assert out[0].item() == -INF
        assert out[1].isnan()
        assert out[2].isnan()
        assert out[3].item() == 7

    @pytest.mark.parametrize("value", [NAN, INF, -INF])
    def test_a_weight_of_zero_leaves_its_node_out(self, value):
        x = torch.tensor([[value, 1.0], [1.0, 1.0]], requires_grad=True)
        out = weighted_mean(x, torch.tensor([0.0, 1.0]))
        assert out.tolist() == [[1.0, 1.0]]
        out.sum().backward()
        assert x.grad.tolist() == [[0.0, 0.0], [1.0, 1.0]]

    @pytest.mark.parametrize("shape", [(5,), (5, 3), (6, 2), (6, 3, 1), ()], ids=str)
    def test_weights_that_do_not_fit(self, shape):
        with pytest.raises(ValueError, match=r"weight: expected one for each of the 6 nodes"):
            weighted_mean(torch.randn(6, 3), torch.ones(shape), INDEX)

    def test_neither_weight_nor_gate(self):
        with pytest.raises(ValueError, match="weight: expected weights of the nodes"):
            WeightedMeanReadout()(torch.randn(6, 3), INDEX)

    def test_nodes_along_another_dimension(self):
        x, weight = torch.randn(3, 6), torch.rand(3, 6)
        out = WeightedMeanReadout()(x, INDEX, dim=1, weight=weight)
        assert_same_bits(out, weighted_mean(x.T, weight.T, INDEX).T)


class TestSoftmax:
    def test_temperature_leads_from_min_over_mean_to_max(self):
        x = torch.randn(6, 3, dtype=torch.float64)
        found = [SoftmaxReadout(t)(x, INDEX, dim_size=3) for t in (-1e4, 0.0, 1e4)]
        for out, name in zip(found, ("min", "mean", "max"), strict=True):
            torch.testing.assert_close(out, readout(x, INDEX, name, size=3))

    def test_large_scores_do_not_overflow(self):
        scores = torch.tensor([[3e38], [3e38], [-3e38]])
        assert softmax_mean(torch.tensor([[1.0], [2.0], [9.0]]), scores).item() == 1.5

    def test_infinite_scores_are_nan_as_in_torch(self):
        x = torch.tensor([[1.0], [INF]])
        assert softmax_mean(torch.ones(2, 1), x).isnan().all()
        assert softmax_mean(torch.ones(2, 1), torch.full((2, 1), -INF)).isnan().all()

    def test_a_score_of_minus_infinity_masks_a_node(self):
        x, scores = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[0.0], [-INF], [0.0]])
        assert softmax_mean(x, scores).item() == 2.5

    def test_derivatives_of_scores_and_values(self):
        x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
        for width in (1, 3):
            scores = torch.randn(6, width, dtype=torch.float64, requires_grad=True)
            function = lambda x, s: softmax_mean(x, s, INDEX, size=4)  # noqa: E731
            assert torch.autograd.gradcheck(function, (x, scores), check_forward_ad=True)
            assert torch.autograd.gradgradcheck(function, (x, scores))

    def test_gradient_of_one_argument_only(self):
        x, scores = torch.randn(6, 3), torch.randn(6, 1)
        for first, second in ((True, False), (False, True)):
            a, b = x.clone().requires_grad_(first), scores.clone().requires_grad_(second)
            softmax_mean(a, b, INDEX).sum().backward()
            assert (a.grad is not None, b.grad is not None) == (first, second)

    def test_functional_transforms(self):
        x = torch.randn(6, 3)
        function = lambda x: softmax_mean(x, x, INDEX, size=3).square().sum()  # noqa: E731
        moved = x.clone().requires_grad_()
        function(moved).backward()
        torch.testing.assert_close(torch.func.grad(function)(x), moved.grad)
        many = torch.randn(2, 6, 3)
        mapped = torch.func.vmap(lambda x: softmax_mean(x, x, INDEX, size=3))(many)
        torch.testing.assert_close(mapped, torch.stack([softmax_mean(x, x, INDEX, size=3) for x in many]))

    def test_one_score_for_each_node(self):
        x, scores = torch.randn(6, 3), torch.tensor([0.0, 1.0, 2.0, 0.0, 3.0, 1.0])
        assert_same_bits(softmax_mean(x, scores, INDEX), softmax_mean(x, scores.unsqueeze(1), INDEX))
        one = softmax_mean(torch.arange(9.0).view(3, 3), torch.tensor([0.0, 0.0, 50.0]))
        assert one.tolist() == [[6, 7, 8]]

    @pytest.mark.parametrize("shape", [(5,), (6, 2), (6, 3, 1), ()], ids=str)
    def test_scores_that_do_not_fit(self, shape):
        with pytest.raises(ValueError, match=r"scores: expected one for each of the 6 nodes"):
            softmax_mean(torch.randn(6, 3), torch.ones(shape), INDEX)

    def test_scores_of_another_dtype(self):
        x, scores = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 1)
        assert_same_bits(softmax_mean(x, scores, INDEX), softmax_mean(x, scores.double(), INDEX))

    def test_what_readouts_refuse(self):
        with pytest.raises(ValueError, match=r"empty: expected a value of dtype torch.float16"):
            softmax_mean(torch.ones(6, 1).half(), torch.ones(6, 1), INDEX, empty=1e9)
        for function in (logsumexp, moments, lambda x: power_mean(x, 2.0), lambda x: softmax_mean(x, x)):
            with pytest.raises(TypeError, match="x: expected a tensor, got list"):
                function([1.0, 2.0])
            with pytest.raises(ValueError, match=r"x: expected node features .*, got a scalar"):
                function(torch.tensor(1.0))

    def test_channels_need_learning(self):
        with pytest.raises(ValueError, match=r"channels: expected 1 where t is not learned, got 4"):
            SoftmaxReadout(channels=4)


class TestLogSumExp:
    def test_infinities(self):
        """All -inf is -inf with gradient 0; one +inf is +inf; an empty graph is told by its count."""
        x = torch.tensor([[-INF, INF], [-INF, 1.0]], requires_grad=True)
        out = logsumexp(x, size=None)
        assert out.tolist() == [[-INF, INF]]
        out[0, 0].backward()
        assert x.grad[:, 0].tolist() == [0, 0]
        assert logsumexp(x.detach(), torch.tensor([0, 2]), size=4, empty=-9)[[1, 3]].eq(-9).all()

    def test_no_overflow(self):
        x = torch.tensor([[1000.0], [1000.0]])
        assert LogSumExpReadout()(x).item() == pytest.approx(1000 + math.log(2))

    def test_copies_add_the_logarithm_of_their_number(self):
        x = torch.randn(4, 2, dtype=torch.float64)
        torch.testing.assert_close(logsumexp(x.repeat(3, 1)), logsumexp(x) + math.log(3))


class TestPowerMean:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_limits(self, dtype):
        x = torch.rand(6, 3, dtype=dtype) + 0.1
        mean = lambda p: power_mean(x, p, INDEX, size=3)[[0, 2]]  # noqa: E731
        by_name = lambda x, name: readout(x, INDEX, name, size=3)[[0, 2]]  # noqa: E731
        torch.testing.assert_close(mean(1), by_name(x, "mean"))
        torch.testing.assert_close(mean(0), by_name(x.log(), "mean").exp())
        torch.testing.assert_close(mean(-1), 1 / by_name(1 / x, "mean"))
        torch.testing.assert_close(mean(5000.0), by_name(x, "max"), rtol=1e-3, atol=0)
        torch.testing.assert_close(mean(-5000.0), by_name(x, "min"), rtol=1e-3, atol=0)

    def test_small_powers_keep_their_digits(self):
        """p = 1e-6 differs from p = 0 by p var(log x) / 2, relatively: few digits of a power."""
        x = torch.rand(6, 3, dtype=torch.float64) + 0.1
        x.requires_grad_()
        slope = readout(x.log(), INDEX, "var", size=3) / 2
        near = power_mean(x, 1e-6, INDEX, size=3) / power_mean(x, 0.0, INDEX, size=3) - 1
        torch.testing.assert_close(near[[0, 2]], 1e-6 * slope[[0, 2]], rtol=1e-3, atol=0)

    def test_a_power_that_float32_does_not_hold_is_not_rounded(self):
        x = torch.rand(6, 3, dtype=torch.float64) + 0.1
        torch.testing.assert_close(power_mean(x, 2.3)[0], (x**2.3).mean(0) ** (1 / 2.3), rtol=1e-14, atol=0)

    def test_a_learned_power_may_pass_zero(self):
        """The slope at p = 0 is the power mean times var(log x) / 2."""
        x = torch.rand(6, 1, dtype=torch.float64) + 0.1
        p = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        out = power_mean(x, p, torch.zeros(6, dtype=torch.int64))
        (slope,) = torch.autograd.grad(out.sum(), p)
        torch.testing.assert_close(slope, (out * x.log().var(unbiased=False) / 2)[0], rtol=1e-5, atol=0)

    def test_what_is_clamped_has_no_gradient(self):
        x = torch.tensor([[0.0], [-3.0], [0.5]], requires_grad=True)
        out = power_mean(x, 2.0, clamp_min=0.1)
        assert out.item() == pytest.approx(math.sqrt((0.01 + 0.01 + 0.25) / 3))
        out.backward()
        assert x.grad[:2].eq(0).all()
        assert x.grad[2] > 0

    def test_infinity_and_great_powers(self):
        assert power_mean(torch.tensor([[1.0], [INF]]), 2.0).item() == INF
        assert power_mean(torch.tensor([[2.0], [3.0]]), 1e6).item() == pytest.approx(3.0, rel=1e-5)

    @pytest.mark.parametrize("least", [0.0, -1.0, NAN])
    def test_clamp_is_positive(self, least):
        with pytest.raises(ValueError, match=r"clamp_min: expected a positive number, got"):
            PowerMeanReadout(clamp_min=least)
        with pytest.raises(ValueError, match=r"clamp_min: expected a positive number, got"):
            power_mean(torch.ones(2, 1), 2.0, clamp_min=least)

    @pytest.mark.parametrize("p", [INF, -INF, NAN])
    def test_power_is_finite(self, p):
        with pytest.raises(ValueError, match=r"p: expected a finite number, got .*; max and min"):
            PowerMeanReadout(p)
        with pytest.raises(ValueError, match=r"p: expected a finite number, got .*; max and min"):
            power_mean(torch.ones(2, 1), p)


class TestMoments:
    def test_graphs_of_equal_nodes(self):
        """Width, skewness and kurtosis are 0, and so are their gradients."""
        x = torch.full((6, 2), 0.1, requires_grad=True)
        out = moments(x, INDEX, size=3)
        assert_same_bits(out[0], torch.tensor([0.1, 0.1, 0, 0, 0, 0, 0, 0]))
        out[:, 2:].sum().backward()
        assert x.grad.eq(0).all()

    def test_far_from_zero(self):
        """Skewness and kurtosis do not change with the origin, as far as x itself does not."""
        steps = torch.tensor([[0.0], [1.0], [1.0], [4.0]])
        near, far = moments(steps), moments(steps + 2**20)
        torch.testing.assert_close(far[:, 1:], near[:, 1:], rtol=1e-6, atol=0)

    def test_known_values(self):
        """One in four: skewness 2/sqrt(3), kurtosis 7/3."""
        out = MomentReadout()(torch.tensor([[0.0], [0.0], [0.0], [1.0]], dtype=torch.float64))
        expected = [0.25, math.sqrt(3) / 4, 2 / math.sqrt(3), 7 / 3]
        torch.testing.assert_close(out[0], torch.tensor(expected, dtype=torch.float64))


class TestSort:
    def test_lexicographic_from_the_last_feature(self):
        x = torch.tensor([[1.0, 5.0], [2.0, 5.0], [9.0, 4.0], [0.0, 6.0]])
        assert SortReadout(3)(x).tolist() == [[0, 6, 2, 5, 1, 5]]

    def test_signed_zeros_and_nan_tie(self, node_permutations):
        """-0 and +0 tie and come out as +0, NaN ties with NaN and comes first: no order shows."""
        x = torch.tensor([[1.0, NAN], [2.0, NAN], [3.0, 0.0], [4.0, -0.0], [-0.0, 1.0], [0.0, 1.0]])
        expected = torch.tensor([[2, NAN, 1, NAN, 0, 1, 0, 1, 4, 0, 3, 0]])
        for order in node_permutations(6):
            assert_same_bits(SortReadout(6)(x[order]), expected)

    def test_equal_nodes_share_the_gradient(self):
        x = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [0.0, 3.0]], requires_grad=True)
        out = SortReadout(3)(x)
        (out * torch.tensor([1.0, 1, 3, 3, 6, 6])).sum().backward()
        assert x.grad.tolist() == [[3, 3], [3, 3], [3, 3], [1, 1]]

    def test_missing_nodes(self):
        out = SortReadout(3, empty=-1)(torch.tensor([[5.0], [7.0]]), torch.tensor([1, 1]), dim_size=3)
        assert out.tolist() == [[-1, -1, -1], [7, 5, -1], [-1, -1, -1]]

    def test_integers(self):
        assert SortReadout(2)(torch.tensor([[1], [3], [2]])).tolist() == [[3, 2]]


class TestSizeAwareMean:
    def test_a_graph_and_its_copies_differ_in_the_last_column_only(self):
        x = torch.randn(5, 3)
        one, three = SizeAwareMeanReadout()(x), SizeAwareMeanReadout()(x.repeat(3, 1))
        assert_same_bits(one[:, :3], three[:, :3])
        torch.testing.assert_close(three[0, 3] - one[0, 3], torch.tensor(math.log(3)))

    def test_sixteen_bits(self):
        out = SizeAwareMeanReadout()(torch.ones(5000, 1, dtype=torch.bfloat16))
        assert out.dtype == torch.bfloat16
        assert out[0, 1].item() == pytest.approx(math.log(5000), rel=2**-8)


@pytest.mark.parametrize("average", [weighted_mean, softmax_mean])
def test_gradients_of_the_weights_of_integers_do_not_see_a_batch_vector_that_is_used_again(average):
    x, batch = torch.arange(6), INDEX.clone()
    given = torch.rand(6).requires_grad_()
    expected = torch.autograd.grad(average(x, given, INDEX, size=3).square().sum(), given)[0]
    loss = average(x, given, batch, size=3).square().sum()
    batch.copy_(INDEX.flip(0))
    assert_same_bits(torch.autograd.grad(loss, given)[0], expected)
