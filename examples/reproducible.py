"""Train a GIN twice, the second time with the edges in another order, plain and with `exact_scatter`.

    python examples/reproducible.py --data MUTAG

Nothing else changes: the same seed, weights, nodes and graphs. The losses of the plain runs differ; those
of the exact runs are equal, to the last bit.
"""

import argparse
from contextlib import nullcontext

import torch
from torch_geometric.data import Batch
from torch_geometric.nn import GINConv, global_add_pool

from datasets import load
from readouts import exact_scatter


class Model(torch.nn.Module):
    """Three GIN layers and a sum over nodes, all from PyG."""

    def __init__(self, features: int, classes: int, width: int = 32) -> None:
        """Make the layers."""
        super().__init__()
        widths = (features, width, width)
        self.layers = torch.nn.ModuleList(GINConv(mlp(n, width), train_eps=True) for n in widths)
        self.head = torch.nn.Linear(width, classes)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        """Return logits for every graph."""
        for layer in self.layers:
            x = layer(x, edge_index).relu()
        return self.head(global_add_pool(x, batch))


def mlp(inputs: int, width: int) -> torch.nn.Sequential:
    """Return the perceptron of a GIN layer."""
    return torch.nn.Sequential(torch.nn.Linear(inputs, width), torch.nn.ReLU(), torch.nn.Linear(width, width))


def losses(data: str, shuffle: bool, exact: bool, epochs: int) -> list[float]:
    """Return the loss of every epoch of a training on all graphs at once."""
    graphs = Batch.from_data_list(list(load(data)))
    edges = graphs.edge_index
    if shuffle:
        edges = edges[:, torch.randperm(edges.shape[1], generator=torch.Generator().manual_seed(1))]
    torch.manual_seed(0)
    model = Model(graphs.x.shape[1], int(graphs.y.max()) + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    found = []
    with exact_scatter() if exact else nullcontext():
        for _ in range(epochs):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(graphs.x, edges, graphs.batch), graphs.y)
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    return found


def main() -> None:
    """Print the losses side by side."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", default="rings", help="rings, or a TU set such as MUTAG")
    parser.add_argument("--epochs", type=int, default=50, help="epochs of every training")
    asked = parser.parse_args()
    for exact in (False, True):
        first, second = (losses(asked.data, shuffle, exact, asked.epochs) for shuffle in (False, True))
        print("exact_scatter" if exact else "plain PyTorch")
        for epoch in sorted({1, 2, 5, 10, 20, asked.epochs} & set(range(1, asked.epochs + 1))):
            a, b = first[epoch - 1], second[epoch - 1]
            print(
                f"  epoch {epoch:3}: {a:.9f} {b:.9f} {'same bits' if a == b else f'differ by {b - a:+.1e}'}"
            )


if __name__ == "__main__":
    main()
