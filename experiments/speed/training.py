"""Time training steps of PyG models with and without `exact_scatter`: the table of docs/reproducible.md.

python -m experiments.speed.training
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
import torch_geometric.nn as pyg
from torch import Tensor

from readouts import exact_scatter

WIDTH = 64
MODELS = ("GIN", "GCN", "GAT", "PNA")


class Model(torch.nn.Module):
    """Convolutions with ReLU, and a sum over the nodes of every graph if there are several."""

    def __init__(self, kind: str, layers: int, degrees: Tensor) -> None:
        """Make the layers; `degrees` is the histogram that PNA wants."""
        super().__init__()
        self.layers = torch.nn.ModuleList(convolution(kind, degrees) for _ in range(layers))

    def forward(self, x: Tensor, edges: Tensor, batch: Tensor | None) -> Tensor:
        """Return a row for every graph, or for every node without a batch."""
        for layer in self.layers:
            x = layer(x, edges).relu()
        return x if batch is None else pyg.global_add_pool(x, batch)


def convolution(kind: str, degrees: Tensor) -> torch.nn.Module:
    """Return a layer of PyG from WIDTH to WIDTH features."""
    match kind:
        case "GIN":
            hidden = torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, WIDTH)
            return pyg.GINConv(torch.nn.Sequential(*hidden))
        case "GCN":
            return pyg.GCNConv(WIDTH, WIDTH)
        case "GAT":
            return pyg.GATConv(WIDTH, WIDTH // 4, heads=4)
        case "PNA":
            scalers = ["identity", "amplification", "attenuation"]
            return pyg.PNAConv(WIDTH, WIDTH, ["mean", "min", "max", "std"], scalers, degrees, towers=4)
        case _:
            raise ValueError(f"kind: expected one of {', '.join(MODELS)}, got {kind!r}")


def molecules(graphs: int = 128, nodes: int = 18) -> tuple[Tensor, Tensor, Tensor]:
    """Return features, edges and graphs of rings with a few bonds across, in size like molecules."""
    total = graphs * nodes
    first = torch.arange(total)
    second = first // nodes * nodes + (first + 1) % nodes
    left = torch.randint(0, total, (total // 8,))
    right = left // nodes * nodes + torch.randint(0, nodes, left.shape)
    edges = torch.stack([torch.cat([first, second, left, right]), torch.cat([second, first, right, left])])
    return torch.randn(total, WIDTH), edges, torch.arange(graphs).repeat_interleave(nodes)


def large(nodes: int = 170_000, edges: int = 1_200_000) -> tuple[Tensor, Tensor, None]:
    """Return one graph with random edges."""
    return torch.randn(nodes, WIDTH), torch.randint(0, nodes, (2, edges)), None


def context(exact: bool) -> AbstractContextManager[object]:
    """Return what a step runs in."""
    return exact_scatter() if exact else nullcontext()


def milliseconds(
    kind: str, data: tuple[Tensor, Tensor, Tensor | None], layers: int, turns: int
) -> Iterator[float]:
    """Yield the median time of a training step, plain and exact, taken in turns."""
    x, edges, batch = data
    degrees = torch.bincount(torch.bincount(edges[1], minlength=len(x)))
    model = Model(kind, layers, degrees)
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        model(x, edges, batch).square().mean().backward()
        optimizer.step()

    steps = max(1, 400_000 // edges.shape[1])  # in one block, as whole trainings are
    times: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(turns + 1):
        for exact in times:
            with context(exact):
                start = time.perf_counter()
                for _ in range(steps):
                    step()
                if turn:  # the first one warms up
                    times[exact].append((time.perf_counter() - start) / steps)
    yield from (1000 * statistics.median(found) for found in times.values())


def check(kind: str) -> None:
    """Raise unless a layer has the same bits for shuffled edges."""
    x, edges, batch = molecules(8)
    model = Model(kind, 2, torch.bincount(torch.bincount(edges[1])))
    with exact_scatter():
        first, second = (
            model(x, edges[:, order], batch) for order in (slice(None), torch.randperm(edges.shape[1]))
        )
    if not first.equal(second):
        raise AssertionError(f"{kind}: the output depends on the order of the edges")


def main() -> None:
    """Print a row for every model and size."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--turns", type=int, default=15, help="timings of each contender, in turns")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--skip-large", action="store_true", help="leave out the graph of 170,000 nodes")
    asked = parser.parse_args()
    torch.manual_seed(0)
    print("| model | data | plain, ms | exact, ms | ratio |\n|---|---|--:|--:|--:|")
    for kind in asked.models:
        check(kind)
        cases: dict[str, tuple[tuple[Tensor, Tensor, Tensor | None], int, int]] = {
            "128 molecules": (molecules(), 3, asked.turns)
        }
        if not asked.skip_large:
            cases["170,000 nodes, 1,200,000 edges"] = (large(), 2, max(asked.turns // 5, 1))
        for name, case in cases.items():
            plain, exact = milliseconds(kind, *case)
            print(f"| {kind} | {name} | {plain:.4g} | {exact:.4g} | {exact / plain:.2f} |", flush=True)


if __name__ == "__main__":
    main()
