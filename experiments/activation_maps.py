"""Maps of what each node gave to the score of a class, and what they are worth.

Luo et al. (arXiv 2011.04573) take NO2 and NH2 as what explanations should find. What is drawn comes from the
first fold and does not depend on the maps. A statement holds where it does in nine of ten folds or more, does
not where it does in one of ten or fewer, and else is undecided.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from statistics import mean

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from datasets import GraphSet
from datasets.splits import Split
from experiments import maps
from experiments.accuracy import baselines, gate
from experiments.activation_figures import GALLERY, NONE, PICKING, SHOWN, areas, figure, patterns, per_fold
from experiments.console import Table, UserError, share, table
from experiments.experiment import Drawing, Experiment, Finding
from experiments.jobs import Job, carry_out
from experiments.learning.batches import Resident, reside
from experiments.learning.networks import Network
from experiments.learning.training import Settings
from experiments.maps import BEST, DRAWS, ORDERS, RANDOM, READOUTS, REMOVED, ROUNDS, WORST, Task, point
from experiments.options import OF_FOLDS, number, option
from experiments.patterns import GROUPS, nodes_of
from experiments.records import Row, RowLog, pick, present, values
from experiments.samples import cut
from experiments.statistics import LEVEL, interval
from experiments.trained import GATE, gate_values, train

MUTAGENS = {"MUTAG": 1, "Mutagenicity": 0}  # the class of mutagens
BASELINES = tuple(baselines.OF_CLASSES)


def choose(graphs: GraphSet, pattern: Sequence[str], label: int | None, seed: int, folds: int) -> Task:
    """Find the patterns; sets of mutagens have a class and patterns of their own."""
    names = list(dict.fromkeys(pattern)) or (list(GROUPS) if graphs.name in MUTAGENS else [])
    if not names:
        wanted = f"expected SMARTS of a group to look for in {graphs.name}, got none"
        raise UserError(f"--pattern: {wanted}; only {' and '.join(MUTAGENS)} have known ones.")
    chosen = MUTAGENS.get(graphs.name, 1) if label is None else label
    counts = np.bincount(graphs.targets.numpy(), minlength=graphs.classes)
    if chosen >= graphs.classes or counts[chosen] == len(graphs):
        wanted = f"expected one of {graphs.classes} classes of {graphs.name}, and other graphs beside it"
        raise UserError(f"--label: {wanted}, got {chosen}.")
    found = {name: nodes_of(graphs, name) for name in names}
    found = {name: nodes for name, nodes in found.items() if any(one.any() for one in nodes)}
    if not found:
        raise UserError(f"--pattern: no graph of {graphs.name} has {' or '.join(names)}.")
    relabelled = [graph.clone() for graph in graphs]
    for graph in relabelled:
        graph.y = (graph.y == chosen).long()
    two = replace(graphs, graphs=tuple(relabelled), classes=2)
    known = label is None and graphs.name in MUTAGENS
    return Task(
        two, "mutagens" if known else f"class {chosen}", found, cut("activation-maps", two, folds, seed)
    )


LEARNING_RATE = 0.01
COUNTS = ("scored with", "others with", "scored without", "others without")
LEARNED = ("accuracy", "half")
HITS = ("molecules", "hits", "expected")
MAPPED = ("atoms", "score", "ranked", "drop top", "drop group", "drop random", *HITS)
CURVES = tuple(point(order, part) for order in ORDERS for part in REMOVED)


@dataclass(frozen=True)
class Bench:
    """A set on its device, and how networks are trained on it."""

    task: Task
    resident: Resident
    seed: int
    settings: Settings

    def work(self, fold: int, readout: str, epochs: int) -> Row:
        """What every row of a network says."""
        name, settings = self.task.graphs.name, replace(self.settings, epochs=epochs)
        work = {"data": name, "readout": readout, "seed": self.seed, "fold": fold, "draws": DRAWS}
        return work | {"class": self.task.label, "folds": len(self.task.splits), "settings": asdict(settings)}


def measure(tasks: Sequence[Task], log: RowLog, device: str, seed: int, epochs: int) -> list[Row]:
    """The rows of all sets: those of every fold, and then maps of molecules that are drawn."""
    if not tasks:
        raise UserError("--data: expected one set or more, as MUTAG, got none.")
    settings = Settings(ROUNDS, epochs=epochs, learning_rates=(LEARNING_RATE,))
    rows = []
    for task in tasks:
        bench = Bench(task, reside(task.graphs, "gin", ROUNDS).to(device), seed, settings)
        work = {"data": task.graphs.name, "readout": None, "seed": seed, "fold": None, "class": task.label}
        counted = [(work | {"pattern": name}, COUNTS) for name in task.patterns]
        jobs = [
            Job(counted, partial(count, task)),
            *(job_of(bench, fold) for fold in range(len(task.splits))),
        ]
        found = carry_out(jobs, log, f"training on {task.graphs.name}")
        picked = [row["value"] for row in found if row["metric"] in SHOWN + GALLERY and row["value"] != NONE]
        drawn = [job_of_maps(bench, readout, list(dict.fromkeys(picked))) for readout in READOUTS]
        rows += found + carry_out(drawn, log, f"maps of {task.graphs.name}")
    return rows


def job_of(bench: Bench, fold: int) -> Job:
    """Baselines and both readouts on one fold, trained and untrained; of the first also what is drawn."""
    work: Row = {"data": bench.task.graphs.name, "seed": bench.seed, "fold": fold}
    rows: list[tuple[Row, Sequence[str]]] = [(work | {"readout": of}, ("accuracy",)) for of in BASELINES]
    for readout, epochs in product(READOUTS, (bench.settings.epochs, 0)):
        here = bench.work(fold, readout, epochs)
        rows.append((here, (*LEARNED, *GATE, *CURVES) if epochs else LEARNED))
        rows += [(here | {"pattern": name}, MAPPED) for name in bench.task.patterns]
        rows += [(here, (*SHOWN, *GALLERY))] if epochs and fold == 0 and readout == PICKING else []
    return Job(rows, partial(judge_fold, bench, fold))


def judge_fold(bench: Bench, fold: int) -> list[dict[str, float]]:
    """What the rows of a fold say."""
    task, resident, split, seed = bench.task, bench.resident, bench.task.splits[fold], bench.seed
    held_out = [task.graphs[place] for place in split.test]
    found = [baselines.fit_and_judge(resident, split, name, seed + fold) for name in BASELINES]
    for readout, epochs in product(READOUTS, (bench.settings.epochs, 0)):
        settings = replace(bench.settings, epochs=epochs)
        stack = train(resident, split.train, readout, settings, seed + fold, linear_head=True)
        network = stack.network
        scored = maps.activation_maps(network, held_out, readout)
        right = (maps.logits(network, held_out) > 0) == torch.cat([graph.y for graph in held_out]).bool()
        found.append({"accuracy": right.double().mean().item(), "half": mean(map(maps.half, scored))})
        if epochs:
            curves = maps.deletions(network, held_out, scored, seed)
            found[-1] |= gate_values(stack, split.train, readout)[0]
            found[-1] |= zip(CURVES, [value for order in ORDERS for value in curves[order]], strict=True)
        for nodes in task.patterns.values():
            groups = [nodes[place] for place in split.test]
            found.append(judge_pattern(network, held_out, scored, groups, seed))
        if epochs and fold == 0 and readout == PICKING:
            found.append(pick_graphs(task, split, network))
    return found


def judge_pattern(
    network: Network, graphs: Sequence[Data], scored: Sequence[Tensor], groups: Sequence[Tensor], seed: int
) -> dict[str, float]:
    """Where the maps of held-out graphs with a pattern have their score.

    Of those of the scored class: how many, whose best node is in the pattern, and how many by chance.
    """
    inside = [place for place, group in enumerate(groups) if group.any()]
    if not inside:
        return dict.fromkeys(MAPPED, 0.0)
    chosen = [graphs[place] for place in inside]
    scores, parts = ([of[place] for place in inside] for of in (scored, groups))
    found = [*maps.shares(torch.cat(scores), torch.cat(parts)), mean(map(maps.ranked, scores, parts))]
    found += maps.drops(network, chosen, scores, parts, seed)
    hits = [
        (1.0, maps.hit(score, part), part.double().mean().item())
        for graph, score, part in zip(chosen, scores, parts, strict=True)
        if int(graph.y) == 1
    ]
    found += [sum(of) for of in zip(*hits, strict=True)] if hits else [0.0] * len(HITS)
    return dict(zip(MAPPED, found, strict=True))


def count(task: Task) -> list[dict[str, float]]:
    """How many graphs of the scored class and others have each pattern, and have none."""
    order = ((True, True), (False, True), (True, False), (False, False))
    found: list[dict[str, float]] = []
    for nodes in task.patterns.values():
        kinds = [(bool(y), bool(one.any())) for y, one in zip(task.graphs.targets, nodes, strict=True)]
        found.append(dict(zip(COUNTS, map(kinds.count, order), strict=True)))
    return found


def pick_graphs(task: Task, split: Split, network: Network) -> dict[str, float]:
    """Positions of the graphs to draw; `NONE` where the fold has no more of a kind."""
    first = next(iter(task.patterns.values()))
    inside = [place for place in split.test if first[place].any()]
    evenly = np.linspace(0, len(inside) - 1, min(len(SHOWN), len(inside))).round().astype(int)
    result: dict[str, float] = dict.fromkeys((*SHOWN, *GALLERY), NONE)
    result |= {f"shown {place}": inside[at] for place, at in enumerate(evenly)}
    graphs = [task.graphs[place] for place in split.test]
    for place, graph, logit in zip(split.test, graphs, maps.logits(network, graphs), strict=True):
        answer = "right" if (logit > 0) == (graph.y == 1) else "wrong"
        kind = f"{'scored' if graph.y == 1 else 'other'}, {answer}"
        free = [metric for metric in GALLERY if metric.startswith(kind) and result[metric] == NONE]
        result |= dict.fromkeys(free[:1] if graph.num_nodes else (), place)
    return result


def job_of_maps(bench: Bench, readout: str, positions: Sequence[int]) -> Job:
    """Maps of the graphs that are drawn, by the network of the first fold."""
    work, rows = bench.work(0, readout, bench.settings.epochs), []
    for place in positions:
        atoms = [f"atom {atom}" for atom in range(bench.task.graphs[place].num_nodes)]
        rows.append((work | {"molecule": place}, ("logit", *atoms)))
    return Job(rows, partial(map_graphs, bench, readout, positions))


def map_graphs(bench: Bench, readout: str, positions: Sequence[int]) -> list[dict[str, float]]:
    """The logit of each graph, and the score of each of its nodes."""
    known = bench.task.splits[0].train
    network = train(bench.resident, known, readout, bench.settings, bench.seed, linear_head=True).network
    graphs = [bench.task.graphs[place] for place in positions]
    scored = maps.activation_maps(network, graphs, readout)
    return [
        {"logit": logit} | {f"atom {atom}": score for atom, score in enumerate(scores.tolist())}
        for logit, scores in zip(maps.logits(network, graphs).tolist(), scored, strict=True)
    ]


NEARLY_ALL = 0.9
COMPARED = {
    "accuracy": "held-out accuracy",
    "half": "share of the atoms that carries half of the positive score",
    "deletion": "deletion below random by",
    "insertion": "insertion above random by",
}


def tables(rows: Sequence[Row]) -> list[Table]:
    """What was learned, where the maps have their score, what they hit, areas: averages over the folds."""
    networks: list[list[str]] = []
    mapped: list[list[str]] = []
    hits: list[list[str]] = []
    curves: list[list[str]] = []
    for data in present(rows, "data"):
        for readout in READOUTS:
            of = [(name, "accuracy") for name in (readout, *BASELINES)]
            of += [(readout, metric) for metric in ("train accuracy", "half")]
            networks.append([data, readout, *(share(mean(per_fold(rows, data, *one))) for one in of)])
            found = (mean(areas(rows, data, readout, order)) for order in (BEST, RANDOM, WORST))
            curves.append([data, readout, *map(share, found)])
        for pattern in patterns(rows, data):
            mapped += mapped_lines(rows, data, pattern)
            hits += hit_lines(rows, data, pattern)
    learned = ("set", "readout", "held out", *BASELINES, "in training", "half")
    where = ("set, pattern", "readout", "network", "atoms", "score", "ranked", "best", "group", "random")
    hit = ("set", "pattern", "readout", "scored with", "without", "hit", "chance", "of")
    orders = ("set", "readout", "deleted best first", "at random", "deleted worst (inserted best) first")
    return [
        table("Networks: accuracy; atoms that carry half of the positive score", learned, networks, 2),
        table(
            "Patterns: share of atoms, of positive score; fall of the logit without atoms", where, mapped, 3
        ),
        table("Graphs of the scored class with a pattern: is the best scored atom in it?", hit, hits, 3),
        table("Probability of the predicted class: area under the curve", orders, curves, 2),
    ]


def mapped_lines(rows: Sequence[Row], data: str, pattern: str) -> Iterator[list[str]]:
    """One line for each readout and network."""
    for readout, trained in product(READOUTS, (True, False)):
        at = partial(per_fold, rows, data, readout, trained=trained, pattern=pattern)
        found = [mean(at(metric=name)) for name in MAPPED[:6]]
        network, fallen = "trained" if trained else "untrained", (f"{value:.2f}" for value in found[3:])
        yield [f"{data}, {pattern}", readout, network, *map(share, found[:3]), *fallen]


def hit_lines(rows: Sequence[Row], data: str, pattern: str) -> Iterator[list[str]]:
    """One line for each readout: rates over all folds, and of how many graphs."""
    for readout in READOUTS:
        of = [pick(rows, data=data, pattern=pattern, metric=name) for name in COUNTS]
        line = [data, pattern, readout, f"{of[0]}/{of[0] + of[1]}", f"{of[2]}/{of[2] + of[3]}"]
        total, hits, chance = (sum(per_fold(rows, data, readout, name, pattern=pattern)) for name in HITS)
        rates = [share(hits / total), share(chance / total)] if total else ["", ""]
        yield [*line, *rates, f"{total:.0f}"]


def objections(rows: Sequence[Row], data: str) -> list[str]:
    """What the gate has against these networks."""
    gated = [row for row in rows if row["data"] == data and row["metric"] in GATE]
    scores = ({name: per_fold(rows, data, name, "accuracy") for name in of} for of in (READOUTS, BASELINES))
    return gate.objections(gated, "accuracy", *scores)


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
    at = partial(per_fold, rows, data, readout, pattern=first)
    top, at_random = (at(metric=name) for name in ("drop top", "drop random"))
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
    told = []
    for data in present(rows, "data"):
        first = patterns(rows, data)[0]
        atoms, score = (
            100 * mean(per_fold(rows, data, PICKING, of, pattern=first)) for of in ("atoms", "score")
        )
        told.append(f"{data}, {first}: {atoms:.0f} % of the atoms, {score:.0f} % of the score")
    return "; ".join(told)


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


PATTERNS = f"""Groups of atoms: SMARTS, or one of {", ".join(GROUPS)}. Where nodes are no atoms: labels."""


EXPERIMENT = Experiment(
    name="activation-maps",
    title="Activation maps",
    question="Do networks trained on mutagenicity assign high scores to nitro groups?",
    claim="Activation maps of networks trained on mutagenicity highlight nitro groups",
    theory="""After a mean readout and a linear head every atom has a score, and their mean is the logit.
    Where a nitro group tells mutagens from other molecules, its atoms carry more than their share of the
    positive score, and a network uses the atoms that its map points at.""",
    setup="""GINs of two rounds with batch norm, a mean or a max readout and a linear head are trained on each
    fold (batches of 32, a learning rate of .01 that halves every 50 epochs, the last epoch), and only
    molecules that were held out are mapped; untrained networks stand beside. The share of the positive score
    that nitro groups carry, or any pattern that `--pattern` names in any set; whether the best scored atom
    lies in the pattern, against chance; what is left of the prediction as atoms are deleted or inserted in
    the order of the map, in its reverse, and at random.""",
    source="""Class activation maps: [Zhou et al. 2016](https://arxiv.org/abs/1512.04150). Deletion and
    insertion: [Petsiuk et al. 2018](https://arxiv.org/abs/1806.07421). Nitro groups as toxicophores: Kazius
    et al., *Derivation and validation of toxicophores for mutagenicity prediction*, J. Med. Chem. 48,
    2005.""",
    caveats=(
        """In MUTAG every molecule has a nitro group, which then tells nothing about the class: do not expect
        it to light up.""",
        "Networks that did not converge or are not ahead of the best baseline decide nothing.",
        "Deleting atoms makes molecules that no network has seen.",
        "What is drawn was chosen by its place in the set, not by its map.",
    ),
    alt="Held-out molecules with the score of every atom as its colour.",
    caption="Held-out molecules with the score of every atom: orange speaks for a mutagen, blue against.",
    drawings=(
        Drawing(
            "gallery",
            """A gallery of held-out molecules of both classes, some judged right and some wrong, mapped after
            a mean and after a max readout.""",
            "Molecules judged right and wrong, after a mean and after a max.",
        ),
        Drawing(
            "activation_curves",
            """The output of the network as atoms are removed from a molecule or put into it, in the order of
            the map, against random order.""",
            "Deletion and insertion: atoms in the order of the map, in the reverse, and at random.",
        ),
    ),
    prepare=choose,
    measure=measure,
    parallel=True,
    tables=tables,
    findings=findings,
    numbers=numbers,
    figure=figure,
    notes=notes,
    data=(),
    example=("--data", "MUTAG", "Mutagenicity"),
    options={
        "pattern": option(
            list[str], [], PATTERNS, metavar="SMARTS...", show_default="those for the sets of mutagens"
        ),
        "label": number(None, 0, "The class whose score is mapped.", show_default="mutagens, or else 1"),
        "folds": number(10, 2, OF_FOLDS),
        "epochs": number(200, 1, "Epochs of training, in batches of 32."),
    },
    quick={"folds": 5, "epochs": 30},
)
