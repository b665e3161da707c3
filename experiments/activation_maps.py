"""Maps of what each atom gave to the score of a mutagen, and what they are worth.

Aromatic NO2 and NH2 are among the groups that make a mutagen (Kazius et al., J. Med. Chem. 48, 312, 2005,
the source of Mutagenicity), and Luo et al. (arXiv 2011.04573) take the two as what explanations should find.

The map of a molecule of n atoms has one score an atom, and the mean of the scores is the logit. After a
mean that is the class activation map of Zhou et al. (arXiv 1512.04150), w x_i + b. After a max it is
n w p_i + b, where p_i is what atom i gave to the max: the channels that it won, shared with those that tie.

Deletion removes the atoms of a molecule one after the other, those that speak most for the predicted class
first, and asks how soon the network's probability of that class falls; insertion begins without atoms and
puts them back in the same order (Petsiuk et al., RISE, arXiv 1806.07421). An atom takes its bonds along.
What is inserted in one order is what is left when the reverse order is deleted, so three kinds of deletion
give all curves: best first, worst first, and at random.

All maps are of molecules that were held out, and those of untrained networks stand beside them. What is drawn
comes from the first fold and does not depend on the maps. A statement holds where it does in nine of ten
folds or more, does not where it does in one of ten or fewer, and else is undecided. The two readouts are
compared fold by fold, and differ where p is below .05.
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
from matplotlib.axes import Axes
from rdkit import Chem
from scipy.integrate import trapezoid
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.utils import subgraph

from datasets import GraphSet
from datasets.splits import Split, stratified_folds
from experiments import figures
from experiments.console import Table, UserError, share, table, tracked
from experiments.experiment import Drawing, Experiment, Finding
from experiments.models import GIN
from experiments.options import Folds, Option, number
from experiments.records import Row, RowLog, pick, present
from experiments.statistics import LEVEL, interval
from readouts.attribution import class_activation, contributions
from readouts.attribution import molecule as drawing
from readouts.attribution.drawing import Array, bond_orders, colour_bar, colour_scale

MUTAGENS = {"MUTAG": 1, "Mutagenicity": 0}
BOND_ORDERS = {"MUTAG": (1.5, 1.0, 2.0, 3.0), "Mutagenicity": (1.0, 2.0, 3.0)}


@dataclass(frozen=True)
class Task:
    """Molecules with y = 1 for mutagens; which atoms are in NO2, in NH2, and where rings are fused."""

    graphs: GraphSet
    molecules: tuple[Data, ...]
    nitro: tuple[Tensor, ...]
    amino: tuple[Tensor, ...]
    fused: tuple[Tensor, ...]


def choose(graphs: GraphSet) -> Task:
    """Prepare a set of which it is known what its classes and atoms are."""
    if graphs.name not in MUTAGENS or graphs.node_names is None:
        raise UserError(f"--data: expected {' or '.join(MUTAGENS)}, sets of mutagens, got {graphs.name}.")
    names, orders = graphs.node_names, BOND_ORDERS[graphs.name]
    mutagens = [(graph.y == MUTAGENS[graphs.name]).float() for graph in graphs]
    return Task(
        graphs,
        tuple(
            Data(x=graph.x, edge_index=graph.edge_index, y=y)
            for graph, y in zip(graphs, mutagens, strict=True)
        ),
        tuple(nitro_atoms(graph, names) for graph in graphs),
        tuple(amino_atoms(graph, names, orders) for graph in graphs),
        tuple(fused_atoms(graph) for graph in graphs),
    )


def nitro_atoms(graph: Data, node_names: Sequence[str]) -> Tensor:
    """Which atoms are a nitrogen with two oxygens that have no other neighbour, or one of these: bool [n]."""
    element = np.array(node_names)[graph.node_label]
    degree = torch.bincount(graph.edge_index[0], minlength=graph.num_nodes)
    tips = torch.from_numpy(element == "O") & (degree == 1)
    return centres_and_arms(graph, torch.from_numpy(element == "N"), tips)


def amino_atoms(graph: Data, node_names: Sequence[str], orders: Sequence[float]) -> Tensor:
    """Which atoms are a nitrogen with two hydrogens and one single bond to another atom, or one of these.

    Where a set has no hydrogens, the nitrogen is alone at the end of its single bond. Bool [n].
    """
    element = np.array(node_names)[graph.node_label]
    nitrogen, hydrogen = (torch.from_numpy(element == name) for name in ("N", "H"))
    first, second = graph.edge_index
    single = torch.tensor(orders)[graph.edge_label] == 1.0
    heavy = ~hydrogen[second]
    bonds, single_bonds = (
        torch.bincount(first[kind], minlength=graph.num_nodes) for kind in (heavy, heavy & single)
    )
    ends = nitrogen & (bonds == 1) & (single_bonds == 1)
    return centres_and_arms(graph, ends, hydrogen) if "H" in node_names else ends


def centres_and_arms(graph: Data, centres: Tensor, tips: Tensor) -> Tensor:
    """Those of the centres that have exactly two tips as neighbours, and these tips: bool [n]."""
    first, second = graph.edge_index
    arms = centres[first] & tips[second]
    result = torch.bincount(first[arms], minlength=graph.num_nodes) == 2
    arms &= result[first]
    result[second[arms]] = True
    return result


def fused_atoms(graph: Data) -> Tensor:
    """Which atoms have three or more bonds in rings, as where two rings are fused: bool [n]."""
    skeleton = nx.Graph(graph.edge_index.T.tolist())
    skeleton.remove_edges_from(list(nx.bridges(skeleton)))
    result = torch.zeros(graph.num_nodes, dtype=torch.bool)
    result[[atom for atom, degree in skeleton.degree if degree >= 3]] = True
    return result


READOUTS = ("mean", "max")
LAYERS, WIDTH = 2, 32
LEARNING_RATE, BATCH_SIZE = 0.005, 64


def train(task: Task, split: Split, readout: str, device: str, seed: int, steps: int) -> GIN:
    """Train a network to score mutagens above 0; without steps it stays as it was drawn."""
    torch.manual_seed(seed)
    network = GIN(task.molecules[0].x.size(1), 1, readout, WIDTH, LAYERS).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    order: list[int] = []
    for _ in range(steps):
        if not order:
            order = torch.randperm(len(split.train)).tolist()
        picked, order = order[:BATCH_SIZE], order[BATCH_SIZE:]
        batch = together([task.molecules[split.train[i]] for i in picked], network)
        optimiser.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(network(batch)[:, 0], batch.y).backward()
        optimiser.step()
    return network.eval()


def together(molecules: Sequence[Data], network: GIN) -> Batch:
    """A batch of molecules on the device of the network."""
    return Batch.from_data_list(list(molecules)).to(network.head.weight.device)


@torch.no_grad()
def logits(network: GIN, molecules: Sequence[Data]) -> Tensor:
    """The logit of every molecule [B], on the CPU."""
    return network(together(molecules, network))[:, 0].cpu()


@torch.no_grad()
def activation_maps(network: GIN, molecules: Sequence[Data], readout: str) -> list[Tensor]:
    """The scores of the atoms of every molecule [n], which have the logit as their mean; on the CPU."""
    batch, head = together(molecules, network), network.head
    states = network.nodes(batch)
    if readout == "mean":
        scores = class_activation(head, states, batch.batch, readout, target=0)
    else:
        parts = contributions(readout, states, batch.batch) @ head.weight[0]
        scores = parts * batch.ptr.diff()[batch.batch] + head.bias
    return list(scores.cpu().split([molecule.num_nodes for molecule in molecules]))


ORDERS = BEST, WORST, RANDOM = ("best first", "worst first", "at random")
REMOVED = tuple(tenth / 10 for tenth in range(11))
DRAWS = 10


def shares(scores: Tensor, group: Tensor) -> tuple[float, float]:
    """The share of atoms that are in a group, and the share of the positive score that these carry."""
    positive = scores.double().clamp(min=0)
    total = positive.sum().item()
    return group.double().mean().item(), positive[group].sum().item() / total if total else 0.0


def ranked(scores: Tensor, group: Tensor) -> float:
    """How often an atom of the group scores above one outside it; equal scores count one half."""
    above = scores[group].unsqueeze(1) - scores[~group]
    return ((above > 0).double() + 0.5 * (above == 0).double()).mean().item()


def half(scores: Tensor) -> float:
    """The least share of the atoms that carries half of the positive score; 0 where there is none."""
    positive = scores.double().clamp(min=0).sort(descending=True).values.cumsum(0)
    if not len(scores) or positive[-1] == 0:
        return 0.0
    return (int((positive < positive[-1] / 2).sum()) + 1) / len(scores)


def hit(scores: Tensor, group: Tensor) -> float:
    """Whether the best scored atom lies in a group; of several best, the share that does."""
    return group[scores == scores.max()].double().mean().item()


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


@torch.no_grad()
def deletions(
    network: GIN, molecules: Sequence[Data], maps: Sequence[Tensor], seed: int
) -> dict[str, list[float]]:
    """For each order, the mean probability of the predicted class with each share of `REMOVED` gone."""
    batch = together(molecules, network)
    predicted = torch.where(network(batch)[:, 0] > 0, 1.0, -1.0)
    n = batch.ptr.diff()[batch.batch].cpu()
    evidence = torch.cat(list(maps)) * predicted[batch.batch].cpu()
    generator = torch.Generator().manual_seed(seed)
    ties, *draws = (torch.rand(len(n), generator=generator) for _ in range(1 + DRAWS))
    best = places(batch.batch.cpu(), -evidence, ties)
    orders = {
        BEST: [best],
        WORST: [n - 1 - best],
        RANDOM: [places(batch.batch.cpu(), draw) for draw in draws],
    }

    def probability(place: Tensor, part: float) -> float:
        kept = (place >= (part * n).round()).to(batch.batch.device)
        edge_index, _ = subgraph(kept, batch.edge_index, relabel_nodes=True, num_nodes=len(kept))
        states = network.nodes(Data(x=batch.x[kept], edge_index=edge_index))
        logit = network.head(network.readout(states, batch.batch[kept], dim_size=len(molecules)))[:, 0]
        return (predicted * logit).sigmoid().double().mean().item()

    return {
        order: [mean(probability(place, part) for place in found) for part in REMOVED]
        for order, found in orders.items()
    }


def places(batch: Tensor, *keys: Tensor) -> Tensor:
    """The place 0, 1, ... of every atom of its molecule when sorted by the first key, then the next: [N]."""
    order = torch.from_numpy(np.lexsort([key.numpy() for key in (*keys[::-1], batch)]))
    start = torch.bincount(batch).cumsum(0) - torch.bincount(batch)
    result = torch.empty_like(order)
    result[order] = torch.arange(len(order)) - start[batch[order]]
    return result


def point(order: str, part: float) -> str:
    """The name of a point of a deletion curve."""
    return f"{order}, {part:.0%} removed"


def area(curve: Sequence[float]) -> float:
    """The area under a curve over `REMOVED`, by trapezoids."""
    return float(trapezoid(curve, REMOVED))


COUNTS = ("mutagens with", "others with", "mutagens without", "others without")
LEARNED = ("train accuracy", "accuracy", "majority", "size only")
SHARES = ("atoms", "score", "ranked", "fused atoms", "fused score")
MAPPED = (*SHARES, "drop top", "drop nitro", "drop random", "half")
GROUPS = ("NO2", "NH2")
HITS = tuple(f"{group} {what}" for group in GROUPS for what in ("molecules", "hits", "expected"))
CURVES = tuple(point(order, part) for order in ORDERS for part in REMOVED)
SHOWN = tuple(f"shown {place}" for place in range(4))
KINDS = ("mutagen, right", "mutagen, wrong", "other, right", "other, wrong")
GALLERY = tuple(f"{kind} {place}" for place in range(2) for kind in KINDS)
NONE, PICKING = -1, "mean"


def measure(
    sets: Sequence[GraphSet], log: RowLog, device: str, seed: int, folds: int, steps: int
) -> list[Row]:
    """The rows of all sets."""
    if not sets:
        raise UserError(f"--data: expected {' or '.join(MUTAGENS)}, sets of mutagens, got none.")
    rows = []
    for task in [choose(graphs) for graphs in sets]:
        work = {"data": task.graphs.name, "readout": None, "seed": seed, "fold": None}
        rows += log.measure(work, COUNTS, partial(count, task))
        splits = stratified_folds(task.graphs, folds, validation=0.0, seed=seed).splits
        for fold, split in tracked(list(enumerate(splits)), f"training on {task.graphs.name}"):
            rows += measure_fold(task, split, log, device, seed, work | {"fold": fold, "folds": folds}, steps)
    return rows


def measure_fold(
    task: Task, split: Split, log: RowLog, device: str, seed: int, work: Row, steps: int
) -> list[Row]:
    """Both readouts on one fold, trained and untrained; in the first fold also what is to be drawn."""
    work = work | {"layers": LAYERS, "width": WIDTH, "draws": DRAWS}
    work |= {"batch size": BATCH_SIZE, "learning rate": LEARNING_RATE}
    rows = []
    learn = {
        (readout, length): cache(partial(train, task, split, readout, device, seed + work["fold"], length))
        for readout in READOUTS
        for length in (steps, 0)
    }
    for (readout, length), learned in learn.items():
        here = work | {"readout": readout, "steps": length}
        found = partial(judge, task, split, readout, learned, seed)
        rows += log.measure(here, (*LEARNED, *MAPPED, *HITS), found)
        if length:
            rows += log.measure(here, CURVES, partial(curves, task, split, readout, learned, seed))
    if work["fold"] == 0:
        here = work | {"readout": PICKING, "steps": steps}
        picked = partial(pick_molecules, task, split, learn[PICKING, steps])
        drawn = log.measure(here, (*SHOWN, *GALLERY), picked)
        rows += drawn
        for position in dict.fromkeys(row["value"] for row in drawn if row["value"] != NONE):
            metrics = ["logit", *(f"atom {atom}" for atom in range(len(task.nitro[position])))]
            for readout in READOUTS:
                compute = partial(one_map, task, position, readout, learn[readout, steps])
                rows += log.measure(here | {"readout": readout, "molecule": position}, metrics, compute)
    return rows


def count(task: Task) -> dict[str, int]:
    """How many mutagens and others have a nitro group, and have none."""
    kinds = [(float(m.y), bool(nitro.any())) for m, nitro in zip(task.molecules, task.nitro, strict=True)]
    order = ((1.0, True), (0.0, True), (1.0, False), (0.0, False))
    return dict(zip(COUNTS, map(kinds.count, order), strict=True))


def judge(task: Task, split: Split, readout: str, learn: Callable[[], GIN], seed: int) -> dict[str, float]:
    """What was learned, and where the maps of held-out molecules with nitro groups have their score."""
    network = learn()
    sides = [[task.molecules[position] for position in side] for side in (split.train, split.test)]
    right = [((logits(network, side) > 0) == torch.cat([m.y for m in side]).bool()) for side in sides]
    mutagens = mean(float(molecule.y) for molecule in sides[1])
    values = [*(side.double().mean().item() for side in right), max(mutagens, 1 - mutagens)]
    values += [size_only(*sides)]
    held_out = [position for position in split.test if task.nitro[position].any()]
    molecules, nitro = [task.molecules[i] for i in held_out], [task.nitro[i] for i in held_out]
    maps = activation_maps(network, molecules, readout)
    values += shares(torch.cat(maps), torch.cat(nitro))
    values += [mean(ranked(scores, group) for scores, group in zip(maps, nitro, strict=True))]
    values += shares(torch.cat(maps), torch.cat([task.fused[i] for i in held_out]))
    values += drops(network, molecules, maps, nitro, seed)
    all_maps = activation_maps(network, sides[1], readout)
    values += [mean(map(half, all_maps))]
    return dict(zip((*LEARNED, *MAPPED), values, strict=True)) | hits(task, split, all_maps)


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


def hits(task: Task, split: Split, maps: Sequence[Tensor]) -> dict[str, float]:
    """Of the held-out mutagens with a group: how many, whose best atom is in it, how many by chance."""
    result = {}
    for name, groups in zip(GROUPS, (task.nitro, task.amino), strict=True):
        found = [
            (hit(scores, groups[position]), groups[position].double().mean().item())
            for position, scores in zip(split.test, maps, strict=True)
            if groups[position].any() and task.molecules[position].y == 1
        ]
        result[f"{name} molecules"] = float(len(found))
        result[f"{name} hits"] = sum(in_group for in_group, _ in found)
        result[f"{name} expected"] = sum(part for _, part in found)
    return result


def curves(task: Task, split: Split, readout: str, learn: Callable[[], GIN], seed: int) -> dict[str, float]:
    """The deletion curves of all held-out molecules."""
    molecules = [task.molecules[position] for position in split.test]
    found = deletions(learn(), molecules, activation_maps(learn(), molecules, readout), seed)
    return dict(zip(CURVES, [value for order in ORDERS for value in found[order]], strict=True))


def pick_molecules(task: Task, split: Split, learn: Callable[[], GIN]) -> dict[str, int]:
    """Positions of the molecules to draw; `NONE` where the fold has no more of a kind."""
    with_nitro = [position for position in split.test if task.nitro[position].any()]
    evenly = np.linspace(0, len(with_nitro) - 1, min(len(SHOWN), len(with_nitro))).round().astype(int)
    result = dict.fromkeys((*SHOWN, *GALLERY), NONE)
    result |= {f"shown {place}": with_nitro[at] for place, at in enumerate(evenly)}
    molecules = [task.molecules[position] for position in split.test]
    for position, molecule, logit in zip(split.test, molecules, logits(learn(), molecules), strict=True):
        mutagen = bool(molecule.y)
        kind = f"{'mutagen' if mutagen else 'other'}, {'right' if (logit > 0) == mutagen else 'wrong'}"
        free = [metric for metric in GALLERY if metric.startswith(kind) and result[metric] == NONE]
        result |= dict.fromkeys(free[:1], position)
    return result


def one_map(task: Task, position: int, readout: str, learn: Callable[[], GIN]) -> dict[str, float]:
    """The logit of one molecule, and the score of each of its atoms."""
    molecule = [task.molecules[position]]
    (scores,) = activation_maps(learn(), molecule, readout)
    (logit,) = logits(learn(), molecule).tolist()
    return {"logit": logit} | {f"atom {atom}": score for atom, score in enumerate(scores.tolist())}


NEARLY_ALL = 0.9
COMPARED = {
    "accuracy": "held-out accuracy",
    "half": "share of the atoms that carries half of the positive score",
    "deletion": "deletion below random by",
    "insertion": "insertion above random by",
}


def tables(rows: Sequence[Row]) -> list[Table]:
    """What was learned, where the maps have their score, what they hit, areas: averages over the folds."""
    learned = ("set", "readout", "held out", "size only", "majority", "in training", "with NO2", "without")
    mapped = ("set", "readout", "network", "NO2", "score", "ranked", "fused", "score", "half")
    drops = ("set", "readout", "network", "without best", "without NO2", "without random")
    groups = (f"{group}: {what}" for group in GROUPS for what in ("hit", "chance", "of"))
    hits = ("set", "readout", *groups)
    areas = ("set", "readout", "deleted best first", "at random", "deleted worst (inserted best) first")
    return [
        table(
            "Networks that know mutagens: accuracy; mutagens among molecules with NO2, and without",
            learned,
            learned_lines(rows),
            2,
        ),
        table(
            "NO2, where rings fuse: share of atoms, of positive score; atoms that carry half of it",
            mapped,
            mapped_lines(rows, (*SHARES, "half"), share),
            3,
        ),
        table(
            "Fall of the logit without atoms",
            drops,
            mapped_lines(rows, ("drop top", "drop nitro", "drop random"), "{:.2f}".format),
            3,
        ),
        table("Mutagens with a group: is the best scored atom in it?", hits, hit_lines(rows), 2),
        table("Probability of the predicted class: area under the curve", areas, area_lines(rows), 2),
    ]


def learned_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set and readout."""
    for data in present(rows, "data"):
        with_, others_with, without_, others_without = (pick(rows, data=data, metric=name) for name in COUNTS)
        for readout in READOUTS:
            order = ("accuracy", "size only", "majority", "train accuracy")
            yield [
                data,
                readout,
                *(share(mean(per_fold(rows, data, readout, name))) for name in order),
                f"{with_}/{with_ + others_with}",
                f"{without_}/{without_ + others_without}",
            ]


def mapped_lines(
    rows: Sequence[Row], metrics: Sequence[str], form: Callable[[float], str]
) -> Iterator[list[str]]:
    """One line for each set, readout and network."""
    for data in present(rows, "data"):
        for readout in READOUTS:
            for trained in (True, False):
                values = [mean(per_fold(rows, data, readout, name, trained)) for name in metrics]
                yield [data, readout, "trained" if trained else "untrained", *map(form, values)]


def hit_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set and readout: rates over all folds, and of how many molecules."""
    for data in present(rows, "data"):
        for readout in READOUTS:
            line = [data, readout]
            for group in GROUPS:
                number, hit, chance = (
                    sum(per_fold(rows, data, readout, f"{group} {what}"))
                    for what in ("molecules", "hits", "expected")
                )
                line += [share(hit / number), share(chance / number)] if number else ["", ""]
                line.append(f"{number:.0f}")
            yield line


def area_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set and readout."""
    for data in present(rows, "data"):
        for readout in READOUTS:
            order = (BEST, RANDOM, WORST)
            yield [data, readout, *(share(mean(areas(rows, data, readout, name))) for name in order)]


def per_fold(rows: Sequence[Row], data: str, readout: str, metric: str, trained: bool = True) -> list[float]:
    """The values of one metric, one a fold."""
    return [
        row["value"]
        for row in rows
        if (row["data"], row["readout"], row["metric"]) == (data, readout, metric)
        and (row["steps"] > 0) == trained
    ]


def areas(rows: Sequence[Row], data: str, readout: str, order: str) -> list[float]:
    """The area under the deletion curve of one order, one a fold."""
    curves = [per_fold(rows, data, readout, point(order, part)) for part in REMOVED]
    return [area(curve) for curve in zip(*curves, strict=True)]


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """After a mean, nitro groups carry more than their share of the score: the verdict is about that."""
    for data in present(rows, "data"):
        for readout in READOUTS:
            yield of_nitro(rows, data, readout)
            yield from of_hits(rows, data, readout)
            yield of_removal(rows, data, readout)
            yield from of_curves(rows, data, readout)


def notes(tasks: Sequence[object], rows: Sequence[Row]) -> Iterator[str]:
    """Where else the score is, and the two readouts side by side."""
    for data in present(rows, "data"):
        if not any(pick(rows, data=data, metric=name) for name in COUNTS[2:]):
            yield f"{data}: every molecule has a nitro group, so that it cannot tell the classes apart."
        for readout in READOUTS:
            atoms, score = (
                mean(per_fold(rows, data, readout, name)) for name in ("fused atoms", "fused score")
            )
            yield (
                f"{data}, {readout}: atoms where rings are fused are {share(atoms)} of the atoms and carry "
                f"{share(score)} of the positive score."
            )
        yield of_both(rows, data)


def held(folds: Sequence[bool]) -> bool | None:
    """Whether something holds in nearly all folds, in nearly none (False), or in some (None)."""
    if mean(folds) >= NEARLY_ALL:
        return True
    return False if mean(folds) <= 1 - NEARLY_ALL else None


def of_nitro(rows: Sequence[Row], data: str, readout: str) -> Finding:
    """Whether nitro groups light up; after a mean, in some folds only is not enough."""
    atoms, score = (per_fold(rows, data, readout, name) for name in ("atoms", "score"))
    more = [s > a for s, a in zip(score, atoms, strict=True)]
    said = (
        f"they are {share(mean(atoms))} of the atoms and carry {share(mean(score))} of the positive score, "
        f"more than their share in {sum(more)} of {len(more)} folds"
    )
    return Finding(
        f"{data}, {readout}, nitro groups light up", bool(held(more)), said, main=readout == "mean"
    )


def of_hits(rows: Sequence[Row], data: str, readout: str) -> Iterator[Finding]:
    """Whether the best scored atom of a mutagen lies in its group, of folds that have such mutagens."""
    for group in GROUPS:
        what = ("molecules", "hits", "expected")
        found = zip(*(per_fold(rows, data, readout, f"{group} {name}") for name in what), strict=True)
        folds = [fold for fold in found if fold[0]]
        if folds:
            number, hit, chance = (sum(values) for values in zip(*folds, strict=True))
            more = [hits > expected for _, hits, expected in folds]
            claim = f"{data}, {readout}, the best scored atom is in {group} more often than by chance"
            said = (
                f"of {number:.0f} mutagens with {group} {share(hit / number)} against "
                f"{share(chance / number)}, more in {sum(more)} of {len(more)} folds"
            )
            yield Finding(claim, held(more), said, main=False)


def of_removal(rows: Sequence[Row], data: str, readout: str) -> Finding:
    """Whether molecules with a nitro group need the atoms that the map points at."""
    top, at_random = (per_fold(rows, data, readout, name) for name in ("drop top", "drop random"))
    lower = [t > r for t, r in zip(top, at_random, strict=True)]
    said = (
        f"without its best scored atoms a molecule's logit falls by {mean(top):.2f}, without as many at "
        f"random by {mean(at_random):.2f}; further in {sum(lower)} of {len(lower)} folds"
    )
    return Finding(f"{data}, {readout}, the logit needs the best scored atoms", held(lower), said, main=False)


def of_curves(rows: Sequence[Row], data: str, readout: str) -> Iterator[Finding]:
    """Whether the probability of the predicted class falls sooner, and comes back sooner, than at random."""
    best, at_random, worst = (areas(rows, data, readout, order) for order in (BEST, RANDOM, WORST))
    sooner = [b < r for b, r in zip(best, at_random, strict=True)]
    back = [w > r for w, r in zip(worst, at_random, strict=True)]
    said = f"area {share(mean(best))} against {share(mean(at_random))} at random"
    yield Finding(
        f"{data}, {readout}, deleted best first, the class goes sooner", held(sooner), said, main=False
    )
    said = f"area {share(mean(worst))} against {share(mean(at_random))} at random"
    yield Finding(
        f"{data}, {readout}, inserted best first, the class comes sooner", held(back), said, main=False
    )


def numbers(rows: Sequence[Row]) -> str:
    """The share of nitro groups in atoms and in score, after a mean."""
    return "; ".join(
        f"{data}: {100 * mean(per_fold(rows, data, 'mean', 'atoms')):.0f} % of the atoms, "
        f"{100 * mean(per_fold(rows, data, 'mean', 'score')):.0f} % of the score"
        for data in present(rows, "data")
    )


def of_both(rows: Sequence[Row], data: str) -> str:
    """Mean against max, fold by fold."""
    parts = []
    for metric, words in COMPARED.items():
        first, second = (compared(rows, data, readout, metric) for readout in READOUTS)
        *_, p = interval(np.array(first) - np.array(second), 1 / (len(first) - 1))
        sign = "undecided" if p > 1 - LEVEL else "more" if mean(first) > mean(second) else "less"
        parts.append(f"{words} {share(mean(first))} and {share(mean(second))} ({sign})")
    return f"{data}, {' against '.join(READOUTS)}: {'; '.join(parts)}."


def compared(rows: Sequence[Row], data: str, readout: str, metric: str) -> list[float]:
    """One value a fold; deletion and insertion are gains in area over the random order."""
    if metric not in ("deletion", "insertion"):
        return per_fold(rows, data, readout, metric)
    order, sign = (BEST, -1) if metric == "deletion" else (WORST, 1)
    both = (areas(rows, data, readout, name) for name in (order, RANDOM))
    return [sign * (chosen - at_random) for chosen, at_random in zip(*both, strict=True)]


CELL, LEFT, BAR, LONGEST_BOND = (1.72, 1.75), 1.3, 0.85, 0.3  # inches
ROOM, HEAD, SIDE, CAPTION = (2.05, 1.75), 0.4, 0.75, 0.25  # inches, of the gallery
STYLES = {BEST: "-", RANDOM: "--", WORST: ":"}


def figure(rows: Sequence[Row], sets: Sequence[GraphSet], out: Path) -> list[Path]:
    """All figures: `activation`, `activation_curves`, and for each set a `gallery-SET`."""
    paths = shown_figure(rows, sets, out) + curves_figure(rows, out)
    return paths + [path for graphs in sets for path in gallery(rows, graphs, out)]


def shown_figure(rows: Sequence[Row], sets: Sequence[GraphSet], out: Path) -> list[Path]:
    """Molecules with nitro groups and their maps behind a mean, a row a set, each with its own scale."""
    width, height = LEFT + len(SHOWN) * CELL[0] + BAR, CELL[1] * len(sets)
    paper, axes = figures.sheet(width, height)
    for line, graphs in enumerate(sets):
        bottom = height - CELL[1] * (line + 1)
        middle = bottom + CELL[1] / 2
        positions = [found for metric in SHOWN if (found := chosen(rows, graphs.name, metric)) != NONE]
        limit = largest(rows, graphs.name, PICKING, positions)
        for column, position in enumerate(positions):
            coloured = colour(rows, graphs, PICKING, position, limit)
            drawing.draw_molecule(*coloured, axes, (LEFT + CELL[0] * column, bottom), CELL, LONGEST_BOND)
        colour_bar(paper, colour_scale(limit), "score", (width - BAR + 0.1, middle - 0.55), 1.1)
        atoms, score = (mean(per_fold(rows, graphs.name, PICKING, name)) for name in ("atoms", "score"))
        note = f"NO$_2$ is {atoms:.0%}\nof the atoms and\ncarries {score:.0%} of\nthe positive score"
        axes.text(0.1, middle + 0.42, graphs.name, fontsize=11, fontweight="bold", va="center")
        axes.text(0.1, middle - 0.12, note, fontsize=9, va="center", color=figures.GREY)
    return figures.save(paper, out, "activation")


def gallery(rows: Sequence[Row], graphs: GraphSet, out: Path) -> list[Path]:
    """Molecules of both classes that the network with a mean gets right and wrong, each behind both readouts.

    The rows are the two readouts of the first molecule of each kind, then those of the second. Every map has
    its own scale, whose end is told below it.
    """
    lines = [(place, readout) for place in range(len(GALLERY) // len(KINDS)) for readout in READOUTS]
    width, height = SIDE + len(KINDS) * ROOM[0] + BAR, HEAD + len(lines) * ROOM[1]
    paper, axes = figures.sheet(width, height)
    for column, kind in enumerate(KINDS):
        left = SIDE + ROOM[0] * column
        heading = (left + ROOM[0] / 2, height - HEAD / 2)
        axes.text(*heading, kind.replace(",", f", {PICKING}"), ha="center", va="center", fontweight="bold")
        for line, (place, readout) in enumerate(lines):
            corner = (left, height - HEAD - ROOM[1] * (line + 1))
            draw_cell(axes, corner, rows, graphs, readout, chosen(rows, graphs.name, f"{kind} {place}"), kind)
    for line, (place, readout) in enumerate(lines):
        top = height - HEAD - ROOM[1] * line
        axes.text(0.1, top - ROOM[1] / 2, readout, fontsize=11, fontweight="bold", va="center")
        if place and readout == READOUTS[0]:
            axes.plot([0.1, width - BAR], [top, top], color=figures.PALE, linewidth=1)
    label = "\nscore / largest of its map"  # a line further from the ticks
    colour_bar(paper, colour_scale(1.0), label, (width - BAR + 0.1, height / 2 - 1), 2.0)
    return figures.save(paper, out, f"gallery-{graphs.name}")


def draw_cell(
    axes: Axes,
    corner: tuple[float, float],
    rows: Sequence[Row],
    graphs: GraphSet,
    readout: str,
    position: int,
    kind: str,
) -> None:
    """Draw one molecule of the gallery with its map, and below it the prediction of the network."""
    centre, room = corner[0] + ROOM[0] / 2, (ROOM[0], ROOM[1] - CAPTION)
    if position == NONE:
        middle = corner[1] + (ROOM[1] + CAPTION) / 2
        axes.text(centre, middle, "no other in this fold", fontsize=8.5, color=figures.GREY, ha="center")
        return
    limit = largest(rows, graphs.name, readout, [position])
    coloured = colour(rows, graphs, readout, position, limit)
    drawing.draw_molecule(*coloured, axes, (corner[0], corner[1] + CAPTION), room, LONGEST_BOND)
    logit = pick(rows, data=graphs.name, readout=readout, molecule=position, metric="logit")
    probability = torch.tensor(logit).sigmoid().item()
    answer = "right" if (logit > 0) == kind.startswith("mutagen") else "wrong"
    caption = f"P(mutagen) {probability:.0%}: {answer}; ±{limit:.3g}"
    axes.text(centre, corner[1] + CAPTION / 2, caption, fontsize=8.5, ha="center", va="center")


def curves_figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """Two panels a set: atoms deleted, and atoms inserted."""
    sheets = [(data, deletion) for data in present(rows, "data") for deletion in (True, False)]
    paper, panels = figures.panels(len(sheets), width=3.9, height=2.9, columns=2)
    for panel, (data, deletion) in zip(panels, sheets, strict=True):
        for readout in READOUTS:
            for order in ORDERS:
                draw(panel, rows, data, readout, order, deletion)
        what = "deleted" if deletion else "inserted"
        panel.set(title=f"{data}: atoms {what}", xlabel=f"atoms {what} [%]", xlim=(0, 100))
        panel.set(ylabel="probability of predicted class [%]", ylim=(0, 102))
    entries = {
        f"{readout}, {order}": (figures.COLOURS[readout], STYLES[order])
        for order in ORDERS
        for readout in READOUTS
    }
    figures.legend(paper, entries)
    return figures.save(paper, out, "activation_curves")


def draw(panel: Axes, rows: Sequence[Row], data: str, readout: str, order: str, deletion: bool) -> None:
    """One curve: what is inserted in one order is what is left when the reverse is deleted."""
    reverse = {BEST: WORST, WORST: BEST, RANDOM: RANDOM}
    source = order if deletion else reverse[order]
    values = [100 * mean(per_fold(rows, data, readout, point(source, part))) for part in REMOVED]
    percents = [100 * part for part in REMOVED]
    panel.plot(
        percents,
        values if deletion else values[::-1],
        linestyle=STYLES[order],
        color=figures.COLOURS[readout],
    )


def chosen(rows: Sequence[Row], data: str, metric: str) -> int:
    """The position that was chosen to be drawn in a place, or `NONE`."""
    return int(pick(rows, data=data, metric=metric))


def map_of(rows: Sequence[Row], data: str, readout: str, position: int) -> list[float]:
    """The score of every atom of a molecule that is drawn."""
    wanted = {"data": data, "readout": readout, "molecule": position}
    return [row["value"] for row in rows if wanted.items() <= row.items() and row["metric"] != "logit"]


def largest(rows: Sequence[Row], data: str, readout: str, positions: Sequence[int]) -> float:
    """The largest magnitude of a score in these maps; 1 where there is none."""
    maps = (map_of(rows, data, readout, position) for position in positions)
    return max((abs(score) for scores in maps for score in scores), default=0.0) or 1.0


def colour(
    rows: Sequence[Row], graphs: GraphSet, readout: str, position: int, limit: float
) -> tuple[Chem.Mol, Array]:
    """Return one molecule of a set, and the colours of its atoms."""
    graph, elements = graphs[position], graphs.node_names or ()
    orders = bond_orders(graph, torch.tensor(BOND_ORDERS[graphs.name])[graph.edge_label])
    compound = drawing.build([elements[label] for label in graph.node_label], None, orders)
    scores = np.array(map_of(rows, graphs.name, readout, position))
    return compound, colour_scale(limit).to_rgba(scores)


EXPERIMENT = Experiment(
    name="activation-maps",
    title="Activation maps",
    question="Do networks trained on mutagenicity assign high scores to nitro groups?",
    claim="Activation maps of networks trained on mutagenicity highlight nitro groups",
    theory=(
        "Behind a mean readout and a linear head every atom has a score, and their mean is the logit. "
        "Where a nitro group tells mutagens from other molecules, its atoms carry more than their share "
        "of the positive score, and a network uses the atoms that its map points at."
    ),
    setup=(
        "Networks with a mean or a max readout and a linear head are trained on each fold, and only "
        "molecules that were held out are mapped; untrained networks stand beside. The share of the "
        "positive score that nitro groups carry; whether the best scored atom lies in a nitro or an amino "
        "group, against chance; what is left of the prediction as atoms are deleted or inserted in the "
        "order of the map, in its reverse, and at random."
    ),
    source=(
        "Class activation maps: [Zhou et al. 2016](https://arxiv.org/abs/1512.04150). Deletion and "
        "insertion: [Petsiuk et al. 2018](https://arxiv.org/abs/1806.07421). Nitro groups as "
        "toxicophores: Kazius et al., *Derivation and validation of toxicophores for mutagenicity "
        "prediction*, J. Med. Chem. 48, 2005."
    ),
    caveats=(
        (
            "In MUTAG every molecule has a nitro group, which then tells nothing about the class: do not "
            "expect it to light up."
        ),
        "Deleting atoms makes molecules that no network has seen.",
        "What is drawn was chosen by its place in the set, not by its map.",
    ),
    drawings=(
        Drawing(
            "activation",
            "Held-out molecules with the score of every atom as its colour.",
            "Held-out molecules with the score of every atom: orange speaks for a mutagen, blue against.",
        ),
        Drawing(
            "gallery",
            "A gallery of held-out molecules of both classes, some judged right and some wrong, mapped "
            "behind a mean and behind a max readout.",
            "Molecules judged right and wrong, behind a mean and behind a max.",
        ),
        Drawing(
            "activation_curves",
            "The output of the network as atoms are removed from a molecule or put into it, in the "
            "order of the map, against random order.",
            "Deletion and insertion: atoms in the order of the map, in the reverse, and at random.",
        ),
    ),
    measure=measure,
    tables=tables,
    findings=findings,
    numbers=numbers,
    figure=figure,
    notes=notes,
    data=(),
    example=("--data", "MUTAG", "Mutagenicity"),
    options={
        "folds": Option(Folds, 10),
        "steps": number(600, 1, "Training steps, each on 64 molecules."),
    },
    quick={"folds": 5, "steps": 300},
)
