"""How many nodes must be corrupted until a readout breaks, and a network with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from experiments import by_node, figures
from experiments.by_node import Fold, Task, Values
from experiments.console import Table, percent, share, table
from experiments.experiment import Experiment, Finding, sentences, span
from experiments.jobs import Job, carry_out
from experiments.learning.batches import Batch
from experiments.learning.networks import Network
from experiments.options import FOLDS
from experiments.records import Row, RowLog, average, present
from readouts import Segments
from readouts import readout as pool
from readouts.nn import MaxReadout, MeanReadout, MedianReadout, TrimmedMeanReadout

CUT = 0.2
READOUTS: dict[str, Callable[[], nn.Module]] = {
    "mean": MeanReadout,
    "max": MaxReadout,
    "trimmed mean": partial(TrimmedMeanReadout, CUT),
    "median": MedianReadout,
}
ROBUST = ("trimmed mean", "median")
COLOURS = figures.COLOURS | {"trimmed mean": "#e69f00", "median": "#7b4ea3"}
ERROR, STATES, INPUT = "random network", "trained, states corrupted", "trained, input corrupted"
SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
ASKED, LOSS = 0.15, 0.1
SHOWN = (0.0, 0.05, 0.1, ASKED, 0.3, 0.45)
BREAKDOWN = ("breakdown", "predicted", "as predicted")
HUGE = 1e4


def measure(tasks: Sequence[Task], log: RowLog, device: str, seed: int, folds: int, epochs: int) -> list[Row]:
    """Errors and breakdown points on random states, and accuracies where there are classes to train on."""
    jobs, places = [], [{"place": place, "share": part} for place in (STATES, INPUT) for part in SHARES]
    for task in tasks:
        for name in READOUTS:
            work = task.work(name, seed, place=ERROR, huge=HUGE)
            rows: by_node.Rows = [(work, BREAKDOWN)]
            rows += [(work | {"share": part}, ("error",)) for part in SHARES[1:]]
            jobs.append(Job(rows, partial(break_down, task, name, device, seed)))
        for fold in by_node.folds_of(task, folds, seed, epochs, device):
            for name in READOUTS:
                work = fold.work(name, huge=HUGE)
                rows = [(work, by_node.TRAINED), *((work | place, ("corrupted",)) for place in places)]
                jobs.append(Job(rows, partial(corrupt, fold, name)))
    return carry_out(jobs, log, "corrupting")


def new_network(task: Task, readout: str, device: str) -> Network:
    """A network with this readout, as it is drawn."""
    network = Network("gin", "mean", task.features, task.classes, by_node.WIDTH, by_node.ROUNDS)
    network.readout = READOUTS[readout]()
    return network.to(device)


def break_down(task: Task, readout: str, device: str, seed: int) -> Values:
    """When corrupted states of a random network break a readout, and how far each share of them moves it."""
    x, graphs, place = random_states(task, device, seed)
    errors = [error(readout, x, graphs, place, part) for part in SHARES[1:]]
    return [breakdown(readout, x, graphs, place), *errors]


def random_states(task: Task, device: str, seed: int) -> tuple[Tensor, Segments, Tensor]:
    """States of a random network [N, width], their graphs, and a random order of the nodes (see `places`)."""
    torch.manual_seed(seed)
    network = new_network(task, "mean", device).eval()
    batch = by_node.together(network, task.graphs)
    with torch.no_grad():
        return network.nodes(batch), batch.graphs, places(batch.graphs, seed)


def places(graphs: Segments, seed: int) -> Tensor:
    """The place 0, 1, ... of every node in a random order of its graph, int64 [N]."""
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(n, generator=generator) for n in graphs.count.tolist()]
    return torch.cat(orders).to(graphs.ptr.device)


def corrupted(x: Tensor, graphs: Segments, place: Tensor, nodes: Tensor) -> Tensor:
    """The features with the first `nodes` [B] of every graph set to a huge number."""
    return torch.where((place < nodes[graphs.index]).unsqueeze(1), HUGE * x.abs().max(), x)


def count(graphs: Segments, part: float) -> Tensor:
    """How many nodes of every graph are at most this share, int64 [B]."""
    return (graphs.count * part + 1e-9).long()


def error(readout: str, x: Tensor, graphs: Segments, place: Tensor, part: float) -> dict[str, float]:
    """How far the readout moves, relative to its norm: the median over the graphs."""
    read = READOUTS[readout]()
    clean = read(x, graphs)
    moved = read(corrupted(x, graphs, place, count(graphs, part)), graphs) - clean
    norm = clean.norm(dim=1)
    return {"error": float((moved.norm(dim=1) / torch.where(norm > 0, norm, 1)).median())}


def breakdown(readout: str, x: Tensor, graphs: Segments, place: Tensor) -> dict[str, float]:
    """The least share of corrupted nodes that breaks a graph, on average, and what theory predicts."""
    sizes, read = graphs.count, READOUTS[readout]()
    low, high = (pool(x, graphs, name) for name in ("min", "max"))
    least = torch.zeros_like(sizes)
    for nodes in range(1, int(sizes.max()) + 1):
        value = read(corrupted(x, graphs, place, sizes.clamp(max=nodes)), graphs)
        broken = ((value < low) | (value > high)).any(dim=1)
        least = torch.where((least == 0) & broken, nodes, least)
        if least.all():
            break
    expected = torch.tensor([predicted(readout, n) for n in sizes.tolist()], device=sizes.device)
    averages = ((nodes / sizes).double().mean().item() for nodes in (least, expected))
    agreement = (least == expected).double().mean().item()
    return dict(zip(BREAKDOWN, (*averages, agreement), strict=True))


def predicted(readout: str, n: int) -> int:
    """The least number of nodes that breaks a graph of n nodes."""
    return {"mean": 1, "max": 1, "trimmed mean": int(CUT * n) + 1, "median": (n + 1) // 2}[readout]


def corrupt(fold: Fold, readout: str) -> Values:
    """Train on clean graphs; held-out accuracy at every share of corrupted nodes, in two places."""
    fold.begin()
    network = new_network(fold.task, readout, fold.device)
    trained = by_node.train(network, fold)
    batch = by_node.together(network.eval(), fold.side(fold.held_out))
    place = places(batch.graphs, fold.seed)
    corrupted = [
        accuracy(network, batch, where, place, count(batch.graphs, part))
        for where in (STATES, INPUT)
        for part in SHARES
    ]
    return trained + [{"corrupted": value} for value in corrupted]


@torch.no_grad()
def accuracy(network: Network, batch: Batch, where: str, place: Tensor, nodes: Tensor) -> float:
    """The share of right answers with some nodes of each graph corrupted, in one of two places."""
    graphs = batch.graphs
    if where == INPUT:
        batch = replace(batch, x=corrupted(batch.x, graphs, place, nodes))
    states = network.nodes(batch)
    if where == STATES:
        states = corrupted(states, graphs, place, nodes)
    return by_node.right(network.head(network.readout(states, graphs))[None], batch.y).item()


def tables(rows: Sequence[Row]) -> list[Table]:
    """Breakdown points, and accuracies at some shares where networks were trained."""
    points = ("set", "readout", "breaks at [%]", "predicted", "graphs as predicted")
    found = [table("The least share of huge nodes that breaks a readout", points, breakdown_lines(rows), 2)]
    if lines := list(accuracy_lines(rows)):
        columns = ("set", "network", "readout", *(f"{100 * part:.0f} %" for part in SHOWN))
        found.append(table("Held-out accuracy with a share of nodes corrupted", columns, lines, 3))
    return found


def breakdown_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set and readout."""
    for data in present(rows, "data"):
        for readout in READOUTS:
            at = partial(average, rows, data=data, readout=readout)
            measured, theory, agreement = (percent(at(metric=metric)) for metric in BREAKDOWN)
            yield [data, readout, measured, theory, f"{agreement} %"]


def accuracy_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set, place of the corruption and readout."""
    for data in present(rows, "data"):
        for place in present(rows, "place", data=data, metric="corrupted"):
            for readout in READOUTS:
                at = partial(average, rows, data=data, place=place, readout=readout, metric="corrupted")
                yield [data, place, readout, *(share(at(share=part)) for part in SHOWN)]
            largest = share(average(rows, data=data, metric="largest class"))
            yield [data, place, "largest class", *[largest] * len(SHOWN)]
            yield []


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """Every readout breaks where theory says, a check; of trained networks the robust ones alone do not."""
    for data in present(rows, "data"):
        at = partial(average, rows, data=data)
        wrong = [readout for readout in READOUTS if at(readout=readout, metric="as predicted") != 1]
        points = [f"{readout} {100 * at(readout=readout, metric='breakdown'):.0f} %" for readout in READOUTS]
        said = (
            f"elsewhere than predicted: {', '.join(wrong)}" if wrong else "every readout breaks as predicted"
        )
        said += f"; on average at {', '.join(points)} of the nodes"
        yield Finding(f"{data}, random network", not wrong, said, "check", main=False)
        against = by_node.objections(rows, data)
        for place in present(rows, "place", data=data, metric="corrupted"):
            of_place = of_trained(rows, data, place)
            yield by_node.compared(f"{data}, {place}", against, of_place, main=place == STATES)


def numbers(rows: Sequence[Row]) -> str:
    """What corrupted states cost."""
    asked = present(rows, "data", place=STATES)
    sets = [data for data in asked if not by_node.objections(rows, data)]
    part = f"{100 * ASKED:.0f} %"
    told = ", ".join(
        f"{readout} {span((100 * drop(rows, data, STATES, readout) for data in sets), '.0f')}"
        for readout in (READOUTS if sets else ())
    )
    return f"points lost with {part} of the states corrupted: {told or 'no networks to compare'}"


def of_trained(rows: Sequence[Row], data: str, place: str) -> tuple[bool, str]:
    """Whether trimmed mean and median alone bear corrupted states, and bear a corrupted input less."""
    drops = {readout: drop(rows, data, place, readout) for readout in READOUTS}
    bear = [readout for readout, lost in drops.items() if lost <= LOSS]
    held = bear == list(ROBUST)
    if place == INPUT:
        held = all(drops[readout] > drop(rows, data, STATES, readout) for readout in ROBUST)
    lost = ", ".join(f"{readout} {100 * value:.0f}" for readout, value in drops.items())
    kept = " and ".join(bear) or "no readout"
    part = f"with {100 * ASKED:.0f} % of the nodes corrupted"
    return held, f"{part} {kept} kept the accuracy (points lost: {lost})"


def drop(rows: Sequence[Row], data: str, place: str, readout: str) -> float:
    """The accuracy that is lost at the share that the verdict asks about."""
    at = partial(average, rows, data=data, place=place, readout=readout, metric="corrupted")
    return at(share=0.0) - at(share=ASKED)


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """Errors of a random network, and accuracies of trained ones, over the share of corrupted nodes."""
    sheets = [(data, place) for data in present(rows, "data") for place in present(rows, "place", data=data)]
    entries = {name: (COLOURS[name], "-") for name in READOUTS}
    entries |= {"breakdown points": (figures.GREY, ":"), "largest class": (figures.GREY, "--")}
    draws = [partial(draw, rows, *sheet) for sheet in sheets]
    return figures.draw(out, "robustness", draws, entries, width=3.1)


def draw(rows: Sequence[Row], data: str, place: str, panel: Axes) -> None:
    """One line a readout."""
    metric = "error" if place == ERROR else "corrupted"
    for part in (CUT, 0.5):
        panel.axvline(100 * part, color=figures.GREY, linestyle=":", linewidth=1)
    for name, marker in zip(READOUTS, "s^Do", strict=True):
        at = partial(average, rows, data=data, place=place, readout=name, metric=metric)
        parts = present(rows, "share", data=data, place=place, metric=metric)
        values = [at(share=part) * (1 if metric == "error" else 100) for part in parts]
        panel.plot([100 * part for part in parts], values, f"-{marker}", color=COLOURS[name], markersize=4)
    panel.set(title=f"{data}: {place}", xlabel="corrupted nodes [%]", xlim=(-2, 62))
    panel.title.set_fontsize(9.5)
    if metric == "error":
        panel.set(ylabel="relative error")
        panel.set_yscale("symlog", linthresh=1e-2)
        panel.set(ylim=(-2e-3, 3e5), yticks=[0, 1e-2, 1, 1e2, 1e4])
    else:
        largest = average(rows, data=data, metric="largest class")
        panel.axhline(100 * largest, color=figures.GREY, linestyle="--", linewidth=1)
        panel.set(ylabel="held-out accuracy [%]", ylim=(-3, 103))


EXPERIMENT = Experiment(
    name="robustness",
    title="Robustness",
    question="What share of corrupted nodes does a readout tolerate?",
    claim="""One huge node breaks a mean or a max; in trained networks a trimmed mean and a median keep the
    accuracy with 15 % of the states corrupted""",
    theory="""One huge node moves a mean or a max as far as it likes. A mean without the least and the
    greatest fifth of the values tolerates up to a fifth of such nodes, and a median any less than half.
    Trained networks inherit this where the states before the readout are corrupted; where the input is,
    messages carry the damage on.""",
    setup="""A growing share of the nodes of every graph is set to a huge number. A readout counts as broken
    when it leaves the range of the clean values: a check of a theorem. Networks (GIN with batch norm, batches
    of 32, Adam with a learning rate that halves) are trained on clean graphs and asked about corrupted ones,
    where training had converged and is ahead of the largest class.""",
    source="""Breakdown points: Donoho and Huber, *The notion of breakdown point*, 1983. Trimmed aggregation
    of neighbours: [Geisler et al. 2020](https://arxiv.org/abs/2010.15651).""",
    caveats=(
        "Huge numbers in all features are the crudest attack; small ones that are well placed may do more.",
        "What tolerates outliers ignores rare nodes: the same median cannot see a single telling atom.",
    ),
    alt="Error of the readouts of a random network, and accuracy of trained ones, over corrupted nodes.",
    caption="""Over the share of corrupted nodes: the error of each readout, and the accuracy of networks with
    it. Dotted are the breakdown points.""",
    prepare=by_node.task_of,
    measure=measure,
    parallel=True,
    tables=tables,
    findings=findings,
    numbers=numbers,
    figure=figure,
    notes=sentences,
    options={"folds": FOLDS, "epochs": by_node.EPOCHS},
)
