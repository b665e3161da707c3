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

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch_geometric.data import Batch as PyGBatch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GIN, MLP, Linear, global_add_pool

from datasets import GraphSet
from experiments.console import tracked
from experiments.experiment import one_thread
from experiments.learning.batches import Resident, reside
from experiments.learning.networks import Network, StackedLinear
from experiments.learning.training import Settings, epochs, stack
from experiments.records import Row, RowLog
from experiments.speed import measure as measuring
from experiments.speed.grid import EPOCH, Case, Shape
from experiments.speed.implementations import LOADER, RESIDENT
from experiments.speed.timing import interleave

QUANTILES = {"seconds": 0.5, "p20": 0.2, "p80": 0.8}
LEARNING_RATE = 0.003
SHARES = 4  # an epoch takes longer than a readout


class PyGNetwork(nn.Module):
    """A GIN with a sum readout, of PyG's layers, that has the weights of one of ours."""

    def __init__(self, network: Network, features: int, classes: int, settings: Settings) -> None:
        """Copy the weights; batch norms are new, as ours are."""
        super().__init__()
        width = settings.width
        self.rounds = GIN(features, width, settings.rounds, norm="batch_norm", jk="last")
        self.rounds.lin = nn.Identity()
        self.head = MLP([width, width, classes], norm=None)
        mine = (layer for layer in self.modules() if isinstance(layer, Linear))
        theirs = (layer for layer in network.modules() if isinstance(layer, StackedLinear))
        for own, other in zip(mine, theirs, strict=True):
            own.load_state_dict({name: weight[0] for name, weight in other.state_dict().items()})

    def forward(self, data: Data) -> Tensor:
        """Logits of the graphs of a batch."""
        nodes = self.rounds(data.x, data.edge_index)
        logits: Tensor = self.head(global_add_pool(nodes, data.batch, data.num_graphs))
        return logits


def measure(sets: Sequence[GraphSet], log: RowLog, settings: measuring.Settings) -> list[Row]:
    """Seconds an epoch on each set, on the CPU and on one thread, as `accuracy` trains."""
    rows = []
    for graphs in tracked(sets, "timing epochs") if settings.device == "cpu" else ():
        together = cache(partial(time_epochs, graphs, settings.seed, SHARES * settings.share))
        sizes = tuple(graph.num_nodes for graph in graphs)
        case = Case(Shape(graphs.name, sizes, graphs[0].x.size(1)), EPOCH, ("sum",))
        work = case.work | settings.work | {"threads": 1, "settings": asdict(Settings())}
        for name in (LOADER, RESIDENT):
            fields = {"contender": name, "verdict": measuring.RIGHT}
            rows += log.measure(work | fields, (*QUANTILES, "samples"), partial(one_of, together, name))
    return rows


def one_of(together: Callable[[], Mapping[str, dict[str, float]]], name: str) -> dict[str, float]:
    """The values of one contender of those that are timed together."""
    return together()[name]


def time_epochs(graphs: GraphSet, seed: int, share: float) -> dict[str, dict[str, float]]:
    """Both contenders in turns, `share` seconds and more each; `RuntimeError` where their logits differ."""
    settings = Settings()
    resident = reside(graphs, "gin", settings.rounds)
    ours = stack(resident, "sum", settings, [LEARNING_RATE], seed)
    other = PyGNetwork(ours.network, resident.x.shape[1], graphs.classes, settings)
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
    epochs_a_call = {LOADER: 1, RESIDENT: settings.redraw}
    return {
        name: {metric: sample.quantile(q) / epochs_a_call[name] for metric, q in QUANTILES.items()}
        | {"samples": len(sample.seconds)}
        for name, sample in samples.items()
    }


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
