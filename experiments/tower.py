"""Molecules that a mean or a max readout places on one point, whatever the weights of the network.

Claim: a tower is a set of graphs with the same proportions of node neighbourhoods at every depth, such as the
rings (C2H4O)k from ethylene oxide to the crown ethers. Every message-passing network gives corresponding
nodes the same state. Then mean, max, min and population std have one output, bit for bit, for all graphs of a
tower, and the sum is k times that of the smallest. Random weights are enough to see it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial

import torch
from rich.table import Table
from torch import Tensor
from torch_geometric.data import Batch, Data

from datasets import GraphSet, covers
from datasets.collisions import colours, keys
from experiments import molecules
from experiments.console import table, tracked
from experiments.models import GIN, READOUTS
from experiments.rows import Row, RowLog

METRICS = ("distance", "norm ratio", "deviation")
LAYERS, WIDTH = 4, 32
COPIES = 4
CLASS_NAMES = {"Mutagenicity": ("mutagen", "nonmutagen")}


@dataclass(frozen=True)
class Member:
    """A graph of a tower: what it is called, its class, and how many times the size of the smallest."""

    graph: Data
    name: str
    label: str
    factor: Fraction


@dataclass(frozen=True)
class Tower:
    """Graphs with one mean at every depth, smallest first."""

    data: str
    members: tuple[Member, ...]
    node_names: tuple[str, ...] | None
    artificial: bool = False

    @property
    def name(self) -> str:
        """The family, or the smallest and the largest graph."""
        first, last = self.members[0], self.members[-1]
        return str(first.graph.family) if "family" in first.graph else f"{first.name} to {last.name}"

    def clarity(self) -> tuple[int, int]:
        """Towers of whole multiples, and among them tall ones, make the clearest pictures."""
        whole = sum(member.factor.denominator == 1 for member in self.members)
        return (whole, -self.members[0].graph.num_nodes)


def find_towers(graphs: GraphSet) -> list[Tower]:
    """The towers inside a data set; where there are none, its smallest graph and copies of it."""
    groups = confused_groups(graphs)
    if groups:
        return [build_tower(graphs, group) for group in groups]
    sizes = [graph.num_nodes for graph in graphs]
    smallest = min(range(len(sizes)), key=lambda position: (sizes[position] < 3, sizes[position]))
    (base,) = build_tower(graphs, [smallest]).members
    copies = [
        Member(covers.copies(base.graph, k), f"{k} copies", base.label, Fraction(k))
        for k in range(2, COPIES + 1)
    ]
    return [Tower(graphs.name, (base, *copies), graphs.node_names, artificial=True)]


def confused_groups(graphs: GraphSet) -> list[list[int]]:
    """Groups of graphs of several sizes that have one mean at every depth, found by refining until stable."""
    left, depth = list(range(len(graphs))), 2
    while left:
        *_, before, after = colours([graphs[position] for position in left], depth)
        together = defaultdict(list)
        for position, key in zip(left, keys(after, "mean").tolist(), strict=True):
            together[key].append(position)
        groups = [group for group in together.values() if len({graphs[i].num_nodes for i in group}) > 1]
        if before.colour.max() == after.colour.max():
            return groups
        left, depth = sorted(position for group in groups for position in group), 2 * depth
    return []


def build_tower(graphs: GraphSet, positions: Sequence[int]) -> Tower:
    """Sort the graphs at these positions by size and name them."""
    ordered = sorted(positions, key=lambda position: graphs[position].num_nodes)
    smallest = graphs[ordered[0]].num_nodes
    classes = CLASS_NAMES.get(graphs.name)
    members = []
    for position in ordered:
        graph = graphs[position]
        name = molecules.name(graph, graphs.node_names, position)
        label = classes[int(graph.y)] if classes else ""
        members.append(Member(graph, name, label, Fraction(graph.num_nodes, smallest)))
    return Tower(graphs.name, tuple(members), graphs.node_names)


def measure(towers: Sequence[Tower], log: RowLog, device: str, seeds: Sequence[int]) -> list[Row]:
    """For each seed, readout and member: where a random network places it, seen from the smallest."""
    rows = []
    for tower in tracked(towers, "towers"):
        for seed in seeds:
            outputs = cache(lambda tower=tower, seed=seed: embed(tower, device, seed))
            for readout in READOUTS:
                for position, member in enumerate(tower.members):
                    work = {"data": tower.data, "readout": readout, "seed": seed, "fold": None}
                    work |= {"tower": tower.name, "position": position, "member": member.name}
                    work |= {"nodes": member.graph.num_nodes, "factor": float(member.factor)}
                    work |= {"layers": LAYERS, "width": WIDTH}
                    rows += log.measure(
                        work, METRICS, partial(compare, outputs, readout, position, member.factor)
                    )
    return rows


def embed(tower: Tower, device: str, seed: int) -> dict[str, Tensor]:
    """The output of every readout of one random network, [members, width] each."""
    torch.manual_seed(seed)
    network = GIN(tower.members[0].graph.x.size(1), 1, "sum", WIDTH, LAYERS).to(device).eval()
    batch = Batch.from_data_list(
        [Data(x=member.graph.x, edge_index=member.graph.edge_index) for member in tower.members]
    ).to(device)
    with torch.no_grad():
        nodes = network.nodes(batch)
        return {
            name: make()(nodes, batch.batch, dim_size=batch.num_graphs).double().cpu()
            for name, make in READOUTS.items()
        }


def compare(
    outputs: Callable[[], dict[str, Tensor]], readout: str, position: int, factor: Fraction
) -> dict[str, float]:
    """Distance to the smallest and ratio to it, and how far the output is from `factor` times the smallest.

    Distance and deviation are relative to the smallest's norm; a distance of 0 means equal bits.
    """
    first, output = outputs()[readout][0], outputs()[readout][position]
    norm = first.norm().item() or 1.0
    return {
        "distance": (output - first).norm().item() / norm,
        "norm ratio": output.norm().item() / norm,
        "deviation": (output - float(factor) * first).norm().item() / norm,
    }


def tables(rows: Sequence[Row]) -> list[Table]:
    """One line a graph: the ratio of the sums and the distance of the others, the worst over all seeds."""
    others = [readout for readout in READOUTS if readout != "sum"]
    seeds = len({row["seed"] for row in rows})
    return [
        table(
            f"Towers in {data}: distance to the smallest, in units of its norm ({seeds} random networks)",
            ("graph", "nodes", "k", "sum: ratio", "sum - k first", *others),
            table_lines([row for row in rows if row["data"] == data], others),
            text_columns=1,
        )
        for data in dict.fromkeys(row["data"] for row in rows)
    ]


def table_lines(rows: Sequence[Row], others: Sequence[str]) -> Iterator[list[str]]:
    """From each graph's rows to the cells of its line; an empty line parts the towers."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["tower"], row["position"]].append(row)
    for (_, position), inside in groups.items():
        if position == 0:
            yield []
        yield [
            inside[0]["member"],
            str(inside[0]["nodes"]),
            f"{inside[0]['factor']:.4g}",
            f"{largest(inside, 'sum', 'norm ratio'):.4g}",
            small(largest(inside, "sum", "deviation")),
            *(small(largest(inside, readout, "distance")) for readout in others),
        ]


def chosen(rows: Sequence[Row], readout: str, metric: str) -> list[Row]:
    """The rows of one readout and one metric."""
    return [row for row in rows if row["readout"] == readout and row["metric"] == metric]


def largest(rows: Sequence[Row], readout: str, metric: str) -> float:
    """The largest value of a metric over members and seeds."""
    return float(max(row["value"] for row in chosen(rows, readout, metric)))


def small(value: float) -> str:
    """Exactly 0, or how small."""
    return "0" if value == 0 else f"{value:.0e}"


def remarks(towers: Sequence[Tower]) -> list[str]:
    """What the reader has to know about sets without towers."""
    return [
        f"{tower.data} has no two graphs of different size with one mean at every depth: "
        f"instead, copies of its smallest, {tower.members[0].name}."
        for tower in towers
        if tower.artificial
    ]
