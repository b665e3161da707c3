"""Shapes of x under every option of a constructor: one dimension, nodes anywhere, static graphs."""

import pytest
import torch
from bits import assert_same_bits
from torch import nn
from torch_geometric.nn import GATConv, GINConv, SAGEConv

from readouts import global_add_pool, global_max_pool, global_mean_pool
from readouts.nn import (
    DeepSetsReadout,
    LogSumExpReadout,
    MaxReadout,
    MeanReadout,
    MedianReadout,
    MinReadout,
    MomentReadout,
    MultiheadAttentionReadout,
    MultiReadout,
    PartialReadout,
    PowerMeanReadout,
    QuantileReadout,
    Set2SetReadout,
    SizeAwareMeanReadout,
    SoftmaxReadout,
    SortReadout,
    StdReadout,
    SumReadout,
    TrimmedMeanReadout,
    VarReadout,
    from_pyg,
)

INDEX = torch.tensor([0, 2, 0, 2, 2, 0])
ONE_VALUE = [  # [N] -> [B]
    SumReadout(),
    MeanReadout(empty=-1),
    MaxReadout(),
    MinReadout(),
    VarReadout(),
    StdReadout(),
    MedianReadout(),
    MedianReadout("lower", empty=2),
    QuantileReadout(0.3),
    QuantileReadout(0.3, "hazen"),
    QuantileReadout(0.3, learnable=True),
    TrimmedMeanReadout(0.2),
    SoftmaxReadout(2.0),
    SoftmaxReadout(-1.0, learn=True),
    PowerMeanReadout(3.0),
    PowerMeanReadout(2.0, learn=True),
    PowerMeanReadout(2.0, clamp_max=1.0, empty=1),
    LogSumExpReadout(),
    DeepSetsReadout(reduce="max"),
    PartialReadout("mean", 0.5).eval(),
]
SEVERAL_VALUES = [  # [N] -> [B, K]
    QuantileReadout([0.25, 0.75]),
    QuantileReadout([0.25], "lower"),
    QuantileReadout([0.25, 0.75], learnable=True),
    MomentReadout(),
    SizeAwareMeanReadout(empty=3),
    SortReadout(2),
    MultiReadout(["sum", "max"]),
    MultiReadout(["median"]),
    MultiReadout(["sum", "median", QuantileReadout([0.1, 0.2]), "logsumexp"]),
    MultiReadout(["sum", "median"], "max"),
    Set2SetReadout(1, 2),
    MultiheadAttentionReadout(1, seeds=3),
]
ANY_SHAPE = [
    module for module in (*ONE_VALUE, *SEVERAL_VALUES) if not isinstance(module, SortReadout | Set2SetReadout)
]


@pytest.mark.parametrize("module", [*ONE_VALUE, *SEVERAL_VALUES], ids=str)
def test_one_dimension_is_one_feature(module):
    x = torch.rand(6)
    expected = module(x.unsqueeze(1), INDEX, dim_size=4)
    expected = expected.squeeze(1) if module in ONE_VALUE else expected
    for dim in (0, -1):
        out = module(x, INDEX, dim_size=4, dim=dim)
        assert_same_bits(out, expected)


@pytest.mark.parametrize("module", ANY_SHAPE, ids=str)
def test_nodes_in_the_middle(module):
    """A batch of x shares its graphs; the result can be viewed as any other."""
    x = torch.rand(2, 6, 1)
    out = module(x, INDEX, dim_size=4)
    assert out.is_contiguous()
    assert_same_bits(out, torch.stack([module(part, INDEX, dim_size=4) for part in x]))
    out.view(-1)
    assert module(torch.rand(4, 1, 6), INDEX, dim=-1).is_contiguous()


@pytest.mark.parametrize("pool", [global_add_pool, global_mean_pool, global_max_pool])
def test_pools_of_three_dimensions_are_contiguous(pool):
    x = torch.randn(2, 6, 4, requires_grad=True)
    pool(x, INDEX).view(-1).sum().backward()
    assert pool(x, None).is_contiguous()


@pytest.mark.parametrize(
    "conv",
    [
        GINConv(nn.Linear(4, 4)),
        SAGEConv(4, 4, aggr=["mean", "max"]),
        SAGEConv(4, 4, aggr="std"),
    ],
    ids=lambda conv: type(conv).__name__,
)
def test_static_graphs(conv):
    """Convolutions of [batch, N, F] with one edge index for all."""
    x, edges = torch.randn(3, 6, 4), torch.tensor([[0, 1, 2, 3, 4, 5, 0], [1, 2, 3, 4, 5, 0, 3]])
    expected = conv(x, edges)
    out = from_pyg(conv)(x, edges)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-3)
    out.view(-1)
    torch.testing.assert_close(out, torch.stack([conv(part, edges) for part in x]))


def test_convolution_whose_messages_have_heads():
    x, edges = torch.randn(6, 4), torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])
    conv = GATConv(4, 4, heads=2)
    torch.testing.assert_close(from_pyg(conv)(x, edges), conv(x, edges))


def test_dim_that_x_lacks():
    from readouts import Segments

    with pytest.raises(ValueError, match="dim: expected from -1 to 0, a dimension of x, got -2"):
        SumReadout()(torch.ones(6), Segments.from_batch(INDEX))
