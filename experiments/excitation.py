"""Gates that rescale the channels of all nodes by what a readout, the squeeze, sees of the graph.

That gates help is tested; the rest is claimed of folds: in all of them copies move no gate by mean or max,
and saturate gates by sum; in nine of ten or more, gates by sum follow the size more than the others do, on
average over the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from scipy.stats import rankdata
from torch import Tensor, nn
from torch_geometric.data import Data

from datasets import GraphSet, covers
from datasets.collisions import View
from experiments import by_node, figures
from experiments.accuracy import baselines
from experiments.accuracy.jobs import most_folds
from experiments.by_node import Fold, Task, Values
from experiments.console import Table, UserError, share, table
from experiments.experiment import Experiment, Finding, sentences, span
from experiments.jobs import Job, carry_out
from experiments.learning.batches import Batch, Resident, reside
from experiments.learning.goals import Classes
from experiments.learning.networks import Network
from experiments.models import RowLinear
from experiments.options import FOLDS_OF_CLASSES, number
from experiments.records import Row, RowLog, pick, present, values
from experiments.samples import cut, drawn
from experiments.statistics import LEVEL, Comparison, holm, interval
from readouts.nn import SqueezeExcitation

NONE = "none"
SQUEEZES = ("mean", "max", "sum")
VIEWS: dict[str, View] = {NONE: "mean", "mean": "mean", "max": "mean", "sum": "sum"}  # what a network sees
READOUT, WIDTH, ROUNDS = "mean", 32, 3
REDUCTION = 4
SIZES = {"rounds": ROUNDS, "width": WIDTH}


class Gated(Network):
    """A GIN with a gate between any two rounds, or with none."""

    def __init__(self, features: int, classes: int, squeeze: str) -> None:
        """Draw the weights, those of the gates last."""
        super().__init__("gin", READOUT, features, classes, WIDTH, ROUNDS)
        gates = 0 if squeeze == NONE else ROUNDS - 1
        self.gates = nn.ModuleList(new_gate(squeeze) for _ in range(gates))

    def nodes(self, batch: Batch) -> Tensor:
        """Node states after the last round, float [N, width]."""
        x = batch.x
        for place, (layer, norm, read) in enumerate(zip(self.rounds, self.norms, batch.rounds, strict=True)):
            if place and self.gates:
                x = self.gates[place - 1](x, batch.graphs)
            x = norm(layer(x, read), read.share, read.nodes).relu()
        return x


def new_gate(squeeze: str) -> SqueezeExcitation:
    """A gate in which graphs that the squeeze cannot tell apart get the same bits, see `RowLinear`."""
    gate = SqueezeExcitation(WIDTH, REDUCTION, squeeze)
    for name in ("lin1", "lin2"):
        layer = getattr(gate, name)
        setattr(gate, name, RowLinear(layer.in_features, layer.out_features))
    return gate


@torch.no_grad()
def run(network: Gated, graphs: Sequence[Data]) -> tuple[Tensor, Tensor]:
    """The class each graph is taken for, int64 [B], and the gates, float64 [blocks, B, width]; on the CPU."""
    seen: list[Tensor] = []

    def see(layer: nn.Module, given: Any, out: Tensor) -> None:
        seen.append(out.sigmoid())

    hooks = [gate.get_submodule("lin2").register_forward_hook(see) for gate in network.gates]
    try:
        answers = network.eval()(by_node.together(network, graphs))[0].argmax(dim=1)
    finally:
        for hook in hooks:
            hook.remove()
    gates = torch.stack(seen) if seen else torch.empty(0, len(graphs), WIDTH)
    return answers.cpu(), gates.double().cpu()


MOST = 1000
COPIES = (1, 2, 4, 8, 16)
CLOSE = 0.01
BASELINES = ("majority class", "size only")
ACCURACY = (*by_node.TRAINED, "parameters")
SPREAD = ("gate", "over graphs", "over channels", "with size")
CHANNELS = tuple(f"channel {c} {what}" for c in range(WIDTH) for what in ("mean", "sd"))
COPIED = ("moved", "moved at most", "saturated", "answers changed")


@dataclass(frozen=True)
class Classified(Task):
    """A task, and the same in the form that baselines and ceilings are taken from."""

    resident: Resident

    def ceiling(self, squeeze: str, positions: Sequence[int]) -> float:
        """The best accuracy of any classifier that sees no more than these networks can."""
        return self.resident.ceiling(VIEWS[squeeze], positions)


def choose(graphs: GraphSet, seed: int) -> Classified:
    """A task on at most `MOST` graphs."""
    fields = ("x", "node_label", "edge_index", "y")
    picked = tuple(Data(**{field: graph[field] for field in fields}) for graph in drawn(graphs, MOST, seed))
    if len({int(graph.y) for graph in picked}) < 2:
        raise UserError(f"{graphs.name}: all {len(picked)} graphs are of one class; excitation needs two.")
    resident = reside(GraphSet(graphs.name, picked, graphs.classes), "gin", ROUNDS)
    return Classified(graphs.name, picked, len(graphs), graphs.classes, resident)


def measure(
    tasks: Sequence[Classified], log: RowLog, device: str, seed: int, folds: int | None, epochs: int
) -> list[Row]:
    """The rows of all sets; without `folds`, ten, or as many as the smallest class has graphs."""
    jobs = [job for task in tasks for job in jobs_of(task, device, seed, folds, epochs)]
    return carry_out(jobs, log, "training gates")


def jobs_of(task: Classified, device: str, seed: int, folds: int | None, epochs: int) -> Iterator[Job]:
    """Ceilings, and each baseline and squeeze on each fold."""
    graphs = GraphSet(task.data, task.graphs, task.classes)
    count = folds or most_folds(graphs)
    ceilings = [(task.work(READOUT, seed, squeeze=name, **SIZES), ("ceiling",)) for name in VIEWS]
    yield Job(ceilings, partial(limits, task))
    for place, split in enumerate(cut("excitation", graphs, count, seed)):
        for name in BASELINES:
            work = task.work(READOUT, seed, place, squeeze=name, folds=count, **SIZES)
            fit = partial(baselines.fit_and_judge, task.resident, split, name, seed)
            yield Job([(work, baselines.metrics_of(Classes))], partial(alone, fit))
        fold = Fold(task, place, count, split.train, split.test, seed, epochs, device)
        for name in VIEWS:
            work = fold.work(READOUT, squeeze=name, reduction=REDUCTION, **SIZES)
            yield Job(list(rows_of(work)), partial(judge, task, fold, name))


def alone(compute: Callable[[], dict[str, float]]) -> Values:
    """The values of one row."""
    return [compute()]


def rows_of(work: Row) -> Iterator[tuple[Row, Sequence[str]]]:
    """The rows of a network on a fold, in the order of `judge`."""
    yield work, ACCURACY
    for k in COPIES:
        yield work | {"copies": k}, COPIED[-1:] if work["squeeze"] == NONE else COPIED
    if work["squeeze"] != NONE:
        for state in ("untrained", "trained"):
            for block in range(ROUNDS - 1):
                of_channels = CHANNELS if state == "trained" and work["fold"] == 0 else ()
                yield work | {"state": state, "block": block}, SPREAD + of_channels


def limits(task: Classified) -> Values:
    """The ceiling of each squeeze on all graphs."""
    return [{"ceiling": task.ceiling(squeeze, range(len(task.graphs)))} for squeeze in VIEWS]


def judge(task: Classified, fold: Fold, squeeze: str) -> Values:
    """One network on one fold: what it learned, copies, and its gates before and after training."""
    fold.begin()
    network = Gated(task.features, task.classes, squeeze).to(fold.device)
    before = gates_of_all(task, network)
    (trained,) = by_node.train(network, fold)
    check(task, fold, squeeze, trained["train accuracy"])
    held_out = fold.side(fold.held_out)
    found = [trained | {"parameters": sum(parameter.numel() for parameter in network.parameters())}]
    found += [copied(network, held_out, k) for k in COPIES]
    return found + before + gates_of_all(task, network)


def check(task: Classified, fold: Fold, squeeze: str, reached: float) -> None:
    """Raise `RuntimeError` where a network is more often right in training than it can be, which is a bug."""
    limit = task.ceiling(squeeze, fold.known)
    if reached > limit:
        said = f"train accuracy {reached} is above {limit}, the ceiling of what the network can tell apart"
        raise RuntimeError(f"{task.data}, squeeze {squeeze}: {said}")


def copied(network: Gated, graphs: Sequence[Data], k: int) -> dict[str, float]:
    """What k copies of graphs do to the gates and answers of these.

    How far the gates move, on average and at most, the share of them within `CLOSE` of 0 or 1, and the share
    of graphs that are taken for another class.
    """
    answers, gates = run(network, graphs)
    others, moved = run(network, [covers.copies(graph, k) for graph in graphs])
    result = {"answers changed": (answers != others).double().mean().item()}
    if len(gates):
        away = (moved - gates).abs()
        saturated = ((moved < CLOSE) | (moved > 1 - CLOSE)).double().mean().item()
        result |= {"moved": away.mean().item(), "moved at most": away.max().item(), "saturated": saturated}
    return result


def gates_of_all(task: Classified, network: Gated) -> Values:
    """How the gates of each block spread over all graphs, those trained on too."""
    sizes = np.array([graph.num_nodes for graph in task.graphs])
    return [spread(gates, sizes) | per_channel(gates) for gates in run(network, task.graphs)[1]]


def spread(gates: Tensor, sizes: np.ndarray) -> dict[str, float]:
    """The mean gate; its standard deviation over graphs, channel by channel, and over channels; and size.

    *With size* is the mean over the channels of the magnitude of Spearman's correlation with the number of
    nodes, 0 for a channel that is the same for all graphs.
    """
    per_graph, per_channel = gates.std(dim=0, correction=0), gates.mean(dim=0).std(correction=0)
    values = [value.item() for value in (gates.mean(), per_graph.mean(), per_channel)]
    return dict(zip(SPREAD, (*values, correlation(gates.numpy(), sizes)), strict=True))


def correlation(gates: np.ndarray, sizes: np.ndarray) -> float:
    """The mean over columns [B, C] of the magnitude of the rank correlation with sizes [B]."""
    ranks, against = (rankdata(values, axis=0) - (len(sizes) + 1) / 2 for values in (gates, sizes[:, None]))
    scale = np.linalg.norm(ranks, axis=0) * np.linalg.norm(against)
    return float(np.mean(np.abs((ranks * against).sum(axis=0)) / np.where(scale > 0, scale, 1)))


def per_channel(gates: Tensor) -> dict[str, float]:
    """Mean and standard deviation of every channel over the graphs."""
    both = torch.stack([gates.mean(dim=0), gates.std(dim=0, correction=0)], dim=1)
    return dict(zip(CHANNELS, both.flatten().tolist(), strict=True))


NEARLY_ALL = 0.9
FAMILY = "intervals and p for all lines together"


def tables(rows: Sequence[Row]) -> list[Table]:
    """Accuracies, differences, gates, and copies; averages over the folds."""
    accuracies = ("set", "squeeze", "parameters", "train", "held out", "ceiling")
    differences = ("set", "squeeze", "difference", "95 % interval", "p", "verdict")
    gates = ("set", "squeeze", "network", "block", "gate", "sd over graphs", "sd over channels", "with size")
    copies = ("set", "squeeze", "copies", "moved", "at most", "saturated", "answers changed")
    return [
        table("Accuracy, with gates squeezed by a readout", accuracies, accuracy_lines(rows), 2),
        table(f"Paired differences to no gates [points]; {FAMILY}", differences, difference_lines(rows), 2),
        table("Gates of all graphs, and their rank correlation with the size", gates, gate_lines(rows), 3),
        table(f"Gates of copies; saturated: within {CLOSE} of 0 or 1", copies, copy_lines(rows), 2),
    ]


def accuracy_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line a network, after the baselines."""
    for data in present(rows, "data"):
        for squeeze in (*BASELINES, *VIEWS):
            at = partial(per_fold, rows, data, squeeze)
            sides = [share(mean(at(name))) for name in ("train accuracy", "accuracy")]
            gated = squeeze in VIEWS
            ceiling = share(pick(rows, data=data, squeeze=squeeze, metric="ceiling")) if gated else ""
            yield [data, squeeze, f"{at('parameters')[0]:.0f}" if gated else "", *sides, ceiling]
        yield []


def difference_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line a squeeze."""
    for data, one in comparisons(rows):
        verdict = "not compared" if objections(rows, data) else one.verdict
        yield [data, one.method, one.points, one.bounds, f"{one.p:.3f}", verdict]


def gate_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each squeeze, state of the network and block."""
    for data in present(rows, "data"):
        for squeeze, state, block in product(SQUEEZES, ("trained", "untrained"), range(ROUNDS - 1)):
            at = partial(per_fold, rows, data, squeeze, state=state, block=block)
            yield [data, squeeze, state, str(block + 1), *(share(mean(at(name))) for name in SPREAD)]
        yield []


def copy_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each network and number of copies; a network without gates has answers only."""
    for data in present(rows, "data"):
        for squeeze in VIEWS:
            for k in COPIES if squeeze != NONE else COPIES[-1:]:
                found = (per_fold(rows, data, squeeze, name, copies=k) for name in COPIED)
                moved, most, saturated, changed = found
                gates = (
                    [exactly(mean(moved)), exactly(max(most)), share(mean(saturated))] if moved else [""] * 3
                )
                yield [data, squeeze, str(k), *gates, share(mean(changed))]
        yield []


def exactly(value: float) -> str:
    """A share that is written 0 only where it is 0, to the bit."""
    return share(value) if value else "0"


def per_fold(rows: Sequence[Row], data: str, squeeze: str, metric: str, **wanted: object) -> list[float]:
    """The values of one metric, one a fold, in the order of the folds."""
    return values(rows, data=data, squeeze=squeeze, metric=metric, **wanted)


def comparisons(rows: Sequence[Row]) -> list[tuple[str, Comparison]]:
    """Each squeeze against no gates on each set, fold by fold; all of these are one family.

    p is Holm's over all of them, and the intervals hold together with the chance of one (Bonferroni).
    """
    cells = [(data, squeeze) for data in present(rows, "data") for squeeze in SQUEEZES]
    level = 1 - (1 - LEVEL) / len(cells)
    found = []
    for data, squeeze in cells:
        gated, plain = (np.array(per_fold(rows, data, name, "accuracy")) for name in (squeeze, NONE))
        found.append(interval(gated - plain, 1 / (len(plain) - 1), level))
    adjusted = holm([p for *_, p in found])
    return [
        (data, Comparison(squeeze, difference, low, high, p))
        for (data, squeeze), (difference, low, high, _), p in zip(cells, found, adjusted, strict=True)
    ]


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """Gates help, for each squeeze; whether copies saturate them, and whether they follow the size."""
    found = comparisons(rows)
    for data in present(rows, "data"):
        against = objections(rows, data)
        for name, one in found:
            if name == data:
                said = f"{one.points} points of accuracy against no gates ({one.verdict})"
                yield by_node.compared(f"{data}, squeezed by {one.method}", against, (one.better, said))
        yield Finding(f"{data}, copies", *of_copies(rows, data), "check", main=False)
        yield by_node.compared(f"{data}, saturation", against, of_saturation(rows, data), main=False)
        yield by_node.compared(f"{data}, size", against, of_sizes(rows, data), main=False)


def objections(rows: Sequence[Row], data: str) -> list[str]:
    """What speaks against comparing the networks of a set."""
    ahead = {name: per_fold(rows, data, name, "accuracy") for name in BASELINES}
    return by_node.objections(rows, data, "squeeze", baselines=ahead)


def numbers(rows: Sequence[Row]) -> str:
    """What each squeeze gains, on sets where networks were trained."""
    gained: dict[str, list[float]] = {}
    for data, one in comparisons(rows):
        if not objections(rows, data):
            gained.setdefault(one.method, []).append(100 * one.difference)
    told = ", ".join(f"{method} {span(points, '+.1f')}" for method, points in gained.items())
    return f"points gained by squeeze: {told or 'no set to compare on'}"


def of_copies(rows: Sequence[Row], data: str) -> tuple[bool, str]:
    """Whether copies leave gates by mean and max as they are, and no others."""
    most = {name: max(per_fold(rows, data, name, "moved at most", copies=COPIES[-1])) for name in SQUEEZES}
    still = [name for name in SQUEEZES if most[name] == 0]
    said = (
        f"{COPIES[-1]} copies of a graph leave all gates by {' and '.join(still) or 'no readout'} as they are"
    )
    return still == ["mean", "max"], said


def of_saturation(rows: Sequence[Row], data: str) -> tuple[bool, str]:
    """Whether copies saturate gates by sum, on every fold."""
    once, copied = (per_fold(rows, data, "sum", "saturated", copies=k) for k in (1, COPIES[-1]))
    more = all(after > before for before, after in zip(once, copied, strict=True))
    changed = mean(per_fold(rows, data, "sum", "answers changed", copies=COPIES[-1]))
    return more, (
        f"of the gates by sum {share(mean(once))} are saturated, of those of {COPIES[-1]} copies "
        f"{share(mean(copied))}, and {share(changed)} of the answers change"
    )


def of_sizes(rows: Sequence[Row], data: str) -> tuple[bool, str]:
    """Whether gates by sum follow the size more than others."""
    at = partial(per_fold, rows, data, metric="with size", state="trained")
    blocks = {name: [at(name, block=block) for block in range(ROUNDS - 1)] for name in SQUEEZES}
    found = {name: [mean(both) for both in zip(*of, strict=True)] for name, of in blocks.items()}
    most = [by_sum > max(others) for *others, by_sum in zip(*found.values(), strict=True)]
    told = ", ".join(f"{name} {share(mean(values))}" for name, values in found.items())
    return mean(most) >= NEARLY_ALL, (
        f"gates by sum follow the size most in {sum(most)} "
        f"of {len(most)} folds; rank correlation with it: {told}"
    )


COLOURS = figures.COLOURS | {NONE: figures.INK}
LINES = dict(zip(BASELINES, ("--", ":"), strict=True))
MARKERS = {NONE: "x", "mean": "s", "max": "^", "sum": "o"}


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """Three panels a set; the gates are those of the last block in the first fold."""
    parts = draw_accuracies, draw_gates, draw_copies
    draws = [partial(draw, rows, data) for data in present(rows, "data") for draw in parts]
    entries = {f"squeeze by {name}" if name != NONE else "no gates": (COLOURS[name], "-") for name in VIEWS}
    entries |= {name: (figures.GREY, dashes) for name, dashes in LINES.items()}
    return figures.draw(out, "excitation", draws, entries, width=3.1)


def draw_accuracies(rows: Sequence[Row], data: str, panel: Axes) -> None:
    """A dot a fold and a bar for their mean."""
    for height, squeeze in enumerate(reversed(VIEWS)):
        found = [100 * value for value in per_fold(rows, data, squeeze, "accuracy")]
        figures.dots(panel, height, found, COLOURS[squeeze], (16, 2.5))
    for baseline, dashes in LINES.items():
        reached = 100 * mean(per_fold(rows, data, baseline, "accuracy"))
        panel.axvline(reached, color=figures.GREY, linestyle=dashes, linewidth=1, zorder=0)
    panel.set(title=f"{data}: accuracy", xlabel="held-out accuracy [%]")
    panel.set(xlim=(None, 102), ylim=(-0.6, len(VIEWS) - 0.4))
    panel.set_yticks(range(len(VIEWS)), list(reversed(VIEWS)))


def draw_gates(rows: Sequence[Row], data: str, panel: Axes) -> None:
    """The mean gate of every channel, in their order, and one standard deviation over graphs to each side."""
    for squeeze in SQUEEZES:
        at = {"data": data, "squeeze": squeeze, "block": ROUNDS - 2}
        found = sorted(
            [pick(rows, **at, metric=f"channel {channel} {what}") for what in ("mean", "sd")]
            for channel in range(WIDTH)
        )
        low, high = ([m + sign * s for m, s in found] for sign in (-1, 1))
        panel.fill_between(range(WIDTH), low, high, color=COLOURS[squeeze], alpha=0.2, linewidth=0)
        panel.plot(range(WIDTH), [m for m, _ in found], color=COLOURS[squeeze])
    panel.set(title=f"{data}: gates", xlabel="channel, in order of its mean")
    panel.set(ylabel="gate, mean ± sd over graphs", ylim=(0, 1))


def draw_copies(rows: Sequence[Row], data: str, panel: Axes) -> None:
    """How many gates are saturated, over the number of copies."""
    for squeeze in SQUEEZES:
        values = [100 * mean(per_fold(rows, data, squeeze, "saturated", copies=k)) for k in COPIES]
        panel.plot(COPIES, values, f"-{MARKERS[squeeze]}", color=COLOURS[squeeze], markersize=4)
    panel.set_xscale("log", base=2)
    panel.set_xticks(COPIES, [str(k) for k in COPIES])
    panel.set(title=f"{data}: gates of copies", xlabel="copies of a graph", ylabel="gates near 0 or 1 [%]")
    panel.set(ylim=(-2, 102))


EXPERIMENT = Experiment(
    name="excitation",
    title="Squeeze and excitation",
    question="Do squeeze-and-excitation gates improve accuracy, and which properties does each squeeze keep?",
    claim="Gates that see the whole graph (squeeze-and-excitation) make networks more accurate",
    theory="""A gate between two convolutions that rescales channels by a readout of the whole graph, the
    squeeze, makes a network more accurate. The squeeze decides what the gate lets in: those by mean and max
    are the same for a graph and its copies, bit for bit; those by sum follow the size and are driven towards
    0 and 1 by copies.""",
    setup="""GIN with a mean readout (batch norm, batches of 32, Adam with a learning rate that halves),
    without gates and with gates squeezed by mean, max and sum; the same folds, seeds, first weights and
    batches. Differences to no gates are paired by fold, with corrected intervals; the chance of one false
    difference is 5 % over all sets and squeezes. A set is compared where all networks had converged and the
    best is ahead of the majority class and of the size alone. The gates of trained networks are then read:
    how they spread over graphs and channels, how they go with the size, and what 2 to 16 copies of a graph do
    to them.""",
    source="[Hu et al. 2018](https://arxiv.org/abs/1709.01507), on images, with the mean.",
    caveats=(
        "A gate adds parameters; they are counted in the table.",
        "The claim of accuracy is one about images; on small molecules there is less to gate.",
    ),
    alt="For each data set accuracy by squeeze, the gate of every channel, and gates of copies.",
    caption="""Accuracy of each squeeze, a dot a fold; the gates of all channels in the first fold; how many
    of them copies saturate.""",
    prepare=choose,
    measure=measure,
    parallel=True,
    tables=tables,
    findings=findings,
    numbers=numbers,
    figure=figure,
    notes=sentences,
    options={"folds": FOLDS_OF_CLASSES, "epochs": number(60, 1, "Epochs of training.")},
    quick={"folds": 5},
)
