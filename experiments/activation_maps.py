"""Do nitro groups light up in the class activation maps of a network that knows mutagens?

Claim: where a nitro group tells mutagens from other molecules, its atoms carry more than their share of the
positive score. Behind a mean readout and a linear head every atom has a score, and the mean of the scores is
the logit. All maps are of molecules that were held out, and those of an untrained network stand beside them.
Whether a network uses the atoms that its map points at is asked by removing them, or as many at random. It
may come out against the claim: in MUTAG every molecule has a nitro group, which then tells nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import mean

import networkx as nx
import numpy as np
import torch
from rich.table import Table
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.utils import subgraph

from datasets import GraphSet
from datasets.splits import Split, stratified_folds
from experiments import figures
from experiments.console import UserError, share, table, tracked
from experiments.models import GIN
from experiments.rows import Row, RowLog, pick
from readouts.attribution import class_activation, drawing, picture
from readouts.attribution.sketch import Sketch

MUTAGENS = {"MUTAG": 1, "Mutagenicity": 0}
BOND_ORDERS = {"MUTAG": (1.5, 1.0, 2.0, 3.0), "Mutagenicity": (1.0, 2.0, 3.0)}
COUNTS = ("mutagens with", "others with", "mutagens without", "others without")
LEARNED = ("train accuracy", "accuracy", "majority", "size only")
MAPPED = ("atoms", "score", "ranked", "fused atoms", "fused score", "drop top", "drop nitro", "drop random")
READOUT, LAYERS, WIDTH = "mean", 2, 32
LEARNING_RATE, BATCH_SIZE = 0.005, 64
DRAWS, DRAWN = 10, 4
NEARLY_ALL = 0.9
CELL, LEFT, BAR, LONGEST_BOND = (1.72, 1.75), 1.3, 0.85, 0.3  # inches


@dataclass(frozen=True)
class Task:
    """Molecules with y = 1 for mutagens; which atoms are in nitro groups, and which where rings are fused."""

    graphs: GraphSet
    molecules: tuple[Data, ...]
    nitro: tuple[Tensor, ...]
    fused: tuple[Tensor, ...]


def choose(graphs: GraphSet) -> Task:
    """Prepare a set of which it is known what its classes and atoms are."""
    if graphs.name not in MUTAGENS or graphs.node_names is None:
        raise UserError(f"--data: expected {' or '.join(MUTAGENS)}, sets of mutagens, got {graphs.name}.")
    mutagens = [(graph.y == MUTAGENS[graphs.name]).float() for graph in graphs]
    return Task(
        graphs,
        tuple(
            Data(x=graph.x, edge_index=graph.edge_index, y=y)
            for graph, y in zip(graphs, mutagens, strict=True)
        ),
        tuple(nitro_atoms(graph, graphs.node_names) for graph in graphs),
        tuple(fused_atoms(graph) for graph in graphs),
    )


def nitro_atoms(graph: Data, node_names: Sequence[str]) -> Tensor:
    """Which atoms are a nitrogen with two oxygens that have no other neighbour, or one of these: bool [n]."""
    element = np.array(node_names)[graph.node_label]
    first, second = graph.edge_index
    degree = torch.bincount(first, minlength=graph.num_nodes)
    tips = torch.from_numpy(element == "O") & (degree == 1)
    arms = torch.from_numpy(element == "N")[first] & tips[second]
    centres = torch.bincount(first[arms], minlength=graph.num_nodes) == 2
    result = centres.clone()
    result[second[arms & centres[first]]] = True
    return result


def fused_atoms(graph: Data) -> Tensor:
    """Which atoms have three or more bonds in rings, as where two rings are fused: bool [n]."""
    skeleton = nx.Graph(graph.edge_index.T.tolist())
    skeleton.remove_edges_from(list(nx.bridges(skeleton)))
    result = torch.zeros(graph.num_nodes, dtype=torch.bool)
    result[[atom for atom, degree in skeleton.degree if degree >= 3]] = True
    return result


def measure(
    sets: Sequence[GraphSet], log: RowLog, device: str, seed: int, folds: int, steps: int
) -> list[Row]:
    """Who has nitro groups; for each fold what was learned and where the score is; some maps of the first."""
    if not sets:
        raise UserError(f"--data: expected {' or '.join(MUTAGENS)}, sets of mutagens, got none.")
    rows = []
    for task in [choose(graphs) for graphs in sets]:
        work = {"data": task.graphs.name, "readout": READOUT, "seed": seed}
        rows += log.measure({**work, "fold": None}, COUNTS, partial(count, task))
        work |= {"folds": folds, "layers": LAYERS, "width": WIDTH, "draws": DRAWS}
        work |= {"batch size": BATCH_SIZE, "learning rate": LEARNING_RATE}
        splits = stratified_folds(task.graphs, folds, validation=0.0, seed=seed).splits
        for fold, split in tracked(list(enumerate(splits)), f"training on {task.graphs.name}"):
            for length in (steps, 0):
                learn = cache(partial(train, task, split, device, seed + fold, length))
                here = {**work, "fold": fold, "steps": length}
                rows += log.measure(here, (*LEARNED, *MAPPED), partial(judge, task, split, learn, seed))
                for position in drawn(task, split) if fold == 0 and length else []:
                    metrics = [f"atom {atom}" for atom in range(task.molecules[position].num_nodes)]
                    compute = partial(one_map, task, position, learn)
                    rows += log.measure({**here, "molecule": position}, metrics, compute)
    return rows


def count(task: Task) -> dict[str, int]:
    """How many mutagens and others have a nitro group, and have none."""
    kinds = [(float(m.y), bool(nitro.any())) for m, nitro in zip(task.molecules, task.nitro, strict=True)]
    order = ((1.0, True), (0.0, True), (1.0, False), (0.0, False))
    return dict(zip(COUNTS, map(kinds.count, order), strict=True))


def train(task: Task, split: Split, device: str, seed: int, steps: int) -> GIN:
    """Train a network to score mutagens above 0; without steps it stays as it was drawn."""
    torch.manual_seed(seed)
    network = GIN(task.molecules[0].x.size(1), 1, READOUT, WIDTH, LAYERS).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    order: list[int] = []
    for _ in range(steps):
        if not order:
            order = torch.randperm(len(split.train)).tolist()
        picked, order = order[:BATCH_SIZE], order[BATCH_SIZE:]
        batch = Batch.from_data_list([task.molecules[split.train[i]] for i in picked]).to(device)
        optimiser.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(network(batch)[:, 0], batch.y).backward()
        optimiser.step()
    return network.eval()


def judge(task: Task, split: Split, learn: Callable[[], GIN], seed: int) -> dict[str, float]:
    """What was learned, and where the maps of held-out molecules with nitro groups have their score."""
    network = learn()
    sides = [[task.molecules[position] for position in side] for side in (split.train, split.test)]
    right = [((logits(network, side) > 0) == torch.cat([m.y for m in side]).bool()) for side in sides]
    mutagens = mean(float(molecule.y) for molecule in sides[1])
    values = [*(side.double().mean().item() for side in right), max(mutagens, 1 - mutagens)]
    values += [size_only(*sides)]
    held_out = [position for position in split.test if task.nitro[position].any()]
    molecules, nitro = [task.molecules[i] for i in held_out], [task.nitro[i] for i in held_out]
    maps = activation_maps(network, molecules)
    values += shares(torch.cat(maps), torch.cat(nitro))
    values += [mean(ranked(scores, group) for scores, group in zip(maps, nitro, strict=True))]
    values += shares(torch.cat(maps), torch.cat([task.fused[i] for i in held_out]))
    values += drops(network, molecules, maps, nitro, seed)
    return dict(zip((*LEARNED, *MAPPED), values, strict=True))


def shares(scores: Tensor, group: Tensor) -> tuple[float, float]:
    """The share of atoms that are in a group, and the share of the positive score that these carry."""
    positive = scores.double().clamp(min=0)
    total = positive.sum().item()
    return group.double().mean().item(), positive[group].sum().item() / total if total else 0.0


def size_only(train: Sequence[Data], test: Sequence[Data]) -> float:
    """The held-out accuracy of the one threshold on the number of atoms that is best in training."""

    def accuracies(molecules: Sequence[Data], threshold: Tensor) -> Tensor:
        sizes = torch.tensor([m.num_nodes for m in molecules])
        right = (sizes > threshold.unsqueeze(1)) == torch.cat([m.y for m in molecules]).bool()
        share_right = right.double().mean(dim=1)
        return torch.stack([share_right, 1 - share_right])  # mutagens are the larger, or the smaller

    thresholds = torch.tensor([m.num_nodes + 0.5 for m in train]).unique()
    best = accuracies(train, thresholds).argmax()
    return accuracies(test, thresholds).flatten()[best].item()


def logits(network: GIN, molecules: Sequence[Data]) -> Tensor:
    """The logit of every molecule [B], on the CPU."""
    with torch.no_grad():
        return network(Batch.from_data_list(list(molecules)).to(network.head.weight.device))[:, 0].cpu()


def activation_maps(network: GIN, molecules: Sequence[Data]) -> list[Tensor]:
    """The scores of the atoms of every molecule [n], which have the logit as their mean; on the CPU."""
    batch = Batch.from_data_list(list(molecules)).to(network.head.weight.device)
    with torch.no_grad():
        scores = class_activation(network.head, network.nodes(batch), batch.batch, READOUT, target=0)
    return list(scores.cpu().split([molecule.num_nodes for molecule in molecules]))


def ranked(scores: Tensor, group: Tensor) -> float:
    """How often an atom of the group scores above one outside it; equal scores count one half."""
    above = scores[group].unsqueeze(1) - scores[~group]
    return ((above > 0).double() + 0.5 * (above == 0).double()).mean().item()


def drops(
    network: GIN, molecules: Sequence[Data], maps: Sequence[Tensor], nitro: Sequence[Tensor], seed: int
) -> tuple[float, float, float]:
    """How far the logit falls, on average, without the k best scored atoms, the k of NO2, k at random."""
    generator = torch.Generator().manual_seed(seed)
    rests = []
    for molecule, scores, group in zip(molecules, maps, nitro, strict=True):
        k = int(group.sum())
        rests += [without(molecule, scores.argsort(descending=True, stable=True)[:k])]
        rests += [without(molecule, group.nonzero().flatten())]
        shuffles = (torch.randperm(len(group), generator=generator) for _ in range(DRAWS))
        rests += [without(molecule, shuffle[:k]) for shuffle in shuffles]
    fallen = logits(network, molecules).double().unsqueeze(1) - logits(network, rests).view(-1, 2 + DRAWS)
    top, group_drop, *at_random = fallen.mean(dim=0).tolist()
    return top, group_drop, mean(at_random)


def without(molecule: Data, atoms: Tensor) -> Data:
    """The molecule with these atoms and their bonds removed."""
    kept = torch.ones(molecule.num_nodes, dtype=torch.bool)
    kept[atoms] = False
    edge_index, _ = subgraph(kept, molecule.edge_index, relabel_nodes=True)
    return Data(x=molecule.x[kept], edge_index=edge_index)


def drawn(task: Task, split: Split) -> list[int]:
    """The molecules to draw: held out, with a nitro group, evenly spaced in the order of the set."""
    held_out = [position for position in split.test if task.nitro[position].any()]
    places = np.linspace(0, len(held_out) - 1, min(DRAWN, len(held_out))).round().astype(int)
    return [held_out[place] for place in places]


def one_map(task: Task, position: int, learn: Callable[[], GIN]) -> dict[str, float]:
    """The score of every atom of one molecule."""
    (scores,) = activation_maps(learn(), [task.molecules[position]])
    return {f"atom {atom}": score for atom, score in enumerate(scores.tolist())}


def tables(rows: Sequence[Row]) -> list[Table]:
    """What was learned, and where the maps have their score: averages over the folds."""
    learned = ("set", "held out", "size only", "majority", "in training", "with NO2", "without")
    mapped = ("set", "network", "NO2", "score", "ranked", "fused", "score", "top", "NO2", "random")
    return [
        table(
            "Networks that know mutagens: accuracy; mutagens among molecules with NO2, and without",
            learned,
            learned_lines(rows),
        ),
        table(
            "NO2, where rings fuse: share of atoms, of positive score; fall of logit without atoms",
            mapped,
            mapped_lines(rows),
            text_columns=2,
        ),
    ]


def learned_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line a set."""
    for data in names(rows):
        with_, others_with, without_, others_without = (pick(rows, data=data, metric=name) for name in COUNTS)
        order = ("accuracy", "size only", "majority", "train accuracy")
        accuracies = [mean(per_fold(rows, data, name)) for name in order]
        yield [
            data,
            *(share(accuracy) for accuracy in accuracies),
            f"{with_}/{with_ + others_with}",
            f"{without_}/{without_ + others_without}",
        ]


def mapped_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set and network."""
    for data in names(rows):
        for trained in (True, False):
            values = [mean(per_fold(rows, data, name, trained)) for name in MAPPED]
            yield [
                data,
                "trained" if trained else "untrained",
                *(share(value) for value in values[:-3]),
                *(f"{value:.2f}" for value in values[-3:]),
            ]


def names(rows: Sequence[Row]) -> list[str]:
    """The sets, in the order of the rows."""
    return list(dict.fromkeys(row["data"] for row in rows))


def per_fold(rows: Sequence[Row], data: str, metric: str, trained: bool = True) -> list[float]:
    """The values of one metric, one a fold."""
    return [
        row["value"]
        for row in rows
        if (row["data"], row["metric"], row.get("steps", 0) > 0) == (data, metric, trained)
    ]


def verdicts(rows: Sequence[Row]) -> Iterator[str]:
    """What the rows of each set amount to."""
    for data in names(rows):
        atoms, score, top, at_random = (
            per_fold(rows, data, name) for name in ("atoms", "score", "drop top", "drop random")
        )
        more = [s > a for s, a in zip(score, atoms, strict=True)]
        yield (
            f"{data}: nitro groups {lit(more)}: they are {share(mean(atoms))} of the atoms and carry "
            f"{share(mean(score))} of the positive score, more than their share in {sum(more)} of "
            f"{len(more)} folds."
        )
        fused_atoms, fused_score = (
            mean(per_fold(rows, data, name)) for name in ("fused atoms", "fused score")
        )
        yield (
            f"{data}: atoms where rings are fused are {share(fused_atoms)} of the atoms and carry "
            f"{share(fused_score)} of the positive score."
        )
        if not any(pick(rows, data=data, metric=name) for name in COUNTS[2:]):
            yield f"{data}: every molecule has a nitro group, so that it cannot tell the classes apart."
        lower = [t > r for t, r in zip(top, at_random, strict=True)]
        yield (
            f"{data}: without its best scored atoms a molecule's logit falls by {mean(top):.2f}, without as "
            f"many at random by {mean(at_random):.2f}; further in {sum(lower)} of {len(lower)} folds."
        )


def lit(more: Sequence[bool]) -> str:
    """Whether nitro groups light up, from the folds in which they carry more than their share."""
    if mean(more) >= NEARLY_ALL:
        return "light up"
    return "do not light up" if mean(more) <= 1 - NEARLY_ALL else "light up in some folds only"


def figure(rows: Sequence[Row], sets: Sequence[GraphSet], out: Path) -> list[Path]:
    """Held-out molecules with their maps, a row a set, each with its own scale."""
    width, height = LEFT + DRAWN * CELL[0] + BAR, CELL[1] * len(sets)
    drawing_paper, axes = figures.sheet(width, height)
    for line, graphs in enumerate(sets):
        middle = height - CELL[1] * (line + 0.5)
        found = maps_of(rows, graphs.name)
        limit = max(abs(score) for scores in found.values() for score in scores)
        sketches = [skeletal(graphs, position, scores) for position, scores in found.items()]
        for column, sketch in enumerate(sketches):
            bond = min(
                0.3, *((side - 0.28) / extent for side, extent in zip(CELL, sketch.extent, strict=True))
            )
            picture.paint(axes, sketch, limit, (LEFT + CELL[0] * (column + 0.5), middle), bond)
        picture.colour_bar(drawing_paper, limit, "score", (width - BAR + 0.1, middle - 0.55), 1.1)
        atoms, score = (mean(per_fold(rows, graphs.name, name)) for name in ("atoms", "score"))
        note = f"NO$_2$ is {atoms:.0%}\nof the atoms and\ncarries {score:.0%} of\nthe positive score"
        axes.text(0.1, middle + 0.42, graphs.name, fontsize=11, fontweight="bold", va="center")
        axes.text(0.1, middle - 0.12, note, fontsize=9, va="center", color=figures.GREY)
    return figures.save(drawing_paper, out, "activation")


def maps_of(rows: Sequence[Row], data: str) -> dict[int, list[float]]:
    """The maps in the rows of a set: molecule to the scores of its atoms."""
    result: dict[int, list[float]] = {}
    for row in rows:
        if row["data"] == data and "molecule" in row:
            result.setdefault(row["molecule"], []).append(row["value"])
    return result


def skeletal(graphs: GraphSet, position: int, scores: Sequence[float]) -> Sketch:
    """The sketch of one molecule of a set."""
    graph, elements = graphs[position], graphs.node_names or ()
    return drawing.sketch(
        graph,
        torch.tensor(scores, dtype=torch.float64),
        symbols=[elements[label] for label in graph.node_label],
        bonds=torch.tensor(BOND_ORDERS[graphs.name])[graph.edge_label],
    )
