"""What is wrong with a fully connected layer on all node states, and what does averaging do about it?

Of m nodes drawn at random from n without replacement the variance of the mean about the mean of all is
S^2 (1 - m / n) / m, with S^2 = sum_i (x_i - mu)^2 / (n - 1) (Cochran 1977, section 2). The nodes of one graph
are no such draw from the nodes of all graphs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, stdev

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.utils import to_dense_batch

from datasets import GraphSet
from experiments import by_node, figures
from experiments.by_node import EPOCHS, WIDTH, Fold, Task, Values
from experiments.console import Table, UserError, table
from experiments.experiment import Experiment, Finding, sentences, span
from experiments.jobs import Job, carry_out
from experiments.learning.networks import Network, StackedLinear
from experiments.options import FOLDS, number
from experiments.records import Row, RowLog, average, pick, present, values
from experiments.statistics import compare
from readouts import Segments, readout
from readouts.nn import PartialReadout

FLATTEN, DROPOUT, SHUFFLED = "flatten", "flatten + dropout", "flatten + shuffles"
ORDERED = (FLATTEN, DROPOUT)  # trained on one order of the nodes
FLAT = (FLATTEN, DROPOUT, SHUFFLED)
POOLED = ("sum", "mean", "max")
HEADS = (*FLAT, *POOLED)
DROPPED, ORDERS = 0.5, 10


class Flatten(nn.Module):
    """Node states in their order, padded with zeros to `largest`: [N, F] -> [B, largest F].

    In training a share of the entries is dropped, or the nodes of each graph are shuffled: the rounds of
    message passing before do not depend on their order.
    """

    def __init__(self, largest: int, dropped: float, shuffles: bool) -> None:
        """Set the number of places, the share of entries to drop, and whether nodes are shuffled."""
        super().__init__()
        self.largest, self.shuffles = largest, shuffles
        self.dropout = nn.Dropout(dropped)

    def forward(self, x: Tensor, graphs: Segments) -> Tensor:
        """Lay out the nodes of sorted graphs."""
        if self.training and self.shuffles:
            x = x[(graphs.index + torch.rand(len(x), dtype=torch.float64, device=x.device)).argsort()]
        padded, _ = to_dense_batch(x, graphs.index, max_num_nodes=self.largest, batch_size=graphs.size)
        flat: Tensor = self.dropout(padded.flatten(1))
        return flat


def build(head: str, features: int, classes: int, largest: int, copies: int = 1) -> Network:
    """A GIN with a linear layer after a readout, or on all node states; the rounds are drawn first."""
    of_network = "mean" if head in FLAT else head
    network = Network("gin", of_network, features, classes, WIDTH, by_node.ROUNDS, copies)
    if head in FLAT:
        network.readout = Flatten(largest, DROPPED if head == DROPOUT else 0, head == SHUFFLED)
    network.head = StackedLinear(WIDTH * (largest if head in FLAT else 1), classes, copies)
    return network


def shuffled(batch: Batch, generator: torch.Generator) -> Batch:
    """The same graphs with the nodes of each in a random order."""
    noise = torch.rand(len(batch.batch), generator=generator, dtype=torch.float64).to(batch.x.device)
    order = (batch.batch + noise).argsort()
    result = batch.clone()
    result.x = batch.x[order]
    result.edge_index = order.argsort()[batch.edge_index]
    return result


ATOMS, RANDOM = "atoms", "random network"
LAW = ("measured", "predicted", "plain", "standard error")
BETWEEN = ("between graphs", "independent nodes")
DRAWS = 200
METRICS = (*by_node.TRAINED, "parameters", "shuffled accuracy", "answers changed", "same bits")


def choose(graphs: GraphSet, seed: int) -> Task:
    """A task whose graphs are not all of one node."""
    task = by_node.task_of(graphs, seed)
    if task.largest < 2:
        raise UserError(f"{graphs.name}: expected graphs of two nodes or more, got none.")
    return task


def measure(
    tasks: Sequence[Task], log: RowLog, device: str, seed: int, folds: int, epochs: int, seeds: int
) -> list[Row]:
    """The law on every set, and every head, `seeds` times on a fold, where there are classes to train on."""
    jobs = []
    for task in tasks:
        jobs += [job_of_law(task, kind, device, seed) for kind in (ATOMS, RANDOM)]
        for fold in by_node.folds_of(task, folds, seed, epochs, device):
            for head in HEADS:
                work = fold.work(head, dropout=DROPPED, orders=ORDERS)
                rows = [(work | {"draw": draw}, METRICS) for draw in range(seeds)]
                jobs.append(Job(rows, partial(train_and_judge, fold, head, seeds)))
    return carry_out(jobs, log, "training heads")


def job_of_law(task: Task, kind: str, device: str, seed: int) -> Job:
    """Variances of the mean of m nodes, of labels or of states, and between graphs."""
    work = task.work("mean", seed, features=kind)
    numbers = drawn_sizes(task.graphs)
    rows: by_node.Rows = [(work | {"nodes": m, "draws": DRAWS}, LAW) for m in numbers]
    rows += [(work, BETWEEN)] if len(task.graphs) > 1 else []
    return Job(rows, partial(law, task, kind, numbers, device, seed))


def drawn_sizes(graphs: Sequence[Data]) -> list[int]:
    """How many nodes to draw: 1, 2, 4, ..., less than the largest graph has."""
    largest = max(graph.num_nodes for graph in graphs)
    return [2**power for power in range(largest.bit_length()) if 2**power < largest]


def law(task: Task, kind: str, numbers: Sequence[int], device: str, seed: int) -> Values:
    """What `draw` finds for each number of nodes, and `between` where there are several graphs."""
    torch.manual_seed(seed)
    network = build("mean", task.features, task.classes, task.largest).to(device).eval()
    batch = by_node.together(network, task.graphs)
    with torch.no_grad():
        x = (network.nodes(batch) if kind == RANDOM else batch.x).double()
    found = [draw(x, batch.graphs, m, seed) for m in numbers]
    return found + ([between(x, batch.graphs)] if len(task.graphs) > 1 else [])


def draw(x: Tensor, graphs: Segments, m: int, seed: int) -> dict[str, float]:
    """Variances of the mean of m nodes about that of all, averaged over features and graphs of more than m.

    "measured" with `DRAWS` draws, with its "standard error"; "predicted" with the correction for finite
    graphs; "plain" without, variance / m.
    """
    large = graphs.count > m
    n = graphs.count[large, None]
    center = readout(x, graphs, "mean")
    variance = readout(x, graphs, "var")[large]
    some = PartialReadout("mean", count=m).train()
    torch.manual_seed(seed + m)
    squares = torch.stack([(some(x, graphs) - center)[large].square().mean() for _ in range(DRAWS)])
    predicted, plain = (variance * (n - m) / (n - 1) / m).mean().item(), variance.mean().item() / m
    found = squares.mean().item(), predicted, plain, squares.std().item() / DRAWS**0.5
    return dict(zip(LAW, found, strict=True))


def between(x: Tensor, graphs: Segments) -> dict[str, float]:
    """The variance of the means of all graphs, and what it were if their nodes were drawn from all nodes."""
    independent = x.var(dim=0, correction=0) / graphs.count[:, None]
    return {
        "between graphs": readout(x, graphs, "mean").var(dim=0).mean().item(),
        "independent nodes": independent.mean().item(),
    }


def train_and_judge(fold: Fold, head: str, seeds: int) -> Values:
    """Train networks from `seeds` draws of the weights, and judge each."""
    fold.begin()
    task = fold.task
    network = build(head, task.features, task.classes, task.largest, seeds).to(fold.device)
    trained = by_node.train(network, fold)
    held_out = Batch.from_data_list(fold.side(fold.held_out)).to(fold.device)
    judged = judge(network.eval(), held_out, fold.seed)
    return [one | other for one, other in zip(trained, judged, strict=True)]


@torch.no_grad()
def judge(network: Network, held_out: Batch, seed: int) -> Values:
    """What `ORDERS` orders of the nodes of held-out graphs do to every copy."""
    form, generator = by_node.form_of(network), torch.Generator().manual_seed(seed)
    logits = network(form(held_out))
    others = torch.stack([network(form(shuffled(held_out, generator))) for _ in range(ORDERS)])
    answers, changed = logits.argmax(dim=2), others.argmax(dim=3)
    found = {
        "shuffled accuracy": (changed == held_out.y).double().mean(dim=(0, 2)),
        "answers changed": (changed != answers).double().mean(dim=(0, 2)),
        "same bits": (bits(others) == bits(logits)).all(dim=3).all(dim=0).double().mean(dim=1),
    }
    parameters = sum(weight[0].numel() for weight in network.head.parameters())
    return [
        {"parameters": parameters} | {name: float(values[copy]) for name, values in found.items()}
        for copy in range(network.copies)
    ]


def bits(logits: Tensor) -> Tensor:
    """The bits of float32 numbers, as integers."""
    return logits.view(torch.int32)


POINT, ERRORS = 0.01, 4
SHOWN = ("train accuracy", "accuracy", "gap", "seeds", "shuffled accuracy", "answers changed", "same bits")


Summary = dict[str, dict[str, float]]  # of every head


def summary(rows: Sequence[Row], data: str) -> Summary:
    """Averages over folds and seeds, and how far these are apart.

    "gap" is how far training is above held out, "lost" how far that is above other orders of the nodes,
    "seeds" the standard deviation of held-out accuracies over the networks of a fold.
    """
    found = {}
    for head in HEADS:
        at = {metric: average(rows, data=data, readout=head, metric=metric) for metric in METRICS}
        at["gap"] = at["train accuracy"] - at["accuracy"]
        at["lost"] = at["accuracy"] - at["shuffled accuracy"]
        at["seeds"] = mean(map(stdev, per_fold(rows, data, head)))
        found[head] = at
    return found


def per_fold(rows: Sequence[Row], data: str, head: str) -> list[list[float]]:
    """The held-out accuracies of the networks of each fold."""
    at = {"data": data, "readout": head, "metric": "accuracy"}
    return [values(rows, fold=fold, **at) for fold in present(rows, "fold", **at)]


def trained(rows: Sequence[Row]) -> list[str]:
    """The sets on which networks were trained."""
    return [data for data in present(rows, "data") if present(rows, "draw", data=data)]


def tables(rows: Sequence[Row]) -> list[Table]:
    """Heads where networks were trained, and the law."""
    heads = ("set", "head", "weights", "train", "test", "gap", "seeds", "shuffled", "changed", "bits")
    law = ("set", "features", "m", "measured", "± error", "formula", "ratio", "variance / m")
    found = [table("Variance of the mean of m random nodes of a graph", law, law_lines(rows), 2)]
    lines = list(head_lines(rows))
    if lines:
        title = "Accuracy in the order of storage and shuffled; answers changed by that, bits kept [%]"
        found.insert(0, table(title, heads, lines, 2))
    return found


def head_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set and head."""
    for data in trained(rows):
        found = summary(rows, data)
        for head, at in found.items():
            yield [data, head, f"{at['parameters']:.0f}", *(f"{100 * at[name]:.1f}" for name in SHOWN)]
        yield [data, "largest class", "", "", f"{100 * found[FLATTEN]['largest class']:.1f}"]
        yield []


def law_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """One line for each set, kind of features and number of nodes."""
    for data in present(rows, "data"):
        for kind in present(rows, "features", data=data):
            for m in present(rows, "nodes", data=data, features=kind):
                at = partial(pick, rows, data=data, features=kind, nodes=m)
                measured, predicted, plain, error = (at(metric=metric) for metric in LAW)
                numbers = [f"{value:.3g}" for value in (measured, error, predicted)]
                ratio = f"{measured / predicted:.3f}" if predicted else ""
                yield [data, kind, str(m), *numbers, ratio, f"{plain:.3g}"]
            yield []


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """For each set what shuffling costs, which decides; overfitting, accuracy, seeds; bits and the law."""
    for data in present(rows, "data"):
        if data in trained(rows):
            found = summary(rows, data)
            yield by_node.compared(f"{data}, order of the nodes", unready(rows, data), of_orders(found))
            if not by_node.objections(rows, data):
                yield Finding(f"{data}, overfitting", *of_gaps(found), main=False)
                yield Finding(f"{data}, accuracy", *of_accuracies(rows, data), main=False)
                yield Finding(f"{data}, seeds", *of_seeds(found), main=False)
            yield Finding(f"{data}, bits", *of_bits(found), "check", main=False)
        yield Finding(f"{data}, law of the mean", *of_law(rows, data), "check", main=False)


def unready(rows: Sequence[Row], data: str) -> list[str]:
    """What speaks against asking trained flattened heads about shuffled nodes; readouts need no training."""
    return by_node.objections([row for row in rows if row["readout"] in ORDERED], data)


def numbers(rows: Sequence[Row]) -> str:
    """What shuffling costs a flattened head, and that it costs a readout nothing."""
    found = {data: summary(rows, data) for data in trained(rows)}
    costs = [100 * found[data][FLATTEN]["lost"] for data in found if not unready(rows, data)]
    kept = [of[head]["same bits"] for of in found.values() for head in POOLED]
    told = f"; graphs whose bits readouts keep: {100 * min(kept):.0f} %" if kept else ""
    lost = span(costs, ".1f") if costs else "not compared"
    return f"points that a flattened head loses when nodes are shuffled: {lost}{told}"


def points(found: Summary, metric: str, heads: Sequence[str] = HEADS) -> str:
    """Percentage points of every head."""
    return ", ".join(f"{head} {100 * found[head][metric]:.1f}" for head in heads)


def of_orders(found: Summary) -> tuple[bool, str]:
    """Whether flattened heads lose accuracy when nodes are shuffled."""
    changed = [100 * found[head]["answers changed"] for head in ORDERED]
    best = max(found[head]["accuracy"] for head in POOLED)
    fails = min(found[head]["lost"] for head in ORDERED) >= POINT
    return fails, (
        f"on shuffled nodes flattened heads give {min(changed):.0f} to {max(changed):.0f} % other answers "
        f"and {'lose' if fails else 'do not lose'} accuracy (points: {points(found, 'lost', ORDERED)}); "
        f"trained on shuffled nodes one is right in {100 * found[SHUFFLED]['shuffled accuracy']:.1f} %, "
        f"the best readout in {100 * best:.1f} %, "
        f"the largest class is {100 * found[FLATTEN]['largest class']:.1f} %"
    )


def of_bits(found: Summary) -> tuple[bool, str]:
    """Whether readouts keep every bit when nodes are shuffled."""
    kept = min(found[head]["same bits"] for head in POOLED) == 1
    said = f"readouts {'keep' if kept else 'do not keep'} every bit when nodes are shuffled"
    return kept, f"{said} (graphs in %: {points(found, 'same bits', POOLED)})"


def of_gaps(found: Summary) -> tuple[bool, str]:
    """Whether the flattened head overfits more than every readout, and dropout makes it less."""
    more = all(found[FLATTEN]["gap"] > found[head]["gap"] for head in POOLED)
    helps = found[DROPOUT]["gap"] < found[FLATTEN]["gap"]
    return more and helps, (
        f"flatten {'overfits' if more else 'does not overfit'} more than every readout, and dropout "
        f"{'helps' if helps else 'does not help'} (points by which training is above held out: "
        f"{points(found, 'gap')})"
    )


def of_accuracies(rows: Sequence[Row], data: str) -> tuple[bool | None, str]:
    """Whether the mean is right more often than flattened heads, by intervals for overlapping folds."""
    folds = {head: [mean(found) for found in per_fold(rows, data, head)] for head in ("mean", *ORDERED)}
    found = compare(folds, "mean", len(folds["mean"]))
    worse = all(one.worse for one in found)
    told = ", ".join(f"{one.method} {one.points} points ({one.bounds}, {one.verdict})" for one in found)
    return worse if worse or any(one.better for one in found) else None, f"against the mean: {told}"


def of_seeds(found: Summary) -> tuple[bool, str]:
    """Whether the flattened head varies more than every readout."""
    more = all(found[FLATTEN]["seeds"] > found[head]["seeds"] for head in POOLED)
    return more, (
        f"flatten {'varies' if more else 'does not vary'} more than every readout between networks on a fold "
        f"(standard deviation of held-out accuracies in points: {points(found, 'seeds')})"
    )


def of_law(rows: Sequence[Row], data: str) -> tuple[bool, str]:
    """Whether random nodes obey the law, and how far the nodes of one graph are from random ones."""
    within, factors = [], []
    for kind in present(rows, "features", data=data):
        at = partial(pick, rows, data=data, features=kind)
        for m in present(rows, "nodes", data=data, features=kind):
            measured, predicted, _, error = (at(nodes=m, metric=metric) for metric in LAW)
            within.append(abs(measured - predicted) <= ERRORS * error)
        if BETWEEN[0] in present(rows, "metric", data=data, features=kind):
            between, independent = (at(metric=metric) for metric in BETWEEN)
            factors += [f"{between / independent:.1f} times ({kind})"] if independent else []
    whole = "; the mean of a whole graph varies {} as much as that of as many nodes drawn from all graphs"
    return all(within), (
        f"the variance of the mean of m random nodes is within {ERRORS} standard "
        f"errors of S² (1 - m / n) / m in {sum(within)} of {len(within)} cases"
        f"{whole.format(' and '.join(factors)) if factors else ''}"
    )


PURPLE = "#7b4ea3"
LOOKS = {
    "train accuracy": ("training", "|", figures.GREY),
    "accuracy": ("held out", "o", figures.INK),
    "shuffled accuracy": ("held out, nodes shuffled", "x", PURPLE),
}
KINDS = {ATOMS: figures.INK, RANDOM: PURPLE}


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """For each set, accuracies where networks were trained, and variances over the number of nodes."""
    draws = []
    for data in present(rows, "data"):
        draws += [partial(draw_heads, rows, data)] if data in trained(rows) else []
        draws.append(partial(draw_law, rows, data))
    return figures.draw(out, "heads", draws, width=4.2, height=2.9, columns=2)


def draw_heads(rows: Sequence[Row], data: str, panel: Axes) -> None:
    """A line a head: in training, held out, and held out with shuffled nodes."""
    for metric, (name, mark, colour) in LOOKS.items():
        values = [100 * average(rows, data=data, readout=head, metric=metric) for head in reversed(HEADS)]
        panel.plot(values, range(len(HEADS)), mark, color=colour, markersize=8, mew=2, label=name)
    largest = 100 * average(rows, data=data, metric="largest class")
    panel.axvline(largest, color=figures.GREY, linestyle=":", linewidth=1, label="largest class")
    panel.set(title=data, xlabel="accuracy [%]", xlim=(None, 101), ylim=(-0.6, len(HEADS) - 0.4))
    panel.set_yticks(range(len(HEADS)), list(reversed(HEADS)))
    panel.legend(frameon=False, fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.35, 1.1))


def draw_law(rows: Sequence[Row], data: str, panel: Axes) -> None:
    """Variances in units of that of one node: dots measured, lines the formula, dashed without correction."""
    for kind, colour in KINDS.items():
        numbers = present(rows, "nodes", data=data, features=kind)
        at = partial(pick, rows, data=data, features=kind)
        units = {m: m * at(nodes=m, metric="plain") for m in numbers}
        shown = [m for m in numbers if units[m] > 0]
        for metric, style in (("measured", "o"), ("predicted", "-")):
            values = [at(nodes=m, metric=metric) / units[m] for m in shown]
            panel.plot(shown, values, style, color=colour, markersize=5, label=f"{kind}, {metric}")
    panel.plot(numbers, [1 / m for m in numbers], "--", color=figures.GREY, linewidth=1, label="1 / m")
    panel.set_xscale("log", base=2)
    panel.set_yscale("log", base=2)
    panel.xaxis.set_major_formatter("{x:.0f}")
    panel.yaxis.set_major_formatter("{x:.3g}")
    panel.set(title=data, xlabel="nodes drawn, m", ylabel="variance of their mean / of one")
    panel.legend(frameon=False, fontsize=8)


EXPERIMENT = Experiment(
    name="heads",
    title="Heads",
    question="How large is a fully connected layer on all nodes, and how accurate is it on shuffled nodes?",
    claim="A flattened, fully connected head fails on shuffled nodes; global pooling is unaffected",
    theory="""Global pooling instead of a flattened, fully connected head has fewer parameters and a smaller
    gap between training and test, and needs no dropout. On graphs a flattened head moreover depends on the
    order of the nodes: shuffled, it fails.""",
    setup="""The same GIN (batch norm, batches of 32, Adam with a learning rate that halves) with a linear
    layer on all node states in the order of storage, padded to the largest graph, without dropout, with it,
    or trained on shuffled nodes, against sum, mean and max; several networks on each fold. Accuracy in
    training, on held-out graphs, and on the same graphs in ten other orders of their nodes, where all heads
    had converged and the best is ahead of the largest class. Then the variance of the mean of m random nodes
    of a graph against S² (1 − m/n) / m: a check of a theorem.""",
    source="""Global average pooling as a regulariser: [Lin et al. 2014](https://arxiv.org/abs/1312.4400).
    Var(mean of m nodes) = σ²/m, with the correction for finite populations.""",
    caveats=(
        "The order of the atoms in a file follows the drawing and informs; a pooled head does not get it.",
        "Trained on shuffled nodes, a flattened head learns what pooling has from the start; see the table.",
        "The law is about random nodes of one graph, and says little of how means of whole graphs vary.",
    ),
    alt="Accuracy of flattened and pooled heads; the variance of the mean over the number of nodes.",
    caption="""Accuracy of each head in training, held out, and held out with shuffled nodes; then the
    variance of the mean of m nodes, dots measured, lines by formula.""",
    prepare=choose,
    measure=measure,
    parallel=True,
    tables=tables,
    findings=findings,
    numbers=numbers,
    figure=figure,
    notes=sentences,
    options={"folds": FOLDS, "epochs": EPOCHS, "seeds": number(3, 2, "Networks for each head and fold.")},
    quick={"seeds": 2},
)
