"""Readouts side by side and by name, squeeze and excitation, partial readouts, and PyG's models."""

import copy
import math
import pickle

import pytest
import torch
import torch_geometric.nn as pyg
from bits import assert_same_bits
from torch import nn
from torch_geometric.nn import aggr

from readouts import Segments, readout
from readouts.nn import (
    AttentionReadout,
    LogSumExpReadout,
    MaxReadout,
    MeanReadout,
    MedianReadout,
    MomentReadout,
    MultiReadout,
    PartialReadout,
    QuantileReadout,
    SoftmaxReadout,
    SortReadout,
    SqueezeExcitation,
    StdReadout,
    SumReadout,
    compose,
    readout_resolver,
)
from readouts.testing import check_permutation_equivariance, check_permutation_invariance

X = torch.randn(40, 4, generator=torch.Generator().manual_seed(2))
INDEX = torch.arange(40) * 7 % 5


class TestResolver:
    @pytest.mark.parametrize(
        "name", ["logsumexp", "LogSumExp", "log-sum-exp", "LogSumExpReadout", "log_sum exp"]
    )
    def test_spellings(self, name):
        assert type(readout_resolver(name)) is LogSumExpReadout

    def test_every_class_has_its_name(self):
        for name, kind in compose.CLASSES.items():
            assert name == "add" or kind.__name__.lower() == name + "readout"

    def test_options_and_modules(self):
        assert repr(readout_resolver("softmax", t=2.0)) == "SoftmaxReadout(t=2.0)"
        module = MeanReadout()
        assert readout_resolver(module) is module
        assert type(readout_resolver("add")) is SumReadout

    def test_errors(self):
        with pytest.raises(ValueError, match=r"readout: expected one of sum, .*, got 'summ'"):
            readout_resolver("summ")
        with pytest.raises(TypeError, match="readout: expected a name or an aggregation, got int"):
            readout_resolver(3)
        for ask in (lambda: readout_resolver("sort"), lambda: MultiReadout(["sum", "sort"])):
            with pytest.raises(TypeError, match=r"'sort' needs other options .*argument: 'k'.* or a module"):
                ask()


class TestMultiReadout:
    MIXED = ("mean", "median", SoftmaxReadout(2.0), "max", MomentReadout(), StdReadout(), "size_aware_mean")

    def test_blocks_in_the_order_given(self):
        out = MultiReadout(self.MIXED)(X, INDEX)
        parts = [readout_resolver(part)(X, INDEX) for part in self.MIXED]
        assert_same_bits(out, torch.cat(parts, dim=-1))

    def test_gradient_is_that_of_the_parts(self):
        x = X.double().requires_grad_()
        out = MultiReadout(self.MIXED)(x, INDEX)
        parts = torch.cat([readout_resolver(part)(x, INDEX) for part in self.MIXED], dim=-1)
        weights = torch.randn_like(out)
        found, expected = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (out, parts))
        torch.testing.assert_close(found, expected)

    def test_elementary_ones_take_one_pass(self, monkeypatch):
        asked = []
        monkeypatch.setattr(
            compose, "readout", lambda x, s, names, **o: asked.append(names) or readout(x, s, names, **o)
        )
        MultiReadout(["sum", "softmax", MaxReadout(), "std", MeanReadout(empty=1), "mean"])(X, INDEX)
        assert asked == [["sum", "max", "std", "mean"], ["mean"]]

    def test_a_subclass_is_not_taken_for_its_base(self):
        class Doubled(SumReadout):
            def forward(self, *arguments, **options):
                return 2 * super().forward(*arguments, **options)

        out = MultiReadout(["sum", Doubled()])(X, INDEX)
        assert_same_bits(out[:, 4:], 2 * out[:, :4])

    def test_settings_reach_what_is_given_by_name(self):
        module = MultiReadout(["sum", "logsumexp", MeanReadout()], empty=-1)
        assert [member.empty for member in module.readouts] == [-1, -1, 0]
        shown = "MultiReadout(['sum', 'logsumexp', MeanReadout()], empty=-1)"
        assert repr(module) == shown
        out = module(X, INDEX, dim_size=6)
        assert out[5].tolist() == [-1] * 8 + [0] * 4

    def test_aggregations_of_pyg(self):
        out = MultiReadout(["sum", aggr.MulAggregation()])(X, Segments.from_batch(INDEX, 5))
        assert_same_bits(out[:, 4:], aggr.MulAggregation()(X, INDEX))

    def test_identical_bits(self, node_permutations):
        module = MultiReadout([*self.MIXED, QuantileReadout([0.1, 0.9])])
        x = X.clone().requires_grad_()
        expected = module(x, INDEX)
        slopes = torch.randn_like(expected)
        (gradient,) = torch.autograd.grad(expected, x, slopes)
        for order in node_permutations(40):
            moved = X[order].requires_grad_()
            out = module(moved, INDEX[order])
            assert_same_bits(out, expected)
            assert_same_bits(torch.autograd.grad(out, moved, slopes)[0], gradient[order])

    def test_copies_and_parameters(self):
        module = MultiReadout(["mean", SoftmaxReadout(3.0, learn=True)])
        for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert_same_bits(copied(X, INDEX), module(X, INDEX))
        assert list(module.state_dict()) == ["readouts.1.t"]
        module.readouts[1].t.data.zero_()
        module.reset_parameters()
        assert module.readouts[1].t.item() == 3

    def test_more_dimensions(self):
        x = torch.randn(3, 6, 2)
        index = torch.tensor([0, 1, 1, 0, 2, 2])
        out = MultiReadout(["sum", "logsumexp", "max"])(x, index)
        assert out.shape == (3, 3, 6)
        torch.testing.assert_close(out[1], MultiReadout(["sum", "logsumexp", "max"])(x[1], index))

    def test_one_dimension(self):
        assert MultiReadout(["sum", "max"])(torch.tensor([1.0, 2.0]), dim=0).tolist() == [[3, 2]]
        mixed = MultiReadout(
            ["sum", "median", QuantileReadout([0.0, 1.0]), SortReadout(2), "size_aware_mean"]
        )
        for dim in (0, -1):
            out = mixed(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 0, 1]), dim=dim)
            assert_same_bits(out, mixed(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 0, 1])))

    @pytest.mark.parametrize("mode", ["sum", "mean", "max", "min", "logsumexp", "std", "var"])
    def test_modes_over_blocks(self, mode):
        blocks = torch.stack([readout(X, INDEX, name) for name in ("sum", "mean", "median")])
        expected = getattr(torch, mode)(blocks, dim=0)
        expected = expected if isinstance(expected, torch.Tensor) else expected[0]
        assert_same_bits(MultiReadout(["sum", "mean", "median"], mode)(X, INDEX), expected)

    def test_layered_modes(self):
        module = MultiReadout(["sum", "softmax"], "proj", {"in_channels": 4, "out_channels": 3})
        parts = torch.cat([readout(X, INDEX, "sum"), SoftmaxReadout()(X, INDEX)], dim=-1)
        assert_same_bits(module(X, INDEX), module.lin(parts))
        before = module.lin.weight.clone()
        module.reset_parameters()
        assert not module.lin.weight.equal(before)
        for options in (None, {"in_channels": 4}, {"in_channels": [4], "out_channels": 3}):
            with pytest.raises(ValueError, match="mode_kwargs: expected"):
                MultiReadout(["sum", "max"], "proj", options)
        with pytest.raises(ValueError, match=r"mode: expected one of cat, .*, got 'concat'"):
            MultiReadout(["sum", "max"], "concat")

    @pytest.mark.parametrize("wrong", [[], (), 3, None, [3]], ids=str)
    def test_errors(self, wrong):
        with pytest.raises((TypeError, ValueError), match=r"(reduce|readout): expected"):
            MultiReadout(wrong)


class TestSqueezeExcitation:
    @pytest.mark.parametrize("squeeze", ["mean", "max", MedianReadout(), aggr.MeanAggregation()], ids=str)
    def test_formula(self, squeeze):
        module = SqueezeExcitation(4, reduction=2, squeeze=squeeze).double()
        x = X.double().requires_grad_()
        out = module(x, INDEX)
        expected = torch.empty_like(x)
        for graph in range(5):
            nodes = x[graph == INDEX]
            gate = module.lin2(module.lin1(module.squeeze(nodes)).relu()).sigmoid()
            expected[graph == INDEX] = nodes * gate
        torch.testing.assert_close(out, expected)
        weights = torch.randn_like(out)
        inputs = [x, *module.parameters()]
        found, wanted = (torch.autograd.grad((y * weights).sum(), inputs) for y in (out, expected))
        for gradient, value in zip(found, wanted, strict=True):
            torch.testing.assert_close(gradient, value)

    def test_permuted_nodes_permute_the_bits(self, node_permutations):
        module, slopes = SqueezeExcitation(4), torch.randn(40, 4)
        x = X.clone().requires_grad_()
        expected = module(x, INDEX)
        wanted = torch.autograd.grad(expected, [x, *module.parameters()], slopes)
        for order in node_permutations(40):
            moved = X[order].requires_grad_()
            out = module(moved, INDEX[order])
            assert_same_bits(out, expected[order])
            first, *rest = torch.autograd.grad(out, [moved, *module.parameters()], slopes[order])
            assert_same_bits(first, wanted[0][order])
            for gradient, value in zip(rest, wanted[1:], strict=True):
                assert_same_bits(gradient, value)
        report = check_permutation_equivariance(lambda x, batch: module(x, batch), X, INDEX, permutations=3)
        assert report.verdict == "identical bits"

    def test_wider_squeeze_segments_and_no_batch(self):
        module = SqueezeExcitation(4, squeeze=MultiReadout(["mean", "std"]), squeeze_channels=8)
        assert_same_bits(module(X, Segments.from_batch(INDEX, 5)), module(X, INDEX, batch_size=5))
        assert_same_bits(module(X), module(X, torch.zeros(40, dtype=torch.int64)))
        shown = "SqueezeExcitation(4, reduction=4, squeeze=MultiReadout(['mean', 'std']))"
        assert repr(module) == shown

    def test_between_convolutions(self):
        edges = torch.stack([torch.arange(40), torch.arange(40).roll(5)])
        steps = [(pyg.GCNConv(4, 8), "x, edges -> x"), (SqueezeExcitation(8), "x, batch -> x")]
        model = pyg.Sequential("x, edges, batch", [*steps, (pyg.GCNConv(8, 3), "x, edges -> x")])
        assert model(X, edges, INDEX).shape == (40, 3)

    def test_errors_and_reset(self):
        with pytest.raises(ValueError, match="reduction: expected at least 1, got 0"):
            SqueezeExcitation(4, reduction=0)
        module = SqueezeExcitation(4)
        with pytest.raises(ValueError, match=r"x: expected node features \[N, 4\], got shape \(5, 3\)"):
            module(torch.randn(5, 3))
        module.lin1.weight.data.fill_(math.nan)
        module.reset_parameters()
        assert module(X, INDEX).isfinite().all()


class TestPartialReadout:
    @pytest.mark.parametrize("mode", ["random", "strided"])
    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (dict(share=0.5), [1, 2, 4, 0]),
            (dict(share=0.1), [1, 1, 1, 0]),
            (dict(share=1.0), [1, 4, 7, 0]),
            (dict(count=3), [1, 3, 3, 0]),
        ],
        ids=str,
    )
    def test_reads_m_nodes_of_each_graph(self, mode, options, expected):
        index = torch.tensor([1, 0, 1, 2, 2, 1, 2, 2, 1, 2, 2, 2])
        ones = torch.ones(12, 1)
        module = PartialReadout("sum", mode=mode, **options)
        assert module(ones, index, dim_size=4).flatten().tolist() == expected
        assert module.eval()(ones, index, dim_size=4).flatten().tolist() == [1, 4, 7, 0]

    def test_strided_nodes(self):
        module = PartialReadout(MultiReadout(["min", "max", "sum"]), count=3, mode="strided")
        assert module(torch.arange(10.0).view(-1, 1)).tolist() == [[3, 9, 18]]  # nodes 3, 6 and 9

    def test_mean_is_unbiased_and_its_variance_is_as_stated(self):
        """20,000 draws: mean within 5 standard errors, variance within 8 % of S^2 (1 - m / n) / m.

        The standard error of a variance of 20,000 draws is about 1 % of it; the graphs have 10 nodes each.
        """
        graphs, n, m = 20_000, 10, 4
        x = torch.randn(n, 1, dtype=torch.float64).exp()
        index = torch.arange(graphs).repeat_interleave(n)
        found = PartialReadout("mean", count=m)(x.repeat(graphs, 1), index).flatten()
        variance = x.var(unbiased=True) * (1 - m / n) / m
        assert abs(found.mean() - x.mean()) < 5 * (variance / graphs).sqrt()
        assert found.var() / variance == pytest.approx(1, abs=0.08)

    def test_every_set_of_nodes_is_as_likely(self):
        """Six pairs of 4 nodes, each in 1/6 of 12,000 draws; chi^2 is above 25.7 once in 10,000."""
        index = torch.arange(12_000).repeat_interleave(4)
        x = torch.tensor([[1.0], [2.0], [4.0], [8.0]]).repeat(12_000, 1)
        sums = PartialReadout("sum", count=2)(x, index).flatten()
        counts = torch.stack([(sums == total).sum() for total in (3, 5, 9, 6, 10, 12)])
        assert counts.sum() == 12_000
        assert ((counts - 2000) ** 2 / 2000).sum() < 25.7

    def test_gradient_goes_to_the_nodes_that_were_read(self):
        x = X.clone().requires_grad_()
        PartialReadout("mean", share=0.5)(x, INDEX).sum().backward()
        assert x.grad[:, 0].eq(0.25).sum() == 20
        assert x.grad[:, 0].eq(0).sum() == 20

    @pytest.mark.parametrize(("mode", "verdict"), [("random", "random"), ("strided", "broken")])
    def test_verdicts_of_the_kit(self, mode, verdict):
        module = PartialReadout("mean", share=0.5, mode=mode)
        model = lambda x, batch: module(x, batch)  # noqa: E731
        assert check_permutation_invariance(model, X, INDEX, permutations=3).verdict == verdict
        module.eval()
        assert check_permutation_invariance(model, X, INDEX, permutations=3).verdict == "identical bits"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({}, "share, count: expected one of the two, got None and None"),
            (dict(share=0.5, count=2), "share, count: expected one of the two"),
            (dict(share=0.0), "share: expected a number above 0 and at most 1, got 0.0"),
            (dict(share=1.5), "share: expected a number above 0 and at most 1, got 1.5"),
            (dict(count=0), "count: expected at least 1, got 0"),
            (dict(count=2, mode="first"), "mode: expected 'random' or 'strided', got 'first'"),
        ],
        ids=str,
    )
    def test_errors(self, options, message):
        with pytest.raises(ValueError, match=message):
            PartialReadout("mean", **options)

    def test_representation(self):
        assert repr(PartialReadout("mean", 0.5)) == "PartialReadout(MeanReadout(), share=0.5, mode='random')"


def ring(nodes=12):
    source = torch.arange(nodes)
    return torch.cat(
        [torch.stack([source, (source + 1) % nodes]), torch.stack([(source + 1) % nodes, source])], 1
    )


@pytest.mark.parametrize(
    "member",
    [SoftmaxReadout(learn=True), MedianReadout(), AttentionReadout(nn.Linear(4, 1))],
    ids=lambda module: type(module).__name__,
)
def test_aggregator_of_gin(member):
    conv = pyg.GINConv(pyg.MLP([4, 8, 3]), aggr=member)
    out = conv(X[:12], ring())
    neighbours = torch.stack([X[:12].roll(1, 0), X[:12].roll(-1, 0)], 1).flatten(0, 1)
    expected = conv.nn(X[:12] + member(neighbours, torch.arange(12).repeat_interleave(2)))
    torch.testing.assert_close(out, expected)


def test_models_of_pyg():
    """GIN with our aggregator, PNA with a list of ours, and an MLP behind a readout of both."""
    gin = pyg.GIN(4, 8, num_layers=2, aggr=SoftmaxReadout())
    assert gin(X[:12], ring()).shape == (12, 8)
    aggregators = [MeanReadout(), MedianReadout(), LogSumExpReadout()]
    pna = pyg.PNA(4, 8, 2, aggregators=aggregators, scalers=["identity"], deg=torch.tensor([0, 0, 12]))
    out = pna(X[:12], ring())
    pooled = MultiReadout(["mean", "softmax"])(out, torch.arange(12) // 4)
    assert pyg.MLP([16, 8, 2], norm=None)(pooled).shape == (3, 2)


def test_lists_of_pyg():
    ours = aggr.MultiAggregation([MeanReadout(), SoftmaxReadout()])
    assert_same_bits(ours(X, INDEX), MultiReadout(["mean", "softmax"])(X, INDEX))


@pytest.mark.parametrize("end", ["softmax", "median", MultiReadout(["mean", "logsumexp"])], ids=str)
def test_to_hetero_gives_one_readout_per_node_type(end):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = pyg.SAGEConv((-1, -1), 8)
            self.readout = readout_resolver(end)
            self.head = pyg.Linear(-1, 2)

        def forward(self, x, edge_index, batch):
            return self.head(self.readout(self.conv(x, edge_index).relu(), batch))

    kinds = [("atom", "in", "ring"), ("ring", "has", "atom")]
    model = pyg.to_hetero(Model(), (["atom", "ring"], kinds))
    assert sorted(model.readout.keys()) == ["atom", "ring"]
    x = {"atom": torch.randn(6, 3), "ring": torch.randn(4, 5)}
    edges = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]])
    batch = {"atom": torch.tensor([0, 0, 1, 1, 1, 1]), "ring": torch.tensor([0, 1, 1, 0])}
    out = model(x, dict.fromkeys(kinds, edges), batch)
    convs = {kind[-1]: getattr(model.conv, "__".join(kind)) for kind in kinds}
    pooled = [
        readout_resolver(end)(convs[there]((x[here], x[there]), edges).relu(), batch[there])
        for here, _, there in kinds[::-1]
    ]
    torch.testing.assert_close(out, model.head(pooled[0] + pooled[1]))


@pytest.mark.parametrize(
    "module",
    [
        MultiReadout(["mean", "median", "softmax", "std"]),
        SqueezeExcitation(4),
        PartialReadout("mean", 0.5).eval(),
    ],
    ids=lambda module: type(module).__name__,
)
def test_compile_without_graph_breaks(module):
    torch._dynamo.reset()
    size = dict(batch_size=5) if isinstance(module, SqueezeExcitation) else dict(dim_size=5)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    results = []
    for function in (compiled, module):
        x = X.clone().requires_grad_()
        out = function(x, INDEX, **size)
        out.square().sum().backward()
        results.append((out.detach(), x.grad))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)
