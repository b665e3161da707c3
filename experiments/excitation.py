"""Gates that rescale the channels of all nodes by what a readout, the squeeze, sees of the graph.

All networks have the same weights to begin with, but for the gates, and see the same batches. Gates help
where `experiments.statistics` calls the difference to no gates better. The rest is claimed of folds: in all
of them copies move no gate by mean or max, and saturate gates by sum; in nine of ten or more, gates by sum
follow the size more than the others do, on average over the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from scipy.stats import rankdata
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from datasets import GraphSet, covers
from datasets.collisions import View
from datasets.splits import Split, stratified_folds
from experiments import figures
from experiments.accuracy import baselines
from experiments.accuracy.jobs import most_folds
from experiments.console import Table, UserError, share, table, tracked
from experiments.experiment import Drawing, Experiment, Finding, sentences, span
from experiments.learning.batches import Resident, reside
from experiments.learning.goals import Classes
from experiments.learning.loop import cross_entropy_of, fit, shuffled
from experiments.models import GIN, RowLinear
from experiments.options import FOLDS_OF_CLASSES, number
from experiments.records import Row, RowLog, pick, present
from experiments.samples import drawn, sampled
from experiments.statistics import Comparison, compare
from readouts.nn import SqueezeExcitation

NONE = "none"
SQUEEZES = ("mean", "max", "sum")
VIEWS: dict[str, View] = {NONE: "mean", "mean": "mean", "max": "mean", "sum": "sum"}  # what a network sees
SHAPE = READOUT, WIDTH, ROUNDS = "mean", 32, 3
REDUCTION = 4
LEARNING_RATE, BATCH_SIZE, REDRAW = 0.005, 128, 10


class Gated(GIN):
    """A GIN with a gate between any two convolutions."""

    def __init__(self, features: int, classes: int, squeeze: str) -> None:
        """Draw the weights, those of the gates last."""
        super().__init__(features, classes, *SHAPE)
        self.gates = nn.ModuleList(new_gate(squeeze) for _ in range(ROUNDS - 1))

    def nodes(self, data: Data) -> Tensor:
        """Node states after the last round, float [N, width]."""
        first, *others = self.convolutions
        x = first(data.x, data.edge_index).relu()
        for gate, convolution in zip(self.gates, others, strict=True):
            x = convolution(gate(x, data.batch, data.num_graphs), data.edge_index).relu()
        return x


def new_gate(squeeze: str) -> SqueezeExcitation:
    """A gate in which graphs that the squeeze cannot tell apart get the same bits, see `RowLinear`."""
    gate = SqueezeExcitation(WIDTH, REDUCTION, squeeze)
    for name in ("lin1", "lin2"):
        layer = getattr(gate, name)
        setattr(gate, name, RowLinear(layer.in_features, layer.out_features))
    return gate


def trained(graphs: Sequence[Data], classes: int, squeeze: str, device: str, seed: int, epochs: int) -> GIN:
    """A network after so many epochs; after none, as it was drawn.

    Batches are drawn anew in every `REDRAW`-th epoch. Raises `FloatingPointError` where weights overflow.
    """
    torch.manual_seed(seed)
    features = graphs[0].x.shape[1]
    network: GIN = Gated(features, classes, squeeze) if squeeze != NONE else GIN(features, classes, *SHAPE)
    network.to(device)
    batches = shuffled(graphs, BATCH_SIZE, seed, device, REDRAW)
    for _ in fit(network, batches, cross_entropy_of, LEARNING_RATE, epochs):
        pass
    return network.eval()


def together(graphs: Sequence[Data], device: str | torch.device) -> Batch:
    """A batch on a device."""
    return Batch.from_data_list(list(graphs)).to(device)


@torch.no_grad()
def run(network: GIN, graphs: Sequence[Data]) -> tuple[Tensor, Tensor]:
    """The class each graph is taken for, int64 [B], and the gates, float64 [blocks, B, width]; on the CPU."""
    seen: list[Tensor] = []
    last = [gate.get_submodule("lin2") for gate in network.gates] if isinstance(network, Gated) else []

    def see(layer: nn.Module, given: Any, out: Tensor) -> None:
        seen.append(out.sigmoid())

    hooks = [layer.register_forward_hook(see) for layer in last]
    try:
        answers = network(together(graphs, network.head.weight.device)).argmax(dim=1)
    finally:
        for hook in hooks:
            hook.remove()
    gates = torch.stack(seen) if seen else torch.empty(0, len(graphs), WIDTH)
    return answers.cpu(), gates.double().cpu()


SAMPLE = 1000
COPIES = (1, 2, 4, 8, 16)
CLOSE = 0.01
BASELINES = ("majority class", "size only")
ACCURACY = ("accuracy", "train accuracy", "parameters")
SPREAD = ("gate", "over graphs", "over channels", "with size")
CHANNELS = tuple(f"channel {c} {what}" for c in range(WIDTH) for what in ("mean", "sd"))
COPIED = ("moved", "moved at most", "saturated", "answers changed")


@dataclass(frozen=True)
class Task:
    """Graphs of two classes or more, and the same in the form that baselines and ceilings are taken from."""

    graphs: GraphSet
    available: int
    resident: Resident

    @property
    def sentence(self) -> str:
        """On how many graphs."""
        sample = sampled(len(self.graphs), self.available)
        return f"{self.graphs.name}: {len(self.graphs)} graphs{sample}, held out in turns."


def choose(graphs: GraphSet, seed: int) -> Task:
    """A task on at most `SAMPLE` graphs."""
    picked = tuple(
        Data(x=graph.x, node_label=graph.node_label, edge_index=graph.edge_index, y=graph.y)
        for graph in drawn(graphs, SAMPLE, seed)
    )
    if len({int(graph.y) for graph in picked}) < 2:
        raise UserError(f"{graphs.name}: all {len(picked)} graphs are of one class; excitation needs two.")
    sample = GraphSet(graphs.name, picked, graphs.classes)
    return Task(sample, len(graphs), reside(sample, "gin", ROUNDS))


def measure(
    tasks: Sequence[Task], log: RowLog, device: str, seed: int, folds: int | None, epochs: int
) -> list[Row]:
    """The rows of all sets; without `folds`, ten, or as many as the smallest class has graphs."""
    rows = []
    for task in tasks:
        count = folds or most_folds(task.graphs)
        try:
            splits = stratified_folds(task.graphs, count, 0.0, seed).splits
        except ValueError as problem:
            raise UserError(f"excitation: {problem}.") from problem
        work: Row = {"data": task.graphs.name, "readout": READOUT, "seed": seed, "fold": None}
        work |= {"graphs": len(task.graphs), "rounds": ROUNDS}
        for squeeze in VIEWS:
            rows += log.measure(work | {"squeeze": squeeze}, ("ceiling",), partial(ceiling, task, squeeze))
        runs = [(fold, name) for fold in range(count) for name in (*BASELINES, *VIEWS)]
        for fold, name in tracked(runs, f"training on {task.graphs.name}"):
            here = work | {"fold": fold, "folds": count, "squeeze": name}
            if name in BASELINES:
                fit = partial(baselines.fit_and_judge, task.resident, splits[fold], name, seed)
                rows += log.measure(here, baselines.metrics_of(Classes), fit)
            else:
                rows += measure_network(task, splits[fold], log, here, device, seed + fold, epochs)
    return rows


def measure_network(
    task: Task, split: Split, log: RowLog, work: Row, device: str, seed: int, epochs: int
) -> list[Row]:
    """One network on one fold: what it learned, its gates before and after training, and copies."""
    squeeze = work["squeeze"]
    work = work | {"width": WIDTH, "reduction": REDUCTION, "epochs": epochs}
    work |= {"batch size": BATCH_SIZE, "learning rate": LEARNING_RATE}
    train = [task.graphs[position] for position in split.train]
    network, drawn = (
        cache(partial(trained, train, task.graphs.classes, squeeze, device, seed, length))
        for length in (epochs, 0)
    )
    rows = log.measure(work, ACCURACY, partial(judge, task, split, squeeze, network))
    for k in COPIES:
        metrics = COPIED[-1:] if squeeze == NONE else COPIED
        rows += log.measure(work | {"copies": k}, metrics, partial(copied, task, split, network, k))
    for learned, length in ((network, epochs), (drawn, 0)) if squeeze != NONE else ():
        gates = cache(partial(gates_of_all, task, learned))
        for block in range(ROUNDS - 1):
            here = work | {"epochs": length, "block": block}
            rows += log.measure(here, SPREAD, partial(spread, task, gates, block))
            if length and work["fold"] == 0:
                rows += log.measure(here, CHANNELS, partial(per_channel, gates, block))
    return rows


def ceiling(task: Task, squeeze: str) -> dict[str, float]:
    """The best accuracy of any classifier that sees no more than these networks can."""
    return {"ceiling": task.resident.ceiling(VIEWS[squeeze], range(len(task.graphs)))}


def judge(task: Task, split: Split, squeeze: str, network: Callable[[], GIN]) -> dict[str, float]:
    """Accuracies on both sides of a split, and the number of parameters.

    Raises `RuntimeError` where a network is more often right in training than it can be, which is a bug.
    """
    learned = network()
    right = {
        side: (run(learned, [task.graphs[i] for i in positions])[0] == task.resident.y[list(positions)])
        for side, positions in (("accuracy", split.test), ("train accuracy", split.train))
    }
    found = {side: answers.double().mean().item() for side, answers in right.items()}
    limit = task.resident.ceiling(VIEWS[squeeze], split.train)
    if found["train accuracy"] > limit:
        raise RuntimeError(
            f"{task.graphs.name}, squeeze {squeeze}: train accuracy {found['train accuracy']} is above "
            f"{limit}, the ceiling of what the network can tell apart"
        )
    return found | {"parameters": sum(parameter.numel() for parameter in learned.parameters())}


def copied(task: Task, split: Split, network: Callable[[], GIN], k: int) -> dict[str, float]:
    """What k copies of the held-out graphs do to gates and answers.

    How far the gates move, on average and at most, the share of them within `CLOSE` of 0 or 1, and the share
    of graphs that are taken for another class.
    """
    graphs = [task.graphs[position] for position in split.test]
    (answers, gates), (others, moved) = (
        run(network(), chosen) for chosen in (graphs, [covers.copies(graph, k) for graph in graphs])
    )
    result = {"answers changed": (answers != others).double().mean().item()}
    if len(gates):
        away = (moved - gates).abs()
        saturated = ((moved < CLOSE) | (moved > 1 - CLOSE)).double().mean().item()
        result |= {"moved": away.mean().item(), "moved at most": away.max().item(), "saturated": saturated}
    return result


def gates_of_all(task: Task, network: Callable[[], GIN]) -> Tensor:
    """The gates of all graphs, those trained on too: [blocks, B, width]."""
    return run(network(), list(task.graphs))[1]


def spread(task: Task, gates: Callable[[], Tensor], block: int) -> dict[str, float]:
    """The mean gate; its standard deviation over graphs, channel by channel, and over channels; and size.

    *With size* is the mean over the channels of the magnitude of Spearman's correlation with the number of
    nodes, 0 for a channel that is the same for all graphs.
    """
    found = gates()[block]
    per_graph, per_channel = found.std(dim=0, correction=0), found.mean(dim=0).std(correction=0)
    sizes = np.array([graph.num_nodes for graph in task.graphs])
    values = [value.item() for value in (found.mean(), per_graph.mean(), per_channel)]
    return dict(zip(SPREAD, (*values, correlation(found.numpy(), sizes)), strict=True))


def correlation(gates: np.ndarray, sizes: np.ndarray) -> float:
    """The mean over columns [B, C] of the magnitude of the rank correlation with sizes [B]."""
    ranks, against = (rankdata(values, axis=0) - (len(sizes) + 1) / 2 for values in (gates, sizes[:, None]))
    scale = np.linalg.norm(ranks, axis=0) * np.linalg.norm(against)
    return float(np.mean(np.abs((ranks * against).sum(axis=0)) / np.where(scale > 0, scale, 1)))


def per_channel(gates: Callable[[], Tensor], block: int) -> dict[str, float]:
    """Mean and standard deviation of every channel over the graphs."""
    found = gates()[block]
    both = torch.stack([found.mean(dim=0), found.std(dim=0, correction=0)], dim=1)
    return dict(zip(CHANNELS, both.flatten().tolist(), strict=True))


NEARLY_ALL = 0.9


def tables(rows: Sequence[Row]) -> list[Table]:
    """Accuracies, differences, gates, and copies; averages over the folds."""
    accuracies = ("set", "squeeze", "parameters", "train", "held out", "ceiling")
    differences = ("set", "squeeze", "difference", "95 % interval", "p", "verdict")
    gates = ("set", "squeeze", "network", "block", "gate", "sd over graphs", "sd over channels", "with size")
    copies = ("set", "squeeze", "copies", "moved", "at most", "saturated", "answers changed")
    return [
        table("Accuracy, with gates squeezed by a readout", accuracies, accuracy_lines(rows), 2),
        table(
            "Paired differences to no gates [points], p after Holm", differences, difference_lines(rows), 2
        ),
        table("Gates of all graphs, and their rank correlation with the size", gates, gate_lines(rows), 3),
        table(f"Gates of copies; saturated: within {CLOSE} of 0 or 1", copies, copy_lines(rows), 2),
    ]


def accuracy_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line a network, after the baselines."""
    for data in present(rows, "data"):
        for squeeze in (*BASELINES, *VIEWS):
            sides = (mean(per_fold(rows, data, squeeze, name)) for name in ("train accuracy", "accuracy"))
            parameters, ceiling = "", ""
            if squeeze in VIEWS:
                parameters = f"{per_fold(rows, data, squeeze, 'parameters')[0]:.0f}"
                ceiling = share(pick(rows, data=data, squeeze=squeeze, metric="ceiling"))
            yield [data, squeeze, parameters, *map(share, sides), ceiling]
        yield []


def difference_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line a squeeze."""
    for data in present(rows, "data"):
        for one in comparisons(rows, data):
            bounds = f"{100 * one.low:+.1f} to {100 * one.high:+.1f}"
            yield [data, one.method, f"{100 * one.difference:+.1f}", bounds, f"{one.p:.3f}", one.verdict]
        yield []


def gate_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each squeeze, network and block."""
    for data in present(rows, "data"):
        for squeeze in SQUEEZES:
            for trained in (True, False):
                for block in range(ROUNDS - 1):
                    found = (per_fold(rows, data, squeeze, name, trained, block=block) for name in SPREAD)
                    stage = "trained" if trained else "untrained"
                    yield [data, squeeze, stage, str(block + 1), *(share(mean(values)) for values in found)]
        yield []


def copy_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each network and number of copies; a network without gates has answers only."""
    for data in present(rows, "data"):
        for squeeze in VIEWS:
            for k in COPIES:
                changed = share(mean(per_fold(rows, data, squeeze, "answers changed", copies=k)))
                line = [data, squeeze, str(k), "", "", "", changed]
                if squeeze != NONE:
                    moved, most, saturated = (
                        per_fold(rows, data, squeeze, name, copies=k)
                        for name in ("moved", "moved at most", "saturated")
                    )
                    line[3:6] = [exactly(mean(moved)), exactly(max(most)), share(mean(saturated))]
                if squeeze != NONE or k == COPIES[-1]:
                    yield line
        yield []


def exactly(value: float) -> str:
    """A share that is written 0 only where it is 0, to the bit."""
    return share(value) if value else "0"


def per_fold(
    rows: Sequence[Row], data: str, squeeze: str, metric: str, trained: bool = True, **wanted: int
) -> list[float]:
    """The values of one metric, one a fold, in the order of the folds."""
    conditions = {"data": data, "squeeze": squeeze, "metric": metric, **wanted}
    return [
        row["value"]
        for row in rows
        if conditions.items() <= row.items() and (row.get("epochs") != 0) == trained
    ]


def comparisons(rows: Sequence[Row], data: str) -> list[Comparison]:
    """Each squeeze against no gates, fold by fold."""
    accuracies = {squeeze: per_fold(rows, data, squeeze, "accuracy") for squeeze in VIEWS}
    return compare(accuracies, NONE, len(accuracies[NONE]))


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """Gates help, for each squeeze; what copies do to the gates, and whether these follow the size."""
    for data in present(rows, "data"):
        for one in comparisons(rows, data):
            said = f"{100 * one.difference:+.1f} points of accuracy against no gates ({one.verdict})"
            yield Finding(f"{data}, squeezed by {one.method}", one.better, said)
        yield Finding(f"{data}, copies", *of_copies(rows, data), "check", main=False)
        yield Finding(f"{data}, size", *of_sizes(rows, data), main=False)


def numbers(rows: Sequence[Row]) -> str:
    """What each squeeze gains."""
    gained: dict[str, list[float]] = {}
    for data in present(rows, "data"):
        for one in comparisons(rows, data):
            gained.setdefault(one.method, []).append(100 * one.difference)
    told = ", ".join(f"{method} {span(points, '+.1f')}" for method, points in gained.items())
    return f"points gained by squeeze: {told}"


def of_copies(rows: Sequence[Row], data: str) -> tuple[bool, str]:
    """Whether copies leave gates by mean and max as they are, and saturate those by sum."""
    most = {name: max(per_fold(rows, data, name, "moved at most", copies=COPIES[-1])) for name in SQUEEZES}
    once, copied = (per_fold(rows, data, "sum", "saturated", copies=k) for k in (1, COPIES[-1]))
    still = [name for name in SQUEEZES if most[name] == 0]
    more = all(after > before for before, after in zip(once, copied, strict=True))
    claimed = still == ["mean", "max"] and more
    changed = mean(per_fold(rows, data, "sum", "answers changed", copies=COPIES[-1]))
    return claimed, (
        f"{COPIES[-1]} copies of a graph leave all gates by "
        f"{' and '.join(still) or 'no readout'} as they are; of those by sum {share(mean(copied))} are "
        f"saturated, {share(mean(once))} before, and {share(changed)} of the answers change"
    )


def of_sizes(rows: Sequence[Row], data: str) -> tuple[bool, str]:
    """Whether gates by sum follow the size more than others."""
    found = {name: with_size(rows, data, name) for name in SQUEEZES}
    most = [by_sum > max(others) for *others, by_sum in zip(*found.values(), strict=True)]
    claimed = mean(most) >= NEARLY_ALL
    told = ", ".join(f"{name} {share(mean(values))}" for name, values in found.items())
    return claimed, (
        f"gates by sum follow the size most in {sum(most)} "
        f"of {len(most)} folds; rank correlation with it: {told}"
    )


def with_size(rows: Sequence[Row], data: str, squeeze: str) -> list[float]:
    """How the gates go with the size, on average over the blocks: one value a fold."""
    blocks = (per_fold(rows, data, squeeze, "with size", block=block) for block in range(ROUNDS - 1))
    return [mean(values) for values in zip(*blocks, strict=True)]


COLOURS = figures.COLOURS | {NONE: figures.INK}
LINES = dict(zip(BASELINES, ("--", ":"), strict=True))
MARKERS = {NONE: "x", "mean": "s", "max": "^", "sum": "o"}


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """Three panels a set; the gates are those of the last block in the first fold."""
    drawing, panels = figures.panels(3 * len(present(rows, "data")), width=3.1, height=2.7)
    for place, data in enumerate(present(rows, "data")):
        accuracies, gates, copies = panels[3 * place : 3 * place + 3]
        draw_accuracies(accuracies, rows, data)
        draw_gates(gates, rows, data)
        draw_copies(copies, rows, data)
    entries = {f"squeeze by {name}" if name != NONE else "no gates": (COLOURS[name], "-") for name in VIEWS}
    figures.legend(drawing, entries | {name: (figures.GREY, dashes) for name, dashes in LINES.items()})
    return figures.save(drawing, out, "excitation")


def draw_accuracies(panel: Axes, rows: Sequence[Row], data: str) -> None:
    """A dot a fold and a bar for their mean."""
    for height, squeeze in enumerate(reversed(VIEWS)):
        values = [100 * value for value in per_fold(rows, data, squeeze, "accuracy")]
        colour = COLOURS[squeeze]
        panel.plot(values, [height] * len(values), "o", color=colour, alpha=0.3, markersize=5, mew=0)
        panel.plot([mean(values)], [height], "|", color=colour, markersize=16, mew=2.5)
    for baseline, dashes in LINES.items():
        reached = 100 * mean(per_fold(rows, data, baseline, "accuracy"))
        panel.axvline(reached, color=figures.GREY, linestyle=dashes, linewidth=1, zorder=0)
    panel.set(title=f"{data}: accuracy", xlabel="held-out accuracy [%]")
    panel.set(xlim=(None, 102), ylim=(-0.6, len(VIEWS) - 0.4))
    panel.set_yticks(range(len(VIEWS)), list(reversed(VIEWS)))


def draw_gates(panel: Axes, rows: Sequence[Row], data: str) -> None:
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


def draw_copies(panel: Axes, rows: Sequence[Row], data: str) -> None:
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
    theory=(
        "A gate between two convolutions that rescales channels by a readout of the whole graph, the "
        "squeeze, makes a network more accurate. The squeeze decides what the gate lets in: those by mean "
        "and max are the same for a graph and its copies, bit for bit; those by sum follow the size and "
        "are driven towards 0 and 1 by copies."
    ),
    setup=(
        "GIN with a mean readout, without gates and with gates squeezed by mean, max and sum; the same "
        "folds, seeds, first weights and batches. Differences to no gates are paired by fold, with "
        "corrected intervals. The gates of trained networks are then read: how they spread over graphs "
        "and channels, how they go with the size, and what 2 to 16 copies of a graph do to them."
    ),
    source="[Hu et al. 2018](https://arxiv.org/abs/1709.01507), on images, with the mean.",
    caveats=(
        "A gate adds parameters; they are counted in the table.",
        "The claim of accuracy is one about images; on small molecules there is less to gate.",
    ),
    drawings=(
        Drawing(
            "excitation",
            "Three panels for each data set: held-out accuracy without gates and with each squeeze, the "
            "gate of every channel, and how far gates move with the number of copies.",
            "Accuracy of each squeeze, a dot a fold; the gates of all channels in the first fold; how "
            "many of them copies saturate.",
        ),
    ),
    prepare=choose,
    measure=measure,
    tables=tables,
    findings=findings,
    numbers=numbers,
    figure=figure,
    notes=sentences,
    options={"folds": FOLDS_OF_CLASSES, "epochs": number(100, 1, "Epochs of training.")},
    quick={"folds": 5},
)
