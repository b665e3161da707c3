"""How long does an epoch take, from the resident set and from PyG's `DataLoader`?

Claim: three times as fast at least. Both train a GIN of the same shape with a sum readout from the same
weights; PyG's is made of its own layers, with the loop and the optimiser that its examples write. Both are
checked to give the same logits before they are timed in turns. Ours runs through `Settings.redraw` epochs a
call, so that drawing batches is in the time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch_geometric.data import Batch as PyGBatch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GINConv, global_add_pool

from datasets import GraphSet
from experiments.console import tracked
from experiments.experiment import one_thread
from experiments.learning.batches import Resident, reside
from experiments.learning.networks import Network
from experiments.learning.training import Settings, epochs, stack
from experiments.records import Row, RowLog
from experiments.speed import measure as measuring
from experiments.speed.cases import EAGER, EPOCH, NORMAL, SORTED
from experiments.speed.implementations import LOADER, RESIDENT
from experiments.speed.timing import Samples, interleave

METRICS = ("seconds", "p20", "p80", "samples")
LEARNING_RATE = 0.003
SHARES = 4  # an epoch takes longer than a readout


class PyGNetwork(nn.Module):
    """The same GIN of PyG's and PyTorch's layers, with the weights of ours."""

    def __init__(self, network: Network) -> None:
        """Copy the weights of a stack of one GIN with a sum readout."""
        super().__init__()
        mlps = [mlp_of(layer) for layer in network.rounds]
        self.rounds = nn.ModuleList(GINConv(mlp) for mlp in mlps)
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(norm.get_parameter("bias").shape[1]) for norm in network.norms
        )
        first, activation, second = network.head.children()
        self.head = nn.Sequential(linear(first), activation, linear(second))

    def forward(self, data: Data) -> Tensor:
        """Logits of the graphs of a batch."""
        x = data.x
        for layer, norm in zip(self.rounds, self.norms, strict=True):
            x = norm(layer(x, data.edge_index)).relu()
        return self.head(global_add_pool(x, data.batch, data.num_graphs))


class FixedSequential(nn.Sequential):
    """Layers that keep their weights when `GINConv` takes them."""

    def reset_parameters(self) -> None:
        """Keep them."""


def mlp_of(layer: nn.Module) -> nn.Sequential:
    """The two layers of a round, and a batch norm that is new as ours is."""
    first, second = (linear(layer.get_submodule(name)) for name in ("first", "second"))
    return FixedSequential(first, nn.BatchNorm1d(first.out_features), nn.ReLU(), second)


def linear(layer: nn.Module) -> nn.Linear:
    """The first copy of a stacked layer."""
    weight, bias = (layer.get_parameter(name)[0] for name in ("weight", "bias"))
    copied = nn.Linear(weight.shape[1], weight.shape[0])
    copied.load_state_dict({"weight": weight, "bias": bias})
    return copied


def measure(sets: Sequence[GraphSet], log: RowLog, settings: measuring.Settings) -> list[Row]:
    """Seconds an epoch on each set, on the CPU and on one thread, as `accuracy` trains."""
    rows = []
    for graphs in tracked(sets, "timing epochs") if settings.device == "cpu" else ():
        together = cache(partial(time_epochs, graphs, settings.seed, SHARES * settings.share))
        work = case_of_epoch(graphs) | settings.work | {"threads": 1}
        work |= {"settings": asdict(Settings())}
        for name in (LOADER, RESIDENT):
            fields = {"contender": name, "verdict": measuring.RIGHT, "bytes": 0}
            rows += log.measure({**work, **fields}, METRICS, partial(of_one, together, name))
    return rows


def case_of_epoch(graphs: GraphSet) -> dict[str, Any]:
    """The fields of a result row that name the case, as those of other cases."""
    return {
        "data": graphs.name,
        "readout": "sum",
        "direction": EPOCH,
        "dtype": "float32",
        "kind": NORMAL,
        "layout": SORTED,
        "timing": EAGER,
        "graphs": len(graphs),
        "nodes": sum(graph.num_nodes for graph in graphs),
        "features": graphs[0].x.size(1),
    }


def of_one(together: Callable[[], Mapping[str, dict[str, float]]], name: str) -> dict[str, float]:
    """The values of one contender of those that are timed together."""
    return together()[name]


def time_epochs(graphs: GraphSet, seed: int, share: float) -> dict[str, dict[str, float]]:
    """Both contenders in turns, `share` seconds and more each; `RuntimeError` where their logits differ."""
    settings = Settings()
    resident = reside(graphs, "gin", settings.rounds)
    ours = stack(resident, "sum", settings, [LEARNING_RATE], seed)
    other = PyGNetwork(ours.network)
    check_same_logits(ours.network, other, resident, graphs)
    optimiser = torch.optim.Adam(other.parameters(), lr=LEARNING_RATE)
    plain = [Data(x=graph.x, edge_index=graph.edge_index, y=graph.y) for graph in graphs]
    loader = DataLoader(plain, settings.batch_size, shuffle=True)
    drawn = epochs(resident, range(len(graphs)), settings, seed)

    def with_loader() -> None:
        for batch in loader:
            optimiser.zero_grad()
            cross_entropy(other(batch), batch.y).backward()
            optimiser.step()

    def with_resident() -> None:
        for batches in islice(drawn, settings.redraw):
            for batch in batches:
                ours.step(batch)

    with one_thread():
        samples = interleave({LOADER: with_loader, RESIDENT: with_resident}, share)
    per_call = {LOADER: 1, RESIDENT: settings.redraw}
    return {name: numbers(sample, per_call[name]) for name, sample in samples.items()}


def numbers(sample: Samples, epochs_a_call: int) -> dict[str, float]:
    """The values of a contender."""
    quantiles = {"seconds": 0.5, "p20": 0.2, "p80": 0.8}
    times = {name: sample.quantile(q) / epochs_a_call for name, q in quantiles.items()}
    return times | {"samples": len(sample.seconds)}


def check_same_logits(network: Network, other: PyGNetwork, resident: Resident, graphs: GraphSet) -> None:
    """Compare the logits of some graphs, in float32."""
    few = range(min(len(graphs), Settings().batch_size))
    with torch.no_grad():
        (ours,) = network(resident.batch(few))
        theirs = other(PyGBatch.from_data_list([graphs[position] for position in few]))
    if not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max())):
        raise RuntimeError(
            f"{graphs.name}: the two networks to be timed differ by {(ours - theirs).abs().max()}"
        )
