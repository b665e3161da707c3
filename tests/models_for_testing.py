"""Graphs, honest models and models with one planted fault, for the tests of `readouts.testing`."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import (
    MLP,
    AttentionalAggregation,
    CGConv,
    ChebConv,
    EdgeConv,
    EquilibriumAggregation,
    GATConv,
    GATv2Conv,
    GCNConv,
    GINConv,
    GPSConv,
    GraphConv,
    GraphNorm,
    GRUAggregation,
    LCMAggregation,
    LSTMAggregation,
    PNAConv,
    SAGEConv,
    Set2Set,
    SimpleConv,
    SoftmaxAggregation,
    SortAggregation,
    TopKPooling,
    TransformerConv,
    global_add_pool,
    global_max_pool,
    global_mean_pool,
)
from torch_geometric.utils import to_dense_batch

from readouts.nn import MultiReadout, SumReadout
from readouts.testing import (
    Verdict,
    check_batch_independence,
    check_gradient_equivariance,
    check_permutation_invariance,
)

WIDTH = 4


def molecules(graphs=4, nodes=None, width=WIDTH, seed=0):
    """Rings with one chord, of `nodes` nodes each or of 4, 5, 6, ... nodes, as one batch."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for graph in range(graphs):
        count = nodes or 4 + graph
        ring = torch.stack([torch.arange(count), (torch.arange(count) + 1) % count])
        chord = torch.tensor([[0], [2]])
        edges = torch.cat([ring, ring.flip(0), chord, chord.flip(0)], dim=1)
        x, pos = (torch.randn(count, size, generator=generator) for size in (width, 3))
        length = torch.rand(edges.shape[1], 1, generator=generator)
        parts.append(Data(x=x, edge_index=edges, edge_attr=length, pos=pos))
    return Batch.from_data_list(parts)


def tensors(**options):
    """The same as x, edge_index and batch."""
    batch = molecules(**options)
    return batch.x, batch.edge_index, batch.batch


class Net(nn.Module):
    """Two convolutions, a readout and a linear head, each open to a fault."""

    def __init__(self, pool=global_mean_pool, conv=None, width=WIDTH, front=None, before=None):
        super().__init__()
        conv = conv or (lambda: GCNConv(WIDTH, WIDTH))
        self.front = front or nn.Identity()
        self.convs = nn.ModuleList([conv(), conv()])
        self.before, self.pool, self.head = before or nn.Identity(), pool, nn.Linear(width, 3)

    def forward(self, x, edge_index=None, batch=None):
        if isinstance(x, Data):
            x, edge_index, batch = x.x, x.edge_index, x.batch
        x = self.front(x)
        for conv in self.convs:
            x = conv(x, edge_index).relu()
        return self.head(self.pool(self.before(x), batch))


class OnData(nn.Module):
    """A convolution that wants more of the data than its edges."""

    def __init__(self, conv, call):
        super().__init__()
        self.conv, self.call, self.head = conv, call, nn.Linear(WIDTH, 3)

    def forward(self, data):
        x = self.call(self.conv, data)
        return self.head(global_mean_pool(x.relu(), data.batch, data.num_graphs))


class Distances(nn.Module):
    """Messages weighted by the distance of two positions."""

    def forward(self, data):
        source, target = data.edge_index
        near = torch.exp(-(data.pos[source] - data.pos[target]).square().sum(1, keepdim=True))
        return data.x.index_add(0, target, data.x[source] * near)


class MaskedAttention(nn.Module):
    """Self-attention of the nodes of a graph."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x, batch):
        dense, mask = to_dense_batch(x, batch)
        padding = ~mask & mask.any(dim=1, keepdim=True)  # a graph without nodes attends to its padding
        out = self.attention(dense, dense, dense, key_padding_mask=padding, need_weights=False)[0]
        return global_mean_pool(out[mask], batch, len(dense))


class Numbered(nn.Module):
    """The number of the node as a feature."""

    def forward(self, x):
        return torch.cat([x[:, 1:], torch.arange(len(x))[:, None] / len(x)], dim=1)


class Positions(nn.Module):
    """An encoding of the row, as for words of a sentence."""

    def forward(self, x):
        return x + torch.sin(torch.arange(len(x), dtype=torch.float)[:, None])


class Cumulated(nn.Module):
    """Every row with all rows before it."""

    def forward(self, x):
        return x.cumsum(0)


class LeakyDropout(nn.Module):
    """Dropout that stays on in evaluation."""

    def forward(self, x):
        return nn.functional.dropout(x, 0.5)


class InPlace(nn.Module):
    """Shifts its own input."""

    def forward(self, x):
        x[:, 0] += 1
        return x.clone()


class FirstNode(nn.Module):
    """The first row of every graph."""

    def forward(self, x, batch):
        return x[torch.searchsorted(batch, torch.arange(int(batch.max()) + 1))]


class AllButLast(nn.Module):
    """The sum without the last node."""

    def forward(self, x, batch):
        return global_add_pool(x[:-1], batch[:-1], size=int(batch.max()) + 1)


class Flattened(nn.Module):
    """Nodes padded to ten places and laid out in a row."""

    def forward(self, x, batch):
        return to_dense_batch(x, batch, max_num_nodes=10)[0].flatten(1)


class SortedByOneChannel(nn.Module):
    """The node with the largest first channel, the first of them where several tie."""

    def forward(self, x, batch):
        dense, mask = to_dense_batch(x, batch, fill_value=-10.0)
        best = dense[..., 0].masked_fill(~mask, -torch.inf).argmax(dim=1)
        return dense[torch.arange(len(dense)), best]


class Recurrent(nn.Module):
    """A GRU over the nodes as they stand."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(WIDTH, WIDTH, batch_first=True)

    def forward(self, x, batch):
        return self.gru(to_dense_batch(x, batch)[0])[0].sum(dim=1)


class WeightedByRow(nn.Module):
    """A sum with weights that grow along the rows."""

    def forward(self, x, batch):
        return global_add_pool(x * torch.linspace(0, 1, len(x))[:, None], batch)


class EdgeOrder(nn.Module):
    """A message that depends on the place of the edge."""

    def forward(self, x, edge_index):
        weight = torch.arange(edge_index.shape[1]) % 3
        return torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]] * weight[:, None])


class InOrderOfAppearance(nn.Module):
    """A dictionary keeps the order in which its keys were met."""

    def forward(self, x, batch):
        rows = {}
        for row, graph in zip(x, batch.tolist(), strict=True):
            rows.setdefault(graph, {}).setdefault(round(row[0].item(), 1), row)
        return torch.stack([next(iter(of_graph.values())) for of_graph in rows.values()])


class TwoBest(nn.Module):
    """The two nodes with the best score and the edges between them; PyG breaks ties by place."""

    def __init__(self):
        super().__init__()
        self.pool, self.conv = TopKPooling(WIDTH, ratio=2), GraphConv(WIDTH, WIDTH)

    def forward(self, x, edge_index, batch):
        x, edge_index, _, batch, *_ = self.pool(x, edge_index, None, batch)
        return global_add_pool(self.conv(x, edge_index), batch)


class Unmasked(nn.Module):
    """Self-attention over all nodes of the batch."""

    def forward(self, x, batch):
        weights = (x @ x.t()).softmax(dim=1)
        return global_mean_pool(weights @ x, batch)


class PaddedMean(nn.Module):
    """The sum divided by the size of the largest graph."""

    def forward(self, x, batch):
        return to_dense_batch(x, batch)[0].mean(dim=1)


class CentredOnBatch(nn.Module):
    """Features without their mean over the whole batch."""

    def forward(self, x):
        return x - x.mean(dim=0)


class ArgmaxGradient(nn.Module):
    """The maximum, with all of its gradient for the first of several winners."""

    def forward(self, x, batch):
        dense, mask = to_dense_batch(x, batch, fill_value=-torch.inf)
        return dense.max(dim=1).values.masked_fill(~mask.any(dim=1, keepdim=True), 0.0)


class Coarse(nn.Module):
    """Rounds to multiples of 1/64, so that nodes that are equal but for rounding tie on every machine."""

    def forward(self, x):
        return x + ((x.detach() * 64).round() / 64 - x.detach())


class Fault(NamedTuple):
    """A model with a fault, the check that is to find it, the name and class of the place, the verdict."""

    check: Callable
    make: Callable
    name: str
    kind: str
    verdict: Verdict = Verdict.BROKEN
    training: bool = False


def _invariance(make, name, kind, verdict=Verdict.BROKEN):
    return Fault(check_permutation_invariance, make, name, kind, verdict)


def _independence(make, name, kind, training=False):
    return Fault(check_batch_independence, make, name, kind, training=training)


FAULTS = {
    "node number": _invariance(lambda: Net(front=Numbered()), "front", "Numbered"),
    "positions by row": _invariance(lambda: Net(front=Positions()), "front", "Positions"),
    "cumsum": _invariance(lambda: Net(before=Cumulated()), "before", "Cumulated"),
    "flatten": _invariance(lambda: Net(Flattened(), width=10 * WIDTH), "pool", "Flattened"),
    "first node": _invariance(lambda: Net(FirstNode()), "pool", "FirstNode"),
    "drops the last node": _invariance(lambda: Net(AllButLast()), "pool", "AllButLast"),
    "sort by one channel": _invariance(
        lambda: Net(SortedByOneChannel(), before=nn.ReLU()), "pool", "SortedByOneChannel"
    ),
    "top k with ties": _invariance(TwoBest, "pool.connect", "FilterEdges"),
    "recurrent": _invariance(lambda: Net(Recurrent()), "pool.gru", "GRU"),
    "weights by row": _invariance(lambda: Net(WeightedByRow()), "pool", "WeightedByRow"),
    "order of edges": _invariance(lambda: Net(conv=EdgeOrder), "convs.0", "EdgeOrder"),
    "dictionary order": _invariance(lambda: Net(InOrderOfAppearance()), "pool", "InOrderOfAppearance"),
    "PyG's GRU": _invariance(lambda: Net(GRUAggregation(WIDTH, WIDTH)), "pool.gru", "GRU"),
    "PyG's LSTM": _invariance(lambda: Net(LSTMAggregation(WIDTH, WIDTH)), "pool.lstm", "LSTM"),
    "PyG's sort with ties": _invariance(
        lambda: Net(SortAggregation(2), width=2 * WIDTH, before=nn.ReLU()), "pool", "SortAggregation"
    ),
    "change of the input": _invariance(lambda: Net(front=InPlace()), "front", "InPlace"),
    "dropout in evaluation": _invariance(
        lambda: Net(before=LeakyDropout()), "before", "LeakyDropout", Verdict.RANDOM
    ),
    "batch norm in training": _independence(
        lambda: Net(before=nn.BatchNorm1d(WIDTH)), "before", "BatchNorm1d", training=True
    ),
    "attention without mask": _independence(lambda: Net(Unmasked()), "pool", "Unmasked"),
    "mean over padding": _independence(lambda: Net(PaddedMean()), "pool", "PaddedMean"),
    "centred on the batch": _independence(lambda: Net(front=CentredOnBatch()), "front", "CentredOnBatch"),
    "PyG's LCM": _independence(lambda: Net(LCMAggregation(WIDTH, WIDTH)), "pool", "LCMAggregation"),
    "PyG's equilibrium": _independence(
        lambda: Net(EquilibriumAggregation(WIDTH, WIDTH, [8])), "pool.potential", "ResNetPotential"
    ),
    "argmax gradient": Fault(
        check_gradient_equivariance, lambda: Net(ArgmaxGradient(), before=Coarse()), "pool", "ArgmaxGradient"
    ),
}


def gin(aggr=SumReadout, pool=None, layers=3):
    """GIN with one aggregation in its convolutions and one readout at its end."""

    def conv():
        return GINConv(MLP([WIDTH, 16, WIDTH]), aggr=aggr())

    model = Net(pool or SumReadout(), conv)
    model.convs = nn.ModuleList(conv() for _ in range(layers))
    return model


def _pna():
    degrees = torch.tensor([0, 0, 5, 3, 1])
    return PNAConv(WIDTH, WIDTH, ["mean", "min", "max", "std"], ["identity", "amplification"], degrees)


def _gps():
    return GPSConv(WIDTH, GINConv(MLP([WIDTH, WIDTH])), heads=2, norm="layer_norm")


HONEST = {
    "GCN": lambda: Net(),
    "GIN": lambda: gin(lambda: "sum", global_add_pool),
    "GAT": lambda: Net(global_max_pool, lambda: GATConv(WIDTH, 2, heads=2)),
    "GATv2": lambda: Net(conv=lambda: GATv2Conv(WIDTH, WIDTH)),
    "SAGE": lambda: Net(conv=lambda: SAGEConv(WIDTH, WIDTH)),
    "PNA": lambda: Net(global_add_pool, _pna),
    "Chebyshev": lambda: Net(conv=lambda: ChebConv(WIDTH, WIDTH, 3)),
    "edge convolution": lambda: Net(conv=lambda: EdgeConv(MLP([2 * WIDTH, WIDTH], norm=None))),
    "transformer": lambda: Net(conv=lambda: TransformerConv(WIDTH, WIDTH)),
    "Set2Set": lambda: Net(Set2Set(WIDTH, 2), width=2 * WIDTH),
    "attention": lambda: Net(AttentionalAggregation(nn.Linear(WIDTH, 1))),
    "softmax": lambda: Net(SoftmaxAggregation(learn=True)),
    "masked attention": lambda: Net(MaskedAttention()),
    "batch norm": lambda: Net(before=nn.BatchNorm1d(WIDTH)),
    "layer norm": lambda: Net(before=nn.LayerNorm(WIDTH)),
    "readouts": lambda: Net(
        MultiReadout(["sum", "mean", "max", "var", "std"]), lambda: SimpleConv(aggr=SumReadout()), 5 * WIDTH
    ),
    "crystal": lambda: OnData(
        CGConv(WIDTH, 1), lambda conv, data: conv(data.x, data.edge_index, data.edge_attr)
    ),
    "distances": lambda: OnData(Distances(), lambda conv, data: conv(data)),
    "GPS": lambda: OnData(_gps(), lambda conv, data: conv(data.x, data.edge_index, data.batch)),
    "graph norm": lambda: OnData(GraphNorm(WIDTH), lambda norm, data: norm(data.x, data.batch)),
}
ON_DATA = ("crystal", "distances", "GPS", "graph norm")


def inputs_of(name, **options):
    """What the honest model of this name takes."""
    return (molecules(**options),) if name in ON_DATA else tensors(**options)
