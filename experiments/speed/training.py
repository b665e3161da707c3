"""Time training steps of PyG models with and without `exact_scatter`: the table of docs/reproducible.md.

python -m experiments.speed.training
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch_geometric.nn as pyg
import typer
from torch import Tensor

from experiments.speed.timing import Thunk, medians
from readouts import exact_scatter

WIDTH = 64
EDGES = 400_000  # that a block of steps reads
SCALERS = ["identity", "amplification", "attenuation"]
MODELS: dict[str, dict[str, Any]] = {
    "GIN": {},
    "GCN": {},
    "GAT": {"heads": 4},
    "PNA": {"aggregators": ["mean", "min", "max", "std"], "scalers": SCALERS, "towers": 4},
}
Data = tuple[Tensor, Tensor, Tensor | None]  # features, edges, and the graph of every node of several


class Model(torch.nn.Module):
    """Convolutions with ReLU, and a sum over the nodes of every graph if there are several."""

    def __init__(self, kind: str, layers: int, data: Data) -> None:
        """Make the layers; PNA wants the histogram of degrees."""
        super().__init__()
        options = dict(MODELS[kind])
        if kind == "PNA":
            options["deg"] = torch.bincount(torch.bincount(data[1][1], minlength=len(data[0])))
        self.layers = getattr(pyg, kind)(WIDTH, WIDTH, layers, **options)

    def forward(self, x: Tensor, edges: Tensor, batch: Tensor | None) -> Tensor:
        """Return a row for every graph, or for every node without a batch."""
        x = self.layers(x, edges).relu()
        return x if batch is None else pyg.global_add_pool(x, batch)


def molecules(graphs: int = 128, nodes: int = 18) -> Data:
    """Return rings with a few bonds across, in size like molecules."""
    total = graphs * nodes
    first = torch.arange(total)
    second = first // nodes * nodes + (first + 1) % nodes
    left = torch.randint(0, total, (total // 8,))
    right = left // nodes * nodes + torch.randint(0, nodes, left.shape)
    edges = torch.stack([torch.cat([first, second, left, right]), torch.cat([second, first, right, left])])
    return torch.randn(total, WIDTH), edges, torch.arange(graphs).repeat_interleave(nodes)


def large(nodes: int = 170_000, edges: int = 1_200_000) -> Data:
    """Return one graph with random edges."""
    return torch.randn(nodes, WIDTH), torch.randint(0, nodes, (2, edges)), None


def block_of(kind: str, layers: int, data: Data, steps: int, context: Callable[[], Any]) -> Thunk:
    """Return a block of training steps of a new model, timed at once as whole trainings are."""
    model = Model(kind, layers, data)
    optimizer = torch.optim.Adam(model.parameters())

    def block() -> None:
        with context():
            for _ in range(steps):
                optimizer.zero_grad()
                model(*data).square().mean().backward()
                optimizer.step()

    block()  # warms up
    return block


def check(kind: str) -> None:
    """Raise unless a model has the same bits for shuffled edges."""
    x, edges, batch = data = molecules(8)
    model = Model(kind, 2, data)
    with exact_scatter():
        out, other = model(x, edges, batch), model(x, edges[:, torch.randperm(edges.shape[1])], batch)
    if not out.equal(other):
        raise AssertionError(f"{kind}: the output depends on the order of the edges")


def main(models: list[str] = list(MODELS), seconds: float = 6.0, skip_large: bool = False) -> None:  # noqa: B006
    """Print a row for every model and size, each timed for SECONDS with and without `exact_scatter`."""
    torch.manual_seed(0)
    cases = {"128 molecules": (3, molecules())}
    if not skip_large:
        cases["170,000 nodes, 1,200,000 edges"] = (2, large())
    print("| model | data | plain, ms | exact, ms | ratio |\n|---|---|--:|--:|--:|")
    for kind in models:
        check(kind)
        for name, (layers, data) in cases.items():
            steps = max(1, EDGES // data[1].shape[1])
            contexts = {"plain": nullcontext, "exact": exact_scatter}
            blocks = {key: block_of(kind, layers, data, steps, value) for key, value in contexts.items()}
            plain, exact = (1000 * block / steps for block in medians(blocks, seconds))
            print(f"| {kind} | {name} | {plain:.4g} | {exact:.4g} | {exact / plain:.2f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
