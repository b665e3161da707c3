"""The laws of every weighted and learned readout, and the formulas of those with parameters."""

import copy
import math
import pickle

import pytest
import torch
from bits import assert_same_bits
from torch import nn
from torch_geometric.nn import MLP, aggr

from readouts import Segments
from readouts.nn import (
    AttentionReadout,
    DeepSetsReadout,
    LogSumExpReadout,
    MomentReadout,
    MultiheadAttentionReadout,
    PowerMeanReadout,
    Set2SetReadout,
    SizeAwareMeanReadout,
    SoftmaxReadout,
    SortReadout,
    WeightedMeanReadout,
)
from readouts.testing import (
    check_batch_independence,
    check_gradient_equivariance,
    check_permutation_invariance,
)

F = 4


class Square(nn.Module):
    """A network without a matrix product: its rows have the same bits at every place."""

    def forward(self, x):
        return x * x + 0.25


class FirstColumn(nn.Module):
    def forward(self, x):
        return x[:, :1] - x[:, 1:2]


def softmax_mean(scores, values):
    weight = (scores - scores.max(0).values).exp()
    return (weight * values).sum(0) / weight.sum(0)


def moments(nodes):
    mean = nodes.mean(0)
    std = (nodes - mean).square().mean(0).sqrt()
    scores = (nodes - mean) / std
    return torch.cat([mean, std, scores.pow(3).mean(0), scores.pow(4).mean(0)])


def greatest(nodes, k):
    rows = sorted(range(len(nodes)), key=lambda i: nodes[i].tolist()[::-1], reverse=True)[:k]
    return torch.cat([nodes[rows].flatten(), nodes.new_zeros((k - len(rows)) * nodes.shape[1])])


def multihead(module, nodes):
    """The definition: keys and values of all nodes, one seed and head at a time."""
    rows = []
    for seed in module.seed:
        heads = []
        for h in range(module.heads):
            part = slice(h * F // module.heads, (h + 1) * F // module.heads)
            query = module.query(seed)[part]
            scores = module.key(nodes)[:, part] @ query / math.sqrt(F / module.heads)
            heads.append(scores.softmax(0) @ module.value(nodes)[:, part])
        y = seed + module.out(torch.cat(heads))
        y = y if module.norm1 is None else module.norm1(y)
        y = y + module.lin(y).relu()
        rows.append(y if module.norm2 is None else module.norm2(y))
    return torch.cat(rows)


def set2set(module, nodes):
    out, state = nodes.new_zeros(2 * F), (nodes.new_zeros(F), nodes.new_zeros(F))
    for _ in range(module.processing_steps):
        state = module.lstm(out, state)
        attention = (nodes @ state[0]).softmax(0)
        out = torch.cat([state[0], attention @ nodes])
    return out


READOUTS = {  # module, and the readout of one graph in plain torch
    "weighted mean": (
        lambda: WeightedMeanReadout(Square()),
        lambda m, x: ((x * x + 0.25) * x).sum(0) / (x * x + 0.25).sum(0),
    ),
    "weighted mean, one gate": (
        lambda: WeightedMeanReadout(FirstColumn()),
        lambda m, x: ((x[:, :1] - x[:, 1:2]) * x).sum(0) / (x[:, :1] - x[:, 1:2]).sum(0),
    ),
    "softmax": (lambda: SoftmaxReadout(0.7), lambda m, x: softmax_mean(0.7 * x, x)),
    "softmax, learned": (lambda: SoftmaxReadout(-1.5, learn=True), lambda m, x: softmax_mean(m.t * x, x)),
    "softmax, channels": (
        lambda: SoftmaxReadout(2.0, learn=True, channels=F),
        lambda m, x: softmax_mean(m.t * x, x),
    ),
    "power mean": (
        lambda: PowerMeanReadout(3.0),
        lambda m, x: x.clamp(min=1e-4).pow(3).mean(0).pow(1 / 3),
    ),
    "power mean, channels": (
        lambda: PowerMeanReadout(-0.5, learn=True, channels=F),
        lambda m, x: x.clamp(min=1e-4).pow(m.p).mean(0).pow(1 / m.p),
    ),
    "logsumexp": (LogSumExpReadout, lambda m, x: x.exp().sum(0).log()),
    "attention": (
        lambda: AttentionReadout(FirstColumn()),
        lambda m, x: softmax_mean(x[:, :1] - x[:, 1:2], x),
    ),
    "attention, features": (
        lambda: AttentionReadout(Square(), Square()),
        lambda m, x: softmax_mean(x * x + 0.25, x * x + 0.25),
    ),
    "multihead": (lambda: MultiheadAttentionReadout(F, heads=2, seeds=3, layer_norm=True), multihead),
    "multihead, plain": (lambda: MultiheadAttentionReadout(F), multihead),
    "set2set": (lambda: Set2SetReadout(F, 3), set2set),
    "deep sets": (
        lambda: DeepSetsReadout(Square(), nn.Linear(F, 2)),
        lambda m, x: m.global_nn((x * x + 0.25).sum(0)),
    ),
    "moments": (MomentReadout, lambda m, x: moments(x)),
    "size": (SizeAwareMeanReadout, lambda m, x: torch.cat([x.mean(0), x.new_tensor([math.log(len(x))])])),
    "sort": (lambda: SortReadout(3), lambda m, x: greatest(x, 3)),
}


@pytest.fixture(params=READOUTS)
def case(request):
    make, one_graph = READOUTS[request.param]
    return make(), one_graph


def shuffled_batch(graphs=7, nodes=60, dtype=torch.float32, least=2):
    """Graphs of at least some nodes, in no order."""
    index = torch.cat([torch.arange(graphs).repeat(least), torch.randint(graphs, (nodes - graphs * least,))])
    return torch.randn(nodes, F, dtype=dtype), index[torch.randperm(nodes)]


def gradients(module, out, x, weights):
    return torch.autograd.grad((out * weights).sum(), [x, *module.parameters()], allow_unused=True)


def test_formula_graph_by_graph(case):
    """Values and gradients, those of parameters too, are those of plain float64 loops."""
    module, one_graph = case
    module = module.double()
    x, index = shuffled_batch(dtype=torch.float64)
    x.requires_grad_()
    out = module(x, index)
    expected = torch.stack([one_graph(module, x[index == graph]) for graph in range(7)])
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-10)
    weights = torch.randn(out.shape, dtype=torch.float64)
    found, wanted = (gradients(module, value, x, weights) for value in (out, expected))
    for actual, gradient in zip(found, wanted, strict=True):
        torch.testing.assert_close(actual, gradient, rtol=1e-8, atol=1e-9)


def test_second_derivatives(case):
    module, _ = case
    module = module.double()
    x, index = shuffled_batch(2, 5, torch.float64)
    x = x.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: module(x, index, dim_size=3), x)


def test_a_gradient_that_is_to_be_differentiated_is_the_gradient(case):
    module, _ = case
    module = module.double()
    x, index = shuffled_batch(3, 12, torch.float64)
    x.requires_grad_()
    out = module(x, index)
    weights = torch.randn(out.shape, dtype=torch.float64)
    plain = gradients(module, out, x, weights)
    wanted = [x, *module.parameters()]
    loss = (module(x, index) * weights).sum()
    again = torch.autograd.grad(loss, wanted, allow_unused=True, create_graph=True)
    for gradient, expected in zip(again, plain, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("ties", [False, True])
def test_order_of_the_nodes_changes_no_bit(case, ties, node_permutations):
    """The same bits of outputs and of all gradients; nodes that are equal have equal gradients."""
    module, _ = case
    x, index = shuffled_batch(graphs=5, nodes=203)
    x = x.round() + 0.0 if ties else x
    weights = torch.randn(module(x, index).shape)

    def run(order):
        moved = x[order].requires_grad_()
        out = module(moved, index[order])
        first, *rest = gradients(module, out, moved, weights)
        back = torch.empty_like(first)
        back[order] = first
        return [out.detach(), back, *(gradient for gradient in rest if gradient is not None)]

    expected = run(torch.arange(203))
    for order in node_permutations(203):
        for actual, wanted in zip(run(order), expected, strict=True):
            assert_same_bits(actual, wanted)
    if ties:
        for graph in range(5):
            rows, place = x[index == graph].unique(dim=0, return_inverse=True)
            for row in range(len(rows)):
                same = expected[1][index == graph][place == row]
                assert_same_bits(same, same[:1].expand_as(same))


def test_the_kit_says_identical_bits(case):
    module, _ = case
    x, index = shuffled_batch()
    model = lambda x, batch: module(x, batch)  # noqa: E731
    assert check_permutation_invariance(model, x, index, permutations=3).verdict == "identical bits"
    assert check_gradient_equivariance(model, x, index, permutations=3).verdict == "identical bits"


@pytest.mark.parametrize("make", [SoftmaxReadout, PowerMeanReadout, LogSumExpReadout, MomentReadout])
def test_other_graphs_change_no_bit(make):
    x, index = shuffled_batch()
    module = make()
    report = check_batch_independence(lambda x, batch: module(x, batch), x, index.sort().values)
    assert report.verdict == "identical bits"


def test_matrix_products_inside_may_round():
    """What is promised of the weighted sum cannot be promised of a gate that multiplies matrices."""
    module = AttentionReadout(nn.Linear(64, 1), nn.Linear(64, 8))
    x, index = torch.randn(61, 64), torch.randint(4, (61,))
    report = check_permutation_invariance(lambda x, batch: module(x, batch), x, index, permutations=3)
    assert report.verdict in ("identical bits", "rounding")


def test_empty_graphs_and_single_nodes(case):
    """An empty graph has its value anywhere; a graph of one node is finite, with a finite gradient."""
    module, one_graph = case
    x = torch.randn(3, F).abs().add(0.1).requires_grad_()
    index = torch.tensor([3, 1, 1])
    out = module(x, index, dim_size=6)
    assert out.shape[0] == 6
    empty = torch.stack([out[0], out[2], out[4], out[5]])
    if isinstance(module, DeepSetsReadout):
        assert_same_bits(empty, module.global_nn(torch.zeros(4, F)))
    else:
        assert_same_bits(empty, torch.zeros_like(empty))
        module.empty = -2.0
        assert module(x, index, dim_size=6)[[0, 2, 4, 5]].eq(-2).all()
    if not isinstance(module, MomentReadout):
        torch.testing.assert_close(out[3], one_graph(module, x[:1]), rtol=1e-5, atol=1e-6)
    out.square().sum().backward()
    assert x.grad.isfinite().all()


def test_batches_without_nodes_or_graphs(case):
    module, _ = case
    nobody, nothing = torch.zeros(0, F, requires_grad=True), torch.zeros(0, dtype=torch.int64)
    for graphs in (0, 2):
        out = module(nobody, nothing, dim_size=graphs)
        assert out.shape[0] == graphs
        out.sum().backward()
        assert nobody.grad.shape == (0, F)


def test_segments_ptr_and_one_graph(case):
    module, _ = case
    x = torch.randn(6, F)
    index = torch.tensor([0, 0, 2, 2, 2, 3])
    expected = module(x, index, dim_size=5)
    assert_same_bits(module(x, Segments.from_batch(index, 5)), expected)
    assert_same_bits(module(x, Segments.from_batch(index.int(), 5)), expected)
    assert_same_bits(module(x, ptr=torch.tensor([0, 2, 2, 5, 6, 6])), expected)
    assert_same_bits(module(x[:2]), module(x[:2], torch.zeros(2, dtype=torch.int64)))


def test_nan_stays_in_its_graph(case):
    module, _ = case
    x, index = shuffled_batch()
    expected = module(x, index)
    broken = x.clone()
    broken[(index == 2).nonzero()[0], 3] = math.nan
    actual = module(broken, index)
    others = torch.arange(7) != 2
    assert_same_bits(actual[others], expected[others])
    assert actual[2].isnan().any()
    feature_by_feature = (SoftmaxReadout, PowerMeanReadout, LogSumExpReadout, MomentReadout)
    if isinstance(module, feature_by_feature):
        feature = torch.arange(actual.shape[1]) % F != 3
        assert_same_bits(actual[2, feature], expected[2, feature])
        assert actual[2, ~feature].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_floats_are_computed_wide(case, dtype):
    """Where only the readout computes, the result is that of float32 or float64, rounded at the end."""
    module, one_graph = case
    if any(True for _ in module.parameters()) or isinstance(module, DeepSetsReadout):
        pytest.skip("has networks of its own, in their dtype")
    x, index = shuffled_batch(dtype=dtype)
    out = module(x, index)
    assert out.dtype == dtype
    if isinstance(module, WeightedMeanReadout | AttentionReadout):
        return  # the gate computes in the narrow dtype
    expected = torch.stack([one_graph(module, x[index == graph].double()) for graph in range(7)])
    torch.testing.assert_close(out.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_copies(case):
    """deepcopy, pickle and state_dict keep the function; reset_parameters draws anew."""
    module, _ = case
    x, index = shuffled_batch()
    expected = module(x, index)
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert_same_bits(copied(x, index), expected)
        assert repr(copied) == repr(module)
        for parameter in copied.parameters():
            parameter.data.fill_(0.5)
        copied.load_state_dict(module.state_dict())
        assert_same_bits(copied(x, index), expected)
    before = [parameter.clone() for parameter in module.parameters()]
    for parameter in module.parameters():
        parameter.data.fill_(math.inf)
    torch.manual_seed(5)
    module.reset_parameters()
    assert all(parameter.isfinite().all() for parameter in module.parameters())
    assert [parameter.shape for parameter in module.parameters()] == [old.shape for old in before]


def test_compile_without_graph_breaks(case):
    torch._dynamo.reset()
    module, _ = case
    x, index = shuffled_batch()

    def run(function):
        moved = x.clone().requires_grad_()
        out = function(moved, index, dim_size=7)
        return out.detach(), *gradients(module, out, moved, torch.ones_like(out))

    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for actual, expected in zip(run(compiled), run(module), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_other_dimensions(case):
    """Features of more dimensions, and nodes along another one."""
    module, _ = case
    if isinstance(module, Set2SetReadout | SortReadout):
        with pytest.raises(ValueError, match="x: expected"):
            module(torch.randn(2, 5, F))
        return
    if isinstance(getattr(module, "gate", getattr(module, "gate_nn", None)), FirstColumn):
        pytest.skip("the gate of this test is for two dimensions")
    x, index = torch.randn(2, 5, F), torch.tensor([0, 1, 1, 0, 1])
    out = module(x, index)
    for part in range(2):
        torch.testing.assert_close(out[part], module(x[part], index), rtol=1e-5, atol=1e-6)
    assert_same_bits(module(x.movedim(1, 0), index, dim=0), out.movedim(1, 0))


def test_moments_of_one_dimension():
    x = torch.randn(5)
    assert_same_bits(MomentReadout()(x, dim=0), MomentReadout()(x[:, None]))


def test_vmap(case):
    """Batches of features at once, as one at a time."""
    module, _ = case
    x, index = torch.randn(3, 5, F), torch.tensor([0, 1, 1, 0, 1])
    together = torch.func.vmap(lambda part: module(part, index, dim_size=2))(x)
    for part, out in zip(x, together, strict=True):
        torch.testing.assert_close(out, module(part, index, dim_size=2), rtol=1e-5, atol=1e-6)


class TestAgainstPyG:
    """The same numbers where PyG has a twin that is right."""

    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            (SoftmaxReadout(), aggr.SoftmaxAggregation()),
            (SoftmaxReadout(0.3, learn=True, channels=F), aggr.SoftmaxAggregation(0.3, True, channels=F)),
            (PowerMeanReadout(2.0), aggr.PowerMeanAggregation(2.0)),
            (PowerMeanReadout(0.5, learn=True), aggr.PowerMeanAggregation(0.5, True)),
            (SortReadout(2), aggr.SortAggregation(2)),
        ],
        ids=repr,
    )
    def test_twins(self, ours, theirs):
        x, index = shuffled_batch()
        x, index = (x.abs() + 0.1).requires_grad_(), index.sort().values
        out, expected = ours(x, index), theirs(x, index)
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
        weights = torch.randn(out.shape)
        expected = torch.autograd.grad((expected * weights).sum(), [x, *theirs.parameters()])
        for gradient, wanted in zip(gradients(ours, out, x, weights), expected, strict=True):
            torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("norm", [None, "graph_norm"])
    def test_attention(self, norm):
        x, index = shuffled_batch()
        gate, values = MLP([F, 8, 1], norm=norm), MLP([F, 6], norm=norm)
        ours, theirs = AttentionReadout(gate, values), aggr.AttentionalAggregation(gate, values)
        torch.testing.assert_close(ours(x, index), theirs(x, index))

    def test_set2set(self):
        x, index = shuffled_batch()
        ours, theirs = Set2SetReadout(F, 3), aggr.Set2Set(F, 3)
        weights = ours.lstm.state_dict()
        theirs.lstm.load_state_dict({f"{name}_l0": weight for name, weight in weights.items()})
        torch.testing.assert_close(ours(x, index), theirs(x, index))

    def test_deep_sets(self):
        x, index = shuffled_batch()
        local, whole = MLP([F, 8]), nn.Linear(8, 3)
        ours, theirs = DeepSetsReadout(local, whole), aggr.DeepSetsAggregation(local, whole)
        torch.testing.assert_close(ours(x, index), theirs(x, index))

    @pytest.mark.parametrize("layer_norm", [False, True])
    def test_multihead_attention(self, layer_norm):
        """PyG puts relu(W x + b) in front; here W is 1, b is 0 and x is not negative. Key biases cancel."""
        ours = MultiheadAttentionReadout(F, heads=2, seeds=3, layer_norm=layer_norm)
        theirs = aggr.utils.PoolingByMultiheadAttention(F, 3, heads=2, layer_norm=layer_norm)
        theirs.lin.load_state_dict({"weight": torch.eye(F), "bias": torch.zeros(F)})
        theirs.seed.data.copy_(ours.seed)
        block, attention = theirs.mab, theirs.mab.attn
        projections = ours.query, ours.key, ours.value
        attention.in_proj_weight.data = torch.cat([layer.weight for layer in projections])
        attention.in_proj_bias.data = torch.cat([ours.query.bias, torch.randn(F), ours.value.bias])
        attention.out_proj.load_state_dict(ours.out.state_dict())
        block.lin.load_state_dict(ours.lin.state_dict())
        x, index = torch.rand(9, F), torch.tensor([0] * 4 + [1] * 5)
        expected = torch.stack([theirs(x[index == graph][None])[0].flatten() for graph in range(2)])
        torch.testing.assert_close(ours(x, index), expected, rtol=1e-5, atol=1e-6)


def test_representations():
    shown = {
        "WeightedMeanReadout()": WeightedMeanReadout(),
        "WeightedMeanReadout(gate=Square())": WeightedMeanReadout(Square()),
        "SoftmaxReadout(t=1.0)": SoftmaxReadout(),
        "SoftmaxReadout(t=2.0, learn=True, channels=4, empty=1)": SoftmaxReadout(2.0, True, 4, empty=1),
        "PowerMeanReadout(p=3.0, clamp_min=0.01)": PowerMeanReadout(3.0, clamp_min=0.01),
        "LogSumExpReadout()": LogSumExpReadout(),
        "AttentionReadout(gate_nn=Square(), nn=None)": AttentionReadout(Square()),
        "MultiheadAttentionReadout(4, heads=2, seeds=1)": MultiheadAttentionReadout(4, heads=2),
        "Set2SetReadout(4, processing_steps=3)": Set2SetReadout(4, 3),
        "DeepSetsReadout(local_nn=None, global_nn=None, reduce='max')": DeepSetsReadout(reduce="max"),
        "MomentReadout(empty=nan)": MomentReadout(empty=math.nan),
        "SizeAwareMeanReadout()": SizeAwareMeanReadout(),
        "SortReadout(k=3)": SortReadout(3),
    }
    for expected, module in shown.items():
        assert repr(module) == expected


class TestErrors:
    def test_heads_divide_channels(self):
        with pytest.raises(ValueError, match=r"heads: expected a divisor of the 4 channels, got 3"):
            MultiheadAttentionReadout(4, heads=3)

    @pytest.mark.parametrize(
        "module",
        [
            MultiheadAttentionReadout(4),
            Set2SetReadout(4, 1),
            SoftmaxReadout(learn=True, channels=4),
            PowerMeanReadout(learn=True, channels=4),
        ],
        ids=lambda module: type(module).__name__,
    )
    def test_other_widths(self, module):
        for features in (1, 3):
            with pytest.raises(ValueError, match=r"x: expected .*4.*, got .*[13]"):
                module(torch.randn(5, features))

    def test_dtypes_that_have_no_average(self, case):
        module, _ = case
        with pytest.raises(TypeError, match=r"x: expected a real dtype, .*, got torch.complex64"):
            module(torch.ones(5, F, dtype=torch.complex64))

    def test_k_is_positive(self):
        with pytest.raises(ValueError, match=r"k: expected at least 1, got 0"):
            SortReadout(0)

    def test_reduction_of_deep_sets(self):
        with pytest.raises(ValueError, match=r"reduce: expected one of .*, got 'summ'"):
            DeepSetsReadout(reduce="summ")

    def test_graph_that_is_not_there(self, case):
        module, _ = case
        with pytest.raises(IndexError, match="batch: expected graphs from 0 to 1"):
            module(torch.randn(3, F), torch.tensor([0, -1, 0]), dim_size=2)
