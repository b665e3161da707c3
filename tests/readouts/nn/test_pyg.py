"""Readouts where PyG has its own: the same numbers where PyG is right, the right ones where it is not."""

import pytest
import torch
import torch_geometric.nn as pyg
from bits import assert_same_bits
from torch_geometric.data import Batch, Data
from torch_geometric.nn import aggr

import readouts
from readouts.nn import MaxReadout, MeanReadout, MinReadout, MultiReadout, StdReadout, SumReadout, VarReadout

TWINS = [
    (SumReadout(), aggr.SumAggregation()),
    (MeanReadout(), aggr.MeanAggregation()),
    (MaxReadout(), aggr.MaxAggregation()),
    (MinReadout(), aggr.MinAggregation()),
    (VarReadout(), aggr.VarAggregation()),
    (StdReadout(), aggr.StdAggregation()),
    (MultiReadout(["sum", "mean", "max"]), aggr.MultiAggregation(["sum", "mean", "max"])),
]
POOLS = ["global_add_pool", "global_mean_pool", "global_max_pool"]
INDEX = torch.tensor([0, 0, 2, 2, 2, 3])
PTR = torch.tensor([0, 2, 2, 5, 6])


def ring_batch():
    rings = []
    for nodes in (3, 5, 4):
        source = torch.arange(nodes)
        edges = torch.stack([source, (source + 1) % nodes])
        edge_index = torch.cat([edges, edges.flip(0)], dim=1)
        rings.append(Data(x=torch.randn(nodes, 4), edge_index=edge_index))
    return Batch.from_data_list(rings)


@pytest.mark.parametrize(("ours", "theirs"), TWINS, ids=lambda module: type(module).__name__)
@pytest.mark.parametrize(
    "arguments",
    [dict(index=INDEX), dict(index=INDEX, dim_size=6), dict(ptr=PTR), {}],
    ids=["index", "dim_size", "ptr", "one graph"],
)
def test_modules_are_drop_ins(ours, theirs, arguments):
    x = torch.randn(6, 4, requires_grad=True)
    actual, expected = ours(x, **arguments), theirs(x, **arguments)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    weights = torch.randn(expected.shape)
    gradients = [torch.autograd.grad((out * weights).sum(), x)[0] for out in (actual, expected)]
    lone = (
        isinstance(ours, StdReadout) and arguments
    )  # a lone node: PyG's std has a gradient of its own there
    kept = slice(0, 5) if lone else slice(0, 6)
    torch.testing.assert_close(gradients[0][kept], gradients[1][kept], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dim", [0, 1, -1, -2, -3])
def test_dim_is_the_dimension_of_the_nodes(dim):
    x = torch.randn(6, 6, 6)
    ours, theirs = SumReadout()(x, INDEX, dim=dim), aggr.SumAggregation()(x, INDEX, dim=dim)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("shape", [(6,), (6, 3), (2, 6, 3)], ids=str)
def test_pools_are_drop_ins(name, shape):
    ours, theirs = getattr(readouts, name), getattr(pyg, name)
    x = torch.randn(shape)
    for batch, size in ((INDEX, None), (INDEX, 6), (None, None)):
        torch.testing.assert_close(ours(x, batch, size), theirs(x, batch, size))


def test_names_and_settings_show():
    assert [repr(module) for module, _ in TWINS[:2]] == ["SumReadout()", "MeanReadout()"]
    assert repr(MaxReadout(empty=-1.0)) == "MaxReadout(empty=-1.0)"
    assert repr(MultiReadout(["sum", "std"])) == "MultiReadout(['sum', 'std'])"


@pytest.mark.parametrize("readout", [module for module, _ in TWINS], ids=str)
def test_aggregator_of_a_convolution(readout):
    """A SAGE layer with our aggregator is the sum of its parts, neighbours gathered by hand."""
    batch = ring_batch()
    width = 12 if isinstance(readout, MultiReadout) else 4
    conv = pyg.SimpleConv(aggr=readout)
    out = conv(batch.x, batch.edge_index)
    assert out.shape == (12, width)
    for node in range(12):
        neighbours = batch.edge_index[0, batch.edge_index[1] == node]
        assert_same_bits(out[node], readout(batch.x[neighbours])[0])


def test_whole_model_gives_the_same_bits_for_relabelled_nodes(node_permutations):
    """Weights and features are short binary fractions, so that the matrix products are exact in float64."""
    batch = ring_batch()
    features = torch.randint(-4, 5, (12, 4)).double()

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = torch.nn.ModuleList(
                pyg.GINConv(pyg.MLP([4, 16, 4], norm=None), aggr=SumReadout()) for _ in range(3)
            )
            self.readout = MultiReadout(["sum", "mean", "max", "std"])
            self.head = torch.nn.Linear(16, 2)

        def forward(self, x, edge_index, index):
            for conv in self.convs:
                x = conv(x, edge_index).relu()
            return self.head(self.readout(x, index))

    model = Model().double()
    for parameter in model.parameters():
        parameter.data = torch.randint(-8, 9, parameter.shape).double() / 8
    expected = model(features, batch.edge_index, batch.batch)
    expected.square().sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.head.parameters()]
    for order in node_permutations(12):
        place = torch.empty_like(order)
        place[order] = torch.arange(12)
        edges = place[batch.edge_index][:, torch.randperm(batch.edge_index.shape[1])]
        model.zero_grad()
        actual = model(features[order], edges, batch.batch[order])
        assert_same_bits(actual, expected)
        actual.square().sum().backward()
        for parameter, gradient in zip(model.head.parameters(), gradients, strict=True):
            assert_same_bits(parameter.grad, gradient)


def test_segments_in_the_place_of_an_index():
    x, segments = torch.randn(6, 4), readouts.Segments.from_batch(INDEX, 6)
    for readout, _ in TWINS:
        assert_same_bits(readout(x, segments), readout(x, INDEX, dim_size=6))


def test_readouts_inside_pyg_multi_aggregation():
    x = torch.randn(6, 4)
    both = aggr.MultiAggregation([SumReadout(), MaxReadout()])
    assert_same_bits(both(x, INDEX), MultiReadout(["sum", "max"])(x, INDEX))


class TestWherePyGIsWrong:
    """What PyG 2.8 does otherwise; each case states the right value."""

    def test_gradient_of_a_lone_winner_that_is_zero(self):
        x = torch.tensor([[0.0], [-1.0], [-2.0]], requires_grad=True)
        readouts.global_max_pool(x, torch.tensor([0, 0, 0])).backward()
        assert x.grad.flatten().tolist() == [1, 0, 0]

    def test_small_variance_far_from_zero(self):
        x = torch.tensor([1000.001, 1000.002, 1000.003, 1000.0], dtype=torch.float64).float().view(-1, 1)
        assert VarReadout()(x).item() == pytest.approx(x.double().var(unbiased=False).item(), rel=1e-6)
        assert StdReadout()(x).item() == pytest.approx(0.00112, rel=1e-2)

    def test_small_standard_deviation(self):
        assert StdReadout()(torch.tensor([[0.0], [0.004]])).item() == pytest.approx(0.002, rel=1e-6)

    def test_maximum_of_minus_infinities(self):
        x = torch.full((3, 1), -torch.inf)
        assert MaxReadout()(x, ptr=torch.tensor([0, 3])).item() == -torch.inf
