"""How many nodes must be corrupted until a readout breaks.

A readout counts as broken when it leaves the range of the clean values. Trained networks inherit the
breakdown point of their readout where the states before it are corrupted. Where the input is, messages carry
the damage to the neighbours, and fewer nodes are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from sklearn.model_selection import KFold
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from datasets import GraphSet
from experiments import figures
from experiments.console import Table, UserError, share, table, tracked
from experiments.experiment import Drawing, Experiment, Finding, sentences, span
from experiments.models import GIN
from experiments.options import FOLDS, STEPS
from experiments.records import Row, RowLog, average, present
from experiments.samples import drawn, labelled, sampled, untrained
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
SAMPLE, LAYERS, WIDTH, LEARNING_RATE = 300, 2, 16, 0.01


@dataclass(frozen=True)
class Task:
    """Graphs with nodes, and what a network is trained to tell of them: the family where they have one."""

    data: str
    graphs: tuple[Data, ...]
    available: int
    classes: int

    @property
    def sentence(self) -> str:
        """On how many graphs, and what was left out."""
        sample = sampled(len(self.graphs), self.available)
        alone = untrained(self.classes)
        return f"{self.data}: {len(self.graphs)} graphs with nodes{sample}{alone}."


def choose(graphs: GraphSet, seed: int) -> Task:
    """A task on at most `SAMPLE` graphs."""
    picked = [graph for graph in drawn(graphs, SAMPLE, seed) if graph.num_nodes > 0]
    if not picked:
        raise UserError(f"{graphs.name}: expected graphs with nodes, got none.")
    kept, classes = labelled(picked)
    return Task(graphs.name, kept, len(graphs), classes)


def measure(tasks: Sequence[Task], log: RowLog, device: str, seed: int, folds: int, epochs: int) -> list[Row]:
    """Errors and breakdown points on random states, and accuracies where there are classes to train on."""
    rows = []
    for task in tasks:
        if task.classes > 1:
            work = {
                "data": task.data,
                "readout": None,
                "seed": seed,
                "fold": None,
                "graphs": len(task.graphs),
            }
            rows += log.measure(work, ("majority",), partial(majority, task))
        for readout in tracked(tuple(READOUTS), f"corrupting {task.data}"):
            rows += measure_states(task, log, readout, device, seed)
            if task.classes > 1:
                rows += measure_trained(task, log, readout, device, seed, folds, epochs)
    return rows


def majority(task: Task) -> dict[str, float]:
    """The share of the largest class."""
    counts = torch.cat([graph.y for graph in task.graphs]).bincount()
    return {"majority": float(counts.max()) / len(task.graphs)}


def settings(task: Task, readout: str, seed: int, fold: int | None) -> dict[str, Any]:
    """What every row of a task says."""
    work = {"data": task.data, "readout": readout, "seed": seed, "fold": fold, "graphs": len(task.graphs)}
    return work | {"layers": LAYERS, "width": WIDTH, "huge": HUGE}


def measure_states(task: Task, log: RowLog, readout: str, device: str, seed: int) -> list[Row]:
    """How far each share of corrupted nodes moves the readout of a random network, and when it breaks."""
    states = cache(partial(random_states, task, device, seed))
    work = settings(task, readout, seed, None) | {"place": ERROR}
    rows = log.measure(work, BREAKDOWN, lambda: breakdown(readout, *states()))
    for part in SHARES[1:]:
        rows += log.measure(work | {"share": part}, ("error",), partial(error, readout, states, part))
    return rows


def random_states(task: Task, device: str, seed: int) -> tuple[Tensor, Batch, Tensor]:
    """States of a random network [N, width], their batch, and a random order of the nodes (see `places`)."""
    batch = Batch.from_data_list(list(task.graphs)).to(device)
    torch.manual_seed(seed)
    network = GIN(batch.x.size(1), 1, "mean", WIDTH, LAYERS).to(device).eval()
    with torch.no_grad():
        return network.nodes(batch), batch, places(batch, seed)


def places(batch: Batch, seed: int) -> Tensor:
    """The place 0, 1, ... of every node in a random order of its graph, int64 [N]."""
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(n, generator=generator) for n in batch.ptr.diff().tolist()]
    return torch.cat(orders).to(batch.ptr.device)


def corrupted(x: Tensor, batch: Batch, place: Tensor, nodes: Tensor) -> Tensor:
    """The features with the first `nodes` [B] of every graph set to a huge number."""
    return torch.where((place < nodes[batch.batch]).unsqueeze(1), HUGE * x.abs().max(), x)


def count(batch: Batch, part: float) -> Tensor:
    """How many nodes of every graph are at most this share, int64 [B]."""
    return (batch.ptr.diff() * part + 1e-9).long()


def read(readout: str, x: Tensor, batch: Batch) -> Tensor:
    """The readout of every graph, [B, F]."""
    result: Tensor = READOUTS[readout]()(x, batch.batch, dim_size=batch.num_graphs)
    return result


def error(readout: str, states: Callable[[], tuple[Tensor, Batch, Tensor]], part: float) -> dict[str, float]:
    """How far the readout moves, relative to its norm: the median over the graphs."""
    x, batch, place = states()
    clean = read(readout, x, batch)
    moved = read(readout, corrupted(x, batch, place, count(batch, part)), batch) - clean
    norm = clean.norm(dim=1)
    return {"error": float((moved.norm(dim=1) / torch.where(norm > 0, norm, 1)).median())}


def breakdown(readout: str, x: Tensor, batch: Batch, place: Tensor) -> dict[str, float]:
    """The least share of corrupted nodes that breaks a graph, on average, and what theory predicts."""
    sizes = batch.ptr.diff()
    low, high = (pool(x, batch.batch, name, size=batch.num_graphs) for name in ("min", "max"))
    least = torch.zeros_like(sizes)
    for nodes in range(1, int(sizes.max()) + 1):
        value = read(readout, corrupted(x, batch, place, sizes.clamp(max=nodes)), batch)
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


def measure_trained(
    task: Task, log: RowLog, readout: str, device: str, seed: int, folds: int, epochs: int
) -> list[Row]:
    """Held-out accuracy of trained networks at every share of corrupted nodes, in two places."""
    if folds > len(task.graphs):
        raise UserError(f"--folds {folds}: {task.data} has only {len(task.graphs)} graphs.")
    rows = []
    sides = KFold(folds, shuffle=True, random_state=seed).split(task.graphs)
    for fold, (train, test) in enumerate(sides):
        network = cache(partial(trained, task, train.tolist(), readout, device, seed + fold, epochs))
        held_out = Batch.from_data_list([task.graphs[graph] for graph in test]).to(device)
        work = settings(task, readout, seed, fold) | {"folds": folds, "epochs": epochs}
        work |= {"learning rate": LEARNING_RATE}
        for place in (STATES, INPUT):
            for part in SHARES:
                compute = partial(accuracy, network, held_out, place, part, seed)
                rows += log.measure(work | {"place": place, "share": part}, ("accuracy",), compute)
    return rows


def trained(task: Task, train: Sequence[int], readout: str, device: str, seed: int, epochs: int) -> GIN:
    """A network trained on clean graphs, each step on all of them."""
    torch.manual_seed(seed)
    network = GIN(task.graphs[0].x.size(1), task.classes, "mean", WIDTH, LAYERS)
    network.readout = READOUTS[readout]()
    network.to(device)
    batch = Batch.from_data_list([task.graphs[graph] for graph in train]).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    for _ in range(epochs):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(batch), batch.y).backward()
        optimiser.step()
    return network.eval()


def accuracy(
    network: Callable[[], GIN], batch: Batch, place: str, part: float, seed: int
) -> dict[str, float]:
    """The share of right answers with a share of the nodes corrupted, at the input or before the readout."""
    model, order, nodes = network(), places(batch, seed), count(batch, part)
    with torch.no_grad():
        if place == INPUT:
            batch = batch.clone()
            batch.x = corrupted(batch.x, batch, order, nodes)
        states = model.nodes(batch)
        if place == STATES:
            states = corrupted(states, batch, order, nodes)
        logits = model.head(model.readout(states, batch.batch, dim_size=batch.num_graphs))
    return {"accuracy": (logits.argmax(dim=1) == batch.y).double().mean().item()}


def tables(rows: Sequence[Row]) -> list[Table]:
    """Breakdown points, and accuracies at some shares."""
    points = ("set", "readout", "breaks at [%]", "predicted", "graphs as predicted")
    found = [table("The least share of huge nodes that breaks a readout", points, breakdown_lines(rows), 2)]
    lines = list(accuracy_lines(rows))
    if lines:
        columns = ("set", "network", "readout", *(f"{100 * part:.0f} %" for part in SHOWN))
        found.append(table("Held-out accuracy with a share of nodes corrupted", columns, lines, 3))
    return found


def breakdown_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set and readout."""
    for data in present(rows, "data"):
        for readout in READOUTS:
            at = partial(average, rows, data=data, readout=readout)
            measured, theory, agreement = (100 * at(metric=metric) for metric in BREAKDOWN)
            yield [data, readout, f"{measured:.1f}", f"{theory:.1f}", f"{agreement:.1f} %"]


def accuracy_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set, place of the corruption and readout."""
    for data in present(rows, "data"):
        for place in present(rows, "place", data=data, metric="accuracy"):
            for readout in READOUTS:
                at = partial(average, rows, data=data, place=place, readout=readout, metric="accuracy")
                yield [data, place, readout, *(share(at(share=part)) for part in SHOWN)]
            largest = share(average(rows, data=data, metric="majority"))
            yield [data, place, "largest class", *(largest for _ in SHOWN)]
            yield []


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """Every readout breaks where theory says, and after trained networks the robust ones alone do not.

    The verdict asks for both on a set, so that the parts themselves do not count.
    """
    for data in present(rows, "data"):
        at = partial(average, rows, data=data)
        wrong = [readout for readout in READOUTS if at(readout=readout, metric="as predicted") != 1]
        points = [f"{readout} {100 * at(readout=readout, metric='breakdown'):.0f} %" for readout in READOUTS]
        said = (
            f"elsewhere than predicted: {', '.join(wrong)}" if wrong else "every readout breaks as predicted"
        )
        said += f"; on average at {', '.join(points)} of the nodes"
        yield Finding(f"{data}, random network", not wrong, said, "check", main=False)
        held = not wrong
        for place in present(rows, "place", data=data, metric="accuracy"):
            of_place = of_trained(rows, data, place)
            held &= of_place[0] or place != STATES
            yield Finding(f"{data}, {place}", *of_place, main=False)
        yield Finding(data, held, "breakdown points, and trained networks with corrupted states")


def numbers(rows: Sequence[Row]) -> str:
    """What corrupted states cost."""
    sets = [data for data in present(rows, "data") if STATES in present(rows, "place", data=data)]
    part = f"{100 * ASKED:.0f} %"
    told = ", ".join(
        f"{readout} {span((100 * drop(rows, data, STATES, readout) for data in sets), '.0f')}"
        for readout in (READOUTS if sets else ())
    )
    return f"points lost with {part} of the states corrupted: {told or 'no network trained'}"


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
    at = partial(average, rows, data=data, place=place, readout=readout, metric="accuracy")
    return at(share=0.0) - at(share=ASKED)


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """Errors of a random network, and accuracies of trained ones, over the share of corrupted nodes."""
    sheets = [(data, place) for data in present(rows, "data") for place in present(rows, "place", data=data)]
    drawing, panels = figures.panels(len(sheets), width=3.1, height=2.7)
    for panel, (data, place) in zip(panels, sheets, strict=True):
        draw(panel, rows, data, place)
    entries = {name: (COLOURS[name], "-") for name in READOUTS}
    entries |= {"breakdown points": (figures.GREY, ":"), "largest class": (figures.GREY, "--")}
    figures.legend(drawing, entries)
    return figures.save(drawing, out, "robustness")


def draw(panel: Axes, rows: Sequence[Row], data: str, place: str) -> None:
    """One line a readout."""
    metric = "error" if place == ERROR else "accuracy"
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
        largest = average(rows, data=data, metric="majority")
        panel.axhline(100 * largest, color=figures.GREY, linestyle="--", linewidth=1)
        panel.set(ylabel="held-out accuracy [%]", ylim=(-3, 103))


EXPERIMENT = Experiment(
    name="robustness",
    title="Robustness",
    question="What share of corrupted nodes does a readout tolerate?",
    claim=(
        "One huge node breaks a mean or a max; a trimmed mean tolerates 20 % corrupted nodes, a median "
        "nearly half"
    ),
    theory=(
        "One huge node moves a mean or a max as far as it likes. A mean without the least and the "
        "greatest fifth of the values bears up to a fifth of such nodes, and a median any less than half. "
        "Trained networks inherit this where the states before the readout are corrupted; where the input "
        "is, messages carry the damage on."
    ),
    setup=(
        "A growing share of the nodes of every graph is set to a huge number. A readout counts as broken "
        "when it leaves the range of the clean values. Networks are trained on clean graphs and asked "
        "about corrupted ones."
    ),
    source=(
        "Breakdown points: Donoho and Huber, *The notion of breakdown point*, 1983. Trimmed aggregation "
        "of neighbours: [Geisler et al. 2020](https://arxiv.org/abs/2010.15651)."
    ),
    caveats=(
        (
            "Huge numbers in all features are the crudest attack; a readout may bear them and fail under "
            "smaller ones that are well placed."
        ),
        "What bears outliers ignores rare nodes: the same median cannot see a single telling atom.",
    ),
    drawings=(
        Drawing(
            "robustness",
            "Relative error of the readouts of a random network, and accuracy of trained networks, over "
            "the share of corrupted nodes.",
            "Over the share of corrupted nodes: the error of each readout, and the accuracy behind it. "
            "Dotted are the breakdown points.",
        ),
    ),
    prepare=choose,
    measure=measure,
    tables=tables,
    findings=findings,
    numbers=numbers,
    figure=figure,
    notes=sentences,
    options={"folds": FOLDS, "epochs": STEPS},
)
