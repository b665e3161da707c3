"""Maps of what each node gave to the score of a class, and what they are worth.

A pattern names the group of atoms that explanations should find. Aromatic NO2 and NH2 are among the groups
that make a mutagen (Kazius et al., J. Med. Chem. 48, 312, 2005, the source of Mutagenicity), and Luo et al.
(arXiv 2011.04573) take the two as what explanations should find.

The map of a molecule of n atoms has one score an atom, and the mean of the scores is the logit of the class
against all others. After a mean that is the class activation map of Zhou et al. (arXiv 1512.04150), with
w x_i + b. After a max it is n w p_i + b, where p_i is what atom i gave to the max: the channels that it won,
shared with those that tie.

Deletion removes the atoms of a molecule one after the other, those that speak most for the predicted class
first, and asks how soon the network's probability of that class falls; insertion begins without atoms and
puts them back in the same order (Petsiuk et al., RISE, arXiv 1806.07421). An atom takes its bonds along.
What is inserted in one order is what is left when the reverse order is deleted, so three kinds of deletion
give all curves: best first, worst first, and at random.

All maps are of molecules that were held out, and those of untrained networks stand beside them. What is drawn
comes from the first fold and does not depend on the maps. A statement holds where it does in nine of ten
folds or more, does not where it does in one of ten or fewer, and else is undecided. The two readouts are
compared fold by fold, and differ where p is below .05. Networks have to pass the gate first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import numpy as np
import torch
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.integrate import trapezoid
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import subgraph

from datasets import GraphSet
from datasets.splits import Split, stratified_folds
from experiments import figures
from experiments.accuracy import baselines, gate
from experiments.console import Table, UserError, share, table
from experiments.experiment import Drawing, Experiment, Finding
from experiments.jobs import Job, carry_out
from experiments.learning.batches import Batch, Resident, node_by_node, reside
from experiments.learning.networks import Network
from experiments.learning.training import Settings
from experiments.options import Folds, Option, number
from experiments.patterns import GROUPS, bonds_of, nodes_of, symbols_of
from experiments.records import Row, RowLog, pick, present, values
from experiments.statistics import LEVEL, interval
from experiments.trained import GATE, gate_values, together, train, twins
from readouts.attribution import class_activation, draw
from readouts.attribution.drawing import colour_bar, colour_scale

MUTAGENS = {"MUTAG": 1, "Mutagenicity": 0}  # the class of mutagens
BASELINES = tuple(baselines.OF_CLASSES)


@dataclass(frozen=True)
class Task:
    """Graphs with y = 1 for the class whose score is mapped, and which nodes are in each pattern."""

    graphs: GraphSet
    label: str
    patterns: dict[str, tuple[Tensor, ...]]
    splits: tuple[Split, ...]

    @property
    def sentence(self) -> str:
        """What is mapped, and twins in the folds."""
        sides = [(split.train, split.test) for split in self.splits]
        told = f"maps of the score of {self.label}; patterns {', '.join(self.patterns)}"
        return f"{self.graphs.name}: {told}; of graphs held out in turns {twins(self.graphs.graphs, sides)}."


def choose(graphs: GraphSet, pattern: Sequence[str], label: int | None, seed: int, folds: int) -> Task:
    """Find the patterns; sets of mutagens have a class and patterns of their own."""
    names = list(dict.fromkeys(pattern)) or (list(GROUPS) if graphs.name in MUTAGENS else [])
    if not names:
        raise UserError(
            f"--pattern: expected SMARTS of a group to look for in {graphs.name}, got none; only "
            f"{' and '.join(MUTAGENS)} have known ones."
        )
    chosen = MUTAGENS.get(graphs.name, 1) if label is None else label
    counts = np.bincount(graphs.targets.numpy(), minlength=graphs.classes)
    if chosen >= graphs.classes or counts[chosen] == len(graphs):
        raise UserError(
            f"--label: expected one of {graphs.classes} classes of {graphs.name}, and other graphs beside "
            f"it, got {chosen}."
        )
    found = {name: nodes_of(graphs, name) for name in names}
    found = {name: nodes for name, nodes in found.items() if any(one.any() for one in nodes)}
    if not found:
        raise UserError(f"--pattern: no graph of {graphs.name} has {' or '.join(names)}.")
    relabelled = [graph.clone() for graph in graphs]
    for graph in relabelled:
        graph.y = (graph.y == chosen).long()
    two = replace(graphs, graphs=tuple(relabelled), classes=2)
    try:
        splits = stratified_folds(two, folds, validation=0.0, seed=seed).splits
    except ValueError as problem:
        raise UserError(f"activation-maps: {problem}.") from problem
    known = label is None and graphs.name in MUTAGENS
    return Task(two, "mutagens" if known else f"class {chosen}", found, splits)


READOUTS = ("mean", "max")
ROUNDS, LEARNING_RATE = 2, 0.01


def linear(network: Network) -> nn.Linear:
    """The head as one layer whose output is the logit of class 1 against class 0."""
    head = nn.Linear(network.pooled, 1).to(device_of(network))
    with torch.no_grad():
        for name, weight in head.named_parameters():
            both = network.head.get_parameter(name)[0]
            weight.copy_((both[1] - both[0]).view_as(weight))
    return head


def device_of(network: Network) -> torch.device:
    """Where a network is."""
    return next(network.parameters()).device


@torch.no_grad()
def scored(network: Network, batch: Batch) -> Tensor:
    """The logit of every graph of a batch [B], on the CPU."""
    out = network.head(network.readout(network.nodes(batch), batch.graphs))
    return (out[:, 1] - out[:, 0]).cpu()


def logits(network: Network, graphs: Sequence[Data]) -> Tensor:
    """The logit of every graph [B], on the CPU."""
    return scored(network, together(graphs, ROUNDS, device_of(network)))


def activation_maps(network: Network, graphs: Sequence[Data], readout: str) -> list[Tensor]:
    """The scores of the nodes of every graph [n], which have the logit as their mean; on the CPU."""
    batch = together(graphs, ROUNDS, device_of(network))
    with torch.no_grad():
        states = network.nodes(batch)
    scores = class_activation(linear(network), states, batch.graphs, readout, target=0).detach()
    if readout == "max":
        scores = scores * batch.graphs.count[batch.graphs.index]
    return list(scores.cpu().split([graph.num_nodes for graph in graphs]))


ORDERS = BEST, WORST, RANDOM = ("best first", "worst first", "at random")
REMOVED = tuple(tenth / 10 for tenth in range(11))
DRAWS = 10


def shares(scores: Tensor, group: Tensor) -> tuple[float, float]:
    """The share of nodes that are in a group, and the share of the positive score that these carry."""
    positive = scores.double().clamp(min=0)
    total = positive.sum().item()
    return group.double().mean().item(), positive[group].sum().item() / total if total else 0.0


def ranked(scores: Tensor, group: Tensor) -> float:
    """How often a node of the group scores above one outside it; equal scores, or none, count one half."""
    above = scores[group].unsqueeze(1) - scores[~group]
    if not above.numel():
        return 0.5
    return ((above > 0).double() + 0.5 * (above == 0).double()).mean().item()


def half(scores: Tensor) -> float:
    """The least share of the nodes that carries half of the positive score; 0 where there is none."""
    positive = scores.double().clamp(min=0).sort(descending=True).values.cumsum(0)
    if not len(scores) or positive[-1] == 0:
        return 0.0
    return (int((positive < positive[-1] / 2).sum()) + 1) / len(scores)


def hit(scores: Tensor, group: Tensor) -> float:
    """Whether the best scored node lies in a group; of several best, the share that does."""
    return group[scores == scores.max()].double().mean().item()


def drops(
    network: Network, graphs: Sequence[Data], maps: Sequence[Tensor], groups: Sequence[Tensor], seed: int
) -> tuple[float, float, float]:
    """How far the logit falls, on average, without the k best scored nodes, k of the group, k at random."""
    generator = torch.Generator().manual_seed(seed)
    rests = []
    for graph, scores, group in zip(graphs, maps, groups, strict=True):
        k = int(group.sum())
        rests += [without(graph, scores.argsort(descending=True, stable=True)[:k])]
        rests += [without(graph, group.nonzero().flatten())]
        shuffles = (torch.randperm(len(group), generator=generator) for _ in range(DRAWS))
        rests += [without(graph, shuffle[:k]) for shuffle in shuffles]
    fallen = logits(network, graphs).double().unsqueeze(1) - logits(network, rests).view(-1, 2 + DRAWS)
    top, of_group, *at_random = fallen.mean(dim=0).tolist()
    return top, of_group, mean(at_random)


def without(graph: Data, nodes: Tensor) -> Data:
    """The graph with these nodes and their edges removed."""
    kept = torch.ones(graph.num_nodes, dtype=torch.bool)
    kept[nodes] = False
    edge_index, _ = subgraph(kept, graph.edge_index, relabel_nodes=True, num_nodes=len(kept))
    return Data(x=graph.x[kept], edge_index=edge_index)


def deletions(
    network: Network, graphs: Sequence[Data], maps: Sequence[Tensor], seed: int
) -> dict[str, list[float]]:
    """For each order, the mean probability of the predicted class with each share of `REMOVED` gone."""
    signs = torch.where(logits(network, graphs) > 0, 1.0, -1.0)
    counts = torch.tensor([graph.num_nodes for graph in graphs])
    owner = torch.arange(len(graphs)).repeat_interleave(counts)
    n = counts[owner]
    generator = torch.Generator().manual_seed(seed)
    ties, *draws = (torch.rand(len(n), generator=generator) for _ in range(1 + DRAWS))
    best = places(owner, -torch.cat(list(maps)) * signs[owner], ties)
    orders = {BEST: [best], WORST: [n - 1 - best], RANDOM: [places(owner, draw) for draw in draws]}
    x = torch.cat([graph.x for graph in graphs])
    starts = (counts.cumsum(0) - counts).tolist()
    edges = torch.cat([graph.edge_index + at for graph, at in zip(graphs, starts, strict=True)], dim=1)

    def probability(place: Tensor, part: float) -> float:
        kept = place >= (part * n).round()
        edge_index, _ = subgraph(kept, edges, relabel_nodes=True, num_nodes=len(kept))
        left = owner[kept]
        ptr = nn.functional.pad(left.bincount(minlength=len(graphs)).cumsum(0), (1, 0))
        rest: Any = Data(x=x[kept], edge_index=edge_index, batch=left, ptr=ptr)
        logit = scored(network, node_by_node(rest.to(device_of(network)), ROUNDS))
        return (signs * logit).sigmoid().double().mean().item()

    return {
        order: [mean(probability(place, part) for place in found) for part in REMOVED]
        for order, found in orders.items()
    }


def places(owner: Tensor, *keys: Tensor) -> Tensor:
    """The place 0, 1, ... of every node of its graph when sorted by the first key, then the next: [N]."""
    order = torch.from_numpy(np.lexsort([key.numpy() for key in (*keys[::-1], owner)]))
    start = torch.bincount(owner).cumsum(0) - torch.bincount(owner)
    result = torch.empty_like(order)
    result[order] = torch.arange(len(order)) - start[owner[order]]
    return result


def point(order: str, part: float) -> str:
    """The name of a point of a deletion curve."""
    return f"{order}, {part:.0%} removed"


def area(curve: Sequence[float]) -> float:
    """The area under a curve over `REMOVED`, by trapezoids."""
    return float(trapezoid(curve, REMOVED))


COUNTS = ("scored with", "others with", "scored without", "others without")
LEARNED = ("accuracy", "half")
HITS = ("molecules", "hits", "expected")
MAPPED = ("atoms", "score", "ranked", "drop top", "drop group", "drop random", *HITS)
CURVES = tuple(point(order, part) for order in ORDERS for part in REMOVED)
SHOWN = tuple(f"shown {place}" for place in range(4))
KINDS = ("scored, right", "scored, wrong", "other, right", "other, wrong")
GALLERY = tuple(f"{kind} {place}" for place in range(2) for kind in KINDS)
NONE, PICKING = -1, "mean"


def measure(tasks: Sequence[Task], log: RowLog, device: str, seed: int, epochs: int) -> list[Row]:
    """The rows of all sets: those of every fold, and then maps of molecules that are drawn."""
    settings = Settings(ROUNDS, epochs=epochs, learning_rates=(LEARNING_RATE,))
    rows = []
    for task in tasks:
        work = {"data": task.graphs.name, "readout": None, "seed": seed, "fold": None}
        here = [(work | {"pattern": name, "class": task.label}, COUNTS) for name in task.patterns]
        resident = reside(task.graphs, "gin", ROUNDS).to(device)
        jobs = [Job(here, partial(count, task))]
        jobs += [job_of(task, resident, fold, seed, settings) for fold in range(len(task.splits))]
        found = carry_out(jobs, log, f"training on {task.graphs.name}")
        picked = [row["value"] for row in found if row["metric"] in SHOWN + GALLERY and row["value"] != NONE]
        drawn = [
            job_of_maps(task, resident, readout, list(dict.fromkeys(picked)), seed, settings)
            for readout in READOUTS
        ]
        rows += found + carry_out(drawn, log, f"maps of {task.graphs.name}")
    return rows


def work_of(task: Task, fold: int, seed: int, settings: Settings, readout: str) -> Row:
    """What every row of a network says."""
    work = {"data": task.graphs.name, "readout": readout, "seed": seed, "fold": fold, "draws": DRAWS}
    return work | {"class": task.label, "folds": len(task.splits), "settings": asdict(settings)}


def job_of(task: Task, resident: Resident, fold: int, seed: int, settings: Settings) -> Job:
    """Baselines and both readouts on one fold, trained and untrained; of the first also what is drawn."""
    rows: list[tuple[Row, Sequence[str]]] = [
        ({"data": task.graphs.name, "readout": name, "seed": seed, "fold": fold}, ("accuracy",))
        for name in BASELINES
    ]
    for readout in READOUTS:
        for epochs in (settings.epochs, 0):
            here = work_of(task, fold, seed, replace(settings, epochs=epochs), readout)
            rows.append((here, (*LEARNED, *GATE, *CURVES) if epochs else LEARNED))
            rows += [(here | {"pattern": name}, MAPPED) for name in task.patterns]
            if epochs and fold == 0 and readout == PICKING:
                rows.append((here, (*SHOWN, *GALLERY)))
    return Job(rows, partial(judge_fold, task, resident, fold, seed, settings))


def judge_fold(
    task: Task, resident: Resident, fold: int, seed: int, settings: Settings
) -> list[dict[str, float]]:
    """What the rows of a fold say."""
    split = task.splits[fold]
    found: list[dict[str, float]] = [
        baselines.fit_and_judge(resident, split, name, seed + fold) for name in BASELINES
    ]
    for readout in READOUTS:
        for epochs in (settings.epochs, 0):
            stack = train(
                resident,
                split.train,
                readout,
                replace(settings, epochs=epochs),
                seed + fold,
                linear_head=True,
            )
            network, held_out = stack.network, [task.graphs[place] for place in split.test]
            maps = activation_maps(network, held_out, readout)
            right = (logits(network, held_out) > 0) == torch.cat([graph.y for graph in held_out]).bool()
            learned = {"accuracy": right.double().mean().item(), "half": mean(map(half, maps))}
            if epochs:
                learned |= gate_values(stack, split.train, readout)[0]
                curves = deletions(network, held_out, maps, seed)
                learned |= zip(CURVES, [value for order in ORDERS for value in curves[order]], strict=True)
            found.append(learned)
            for nodes in task.patterns.values():
                groups = [nodes[place] for place in split.test]
                found.append(judge_pattern(network, held_out, maps, groups, seed))
            if epochs and fold == 0 and readout == PICKING:
                found.append(pick_graphs(task, split, network))
    return found


def judge_pattern(
    network: Network, graphs: Sequence[Data], maps: Sequence[Tensor], groups: Sequence[Tensor], seed: int
) -> dict[str, float]:
    """Where the maps of held-out graphs with a pattern have their score.

    Of those of the scored class: how many, whose best node is in the pattern, and how many by chance.
    """
    inside = [place for place, group in enumerate(groups) if group.any()]
    if not inside:
        return dict.fromkeys(MAPPED, 0.0)
    chosen, scores, parts = ([of[place] for place in inside] for of in (graphs, maps, groups))
    found = [*shares(torch.cat(scores), torch.cat(parts)), mean(map(ranked, scores, parts))]
    found += drops(network, chosen, scores, parts, seed)
    hits = [
        (1.0, hit(score, part), part.double().mean().item())
        for graph, score, part in zip(chosen, scores, parts, strict=True)
        if graph.y == 1
    ]
    found += [sum(of) for of in zip(*hits, strict=True)] if hits else [0.0] * len(HITS)
    return dict(zip(MAPPED, found, strict=True))


def count(task: Task) -> list[dict[str, float]]:
    """How many graphs of the scored class and others have each pattern, and have none."""
    order = ((True, True), (False, True), (True, False), (False, False))
    return [
        dict(zip(COUNTS, map(kinds.count, order), strict=True))
        for kinds in (
            [(bool(y), bool(one.any())) for y, one in zip(task.graphs.targets, nodes, strict=True)]
            for nodes in task.patterns.values()
        )
    ]


def pick_graphs(task: Task, split: Split, network: Network) -> dict[str, float]:
    """Positions of the graphs to draw; `NONE` where the fold has no more of a kind."""
    first = next(iter(task.patterns.values()))
    inside = [place for place in split.test if first[place].any()]
    evenly = np.linspace(0, len(inside) - 1, min(len(SHOWN), len(inside))).round().astype(int)
    result: dict[str, float] = dict.fromkeys((*SHOWN, *GALLERY), NONE)
    result |= {f"shown {place}": inside[at] for place, at in enumerate(evenly)}
    graphs = [task.graphs[place] for place in split.test]
    for place, graph, logit in zip(split.test, graphs, logits(network, graphs), strict=True):
        answer = "right" if (logit > 0) == (graph.y == 1) else "wrong"
        kind = f"{'scored' if graph.y == 1 else 'other'}, {answer}"
        free = [metric for metric in GALLERY if metric.startswith(kind) and result[metric] == NONE]
        result |= dict.fromkeys(free[:1] if graph.num_nodes else (), place)
    return result


def job_of_maps(
    task: Task, resident: Resident, readout: str, positions: Sequence[int], seed: int, settings: Settings
) -> Job:
    """Maps of the graphs that are drawn, by the network of the first fold."""
    work = work_of(task, 0, seed, settings, readout)
    atoms = [[f"atom {atom}" for atom in range(task.graphs[place].num_nodes)] for place in positions]
    rows = [(work | {"molecule": place}, ("logit", *of)) for place, of in zip(positions, atoms, strict=True)]
    return Job(rows, partial(map_graphs, task, resident, readout, positions, seed, settings))


def map_graphs(
    task: Task, resident: Resident, readout: str, positions: Sequence[int], seed: int, settings: Settings
) -> list[dict[str, float]]:
    """The logit of each graph, and the score of each of its nodes."""
    network = train(resident, task.splits[0].train, readout, settings, seed, linear_head=True).network
    graphs = [task.graphs[place] for place in positions]
    maps = activation_maps(network, graphs, readout)
    return [
        {"logit": logit} | {f"atom {atom}": score for atom, score in enumerate(scores.tolist())}
        for logit, scores in zip(logits(network, graphs).tolist(), maps, strict=True)
    ]


NEARLY_ALL = 0.9
COMPARED = {
    "accuracy": "held-out accuracy",
    "half": "share of the atoms that carries half of the positive score",
    "deletion": "deletion below random by",
    "insertion": "insertion above random by",
}


def per_fold(
    rows: Sequence[Row], data: str, readout: str, metric: str, trained: bool = True, **wanted: str
) -> list[float]:
    """The values of one metric, one a fold."""
    at = {"data": data, "readout": readout, "metric": metric, **wanted}
    of = [row for row in rows if at.items() <= row.items() and ("pattern" in wanted or "pattern" not in row)]
    return [row["value"] for row in of if "settings" not in row or (row["settings"]["epochs"] > 0) == trained]


def areas(rows: Sequence[Row], data: str, readout: str, order: str) -> list[float]:
    """The area under the deletion curve of one order, one a fold."""
    curves = [per_fold(rows, data, readout, point(order, part)) for part in REMOVED]
    return [area(curve) for curve in zip(*curves, strict=True)]


def patterns(rows: Sequence[Row], data: str) -> list[str]:
    """The patterns of a set, the one that the claim is about first."""
    return present(rows, "pattern", data=data)


def tables(rows: Sequence[Row]) -> list[Table]:
    """What was learned, where the maps have their score, what they hit, areas: averages over the folds."""
    learned = ("set", "readout", "held out", *BASELINES, "in training", "half")
    mapped = ("set, pattern", "readout", "network", "atoms", "score", "ranked", "best", "group", "random")
    hits = ("set", "pattern", "readout", "scored with", "without", "hit", "chance", "of")
    columns = ("set", "readout", "deleted best first", "at random", "deleted worst (inserted best) first")
    return [
        table(
            "Networks: accuracy; atoms that carry half of the positive score", learned, learned_lines(rows), 2
        ),
        table(
            "Patterns: share of atoms, of positive score; fall of the logit without atoms",
            mapped,
            mapped_lines(rows),
            3,
        ),
        table(
            "Graphs of the scored class with a pattern: is the best scored atom in it?",
            hits,
            hit_lines(rows),
            3,
        ),
        table("Probability of the predicted class: area under the curve", columns, area_lines(rows), 2),
    ]


def learned_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set and readout."""
    for data in present(rows, "data"):
        for readout in READOUTS:
            of = [(readout, "accuracy"), *((name, "accuracy") for name in BASELINES)]
            of += [(readout, "train accuracy"), (readout, "half")]
            yield [data, readout, *(share(mean(per_fold(rows, data, *one))) for one in of)]


def mapped_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set, pattern, readout and network."""
    for data in present(rows, "data"):
        for pattern in patterns(rows, data):
            for readout in READOUTS:
                for trained in (True, False):
                    found = [
                        mean(per_fold(rows, data, readout, name, trained, pattern=pattern))
                        for name in MAPPED[:6]
                    ]
                    network = "trained" if trained else "untrained"
                    fallen = (f"{value:.2f}" for value in found[3:])
                    yield [f"{data}, {pattern}", readout, network, *map(share, found[:3]), *fallen]


def hit_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set, pattern and readout: rates over all folds, and of how many graphs."""
    for data in present(rows, "data"):
        for pattern in patterns(rows, data):
            for readout in READOUTS:
                of = [pick(rows, data=data, pattern=pattern, metric=name) for name in COUNTS]
                line = [data, pattern, readout, f"{of[0]}/{of[0] + of[1]}", f"{of[2]}/{of[2] + of[3]}"]
                total, hits, chance = (
                    sum(per_fold(rows, data, readout, name, pattern=pattern)) for name in HITS
                )
                line += [share(hits / total), share(chance / total)] if total else ["", ""]
                yield [*line, f"{total:.0f}"]


def area_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set and readout."""
    for data in present(rows, "data"):
        for readout in READOUTS:
            found = (mean(areas(rows, data, readout, name)) for name in (BEST, RANDOM, WORST))
            yield [data, readout, *map(share, found)]


def objections(rows: Sequence[Row], data: str) -> list[str]:
    """What the gate has against these networks."""
    gated = [row for row in rows if row["data"] == data and row["metric"] in GATE]
    of_networks, of_baselines = (
        {name: per_fold(rows, data, name, "accuracy") for name in names} for names in (READOUTS, BASELINES)
    )
    return gate.objections(gated, "accuracy", of_networks, of_baselines)


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """After a mean, the first pattern carries more than its share of the score: the verdict is about that."""
    for data in present(rows, "data"):
        against = objections(rows, data)
        for readout in READOUTS:
            found = [of_pattern(rows, data, readout, pattern) for pattern in patterns(rows, data)]
            found += of_hits(rows, data, readout)
            found += [of_removal(rows, data, readout), *of_curves(rows, data, readout)]
            for place, (claim, held, said) in enumerate(found):
                told = "; ".join((said, *against))
                main = place == 0 and readout == PICKING
                yield Finding(f"{data}, {readout}, {claim}", None if against else held, told, main=main)


Said = tuple[str, bool | None, str]


def held(folds: Sequence[bool]) -> bool | None:
    """Whether something holds in nearly all folds, in nearly none (False), or in some (None)."""
    if mean(folds) >= NEARLY_ALL:
        return True
    return False if mean(folds) <= 1 - NEARLY_ALL else None


def of_pattern(rows: Sequence[Row], data: str, readout: str, pattern: str) -> Said:
    """Whether a pattern lights up; in some folds only is not enough."""
    atoms, score = (per_fold(rows, data, readout, name, pattern=pattern) for name in ("atoms", "score"))
    more = [s > a for s, a in zip(score, atoms, strict=True)]
    return (
        f"{pattern} lights up",
        bool(held(more)),
        f"it is {share(mean(atoms))} of the atoms and carries {share(mean(score))} of the positive score, "
        f"more than its share in {sum(more)} of {len(more)} folds",
    )


def of_hits(rows: Sequence[Row], data: str, readout: str) -> Iterator[Said]:
    """Whether the best scored atom of a graph of the class lies in its pattern, of folds with such graphs."""
    for pattern in patterns(rows, data):
        found = zip(*(per_fold(rows, data, readout, name, pattern=pattern) for name in HITS), strict=True)
        folds = [fold for fold in found if fold[0]]
        if folds:
            total, hits, chance = (sum(of) for of in zip(*folds, strict=True))
            more = [hit > expected for _, hit, expected in folds]
            yield (
                f"the best scored atom is in {pattern} more often than by chance",
                held(more),
                f"of {total:.0f} with {pattern} {share(hits / total)} against {share(chance / total)}, more "
                f"in {sum(more)} of {len(more)} folds",
            )


def of_removal(rows: Sequence[Row], data: str, readout: str) -> Said:
    """Whether graphs with the first pattern need the atoms that the map points at."""
    first = patterns(rows, data)[0]
    top, at_random = (
        per_fold(rows, data, readout, name, pattern=first) for name in ("drop top", "drop random")
    )
    lower = [t > r for t, r in zip(top, at_random, strict=True)]
    return (
        "the logit needs the best scored atoms",
        held(lower),
        f"without its best scored atoms a molecule's logit falls by {mean(top):.2f}, without as many at "
        f"random by {mean(at_random):.2f}; further in {sum(lower)} of {len(lower)} folds",
    )


def of_curves(rows: Sequence[Row], data: str, readout: str) -> Iterator[Said]:
    """Whether the probability of the predicted class falls sooner, and comes back sooner, than at random."""
    best, at_random, worst = (areas(rows, data, readout, order) for order in (BEST, RANDOM, WORST))
    for found, claim, sign in (
        (best, "deleted best first, the class goes sooner", -1),
        (worst, "inserted best first, the class comes sooner", 1),
    ):
        sooner = [sign * (f - r) > 0 for f, r in zip(found, at_random, strict=True)]
        yield claim, held(sooner), f"area {share(mean(found))} against {share(mean(at_random))} at random"


def numbers(rows: Sequence[Row]) -> str:
    """The share of the first pattern in atoms and in score, after a mean."""
    return "; ".join(
        f"{data}, {first}: {100 * mean(per_fold(rows, data, PICKING, 'atoms', pattern=first)):.0f} % of the "
        f"atoms, {100 * mean(per_fold(rows, data, PICKING, 'score', pattern=first)):.0f} % of the score"
        for data in present(rows, "data")
        for first in patterns(rows, data)[:1]
    )


def notes(tasks: Sequence[Task], rows: Sequence[Row]) -> Iterator[str]:
    """What was mapped, and the two readouts side by side."""
    yield from (task.sentence for task in tasks)
    for data in present(rows, "data"):
        first = patterns(rows, data)[0]
        if not any(values(rows, data=data, pattern=first, metric=name)[0] for name in COUNTS[2:]):
            yield f"{data}: every graph has {first}, so that it cannot tell the classes apart."
        yield of_both(rows, data)


def of_both(rows: Sequence[Row], data: str) -> str:
    """Mean against max, fold by fold."""
    parts = []
    for metric, words in COMPARED.items():
        first, second = (compared(rows, data, readout, metric) for readout in READOUTS)
        *_, p = interval(np.array(first) - np.array(second), 1 / (len(first) - 1))
        undecided = p > 1 - LEVEL or objections(rows, data)
        sign = "undecided" if undecided else "more" if mean(first) > mean(second) else "less"
        parts.append(f"{words} {share(mean(first))} and {share(mean(second))} ({sign})")
    return f"{data}, {' against '.join(READOUTS)}: {'; '.join(parts)}."


def compared(rows: Sequence[Row], data: str, readout: str, metric: str) -> list[float]:
    """One value a fold; deletion and insertion are gains in area over the random order."""
    if metric not in ("deletion", "insertion"):
        return per_fold(rows, data, readout, metric)
    order, sign = (BEST, -1) if metric == "deletion" else (WORST, 1)
    both = (areas(rows, data, readout, name) for name in (order, RANDOM))
    return [sign * (chosen - at_random) for chosen, at_random in zip(*both, strict=True)]


CELL, LEFT, BAR = (1.72, 1.75), 1.3, 0.85  # inches
ROOM, HEAD, SIDE, CAPTION = (1.95, 1.75), 0.4, 0.75, 0.25  # inches, of the gallery
STYLES = {BEST: "-", RANDOM: "--", WORST: ":"}


def figure(rows: Sequence[Row], tasks: Sequence[Task], out: Path) -> list[Path]:
    """All figures: `activation`, `activation_curves`, and for each set a `gallery-SET`."""
    paths = shown_figure(rows, tasks, out) + curves_figure(rows, out)
    return paths + [path for task in tasks for path in gallery(rows, task, out)]


def shown_figure(rows: Sequence[Row], tasks: Sequence[Task], out: Path) -> list[Path]:
    """Graphs with the first pattern and their maps after a mean, a row a set, each with its own scale."""
    width, height = LEFT + len(SHOWN) * CELL[0] + BAR, CELL[1] * len(tasks)
    paper, axes = figures.sheet(width, height)
    for line, task in enumerate(tasks):
        data, first = task.graphs.name, next(iter(task.patterns))
        bottom = height - CELL[1] * (line + 1)
        middle = bottom + CELL[1] / 2
        positions = [found for metric in SHOWN if (found := chosen(rows, data, metric)) != NONE]
        limit = largest(rows, data, PICKING, positions)
        for column, position in enumerate(positions):
            draw_graph(paper, rows, task, PICKING, position, limit, (LEFT + CELL[0] * column, bottom), CELL)
        colour_bar(paper, colour_scale(limit), "score", (width - BAR + 0.1, middle - 0.55), 1.1)
        atoms, score = (
            mean(per_fold(rows, data, PICKING, name, pattern=first)) for name in ("atoms", "score")
        )
        note = f"{first[:16]} is {atoms:.0%}\nof the atoms and\ncarries {score:.0%} of\nthe positive score"
        axes.text(0.1, middle + 0.42, data[:14], fontsize=11, fontweight="bold", va="center")
        axes.text(0.1, middle - 0.12, note, fontsize=9, va="center", color=figures.GREY)
    return figures.save(paper, out, "activation")


def draw_graph(
    paper: Figure,
    rows: Sequence[Row],
    task: Task,
    readout: str,
    position: int,
    limit: float,
    corner: tuple[float, float],
    room: tuple[float, float],
) -> None:
    """Draw one graph with its map into a box, all in inches."""
    width, height = paper.get_size_inches()
    box = (corner[0] / width, corner[1] / height, room[0] / width, room[1] / height)
    graph, names = task.graphs[position], symbols_of(task.graphs)
    symbols = None if names is None else [names[label] for label in graph.node_label.tolist()]
    bonds = None if symbols is None else bonds_of(graph, task.graphs)
    scores = torch.tensor(map_of(rows, task.graphs.name, readout, position))
    draw(graph, scores, symbols=symbols, bonds=bonds, limit=limit, ax=paper.add_axes(box))


def gallery(rows: Sequence[Row], task: Task, out: Path) -> list[Path]:
    """Graphs of both classes that the network with a mean gets right and wrong, each after both readouts.

    The rows are the two readouts of the first graph of each kind, then those of the second. Every map has its
    own scale, whose end is told below it.
    """
    lines = [(place, readout) for place in range(len(GALLERY) // len(KINDS)) for readout in READOUTS]
    width, height = SIDE + len(KINDS) * ROOM[0] + BAR, HEAD + len(lines) * ROOM[1]
    paper, axes = figures.sheet(width, height)
    for column, kind in enumerate(KINDS):
        left = SIDE + ROOM[0] * column
        heading = kind.replace("scored", task.label.removesuffix("s")).replace(",", f", {PICKING}")
        axes.text(left + ROOM[0] / 2, height - HEAD / 2, heading, ha="center", va="center", weight="bold")
        for line, (place, readout) in enumerate(lines):
            corner = (left, height - HEAD - ROOM[1] * (line + 1))
            draw_cell(paper, axes, corner, rows, task, readout, f"{kind} {place}")
    for line, (place, readout) in enumerate(lines):
        top = height - HEAD - ROOM[1] * line
        axes.text(0.1, top - ROOM[1] / 2, readout, fontsize=11, fontweight="bold", va="center")
        if place and readout == READOUTS[0]:
            axes.plot([0.1, width - BAR], [top, top], color=figures.PALE, linewidth=1)
    label = "\nscore / largest of its map"  # a line further from the ticks
    colour_bar(paper, colour_scale(1.0), label, (width - BAR + 0.1, height / 2 - 1), 2.0)
    return figures.save(paper, out, f"gallery-{task.graphs.name}")


def draw_cell(
    paper: Figure,
    axes: Axes,
    corner: tuple[float, float],
    rows: Sequence[Row],
    task: Task,
    readout: str,
    metric: str,
) -> None:
    """Draw one graph of the gallery with its map, and below it the prediction of the network."""
    data, position = task.graphs.name, chosen(rows, task.graphs.name, metric)
    centre = corner[0] + ROOM[0] / 2
    if position == NONE:
        middle = corner[1] + (ROOM[1] + CAPTION) / 2
        axes.text(centre, middle, "no other in this fold", fontsize=8.5, color=figures.GREY, ha="center")
        return
    limit = largest(rows, data, readout, [position])
    box = (corner[0], corner[1] + CAPTION), (ROOM[0], ROOM[1] - CAPTION)
    draw_graph(paper, rows, task, readout, position, limit, *box)
    logit = pick(rows, data=data, readout=readout, molecule=position, metric="logit")
    answer = "right" if (logit > 0) == metric.startswith("scored") else "wrong"
    probability = torch.tensor(logit).sigmoid().item()
    caption = f"P({task.label.removesuffix('s')}) {probability:.0%}: {answer}; ±{limit:.3g}"
    axes.text(centre, corner[1] + CAPTION / 2, caption, fontsize=8.5, ha="center", va="center")


def curves_figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """Two panels a set: atoms deleted, and atoms inserted."""
    sheets = [(data, what) for data in present(rows, "data") for what in ("deleted", "inserted")]
    paper, panels = figures.panels(len(sheets), width=3.9, height=2.9, columns=2)
    percents = [100 * part for part in REMOVED]
    reverse = {BEST: WORST, WORST: BEST, RANDOM: RANDOM}
    for panel, (data, what) in zip(panels, sheets, strict=True):
        for readout in READOUTS:
            for order, dashes in STYLES.items():
                source = order if what == "deleted" else reverse[order]
                curve = [100 * mean(per_fold(rows, data, readout, point(source, part))) for part in REMOVED]
                found = curve if what == "deleted" else curve[::-1]
                panel.plot(percents, found, linestyle=dashes, color=figures.COLOURS[readout])
        panel.set(title=f"{data}: atoms {what}", xlabel=f"atoms {what} [%]", xlim=(0, 100))
        panel.set(ylabel="probability of predicted class [%]", ylim=(0, 102))
    figures.legend(
        paper,
        {f"{r}, {order}": (figures.COLOURS[r], dashes) for order, dashes in STYLES.items() for r in READOUTS},
    )
    return figures.save(paper, out, "activation_curves")


def chosen(rows: Sequence[Row], data: str, metric: str) -> int:
    """The position that was chosen to be drawn in a place, or `NONE`."""
    return int(pick(rows, data=data, metric=metric))


def map_of(rows: Sequence[Row], data: str, readout: str, position: int) -> list[float]:
    """The score of every node of a graph that is drawn."""
    wanted = {"data": data, "readout": readout, "molecule": position}
    return [row["value"] for row in rows if wanted.items() <= row.items() and row["metric"] != "logit"]


def largest(rows: Sequence[Row], data: str, readout: str, positions: Sequence[int]) -> float:
    """The largest magnitude of a score in these maps; 1 where there is none."""
    maps = (map_of(rows, data, readout, position) for position in positions)
    return max((abs(score) for scores in maps for score in scores), default=0.0) or 1.0


PATTERNS = Annotated[
    list[str],
    typer.Option(
        metavar="SMARTS...",
        help=f"Groups of atoms: SMARTS, or one of {', '.join(GROUPS)}. Where nodes are no atoms: labels.",
        show_default="those for the sets of mutagens",
    ),
]


EXPERIMENT = Experiment(
    name="activation-maps",
    title="Activation maps",
    question="Do networks trained on mutagenicity assign high scores to nitro groups?",
    claim="Activation maps of networks trained on mutagenicity highlight nitro groups",
    theory=(
        "After a mean readout and a linear head every atom has a score, and their mean is the logit. "
        "Where a nitro group tells mutagens from other molecules, its atoms carry more than their share "
        "of the positive score, and a network uses the atoms that its map points at."
    ),
    setup=(
        "GINs of two rounds with batch norm, a mean or a max readout and a linear head are trained on each "
        "fold (batches of 32, a learning rate of .01 that halves every 50 epochs, the last epoch), and only "
        "molecules that were held out are mapped; untrained networks stand beside. The share of the "
        "positive score that nitro groups carry, or any pattern that `--pattern` names in any set; whether "
        "the best scored atom lies in the pattern, against chance; what is left of the prediction as atoms "
        "are deleted or inserted in the order of the map, in its reverse, and at random."
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
        "Networks that did not converge or are not ahead of the best baseline decide nothing.",
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
            "after a mean and after a max readout.",
            "Molecules judged right and wrong, after a mean and after a max.",
        ),
        Drawing(
            "activation_curves",
            "The output of the network as atoms are removed from a molecule or put into it, in the "
            "order of the map, against random order.",
            "Deletion and insertion: atoms in the order of the map, in the reverse, and at random.",
        ),
    ),
    prepare=choose,
    measure=measure,
    tables=tables,
    findings=findings,
    numbers=numbers,
    figure=figure,
    notes=notes,
    data=(),
    example=("--data", "MUTAG", "Mutagenicity"),
    options={
        "pattern": Option(PATTERNS, []),
        "label": number(None, 0, "The class whose score is mapped.", show_default="mutagens, or else 1"),
        "folds": Option(Folds, 10),
        "epochs": number(200, 1, "Epochs of training, in batches of 32."),
    },
    quick={"folds": 5, "epochs": 30},
)
