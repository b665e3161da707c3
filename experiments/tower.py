"""Molecules that a mean or a max readout places on one point, whatever the weights of the network.

A tower is a set of graphs with the same proportions of node neighbourhoods at every depth. The picture:
molecules in a row, and beneath them where each readout places them.
"""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch_geometric.data import Data

from datasets import GraphSet, covers
from datasets.collisions import colours, keys
from experiments import figures, molecules
from experiments.console import Table, table, tiny
from experiments.experiment import Experiment, Finding
from experiments.jobs import Job, carry_out
from experiments.learning.networks import Network
from experiments.options import number
from experiments.records import Row, RowLog, average, present, values
from experiments.trained import together
from readouts import readout as pool

METRICS = ("distance", "norm ratio", "deviation")
READOUTS = ("sum", "mean", "max", "min", "std")
ROUNDS, WIDTH = 4, 32
COPIES = 4
ROUNDING = 1e-6
CLASS_NAMES = {"Mutagenicity": ("mutagen", "nonmutagen")}


@dataclass(frozen=True)
class Member:
    """A graph of a tower: what it is called, its class, and how many times the size of the smallest."""

    graph: Data
    name: str
    label: str
    factor: Fraction

    @property
    def facts(self) -> Row:
        """What its rows say of it."""
        return {"member": self.name, "nodes": self.graph.num_nodes, "factor": float(self.factor)}


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
    numbers = range(2, COPIES + 1)
    copies = [Member(covers.copies(base.graph, k), f"{k} copies", base.label, Fraction(k)) for k in numbers]
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


def measure(tasks: Sequence[Sequence[Tower]], log: RowLog, device: str, seed: int, seeds: int) -> list[Row]:
    """For each tower and seed: where a random network places every member, seen from the smallest."""
    jobs = []
    for tower in (tower for towers in tasks for tower in towers):
        for drawn in range(seed, seed + seeds):
            work = {"data": tower.data, "seed": drawn, "fold": None, "tower": tower.name}
            work |= {"artificial": tower.artificial, "rounds": ROUNDS, "width": WIDTH}
            members = product(READOUTS, enumerate(tower.members))
            rows = [
                (work | {"readout": of, "position": at} | one.facts, METRICS) for of, (at, one) in members
            ]
            jobs.append(Job(rows, partial(compare, tower, device, drawn)))
    return carry_out(jobs, log, "towers")


def compare(tower: Tower, device: str, seed: int) -> list[dict[str, float]]:
    """For every readout and member: distance to the smallest, ratio to it, deviation from its multiple.

    Distance and deviation are relative to the smallest's norm; a distance of 0 means equal bits.
    """
    torch.manual_seed(seed)
    graphs: list[Data] = [member.graph for member in tower.members]
    network = Network("gin", "sum", graphs[0].x.size(1), 1, WIDTH, ROUNDS).to(device).eval()
    batch = together(graphs, ROUNDS, device)
    with torch.no_grad():
        nodes = network.nodes(batch)
    found = []
    for readout in READOUTS:
        outputs = pool(nodes, batch.graphs, readout).double().cpu()
        norm = outputs[0].norm().item() or 1.0
        for output, member in zip(outputs, tower.members, strict=True):
            apart = output - outputs[0], output, output - float(member.factor) * outputs[0]
            values = (difference.norm().item() / norm for difference in apart)
            found.append(dict(zip(METRICS, values, strict=True)))
    return found


def tables(rows: Sequence[Row]) -> list[Table]:
    """One line a graph: the ratio of the sums and the distance of the others, the worst over all seeds."""
    columns = ("graph", "nodes", "k", "sum: ratio", "sum - k first", *READOUTS[1:])
    seeds = len(present(rows, "seed"))
    title = f"Towers in {{}}: distance to the smallest, in units of its norm ({seeds} random networks)"
    return [table(title.format(data), columns, table_lines(rows, data)) for data in present(rows, "data")]


def table_lines(rows: Sequence[Row], data: str) -> Iterator[list[str]]:
    """A line for each graph; a rule before each tower."""
    for (of, _), found in grouped(rows).items():
        for position in present(found, "position") if of == data else ():
            of_graph = [row for row in found if row["position"] == position]
            (name,), (nodes,), (factor,) = (present(of_graph, fact) for fact in ("member", "nodes", "factor"))
            ratio, off = (largest(of_graph, "sum", metric) for metric in ("norm ratio", "deviation"))
            apart = (tiny(largest(of_graph, readout, "distance")) for readout in READOUTS[1:])
            yield from ([[]] if position == 0 else [])
            yield [name, str(nodes), f"{factor:.4g}", f"{ratio:.4g}", tiny(off), *apart]


def chosen(rows: Sequence[Row], readout: str, metric: str) -> list[Row]:
    """The rows of one readout and one metric."""
    return [row for row in rows if row["readout"] == readout and row["metric"] == metric]


def largest(rows: Sequence[Row], readout: str, metric: str) -> float:
    """The largest value of a metric over members and seeds."""
    return float(max(values(rows, readout=readout, metric=metric)))


def remarks(tasks: Sequence[Sequence[Tower]], rows: Sequence[Row]) -> list[str]:
    """What the reader has to know about sets without towers."""
    artificial = (tower for towers in tasks for tower in towers if tower.artificial)
    return [
        f"{tower.data} has no two graphs of different size with one mean at every depth: "
        f"instead, copies of its smallest, {tower.members[0].name}."
        for tower in artificial
    ]


DRAWN = 6
GLOSSES = {"sum": "counts the units", "mean": "sees proportions", "max": "sees which are there"}
SHADES = ("#1b2a6b", "#2a5fa5", "#2e93a8", "#4db38a", "#a3c95b", "#f0d03c")
NOTE = "the same atoms\nand neighbours, in\nequal proportions\n(H not drawn)"
LEFT, RIGHT, HEIGHT = 1.3, 7.95, 4.0
LINE, TALLEST, LONGEST_BOND = 0.19, 1.15, 0.34
MOLECULES, NAMES, ROWS = 3.36, 2.6, (1.8, 1.1, 0.42)


def figure(rows: Sequence[Row], out: Path, tasks: Sequence[Sequence[Tower]]) -> list[Path]:
    """One picture a set, of its clearest tower: `tower.png`, or `tower-SET.png` if there are several sets."""
    towers = [tower for found in tasks for tower in found]
    names = list(dict.fromkeys(tower.data for tower in towers))
    paths = []
    for data in names:
        clearest = max((tower for tower in towers if tower.data == data), key=Tower.clarity)
        inside = [row for row in rows if row["data"] == data and row["tower"] == clearest.name]
        paths += figures.save(picture(inside, clearest), out, "tower" if len(names) == 1 else f"tower-{data}")
    return paths


def picture(rows: Sequence[Row], tower: Tower) -> Figure:
    """One graph of each size in a row, and beneath them where sum, mean and max place them."""
    by_size = {member.factor: position for position, member in reversed(list(enumerate(tower.members)))}
    positions = sorted(by_size.values())[:DRAWN]
    members = [tower.members[position] for position in positions]
    columns = column_places([float(member.factor) for member in members])
    figure, axes = figures.sheet(8, HEIGHT)
    draw_molecules(axes, members, columns, tower.node_names)
    for height, (readout, gloss) in zip(ROWS, GLOSSES.items(), strict=True):
        axes.text(0.15, height + 0.06, readout, fontsize=14, fontweight="bold", va="center")
        axes.text(0.15, height - 0.17, gloss, fontsize=8.5, va="center", color=figures.GREY)
        axes.plot([LEFT, RIGHT], [height, height], color=figures.PALE, linewidth=1.5, zorder=1)
        at = partial(average, rows, readout=readout, metric="norm ratio")
        ratios = [at(position=position) for position in positions]
        if largest(rows, readout, "distance") == 0:
            draw_one_point(axes, columns, height)
        else:
            places = np.interp(ratios, [float(member.factor) for member in members], columns)
            draw_points(axes, places.tolist(), ratios, height)
    return figure


def column_places(factors: Sequence[float]) -> list[float]:
    """Where columns stand: to scale where they fit, else side by side."""
    to_scale = factors[-1] <= 8 and min(after - before for before, after in pairwise(factors)) >= 1
    steps = [factor - 1 for factor in factors] if to_scale else list(range(len(factors)))
    pitch = (RIGHT - LEFT) / (steps[-1] + 1)
    return [LEFT + pitch * (step + 0.5) for step in steps]


def draw_molecules(
    axes: Axes, members: Sequence[Member], columns: Sequence[float], node_names: Sequence[str] | None
) -> None:
    """Structures at one scale, with names and classes beneath; the class of the smallest stands out."""
    sketches = [molecules.sketch(member.graph, node_names) for member in members]
    room = min(min(after - before for before, after in pairwise(columns)) - 0.2, TALLEST)
    bond = min(LONGEST_BOND, room / max(sketch.extent for sketch in sketches))
    for member, sketch, column in zip(members, sketches, columns, strict=True):
        sketch.draw(axes, (column, MOLECULES), bond)
        lines = textwrap.wrap(member.name, 13)
        for place, line in enumerate(lines):
            axes.text(column, NAMES - LINE * place, line, ha="center", va="center", fontsize=9.5)
        same = member.label == members[0].label
        look: dict[str, Any] = {
            "color": figures.COLOURS["mean"] if same else figures.GREY,
            "weight": "bold" if same else "normal",
        }
        height = NAMES - LINE * len(lines)
        axes.text(column, height, member.label, ha="center", va="center", fontsize=9, **look)
    axes.text(0.15, MOLECULES, NOTE, fontsize=8.5, va="center", color=figures.GREY, linespacing=1.5)


def draw_points(axes: Axes, places: Sequence[float], ratios: Sequence[float], height: float) -> None:
    """A dot for each molecule, with how many times the smallest it is."""
    for place, ratio, colour in zip(places, ratios, SHADES, strict=False):
        axes.plot(place, height, "o", markersize=13, color=colour, zorder=3)
        axes.text(place, height - 0.24, f"×{ratio:.4g}", ha="center", va="center", fontsize=9.5)


def draw_one_point(axes: Axes, columns: Sequence[float], height: float) -> None:
    """All molecules on one point: rings of all colours around it, and empty places where they are not."""
    for column in columns[1:]:
        axes.plot(column, height, "o", markersize=11, mfc="white", mec=figures.PALE, mew=1.2, zorder=2)
    for step, colour in reversed(list(enumerate(SHADES[: len(columns)]))):
        axes.plot(columns[0], height, "o", markersize=10 + 3.2 * step, color=colour, zorder=9 - step)
    label = f"all {len(columns)} on this one point, bit for bit"
    axes.text(columns[0] + 0.35, height - 0.24, label, va="center", fontsize=9.5)


def grouped(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """The rows of each tower, by its set and name."""
    result = defaultdict(list)
    for row in rows:
        result[row["data"], row["tower"]].append(row)
    return result


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """All readouts but the sum have one output, bit for bit, and the sum is its multiple of the first."""
    for (data, name), found in grouped(rows).items():
        others = [readout for readout in present(found, "readout") if readout != "sum"]
        apart = [readout for readout in others if largest(found, readout, "distance")]
        together = [readout for readout in others if readout not in apart]
        count = len(present(found, "position"))
        said = f"{listed(together)} place all {count} graphs on one point, bit for bit" if together else ""
        against = f"{listed(apart)} {'does' if len(apart) == 1 else 'do'} not" if apart else ""
        factor = max(row["factor"] for row in found)
        off = max(float(row["value"] / row["factor"]) for row in chosen(found, "sum", "deviation"))
        sums = f"the sums go up to {factor:.4g} times the first, off by {tiny(off)} of that at most"
        parts = "; ".join(filter(None, (said, against, sums)))
        case = f"{data}, {name}{' (artificial)' if is_artificial(found) else ''}"
        yield Finding(case, not apart and off <= ROUNDING, parts, "check")


def numbers(rows: Sequence[Row]) -> str:
    """The worst distance, the largest multiple, and how many towers are of graphs of the set."""
    apart = max(row["value"] for row in rows if row["metric"] == "distance" and row["readout"] != "sum")
    factor = max(row["factor"] for row in rows)
    found = [is_artificial(of) for of in grouped(rows).values()]
    return (
        f"means and maxima at most {tiny(apart)} apart, sums up to {factor:.4g} times the first; towers of "
        f"graphs of the set: {found.count(False)}, of artificial copies: {found.count(True)}"
    )


def is_artificial(rows: Sequence[Row]) -> bool:
    """Whether a tower is made of copies of a graph."""
    return any(row.get("artificial") for row in rows)


def listed(names: Sequence[str]) -> str:
    """A, B and C."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


EXPERIMENT = Experiment(
    name="tower",
    title="Towers",
    question="Which vectors do random networks return for molecules with identical neighbourhoods?",
    claim="""A network with a mean or max readout places a molecule and those that cover it on one point, to
    the bit""",
    theory="""Molecules that share all neighbourhoods at every depth, such as the rings (C₂H₄O)ₖ from ethylene
    oxide to the crown ethers, have one mean, max, min and standard deviation, whatever the weights. The sum
    is k times that of the smallest. That is a theorem, and this is its check.""",
    setup="""Groups of graphs of different size with one mean at every depth, found by refining colours until
    they are stable; where a set has none, its smallest graph and copies of it. Random networks of four rounds
    and width 32, several seeds; the worst over seeds is shown.""",
    source="""Coverings and message passing: [Bamberger 2022](https://arxiv.org/abs/2206.11876); exact sums,
    so that *one* means the same bits: `docs/exactness.md`.""",
    caveats=(
        """Random weights show that no training can help; how much a trained network loses by it is another
        question.""",
        """The network's linear layers treat every row alike to the bit. Those of PyTorch do not quite, and
        would tell the molecules apart by noise.""",
    ),
    alt="""Molecules of one tower in a row; beneath them the sum readout places each at its own multiple of
    the first, and mean and max readouts place all on one point.""",
    caption="""The clearest tower of the set, and where a random network with each readout places its
    molecules.""",
    prepare=find_towers,
    measure=measure,
    parallel=True,
    tables=tables,
    findings=findings,
    numbers=numbers,
    figure=figure,
    notes=remarks,
    options={"seeds": number(3, 1, "How many random networks.")},
)
