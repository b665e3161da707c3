"""Whole layers under `exact_scatter`: the same bits, outputs and gradients, when edges are shuffled."""

from contextlib import nullcontext

import pytest
import torch
import torch_geometric.nn as pyg
from bits import assert_same_bits
from torch.nn import Linear, ReLU, Sequential

from readouts import exact_scatter

pytestmark = pytest.mark.filterwarnings("ignore:Sparse:UserWarning")  # of PyTorch, in ASAPooling
FEATURES, NODES, EDGES, SHUFFLES = 16, 40, 200, 20
DEGREES = torch.tensor([0, 5, 10, 20, 10, 5, 3])


def mlp(inputs=FEATURES):
    return Sequential(Linear(inputs, FEATURES), ReLU(), Linear(FEATURES, FEATURES))


# a layer, and the parameters whose gradient is a matrix product or a full sum over edges (DEPENDS)
EXACT = {
    "GCNConv": lambda f: pyg.GCNConv(f, f),
    "SAGEConv": lambda f: pyg.SAGEConv(f, f),
    "SAGEConv, max": lambda f: pyg.SAGEConv(f, f, aggr="max"),
    "GraphConv": lambda f: pyg.GraphConv(f, f),
    "GINConv": lambda f: pyg.GINConv(mlp()),
    "GATConv": lambda f: pyg.GATConv(f, 4, heads=4),
    "TransformerConv": lambda f: pyg.TransformerConv(f, 4, heads=4),
    "ChebConv": lambda f: pyg.ChebConv(f, f, 3),
    "ARMAConv": lambda f: pyg.ARMAConv(f, f),
    "TAGConv": lambda f: pyg.TAGConv(f, f),
    "SGConv": lambda f: pyg.SGConv(f, f, K=2),
    "APPNP": lambda f: pyg.APPNP(3, 0.1),
    "ResGatedGraphConv": lambda f: pyg.ResGatedGraphConv(f, f),
    "GatedGraphConv": lambda f: pyg.GatedGraphConv(f, 2),
    "GENConv, softmax": lambda f: pyg.GENConv(f, f),
    "GENConv, power mean": lambda f: pyg.GENConv(f, f, aggr="powermean"),
    "MFConv": lambda f: pyg.MFConv(f, f),
    "LEConv": lambda f: pyg.LEConv(f, f),
    "ClusterGCNConv": lambda f: pyg.ClusterGCNConv(f, f),
    "FiLMConv": lambda f: pyg.FiLMConv(f, f),
    "EGConv": lambda f: pyg.EGConv(f, f),
    "HypergraphConv": lambda f: pyg.HypergraphConv(f, f),
    "SimpleConv": lambda f: pyg.SimpleConv(),
    "LGConv": lambda f: pyg.LGConv(),
    "MixHopConv": lambda f: pyg.MixHopConv(f, f),
    "RGCNConv": lambda f: pyg.RGCNConv(f, f, 3),
    "SAGPooling": lambda f: pyg.SAGPooling(f),
    "TopKPooling": lambda f: pyg.TopKPooling(f),
    "GCN and GraphNorm": lambda f: pyg.Sequential(
        "x, edges, batch", [(pyg.GCNConv(f, f), "x, edges -> x"), (pyg.GraphNorm(f), "x, batch -> x")]
    ),
}
DEPENDS = {
    "GINEConv": (lambda f: pyg.GINEConv(mlp(), edge_dim=4), {"lin.weight", "lin.bias"}),
    "GATv2Conv": (lambda f: pyg.GATv2Conv(f, 4, heads=4), {"att"}),
    "SuperGATConv": (lambda f: pyg.SuperGATConv(f, f), {"att_l", "att_r"}),
    "AGNNConv": (lambda f: pyg.AGNNConv(), {"beta"}),
    "PNAConv": (
        lambda f: pyg.PNAConv(f, f, ["mean", "max", "std"], ["identity", "amplification"], DEGREES),
        {"pre_nns.0.0.weight", "pre_nns.0.0.bias"},
    ),
    "EdgeConv": (
        lambda f: pyg.EdgeConv(mlp(2 * f)),
        {f"nn.{i}.{p}" for i in (0, 2) for p in ("weight", "bias")},
    ),
    "CGConv": (lambda f: pyg.CGConv(f), {f"lin_{i}.{p}" for i in "fs" for p in ("weight", "bias")}),
    "GeneralConv": (lambda f: pyg.GeneralConv(f, f), {"lin_msg.weight", "lin_msg.bias"}),
    "ASAPooling": (lambda f: pyg.ASAPooling(f), {"att.weight", "att.bias"}),
}
X = torch.randn(NODES, FEATURES, generator=torch.Generator().manual_seed(0))
ENDS = torch.randint(0, NODES, (2, EDGES), generator=torch.Generator().manual_seed(1))
ATTRIBUTES = torch.randn(EDGES, 4, generator=torch.Generator().manual_seed(2))
BATCH = torch.arange(4).repeat_interleave(NODES // 4)


def run(name, layer, order):
    """Return output and all gradients for edges in an order."""
    layer.zero_grad()
    x, edges = X.clone().requires_grad_(), ENDS[:, order]
    match name:
        case "GINEConv":
            out = layer(x, edges, ATTRIBUTES[order])
        case "RGCNConv":
            out = layer(x, edges, (ENDS[0] % 3)[order])
        case "GCN and GraphNorm":
            out = layer(x, edges, BATCH)
        case _ if name.endswith("Pooling"):
            out = layer(x, edges, batch=BATCH)[0]
        case _:
            out = layer(x, edges)
    (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
    gradients = {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}
    return {"output": out.detach(), "x": x.grad, **gradients}


def that_differ(name, make, exact):
    """Return the names of outputs and gradients that change with the order of the edges."""
    torch.manual_seed(0)
    layer, generator = make(FEATURES).eval(), torch.Generator().manual_seed(3)
    with exact_scatter() if exact else nullcontext():
        first = run(name, layer, torch.arange(EDGES))
        others = [run(name, layer, torch.randperm(EDGES, generator=generator)) for _ in range(SHUFFLES)]
    return {key for key in first if not all(torch.equal(first[key], other[key]) for other in others)}


@pytest.mark.parametrize("name", EXACT)
def test_layers_have_the_same_bits_for_every_order_of_edges(name):
    assert that_differ(name, EXACT[name], exact=True) == set()
    if name != "TopKPooling":  # reads no edge on its way to the output
        assert that_differ(name, EXACT[name], exact=False)


@pytest.mark.parametrize("name", DEPENDS)
def test_layers_that_multiply_over_edges_still_depend_on_their_order(name):
    make, parameters = DEPENDS[name]
    assert that_differ(name, make, exact=False)
    found = that_differ(name, make, exact=True)
    assert found
    assert found <= parameters


class Potential(torch.nn.Module):
    """Energies from distances, as SchNet and the models of e3nn compute them, without PyG."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 8)
        self.lin = Linear(8, 8)
        self.energy = Linear(8, 1)
        self.centres = torch.nn.Parameter(torch.linspace(0, 3, 8), requires_grad=False)

    def forward(self, kinds, positions, edges, batch):
        source, target = edges
        distance = (positions[source] - positions[target]).square().sum(1).add(1e-6).sqrt()
        filters = torch.exp(-(distance[:, None] - self.centres).square())
        h = self.embedding(kinds)
        for _ in range(2):
            messages = self.lin(h)[source] * filters
            h = h + torch.zeros_like(h).index_add(0, target, messages).tanh()
        return torch.zeros(4).scatter_add(0, batch, self.energy(h)[:, 0])


@pytest.mark.parametrize("exact", [True, False])
def test_energies_and_forces_of_a_potential(exact):
    torch.manual_seed(0)
    model, positions, kinds = Potential(), torch.randn(NODES, 3), torch.randint(0, 5, (NODES,))

    def energies_and_forces(order):
        model.zero_grad()
        r = positions.clone().requires_grad_()
        energy = model(kinds, r, ENDS[:, order], BATCH)
        (force,) = torch.autograd.grad(-energy.sum(), r, create_graph=True)
        (energy.square().sum() + force.square().sum()).backward()  # trained on forces: a second derivative
        return [energy.detach(), force.detach(), *(p.grad for p in model.parameters() if p.requires_grad)]

    same = True
    with exact_scatter() if exact else nullcontext():
        first = energies_and_forces(torch.arange(EDGES))
        for _ in range(SHUFFLES):
            found = energies_and_forces(torch.randperm(EDGES))
            if exact:
                for a, b in zip(found, first, strict=True):
                    assert_same_bits(a, b)
            same &= all(torch.equal(a, b) for a, b in zip(found, first, strict=True))
    assert same == exact
