"""Is a network as accurate on graphs larger than those it learned from, and is it surer without a reason?

With a linear head, the sum h of the node states and a bias b, the logits of k copies are k W h + b, and those
of a mean over n nodes W h / n + b. So to a sum k copies are softmax at temperature 1 / k, and mean pooling is
sum pooling at temperature n: on images, n = height x width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from matplotlib.axes import Axes
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch_geometric.data import Data
from torchmetrics.functional.classification import multiclass_calibration_error

from datasets import GraphSet, covers, rings
from datasets.splits import balanced
from experiments import figures
from experiments.accuracy import baselines, gate
from experiments.console import Table, UserError, table
from experiments.experiment import Experiment, Finding, sentences, span
from experiments.jobs import Job, carry_out
from experiments.learning.batches import Batch, Resident, reside
from experiments.learning.networks import Network
from experiments.learning.training import Settings
from experiments.options import number
from experiments.records import Row, RowLog, average, present, values
from experiments.statistics import Comparison, interval
from experiments.trained import GATE, alone, gate_values, together, train, twins
from readouts.nn import MeanReadout

TRAIN, HOLD_OUT, BETWEEN, LARGE, COPIED = "train", "hold-out", "between", "large", "copies"
SMALLEST, UPPER, LARGEST, HELD_OUT = 0.5, 0.4, 0.1, 0.2
LEAST_GRAPHS, LEAST_TRAININGS, TRAININGS = 100, 20, 2  # of the large part; in all; of each draw
SAMPLE, LONGEST, NOISE, TIMES = 100, 80, 0.2, 6
Parts = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Task:
    """A set, and for every seed the positions of its graphs in each part, all balanced by class.

    *Train* and *hold-out* are from the smallest half, *large* from the sizes at the upper end that have
    enough graphs of every class, and *between* from those in between.
    """

    graphs: GraphSet
    parts: Mapping[int, Parts]
    note: str = ""

    @property
    def sentence(self) -> str:
        """Sizes of what is learned from and of what is asked about, and twins on both sides."""
        parts = next(iter(self.parts.values()))
        small, large = (self._described(part) for part in (parts[TRAIN] + parts[HOLD_OUT], parts[LARGE]))
        sides = [(of[TRAIN], of[part]) for of in self.parts.values() for part in (HOLD_OUT, BETWEEN, LARGE)]
        return (
            f"{self.graphs.name}: learned from {small}, asked about {large}, as many of each of "
            f"{self.graphs.classes} classes; of those held out {twins(self.graphs.graphs, sides)}{self.note}."
        )

    def _described(self, part: tuple[int, ...]) -> str:
        sizes = [self.graphs[position].num_nodes for position in part]
        return f"{len(part)} graphs of {min(sizes)} to {max(sizes)} nodes"

    def held_out(self, seed: int) -> list[int]:
        """At most `SAMPLE` graphs that no network has learned from, of middle size where there are such."""
        parts = self.parts[seed]
        order = np.random.default_rng(seed).permutation(parts[BETWEEN] or parts[HOLD_OUT])
        return sorted(order[:SAMPLE].tolist())


def choose(graphs: GraphSet, seed: int, seeds: int) -> Task:
    """Cut a set by size, once for each seed; the embedded rings give way to `longer_rings`."""
    note = ""
    if all("family" in graph for graph in graphs):
        graphs = longer_rings(graphs.name)
        note = f"; classes are families of rings, known or not, {TIMES} times each, a fifth of them at random"
    if len({int(graph.y) for graph in graphs}) < 2:
        raise UserError(f"{graphs.name}: all {len(graphs)} graphs are of one class; extrapolation needs two.")
    return Task(graphs, {one: cut(graphs, one) for one in range(seed, seed + seeds)}, note)


def longer_rings(name: str) -> GraphSet:
    """Rings of up to `LONGEST` atoms, known or not, each `TIMES` times, with the family as class.

    The class of the embedded rings is their size, of which nobody can learn the large ones from the small.
    A share `NOISE` of the labels is drawn at random, so that nobody can be right, and sure, all the time.
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
    """The parts of a set; graphs of one size are in a random order.

    The large part reaches down until it has `LEAST_GRAPHS`, or `LARGEST` of the set if that is more, but at
    most to the largest `UPPER`.
    """
    sizes = np.array([graph.num_nodes for graph in graphs])
    y = np.array([int(graph.y) for graph in graphs])
    order = np.lexsort((np.random.default_rng(seed).permutation(len(graphs)), sizes))
    half, upper = int(SMALLEST * len(graphs)), len(graphs) - int(UPPER * len(graphs))
    wanted = max(-(-LEAST_GRAPHS // graphs.classes), int(LARGEST * len(graphs) / graphs.classes))
    of_classes = [np.flatnonzero(y[order] == label) for label in range(graphs.classes)]
    start = max(upper, min(places[-wanted] if len(places) >= wanted else 0 for places in of_classes))
    small, between, large = (
        balanced(graphs, part.tolist(), seed) for part in (order[:half], order[half:start], order[start:])
    )
    for part, words in ((small, "smaller half"), (large, f"largest {UPPER:.0%}")):
        if len(part) < 2 * graphs.classes:
            raise UserError(
                f"{graphs.name}: expected two graphs or more of each of {graphs.classes} classes among its "
                f"{words}, for extrapolation, got fewer."
            )
    share = max(HELD_OUT, graphs.classes / len(small))
    learned, held = train_test_split(small, test_size=share, stratify=y[list(small)], random_state=seed)
    return {TRAIN: tuple(sorted(learned)), HOLD_OUT: tuple(sorted(held)), BETWEEN: between, LARGE: large}


COPIES = (1, 2, 4, 8, 16)
MOVED = "other bits"
IDENTITIES = ("k times", "temperature n")
JUDGED = ("accuracy", "loss")
CALIBRATED = ("logit norm", "confidence", "ECE", "NLL", "accuracy")
BINS = 10
BEST_SIZE = "size only, best"
BASELINES = (*baselines.OF_CLASSES, BEST_SIZE)
PROPORTIONS = ("mean", "max", "median", "attention")
READOUTS = ("sum", *PROPORTIONS, "sum+mean+max", "size-aware mean")
LEARNING_RATE, ROUNDS = 0.01, 3


def measure(tasks: Sequence[Task], log: RowLog, device: str, epochs: int) -> list[Row]:
    """Accuracy by size, of baselines and networks, and what networks say of copies."""
    settings = Settings(ROUNDS, epochs=epochs, learning_rates=(LEARNING_RATE,), seeds=TRAININGS)
    rows = []
    for task in tasks:
        resident = reside(task.graphs, "gin", settings.rounds).to(device)
        jobs = [job_of_baselines(task, resident, seed) for seed in task.parts]
        jobs += [
            job_of(task, resident, readout, seed, settings) for seed in task.parts for readout in READOUTS
        ]
        rows += carry_out(jobs, log, f"training on {task.graphs.name}")
    return rows


def job_of_baselines(task: Task, resident: Resident, seed: int) -> Job:
    """How many graphs of what size are in each part, and what a baseline gets there."""
    parts = {part: of for part, of in task.parts[seed].items() if of}
    work = {"data": resident.data, "seed": seed, "fold": None}
    sizes: Sequence[str] = ("graphs", "nodes")
    rows = [(work | {"readout": None, "part": part}, sizes) for part in parts]
    rows += [(work | {"readout": name, "part": part}, ("accuracy",)) for part in parts for name in BASELINES]
    return Job(rows, partial(judge_baselines, task.graphs, resident, parts, seed))


def judge_baselines(graphs: GraphSet, resident: Resident, parts: Parts, seed: int) -> list[dict[str, float]]:
    """Sizes of all parts, then the accuracy of every baseline.

    Any threshold among small sizes leaves all large graphs on one side. What size could tell of these at most
    is said by the threshold that is best for them: *size only, best* is fitted where it is judged.
    """
    counts, y = resident.counts().cpu().numpy(), resident.y.cpu().numpy()
    found: dict[tuple[str, str], float] = {}
    for name in BASELINES:
        seen = counts if name == "counts only" else counts[:, -1:]
        model = None
        for part, of in parts.items():
            if model is None or name == BEST_SIZE:
                learned = list(of if name == BEST_SIZE else parts[TRAIN])
                make = baselines.OF_CLASSES[baselines.SIZE if name == BEST_SIZE else name]
                model = make(seed).fit(seen[learned], y[learned])
            found[part, name] = float((model.predict(seen[list(of)]) == y[list(of)]).mean())
    nodes = {part: mean(graphs[place].num_nodes for place in of) for part, of in parts.items()}
    sizes = [{"graphs": len(of), "nodes": nodes[part]} for part, of in parts.items()]
    return [*sizes, *({"accuracy": found[part, name]} for part in parts for name in BASELINES)]


def job_of(task: Task, resident: Resident, readout: str, seed: int, settings: Settings) -> Job:
    """Train the networks of one draw; judge them on every part, and on copies of held-out graphs."""
    parts = {part: of for part, of in task.parts[seed].items() if of}
    rows: list[tuple[dict[str, object], Sequence[str]]] = []
    for training in range(settings.seeds):
        work = {"data": resident.data, "readout": readout, "seed": seed, "fold": None, "training": training}
        work |= {"network": resident.network, "settings": asdict(settings)}
        rows += [(work, GATE), *((work | {"part": part}, JUDGED) for part in parts)]
        work |= {"part": COPIED, "libraries": {"torchmetrics": metadata.version("torchmetrics")}}
        rows += [(work | {"k": k}, (*CALIBRATED, MOVED)) for k in COPIES]
        rows += [(work, IDENTITIES)] if readout == "sum" else []
    graphs = [task.graphs[place] for place in task.held_out(seed)]
    return Job(rows, partial(train_and_judge, resident, parts, graphs, readout, seed, settings))


def train_and_judge(
    resident: Resident, parts: Parts, graphs: Sequence[Data], readout: str, seed: int, settings: Settings
) -> list[dict[str, float]]:
    """The best state on the hold-out counts; the head is one layer, as the law of temperature wants."""
    stack = train(resident, parts[TRAIN], readout, settings, seed, parts[HOLD_OUT], linear_head=True)
    batches = {
        k: together([covers.copies(graph, k) for graph in graphs], settings.rounds, resident.x.device)
        for k in COPIES
    }
    found = []
    for training, gated in enumerate(gate_values(stack, parts[TRAIN], readout)):
        network = alone(stack.network, training)
        found += [gated, *(judged(network, resident.batch(part)) for part in parts.values())]
        logits = logits_of(network, batches)
        y = batches[1].y
        found += [calibration(of, y) | {MOVED: moved(of, logits[1])} for of in logits.values()]
        found += [identities(network, logits, batches[1])] if readout == "sum" else []
    return found


@torch.no_grad()
def logits_of(network: Network, batches: Mapping[int, Batch]) -> dict[int, Tensor]:
    """For every k, the logits of k copies of each graph, float32 [B, C]."""
    return {k: network(batch)[0] for k, batch in batches.items()}


@torch.no_grad()
def judged(network: Network, batch: Batch) -> dict[str, float]:
    """Accuracy and cross-entropy."""
    logits = network(batch)[0]
    right = (logits.argmax(dim=1) == batch.y).double().mean()
    return {"accuracy": float(right), "loss": float(cross_entropy(logits, batch.y))}


def moved(logits: Tensor, first: Tensor) -> float:
    """The share of graphs whose logits do not have the bits of those of one copy."""
    return float((logits != first).any(dim=1).double().mean())


@torch.no_grad()
def identities(network: Network, logits: Mapping[int, Tensor], batch: Batch) -> dict[str, float]:
    """How far the logits of a sum network are from what they are said to be, all less the bias of the head.

    Those of k copies from k times those of one, and those of one from n times those of the same network with
    a mean; relative to the largest.
    """
    bias = network.head.get_parameter("bias").double()
    without_bias = {k: found.double() - bias for k, found in logits.items()}
    averaged = network.head(MeanReadout()(network.nodes(batch), batch.graphs)).double() - bias
    nodes = batch.graphs.count.unsqueeze(1)
    apart = [deviation(found, k * without_bias[1]) for k, found in without_bias.items()]
    return dict(zip(IDENTITIES, (max(apart), deviation(nodes * averaged, without_bias[1])), strict=True))


def deviation(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest entry; 0 where all is 0."""
    largest = float(expected.abs().max())
    return float((found - expected).abs().max()) / (largest or 1.0)


def calibration(logits: Tensor, y: Tensor) -> dict[str, float]:
    """Mean norm of the centred logits [B, C], mean confidence, its error (`BINS` bins), loss, accuracy.

    A shift of all logits changes no probability, so the norm is that of logits less their mean over classes.
    """
    wide = logits.double()
    probabilities = wide.softmax(dim=1)
    confidence, answers = probabilities.max(dim=1)
    found = (
        (wide - wide.mean(dim=1, keepdim=True)).norm(dim=1).mean(),
        confidence.mean(),
        multiclass_calibration_error(probabilities, y, num_classes=logits.shape[1], n_bins=BINS),
        cross_entropy(wide, y),
        (answers == y).double().mean(),
    )
    return dict(zip(CALIBRATED, map(float, found), strict=True))


PARTS = (TRAIN, HOLD_OUT, BETWEEN, LARGE)
LEAST_SLOPE, LEAST_RISE, TOLERANCE = 0.5, 0.01, 1e-5
MOST = COPIES[-1]


def slope(rows: Sequence[Row], data: str, readout: str) -> float:
    """How fast the logits grow: the slope of the log of their mean norm, over all trainings, over log k."""
    norms = [of_copies(rows, data, readout, "logit norm", k) for k in COPIES]
    return float(np.polyfit(np.log(COPIES), np.log(np.maximum(norms, 1e-12)), 1)[0])


def of_copies(rows: Sequence[Row], data: str, readout: str, metric: str, k: int) -> float:
    """A value of k copies, averaged over trainings."""
    return average(rows, data=data, readout=readout, part=COPIED, k=k, metric=metric)


def accuracies(rows: Sequence[Row], data: str, readout: str, part: str) -> list[float]:
    """The accuracy on a part for every seed, averaged over its trainings; none where a part is empty."""
    at = {"data": data, "readout": readout, "part": part, "metric": "accuracy"}
    return [average(rows, **at, seed=seed) for seed in present(rows, "seed", **at)]


def tables(rows: Sequence[Row]) -> list[Table]:
    """For each set accuracy by size, and calibration of copies."""
    of_size = ("readout", TRAIN, HOLD_OUT, BETWEEN, f"{LARGE} (sd)", "loss")
    columns = ("readout", "k", *CALIBRATED, "slope", "other bits")
    laid_out = []
    for data in present(rows, "data"):
        title = f"{data}: accuracy [%] by size, {trainings(rows, data)} trainings; loss on large graphs"
        laid_out.append(table(title, of_size, size_lines(rows, data)))
        title = f"{data}: k disjoint copies of held-out graphs; slope of log norm over log k"
        laid_out.append(table(title, columns, copy_lines(rows, data)))
    return laid_out


def trainings(rows: Sequence[Row], data: str) -> int:
    """How many networks of each readout were trained."""
    return len(values(rows, data=data, readout="sum", part=LARGE, metric="accuracy"))


def size_lines(rows: Sequence[Row], data: str) -> Iterator[list[str]]:
    """How many graphs there are and of what size, and a line for each readout and baseline."""
    for fact in ("graphs", "nodes"):
        found = [values(rows, data=data, part=part, metric=fact) for part in PARTS]
        yield [f"({fact})", *(averaged(of, 1) for of in found), ""]
    yield []
    for readout in (*READOUTS, *BASELINES):
        shown = [averaged(accuracies(rows, data, readout, part)) for part in PARTS]
        shown[-1] += f" ({100 * np.std(accuracies(rows, data, readout, LARGE), ddof=1):.1f})"
        loss = averaged(values(rows, data=data, readout=readout, part=LARGE, metric="loss"), 1, ".2f")
        yield [readout, *shown, loss]


def averaged(found: Sequence[float], scale: float = 100, form: str = ".1f") -> str:
    """A mean, or nothing where there are no values."""
    return format(scale * mean(found), form) if found else ""


def copy_lines(rows: Sequence[Row], data: str) -> Iterator[list[str]]:
    """Two lines for each readout: the values of one graph, and of most copies."""
    for readout in READOUTS:
        for k in (1, MOST):
            shown = [f"{of_copies(rows, data, readout, metric, k):.2f}" for metric in CALIBRATED]
            grown = [f"{slope(rows, data, readout):z.2f}", f"{of_copies(rows, data, readout, MOVED, k):.0%}"]
            yield [readout, str(k), *shown, *(grown if k > 1 else ["", ""])]


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """The mean is ahead on large graphs; with copies the sum's logits alone grow, and its errors."""
    for data in present(rows, "data"):
        untrained = objections(rows, data)
        yield Finding(f"{data}, larger graphs", *of_sizes(rows, data, untrained))
        held, said = of_calibration(rows, data)
        reasons = "".join(f"; {reason}" for reason in untrained)
        yield Finding(f"{data}, calibration of copies", None if untrained else held, said + reasons)
        yield Finding(f"{data}, logits of copies", *of_logits(rows, data), "check", main=False)


def objections(rows: Sequence[Row], data: str) -> list[str]:
    """What the gate has against a comparison: networks that had not converged, or did not beat a baseline."""
    trained = [row | {"fold": row["training"]} for row in rows if row["data"] == data and "training" in row]
    gated = [row for row in trained if row["metric"] in GATE]
    methods = READOUTS, baselines.OF_CLASSES
    scores = ({name: accuracies(rows, data, name, HOLD_OUT) for name in names} for names in methods)
    return gate.objections(gated, "accuracy", *scores)


def ahead(rows: Sequence[Row], data: str) -> Comparison:
    """How far the mean is ahead of the sum on large graphs, over draws."""
    both = [np.array(accuracies(rows, data, readout, LARGE)) for readout in ("mean", "sum")]
    graphs = [average(rows, data=data, part=part, metric="graphs") for part in (LARGE, TRAIN)]
    return Comparison("mean", *interval(both[0] - both[1], graphs[0] / graphs[1]))


def of_sizes(rows: Sequence[Row], data: str, untrained: Sequence[str]) -> tuple[bool | None, str]:
    """Whether the interval of the difference in accuracy between mean and sum is above 0 or below."""
    one = ahead(rows, data)
    large = {name: 100 * mean(accuracies(rows, data, name, LARGE)) for name in (*READOUTS, *BASELINES)}
    graphs, count = average(rows, data=data, part=LARGE, metric="graphs"), trainings(rows, data)
    against = [f"too small: {graphs:.0f} large graphs of {LEAST_GRAPHS}"] if graphs < LEAST_GRAPHS else []
    against += [f"{count} trainings of {LEAST_TRAININGS}"] if count < LEAST_TRAININGS else []
    against += untrained
    best = max(READOUTS, key=large.__getitem__)
    found = (
        f"on large graphs a mean has {large['mean']:.1f} % and a sum {large['sum']:.1f} % (difference "
        f"{one.points} points, 95 % interval {one.bounds}, {count} trainings, {graphs:.0f} graphs); {best} "
        f"is best with {large[best]:.1f} %; counts only {large['counts only']:.1f} %, the best size "
        f"threshold {large[BEST_SIZE]:.1f} %"
    )
    undecided = bool(against) or one.low <= 0 <= one.high
    return None if undecided else one.low > 0, "; ".join((found, *against))


def of_logits(rows: Sequence[Row], data: str) -> tuple[bool, str]:
    """Whether the sum grows as its head says, and no bit of those that see proportions moves."""
    grows = slope(rows, data, "sum")
    apart = [max(values(rows, data=data, part=COPIED, metric=name)) for name in IDENTITIES]
    shaken = [name for name in PROPORTIONS if any(values(rows, data=data, readout=name, metric=MOVED))]
    held = grows >= LEAST_SLOPE and max(apart) <= TOLERANCE and not shaken
    bits = f"{' and '.join(shaken)} moved" if shaken else f"not a bit of {', '.join(PROPORTIONS)} moved"
    return held, (
        f"the norm of sum's logits grows as k^{grows:.2f}, {bits}; "
        f"less its bias sum has k times the logits up to {apart[0]:.0e}, and mean has sum's at temperature n "
        f"up to {apart[1]:.0e}"
    )


def of_calibration(rows: Sequence[Row], data: str) -> tuple[bool, str]:
    """Whether sum's calibration error and loss grow with copies of the same graphs."""
    one, most = ({name: of_copies(rows, data, "sum", name, k) for name in CALIBRATED} for k in (1, MOST))
    held = most["ECE"] - one["ECE"] > LEAST_RISE and most["NLL"] > one["NLL"]
    told = ", ".join(f"{metric} from {one[metric]:.2f} to {most[metric]:.2f}" for metric in CALIBRATED[1:])
    stays = " and ".join(f"{name} {of_copies(rows, data, 'mean', name, MOST):.2f}" for name in ("ECE", "NLL"))
    return held, f"with {MOST} copies sum goes in {told}; mean stays at {stays}"


def numbers(rows: Sequence[Row]) -> str:
    """How far the mean is ahead, and how fast logits of the sum grow."""
    sets = present(rows, "data")
    points = span((100 * ahead(rows, data).difference for data in sets), "+.1f")
    slopes = span((slope(rows, data, "sum") for data in sets), ".2f")
    return f"mean minus sum on large graphs: {points} points; logits of sum grow as k^a, a {slopes}"


STYLES = {name: (colour, "-") for name, colour in figures.COLOURS.items()} | {
    "median": ("#7b4ea3", "--"),
    "attention": ("#e69f00", "--"),
    "sum+mean+max": ("#56b4e9", "-."),
    "size-aware mean": ("#cc79a7", "-."),
    "counts only": (figures.GREY, "--"),
    BEST_SIZE: (figures.GREY, ":"),
}


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """A row of panels for each set."""
    draws = []
    for data in present(rows, "data"):
        copies = [partial(draw_copies, rows, data, metric) for metric in ("logit norm", "ECE")]
        draws += [partial(draw_sizes, rows, data), *copies]
    return figures.draw(out, "extrapolation", draws, STYLES, width=3.3, height=2.9)


def draw_sizes(rows: Sequence[Row], data: str, panel: Axes) -> None:
    """Accuracy on held-out graphs over their mean size: a line for the mean of the draws, a dot for each."""
    parts = [part for part in PARTS[1:] if values(rows, data=data, part=part, metric="nodes")]
    nodes = [average(rows, data=data, part=part, metric="nodes") for part in parts]
    for name, (colour, dashes) in STYLES.items():
        found = [[100 * value for value in accuracies(rows, data, name, part)] for part in parts]
        panel.plot(nodes, [mean(of) for of in found], dashes, color=colour, linewidth=1.5)
        for n, of in zip(nodes, found, strict=True) if name in READOUTS else ():
            panel.plot([n] * len(of), of, "o", color=colour, alpha=0.3, markersize=3.5, mew=0)
    panel.set(title=f"{data}: held out", xlabel="mean number of nodes", ylabel="accuracy [%]")


def draw_copies(rows: Sequence[Row], data: str, metric: str, panel: Axes) -> None:
    """The mean over trainings for every number of copies."""
    for readout in READOUTS:
        colour, dashes = STYLES[readout]
        found = [of_copies(rows, data, readout, metric, k) for k in COPIES]
        panel.plot(COPIES, found, dashes, color=colour, marker="o", markersize=3.5, linewidth=1.5)
    panel.set_xscale("log", base=2)
    panel.set_xticks(COPIES, [str(k) for k in COPIES])
    panel.set(title=f"{data}: {metric}", xlabel="disjoint copies k", ylabel=metric)
    if metric == "logit norm":
        panel.set_yscale("log")


EXPERIMENT = Experiment(
    name="extrapolation",
    title="Extrapolation and calibration",
    question="""Which networks stay accurate on graphs larger than the training graphs, and which grow more
    confident when a graph is only copied?""",
    claim="""On larger graphs a mean stays more accurate than a sum, whose confidence grows with graph size
    alone""",
    theory="""On graphs larger than those of the training, a mean readout keeps more of its accuracy than a
    sum, whose embedding leaves the range that the head has seen. And a sum grows surer with size alone: the
    logits of k copies of a graph are k times those of one, less the bias, while those of a mean do not move
    by a bit (a check: it follows from the linear head). It is the graph form of *average pooling is softmax
    at temperature H × W*.""",
    setup="""GIN with batch norm and a linear head learns from the smaller half of the graphs, with a fifth of
    them held out to choose the epoch; it is asked about large graphs. Every part has as many graphs of each
    class, so that no shift of class shares with size decides. The large part has 100 graphs or more, from the
    largest 40 %. Every seed draws the parts again and trains two networks, with batches of 32 and a learning
    rate of .01 that halves every 50 epochs. Differences over seeds have corrected resampled t-intervals. Then
    networks are asked about k = 1 to 16 disjoint copies of held-out graphs. The embedded rings give way to
    rings of up to 80 atoms, known or not, each there six times, with the family as class and a fifth of the
    labels drawn at random.""",
    source="""Size shift: [Buffelli et al. 2022](https://arxiv.org/abs/2207.07888). Temperature and
    calibration: [Guo et al. 2017](https://arxiv.org/abs/1706.04599). Average pooling in front of softmax:
    [Lin et al. 2014](https://arxiv.org/abs/1312.4400).""",
    caveats=(
        """A comparison is undecided with fewer than 100 large graphs, fewer than 20 trainings, or networks
        that did not converge or did not beat the baselines on small graphs.""",
        "Copies are the purest change of size that there is; larger molecules differ in other ways, too.",
        """A threshold on size learned from small graphs puts nearly all large ones on one side; *size only,
        best* is chosen on the graphs that it is judged on and is no fair competitor.""",
        """Confidence fits balanced classes, as trained: compare calibration between k = 1 and 16 rather than
        between sets. A head of two layers would not obey the law of temperature exactly.""",
        """[Buffelli et al.](https://arxiv.org/abs/2207.07888) ask about the largest tenth as it is and report
        MCC, for classes that are not balanced: numbers are not comparable.""",
    ),
    alt="""Three panels for each data set: the accuracy of every readout over the size of the graphs, and the
    norm of the logits and the calibration error over the number of copies.""",
    caption="""Accuracy over the size of the graphs, and what copies of a graph do to the logits and to the
    calibration error; one line a readout.""",
    prepare=choose,
    measure=measure,
    parallel=True,
    tables=tables,
    findings=findings,
    numbers=numbers,
    figure=figure,
    notes=sentences,
    options={
        "seeds": number(10, 2, "Draws of the parts; each trains two networks of every readout."),
        "epochs": number(200, 1, "Epochs of training at most."),
    },
    quick={"seeds": 3, "epochs": 50},
)
