"""Attribution: the parts of every readout add up to it, and go to the nodes that made it."""

import math
import subprocess
import sys
from fractions import Fraction

import pytest
import torch
from batches import FLOATS, batches
from bits import assert_same_bits
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from readouts import Segments, readout
from readouts.attribution import attention_weights, class_activation, contributions
from readouts.nn import (
    AttentionReadout,
    DeepSetsReadout,
    MaxReadout,
    MeanReadout,
    MultiheadAttentionReadout,
    MultiReadout,
    Set2SetReadout,
    SoftmaxReadout,
    SumReadout,
    VarReadout,
    WeightedMeanReadout,
)
from readouts.nn.order import MedianReadout, QuantileReadout, TrimmedMeanReadout

INF, NAN = math.inf, math.nan
ROUNDING = 2.0**-23


def gated():
    return WeightedMeanReadout(nn.Sequential(nn.Linear(4, 1), nn.Softplus()))


def attentive():
    return AttentionReadout(nn.Linear(4, 1), nn.Linear(4, 3))


def learned_softmax():
    return SoftmaxReadout(0.7, learn=True, channels=4)


def quartiles():
    return QuantileReadout([0.25, 0.5, 0.9])


def lower_median():
    return MedianReadout("lower")


def trimmed():
    return TrimmedMeanReadout(0.2)


ORDERED = [MedianReadout, lower_median, quartiles, trimmed]
MODULES = [MeanReadout, MaxReadout, *ORDERED, SoftmaxReadout, learned_softmax, gated, attentive]


@pytest.fixture
def graphs():
    return torch.randn(40, 4), torch.randint(0, 5, (40,))


@given(data=st.data(), dtype=st.sampled_from(FLOATS))
def test_parts_of_a_sum_are_the_nodes_themselves(data, dtype):
    x, index, count = data.draw(batches(dtype))
    parts = contributions("sum", x, index, size=len(count))
    assert_same_bits(parts, x)
    assert_same_bits(readout(parts, index, "sum", size=len(count)), readout(x, index, "sum", size=len(count)))


@given(
    data=st.data(), dtype=st.sampled_from(FLOATS), reduce=st.sampled_from(["mean", "max", "min", "median"])
)
def test_parts_are_the_value_divided_by_hand(data, dtype, reduce):
    x, index, count = data.draw(batches(dtype, finite=True))
    parts = contributions(reduce, x, index, size=len(count))
    assert (parts.shape, parts.dtype) == (x.shape, x.dtype)
    for node, graph in enumerate(index.tolist()):
        for feature in range(x.shape[1]):
            column = x[index == graph, feature].tolist()
            expected = by_hand(reduce, x[node, feature].item(), column)
            least = torch.finfo(x.dtype).smallest_normal * torch.finfo(x.dtype).eps
            bound = 2 * torch.finfo(x.dtype).eps * abs(expected) + 2 * least
            assert abs(parts[node, feature].item() - expected) <= bound


def by_hand(reduce, value, column):
    """The part of one node, in rational arithmetic."""
    if reduce == "mean":
        return Fraction(value) / len(column)
    ordered, n = sorted(column), len(column)
    middle = [ordered[(n - 1) // 2], ordered[n // 2]]
    wanted = {"max": [ordered[-1]], "min": [ordered[0]], "median": middle}[reduce]
    shares = [Fraction(1, column.count(value) * len(wanted)) for extreme in wanted if extreme == value]
    return Fraction(value) * sum(shares)


@pytest.mark.parametrize("reduce", ["mean", "max", "min"])
@pytest.mark.parametrize("n", [1, 2, 8, 64])
def test_halving_is_exact_so_parts_add_up_to_the_bit(reduce, n):
    x = torch.randn(n, 3)
    x = x if reduce == "mean" else x[:1].expand(n, 3)
    assert_same_bits(readout(contributions(reduce, x), reduce="sum"), readout(x, reduce=reduce))


@pytest.mark.parametrize("make", MODULES)
def test_parts_add_up_to_the_module(make, graphs):
    x, batch = graphs
    module = make()
    expected = module(x, batch, dim_size=7).detach()
    total = readout(contributions(module, x, batch, size=7), batch, "sum", size=7)
    assert total.shape == expected.shape
    assert (total - expected).abs().max() <= 4 * ROUNDING * (1 + x.abs().max())
    assert not total[5:].any()


@pytest.mark.parametrize("make", ORDERED)
def test_order_statistics_are_made_by_few_nodes_that_share_ties(make):
    x = torch.tensor([5.0, 1.0, 3.0, 3.0, -2.0, 100.0, 3.0]).unsqueeze(1)
    parts = contributions(make(), x)
    assert (parts[2] == parts[3]).all()
    assert (parts[2] == parts[6]).all()
    assert make is quartiles or parts[:, -1].count_nonzero() == (5 if make is trimmed else 3)
    assert make is quartiles or parts[[4, 5], -1].tolist() == [0, 0]


def test_weights_that_are_given(graphs):
    x, batch = graphs
    weight = torch.rand(40, dtype=torch.float64)
    parts = contributions(WeightedMeanReadout(), x.double(), batch, weight=weight)
    total = torch.zeros(5, dtype=torch.float64).index_add_(0, batch, weight)
    torch.testing.assert_close(parts, (weight / total[batch]).unsqueeze(1) * x, rtol=1e-14, atol=0)


def test_attention_parts_are_weight_times_value(graphs):
    x, batch = graphs
    module = attentive().double()
    parts = contributions(module, x.double(), batch)
    for graph in range(5):
        inside = x[batch == graph].double()
        weight = module.gate_nn(inside).softmax(dim=0)
        torch.testing.assert_close(parts[batch == graph], (weight * module.nn(inside)).detach())


def test_parts_of_a_module_that_is_not_linear_in_its_weights_are_not_gradient_times_input(graphs):
    x, batch = graphs
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(SoftmaxReadout()(leaf, batch).sum(), leaf)
    assert not torch.allclose(contributions(SoftmaxReadout(), x, batch), x * slope, atol=1e-2)


def test_ties_share_and_losers_get_nothing():
    x = torch.tensor([-0.0, 0.0, -INF, 2.0, 6.0, 6.0])
    batch = torch.tensor([0, 0, 0, 1, 1, 1])
    assert contributions("max", x, batch).tolist() == [0, 0, 0, 0, 3, 3]
    assert contributions("min", x, batch).tolist() == [0, 0, -INF, 2, 0, 0]


def test_nan_and_infinity_stay_with_the_nodes_that_made_them():
    x = torch.tensor([NAN, 1.0, INF, 4.0])
    batch = torch.tensor([0, 0, 1, 1])
    for reduce in ("sum", "mean", "max"):
        nan, one, infinite, four = contributions(reduce, x, batch).tolist()
        assert math.isnan(nan)
        assert infinite == INF
        assert [one, four] == {"sum": [1, 4], "mean": [0.5, 2], "max": [0, 0]}[reduce]


def test_counts_beyond_half_precision():
    x = torch.ones(70_000, dtype=torch.float16)
    assert contributions("mean", x)[0] == torch.tensor(1 / 70_000, dtype=torch.float16)
    assert contributions("max", x)[0] == torch.tensor(1 / 70_000, dtype=torch.float16)


def test_integers_and_bools():
    x = torch.tensor([3, 3, 1])
    assert_same_bits(contributions("sum", x.int()), x)
    assert_same_bits(contributions("mean", x), x / 3)
    assert_same_bits(contributions("max", x > 1), torch.tensor([0.5, 0.5, 0.0]))


@pytest.mark.parametrize("shape", [(6,), (6, 2), (6, 2, 3), (6, 0), (0, 3), (0,)])
def test_shapes_single_and_several(shape):
    x = torch.randn(shape)
    batch = torch.arange(shape[0]) % 2
    names = ("sum", "mean", "max")
    single = [contributions(name, x, batch, size=2) for name in names]
    assert all(parts.shape == x.shape for parts in single)
    several = contributions(names, x, batch, size=2)
    total = readout(several, batch, "sum", size=2)
    assert total.shape == readout(x, batch, names, size=2).shape
    if len(shape) > 1:
        assert_same_bits(several, torch.cat(single, dim=-1))


def test_ways_to_say_the_same(graphs):
    x, batch = graphs
    batch = batch.sort().values
    expected = contributions(("sum", "max"), x, batch)
    ptr = torch.tensor([0, *torch.bincount(batch).cumsum(0).tolist()])
    assert_same_bits(contributions(("sum", "max"), x, ptr=ptr), expected)
    assert_same_bits(contributions(MultiReadout(["sum", "max"]), x, Segments.from_batch(batch)), expected)
    assert_same_bits(contributions([SumReadout(), MaxReadout(empty=0.0)], x, batch.int()), expected)


@pytest.mark.parametrize("make", [SumReadout, *MODULES])
def test_nodes_keep_their_parts_in_every_order(make, graphs, node_permutations):
    x, batch = graphs
    module = make()
    expected = contributions(module, x, batch)
    for order in node_permutations(40):
        parts = contributions(module, x[order], batch[order])
        if make is attentive or make is gated:  # their matrix product may round a row by its place
            torch.testing.assert_close(parts, expected[order])
        else:
            assert_same_bits(parts, expected[order])


def test_parts_are_constants(graphs):
    x, batch = graphs
    for reduce in ("sum", "mean", "max", "median", attentive()):
        assert not contributions(reduce, x.clone().requires_grad_(), batch).requires_grad
    with torch.no_grad():
        assert_same_bits(contributions("median", x, batch), contributions("median", x.clone(), batch))


@pytest.mark.parametrize("reduce", ["sum", "median", *MODULES])
def test_parts_in_inference_mode(reduce, graphs):
    reduce = reduce if isinstance(reduce, str) else reduce()
    expected = contributions(reduce, *graphs)
    with torch.inference_mode():
        x, batch = (tensor.clone() for tensor in graphs)
        assert_same_bits(contributions(reduce, x, batch), expected)
        assert_same_bits(contributions(reduce, x, Segments.from_batch(batch)), expected)


@pytest.mark.parametrize("q", [0.5, [0.5], [0.25, 0.75]])
def test_parts_of_quantiles_of_one_feature(q):
    x, batch = torch.randn(9), torch.tensor([0, 1, 0, 1, 1, 0, 0, 0, 1])
    module = QuantileReadout(q)
    parts, out = contributions(module, x, batch), module(x, batch, dim=0)
    assert parts.shape[1:] == out.shape[1:]
    torch.testing.assert_close(readout(parts, batch, "sum"), out)


VARIOUS = ["var", "softmax", VarReadout(), ("sum", "std"), (), 3, nn.Linear(2, 2)]


@pytest.mark.parametrize("reduce", [*VARIOUS, DeepSetsReadout(None, nn.Linear(2, 1))])
def test_readouts_without_such_parts(reduce):
    with pytest.raises(ValueError, match=r"^reduce: expected .*, got "):
        contributions(reduce, torch.ones(3, 2))


def test_bad_arguments():
    with pytest.raises(ValueError, match="batch: expected one graph index for each of the 3 nodes, got 2"):
        contributions("sum", torch.ones(3), torch.tensor([0, 0]))
    with pytest.raises(TypeError, match="x: expected a tensor, got list"):
        contributions("sum", [1.0])
    with pytest.raises(ValueError, match="weight: expected weights"):
        contributions(WeightedMeanReadout(), torch.ones(3, 2))


@pytest.mark.parametrize("name", ["sum", "mean"])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("target", [None, 0, 2])
def test_scores_make_the_logits(name, with_bias, target, graphs):
    x, batch = graphs[0].double(), graphs[1]
    head = nn.Linear(4, 3, bias=with_bias).double()
    logits = head(readout(x, batch, name))
    scores = class_activation(head, x, batch, name, target)
    assert scores.shape == ((40, 3) if target is None else (40,))
    torch.testing.assert_close(readout(scores, batch, name), logits if target is None else logits[:, target])
    bare = class_activation(head, x, batch, name, bias=False)
    torch.testing.assert_close(readout(bare, batch, name) + (head.bias if with_bias else 0), logits)


def test_scores_are_made_of_weight_and_state():
    head = nn.Linear(2, 1)
    nn.init.constant_(head.bias, 3.0)
    head.weight.data = torch.tensor([[2.0, -1.0]])
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [4.0, 4.0]])
    assert class_activation(head, x, target=0).tolist() == [5, 2, 7]
    assert class_activation(head, x, readout="sum", target=0).tolist() == [3, 0, 5]
    assert class_activation(head, x, target=0, bias=False).tolist() == [2, -1, 4]


def test_scores_have_gradients(graphs):
    x, batch = graphs
    head = nn.Linear(4, 1)
    leaf = x.clone().requires_grad_()
    class_activation(head, leaf, batch)[3].sum().backward()
    assert_same_bits(leaf.grad[3], head.weight[0].detach())
    assert leaf.grad.count_nonzero() == 4


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"head": 3}, TypeError, "head: expected a torch.nn.Module, got int"),
        ({"x": [1.0]}, TypeError, "x: expected a tensor, got list"),
        ({"x": torch.ones(3, 5)}, ValueError, r"x: expected node states \[N, 4\], got shape \(3, 5\)"),
        ({"readout": "var"}, ValueError, "readout: expected sum, add, mean, .*, got 'var'"),
        ({"target": 2}, IndexError, "target: expected a class from 0 to 1, got 2"),
        ({"target": -1}, IndexError, "target: expected a class from 0 to 1, got -1"),
        ({"target": 0.5}, TypeError, "target: expected an integer or None, got float"),
        ({"batch": torch.zeros(2, dtype=torch.long)}, ValueError, "batch: expected one graph index"),
    ],
)
def test_bad_arguments_of_activation(change, error, message):
    arguments = {"head": nn.Linear(4, 2), "x": torch.ones(3, 4), "batch": torch.zeros(3, dtype=torch.long)}
    with pytest.raises(error, match=message):
        class_activation(**arguments | change)


def test_import_is_light():
    code = (
        "import sys, readouts.attribution\n"
        "heavy = {'matplotlib', 'rdkit', 'networkx'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


class TestAttentionWeights:
    READOUTS = (
        (AttentionReadout(nn.Linear(4, 1)), 1),
        (AttentionReadout(nn.Linear(4, 3), nn.Linear(4, 3)), 3),
        (MultiheadAttentionReadout(4, heads=2, seeds=3), 6),
        (Set2SetReadout(4, 3), 3),
        (SoftmaxReadout(2.0), 4),
        (learned_softmax(), 4),
        (gated(), 4),
    )

    @pytest.mark.parametrize(("module", "heads"), READOUTS, ids=lambda value: type(value).__name__)
    def test_every_head_adds_up_to_one(self, module, heads, graphs):
        x, batch = graphs
        weights = attention_weights(module, x, batch, size=7)
        assert weights.shape == (40, heads)
        assert not weights.requires_grad
        total = readout(weights, batch, "sum", size=7)
        torch.testing.assert_close(
            total, (torch.bincount(batch, minlength=7) > 0).float().view(7, 1).expand(7, heads)
        )
        with torch.inference_mode():
            assert_same_bits(attention_weights(module, x, Segments.from_batch(batch, 7)), weights)

    @pytest.mark.parametrize(
        "module", [READOUTS[0][0], SoftmaxReadout(), gated()], ids=lambda m: type(m).__name__
    )
    def test_they_are_the_weights_of_the_value(self, module, graphs):
        x, batch = graphs
        weighted = readout(attention_weights(module, x, batch) * x, batch, "sum")
        torch.testing.assert_close(weighted, module(x, batch).detach())

    def test_heads_and_steps_by_hand(self, graphs):
        x, _ = graphs
        pool = MultiheadAttentionReadout(4, heads=2, seeds=2)
        keys = pool.key(x).view(40, 2, 2)
        for seed in range(2):
            for head in range(2):
                query = pool.query(pool.seed)[seed].view(2, 2)[head]
                expected = (keys[:, head] @ query / 2**0.5).softmax(0)
                torch.testing.assert_close(attention_weights(pool, x)[:, 2 * seed + head], expected.detach())
        pool = Set2SetReadout(4, 2)
        out = pool(x)
        last = attention_weights(pool, x)[:, 1]
        torch.testing.assert_close(last, (x @ out[0, :4]).softmax(0).detach())

    def test_given_weights(self):
        x, weight = torch.randn(3, 2), torch.tensor([1.0, 3.0, 4.0])
        found = attention_weights(WeightedMeanReadout(), x, weight=weight)
        assert_same_bits(found, (weight / 8).view(3, 1).expand(3, 2))


class TestActivationOfOtherHeads:
    @pytest.mark.parametrize(
        "before",
        [
            "mean",
            "sum",
            "max",
            ("sum", "mean", "max"),
            MultiReadout(["mean", "min"]),
            QuantileReadout([0.2, 0.7]),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("deep", [False, True], ids=["linear", "mlp"])
    def test_shares_add_up_to_the_logit(self, before, deep, graphs):
        x, batch = graphs
        rows = before(x, batch) if isinstance(before, nn.Module) else readout(x, batch, before)
        width = rows.shape[1]
        head = nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, 3)) if deep else nn.Linear(width, 3)
        scores = class_activation(head, x, batch, before)
        total = readout(scores, batch, "mean" if before == "mean" else "sum")
        torch.testing.assert_close(total, head(rows), rtol=1e-4, atol=1e-5)
        only = class_activation(head, x, batch, before, target=1, bias=False)
        assert only.shape == (40,)

    def test_shares_of_a_linear_head_are_exact(self, graphs):
        x, batch = graphs
        head = nn.Linear(8, 3)
        left, right = nn.Linear(4, 3, bias=False), nn.Linear(4, 3)
        left.weight.data, right.weight.data = head.weight[:, :4].detach(), head.weight[:, 4:].detach()
        right.bias.data = head.bias.detach()
        count = torch.bincount(batch)[batch].view(-1, 1)
        expected = class_activation(left, x, batch, "sum") + class_activation(right, x, batch, "mean") / count
        found = class_activation(head, x, batch, ("sum", "mean"))
        torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-6)

    def test_a_relu_network_is_linear_near_its_input(self):
        """Shares without the bias tell by how much the logit changes when a node moves a little."""
        x = torch.randn(5, 3, dtype=torch.float64)
        head = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 1)).double()
        shares = class_activation(head, x, readout="sum", target=0, bias=False)
        for node in range(5):
            moved = x.clone()
            moved[node] *= 1 + 1e-6
            change = head(readout(moved, reduce="sum")) - head(readout(x, reduce="sum"))
            assert change.item() == pytest.approx(1e-6 * shares[node].item(), rel=1e-4, abs=1e-12)

    @pytest.mark.parametrize(
        ("head", "before", "message"),
        [
            (nn.Linear(4, 3), ("mean", "max"), r"head: expected a network for x \(1, 8\), got: "),
            (
                nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)),
                "mean",
                r"head: expected evaluation mode, call",
            ),
            (nn.Sequential(nn.Dropout(), nn.Linear(4, 3)), "sum", r"head: expected evaluation mode, call"),
            (nn.Flatten(0), "mean", r"head: expected a network from \[B, F\] to \[B, C\], got \(4,\)"),
            (nn.Linear(4, 3), "std", "readout: expected sum, add, mean, .*, got 'std'"),
        ],
        ids=str,
    )
    def test_errors(self, head, before, message):
        with pytest.raises(ValueError, match=message):
            class_activation(head, torch.randn(5, 4), readout=before)

    def test_batch_norm_and_dropout_in_evaluation(self, graphs):
        x, batch = graphs
        head = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 2)).eval()
        total = readout(class_activation(head, x, batch), batch, "mean")
        torch.testing.assert_close(total, head(readout(x, batch, "mean")), rtol=1e-4, atol=1e-5)
