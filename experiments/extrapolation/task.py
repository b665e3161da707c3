"""Which graphs are learned from and which are asked about: the smallest, and larger ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch_geometric.data import Data

from datasets import GraphSet, rings
from datasets.splits import balanced, size_split
from experiments.console import UserError

TRAIN, HOLD_OUT, BETWEEN, LARGE, BALANCED = "train", "hold-out", "between", "large", "large, balanced"
SMALLEST, LARGEST, HELD_OUT = 0.5, 0.1, 0.2
SAMPLE, LONGEST, NOISE, TIMES = 200, 80, 0.2, 2

Parts = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Task:
    """A set, and for every seed the positions of its graphs in each part.

    *Train* and *hold-out* are the smaller half, *large* the largest tenth and *between* all others; *large,
    balanced* has equally many graphs of every class, and is empty where a class has none.
    """

    graphs: GraphSet
    parts: Mapping[int, Parts]
    note: str = ""

    @property
    def sentence(self) -> str:
        """Sizes and classes of what is learned from and of what is asked about."""
        parts = next(iter(self.parts.values()))
        small, large = (self._described(part) for part in (parts[TRAIN] + parts[HOLD_OUT], parts[LARGE]))
        return f"{self.graphs.name}: learned from {small}, asked about {large}{self.note}."

    def _described(self, part: tuple[int, ...]) -> str:
        sizes = [self.graphs[position].num_nodes for position in part]
        counts = np.bincount([int(self.graphs[one].y) for one in part], minlength=self.graphs.classes)
        classes = " + ".join(map(str, counts))
        return f"{len(part)} graphs ({classes} by class) of {min(sizes)} to {max(sizes)} nodes"

    def held_out(self, seed: int) -> list[Data]:
        """At most `SAMPLE` graphs of middle size, which no network has seen."""
        order = np.random.default_rng(seed).permutation(self.parts[seed][BETWEEN])[:SAMPLE]
        return [
            Data(x=graph.x, edge_index=graph.edge_index, y=graph.y)
            for graph in (self.graphs[position] for position in sorted(order.tolist()))
        ]


def choose(graphs: GraphSet, seed: int, seeds: int) -> Task:
    """Cut a set by size, once for each seed; the embedded rings give way to `longer_rings`."""
    note = ""
    if all("family" in graph for graph in graphs):
        graphs = longer_rings(graphs.name)
        note = "; classes are families of rings, known or not, all there twice, a fifth with random labels"
    if len({int(graph.y) for graph in graphs}) < 2:
        raise UserError(f"{graphs.name}: all {len(graphs)} graphs are of one class; extrapolation needs two.")
    return Task(graphs, {one: cut(graphs, one) for one in range(seed, seed + seeds)}, note)


def longer_rings(name: str) -> GraphSet:
    """Rings of up to `LONGEST` atoms, known or not, each `TIMES` times, with the family as class.

    The class of the embedded rings is their size, of which nobody can learn the large ones from the small.
    A share `NOISE` of the labels is drawn at random, so that nobody can be right, and sure, all the time, and
    rings come more than once, so that a hold-out tells so.
    """
    made = [
        rings.ring(family, units)
        for _ in range(TIMES)
        for family, kind in rings.FAMILIES.items()
        for units in range(min(kind.members), LONGEST, 2 if kind.alternating else 1)
    ]
    families = list(rings.FAMILIES)
    graphs = [graph for graph in made if graph.num_nodes <= LONGEST]
    random = np.random.default_rng(0)
    for graph in graphs:
        noisy = random.random() < NOISE
        graph.y = torch.tensor([random.integers(len(families)) if noisy else families.index(graph.family)])
    return GraphSet(name, tuple(graphs), len(families), rings.NODE_NAMES)


def cut(graphs: GraphSet, seed: int) -> Parts:
    """The parts of a set; of the small graphs, a stratified share is held out."""
    share = max(HELD_OUT, graphs.classes / max(1, int(SMALLEST * len(graphs))))
    try:
        (split,) = size_split(graphs, SMALLEST, LARGEST, share, seed).splits
    except ValueError as problem:
        raise UserError(f"extrapolation: {problem}.") from problem
    if len({int(graphs[position].y) for position in split.train}) < 2:
        raise UserError(
            f"{graphs.name}: the smaller half of the graphs is all of one class; extrapolation needs two."
        )
    rest = set(range(len(graphs))).difference(split.train, split.validation, split.test)
    return {
        TRAIN: split.train,
        HOLD_OUT: split.validation,
        BETWEEN: tuple(sorted(rest)),
        LARGE: split.test,
        BALANCED: balanced(graphs, split.test, seed),
    }
