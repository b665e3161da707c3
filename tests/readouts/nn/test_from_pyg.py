"""Twins of PyG's aggregations: same values, same parameters, same checkpoints."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch_geometric.nn import MLP, GCNConv, GINConv, PNAConv, SAGEConv, aggr, models

from readouts.nn import (
    AttentionReadout,
    DeepSetsReadout,
    MeanReadout,
    MedianReadout,
    MultiReadout,
    QuantileReadout,
    Set2SetReadout,
    SumReadout,
    from_pyg,
)

X = torch.rand(20, 4, generator=torch.Generator().manual_seed(0)) * 3
INDEX = torch.arange(20) // 4
EDGES = torch.stack([torch.arange(40) % 20, (torch.arange(40) * 7 + 3) % 20])
EDGES = EDGES[:, EDGES[1].argsort(stable=True)]
PAIRS = [
    lambda: aggr.SumAggregation(),
    lambda: aggr.MeanAggregation(),
    lambda: aggr.MaxAggregation(),
    lambda: aggr.MinAggregation(),
    lambda: aggr.VarAggregation(),
    lambda: aggr.StdAggregation(),
    lambda: aggr.SoftmaxAggregation(0.5),
    lambda: aggr.SoftmaxAggregation(0.5, learn=True, channels=4),
    lambda: aggr.PowerMeanAggregation(),
    lambda: aggr.PowerMeanAggregation(2.0),
    lambda: aggr.PowerMeanAggregation(0.7, learn=True, channels=4),
    lambda: aggr.MedianAggregation(fill_value=-1.0),
    lambda: aggr.QuantileAggregation([0.2, 0.5], fill_value=2.0),
    lambda: aggr.QuantileAggregation(0.3, "midpoint"),
    lambda: aggr.SortAggregation(3),
    lambda: aggr.AttentionalAggregation(nn.Linear(4, 1)),
    lambda: aggr.AttentionalAggregation(MLP([4, 8, 1]), MLP([4, 8, 3])),
    lambda: aggr.DeepSetsAggregation(MLP([4, 8]), MLP([8, 3])),
    lambda: aggr.DeepSetsAggregation(nn.Linear(4, 3), nn.ReLU()),
    lambda: aggr.Set2Set(4, 3),
    lambda: aggr.Set2Set(4, 2, num_layers=2),
    lambda: aggr.MultiAggregation(["sum", "mean", aggr.SoftmaxAggregation(learn=True)]),
    lambda: aggr.MultiAggregation(["sum", "median"], mode="logsumexp"),
    lambda: aggr.MultiAggregation(["sum", "max"], mode="proj", mode_kwargs=widths(5)),
    lambda: aggr.MultiAggregation(["sum", "mul"], mode="attn", mode_kwargs=widths(6, num_heads=2)),
]


def widths(out, **options):
    return {"in_channels": 4, "out_channels": out, **options}


@pytest.mark.parametrize("make", PAIRS, ids=lambda make: repr(make()).replace("\n", ""))
def test_values_parameters_and_checkpoints(make):
    theirs = make().eval()
    twin = from_pyg(theirs)
    assert not twin.training
    expected = theirs(X, INDEX, dim_size=6)
    torch.testing.assert_close(twin(X, INDEX, dim_size=6)[:5], expected[:5], rtol=1e-5, atol=1e-5)
    assert {id(parameter) for parameter in twin.parameters()} == {id(p) for p in theirs.parameters()}
    other = from_pyg(copy.deepcopy(theirs))
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    other.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(other(X, INDEX)[:5], expected[:5], rtol=1e-5, atol=1e-5)


def test_checkpoints_load_into_readouts_made_by_hand():
    """Also as a part of a model, whose keys have a prefix."""
    theirs = nn.ModuleDict(
        {
            "set2set": aggr.Set2Set(4, 2),
            "attention": aggr.AttentionalAggregation(MLP([4, 1]), MLP([4, 3])),
            "sets": aggr.DeepSetsAggregation(MLP([4, 8]), MLP([8, 2])),
            "median": aggr.MedianAggregation(),
            "quantile": aggr.QuantileAggregation([0.1, 0.9]),
            "multi": aggr.MultiAggregation(["sum", aggr.SoftmaxAggregation(learn=True)]),
        }
    ).eval()
    ours = nn.ModuleDict(
        {
            "set2set": Set2SetReadout(4, 2),
            "attention": AttentionReadout(MLP([4, 1]), MLP([4, 3])),
            "sets": DeepSetsReadout(MLP([4, 8]), MLP([8, 2])),
            "median": MedianReadout("lower"),
            "quantile": QuantileReadout([0.1, 0.9]),
            "multi": from_pyg(aggr.MultiAggregation(["sum", aggr.SoftmaxAggregation(learn=True)])),
        }
    ).eval()
    ours.load_state_dict(theirs.state_dict())
    for name, readout in ours.items():
        torch.testing.assert_close(readout(X, INDEX), theirs[name](X, INDEX), rtol=1e-5, atol=1e-5)
    with pytest.raises(RuntimeError, match=r"quantile.q: expected \(0.5, 0.9\), got \[0.1"):
        nn.ModuleDict({"quantile": QuantileReadout([0.5, 0.9])}).load_state_dict(
            nn.ModuleDict({"quantile": theirs["quantile"]}).state_dict()
        )


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        (aggr.MulAggregation(), "MulAggregation, whose products are not exact; .* logarithms"),
        (aggr.LSTMAggregation(4, 4), "LSTMAggregation, which depends on the order of the nodes"),
        (aggr.VarAggregation(semi_grad=True), "VarAggregation: semi_grad=True drops half"),
        (aggr.StdAggregation(semi_grad=True), "StdAggregation: semi_grad=True drops half"),
        (aggr.SoftmaxAggregation(semi_grad=True), "SoftmaxAggregation: semi_grad=True drops"),
        (aggr.PowerMeanAggregation(2.0, clamp_min=None), ".*power means need a positive clamp_min"),
        (aggr.Set2Set(4, 2, bias=False), ".*options of its LSTM other than num_layers"),
        (aggr.SetTransformerAggregation(4), ".*MultiheadAttentionReadout is its pooling step"),
        (type("Mine", (aggr.SumAggregation,), {})(), "Mine, a class that is not known here"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_without_a_twin(theirs, why):
    with pytest.raises(ValueError, match=f"module: expected an aggregation that has a twin, got {why}"):
        from_pyg(theirs)


@pytest.mark.parametrize(
    "model",
    [
        GINConv(nn.Linear(4, 4)),
        GCNConv(4, 4),
        SAGEConv(4, 4, aggr=["mean", "max"]),
        PNAConv(4, 4, ["mean", "max"], ["identity", "amplification"], torch.tensor([0, 2, 3])),
        models.GraphSAGE(4, 8, 2),
    ],
    ids=lambda model: type(model).__name__,
)
def test_models(model):
    model.eval()
    expected, names = model(X, EDGES), model.state_dict().keys()
    assert from_pyg(model) is model
    torch.testing.assert_close(model(X, EDGES), expected, rtol=1e-5, atol=1e-5)
    assert model.state_dict().keys() == names
    left = [part for part in model.modules() if isinstance(part, aggr.Aggregation)]
    assert all(type(part).__module__.startswith("readouts") for part in left if "Scaler" not in repr(part))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_a_sparse_matrix_does_not_pass_by_the_readout():
    conv, edges = from_pyg(GINConv(nn.Identity())), EDGES.unique(dim=1)
    with torch.sparse.check_sparse_tensor_invariants():
        adjacency = torch.sparse_coo_tensor(edges.flip(0), torch.ones(20), (20, 20)).to_sparse_csr()
    asked = []
    conv.aggr_module.register_forward_hook(lambda *call: asked.append(call))
    torch.testing.assert_close(conv(X, adjacency), GINConv(nn.Identity())(X, edges))
    assert len(asked) == 1


def test_what_stays_is_named():
    model = nn.Sequential(SAGEConv(4, 4, aggr="lstm"), aggr.MultiAggregation(["sum", "mul"]), MeanReadout())
    with pytest.warns(UserWarning, match=r"0.aggr_module: LSTMAggregation.*; 1.aggrs.1: MulAggregation"):
        from_pyg(model)
    assert isinstance(model[1], MultiReadout)
    assert isinstance(model[0].aggr_module, aggr.LSTMAggregation)


def test_twice_and_shared():
    shared = aggr.SumAggregation()
    model = from_pyg(nn.ModuleList([shared, shared, MeanReadout()]))
    assert model[0] is model[1]
    assert isinstance(model[0], SumReadout)
    assert from_pyg(model)[0] is model[0]
    with pytest.raises(TypeError, match="module: expected an aggregation or a model, got str"):
        from_pyg("sum")


@pytest.mark.parametrize("kind", sorted(set(aggr.__all__) - {"Aggregation"}))
def test_the_table_names_every_class(kind):
    page = (Path(__file__).parents[3] / "docs" / "readouts.md").read_text()
    assert f"`{kind}" in page
