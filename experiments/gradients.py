"""How the gradient of a loss spreads over the nodes, and where two labels meet.

The gradient is that with respect to the states in front of the readout (in front of the scores, where the
head makes maps), in networks without a ReLU there, in float64, on the graphs that are trained on. The *Gini
coefficient* of its norms r over the n nodes of a graph is sum_ij |r_i - r_j| / (2 (n - 1) sum_i r_i): 0 where
all nodes get the same, 1 where one gets all. Nodes that are alike by symmetry tie and share.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from matplotlib.axes import Axes
from sklearn.model_selection import KFold
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch_geometric.data import Batch, Data

from datasets import GraphSet
from experiments import figures
from experiments.console import Table, UserError, table, tracked
from experiments.experiment import Drawing, Experiment, Finding, sentences
from experiments.experiment import span as ends
from experiments.models import GIN, on_grid
from experiments.options import FOLDS, STEPS
from experiments.records import Row, RowLog, average, present
from experiments.samples import drawn, sampled
from readouts import Segments
from readouts import readout as pool
from readouts.nn import MaxReadout, MeanReadout, MedianReadout, SoftmaxReadout, SumReadout

READOUTS: dict[str, Callable[[], nn.Module]] = {
    "sum": SumReadout,
    "mean": MeanReadout,
    "softmax": SoftmaxReadout,
    "median": MedianReadout,
    "max": MaxReadout,
}
VECTOR, MAPS = "one vector", "label maps"
SPREAD = ("nodes", "nodes a channel", "gini")
LABELS = ("met", "opposed", "strength", "divided")
LAYERS, WIDTH = 2, 16


class Network(GIN):
    """A GIN with two logits, without a ReLU in front of the readout, or of the head where that makes maps."""

    def __init__(self, features: int, readout: str, head: str) -> None:
        """Draw the weights from torch's generator."""
        super().__init__(features, 2, "mean", WIDTH, LAYERS)
        self.readout = READOUTS[readout]()
        self.maps = head == MAPS

    def nodes(self, data: Data) -> Tensor:
        """Node states, float [N, width], of either sign."""
        x = data.x
        for convolution in self.convolutions[:-1]:
            x = convolution(x, data.edge_index).relu()
        states: Tensor = self.convolutions[-1](x, data.edge_index)
        return states

    def logits(self, states: Tensor, data: Data) -> Tensor:
        """Logits of the two labels, float [B, 2]."""
        read = partial(self.readout, index=data.batch, dim_size=data.num_graphs)
        return read(self.head(states)) if self.maps else self.head(read(states))

    def forward(self, data: Data) -> Tensor:
        """Logits of the two labels of the graphs of a batch, float [B, 2]."""
        return self.logits(self.nodes(data), data)


def losses(logits: Tensor, batch: Batch) -> Tensor:
    """The cross entropy of both labels, [B, 2]; in this form no gradient of a sure answer rounds to 0."""
    return softplus(logits * (1 - 2 * batch.y))


def gradients(network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
    """The gradient of the loss of each label with respect to the node states, each float64 [N, width].

    States and weights of the head are on a grid on which products and sums are exact, so that nodes that are
    alike tie to the bit, and no noise picks a winner.
    """
    network, batch = copy.deepcopy(network).double(), batch.clone()
    batch.x = batch.x.double()
    with torch.no_grad():
        states = on_grid(network.eval().nodes(batch)).requires_grad_()
        network.head.weight.copy_(on_grid(network.head.weight))
    first, second = losses(network.train().logits(states, batch), batch).sum(dim=0)
    (of_first,) = torch.autograd.grad(first, states, retain_graph=True)
    (of_second,) = torch.autograd.grad(second, states)
    return of_first, of_second


def spread(first: Tensor, second: Tensor, batch: Batch) -> dict[str, float]:
    """How two gradients [N, F] spread over the nodes of graphs: the means over the graphs.

    Of the gradient of both labels: "nodes", the share of nodes that have any; "nodes a channel", the share
    that has it in one channel; "gini" of the norms. Of the nodes that either label speaks to: "met", the
    share that both do; "opposed", the share where their cosine is negative. Where they meet: "strength", the
    mean of |cosine|. "divided": the share of graphs where they oppose on some nodes and agree on others.
    """
    graphs = Segments.from_batch(batch.batch, batch.num_graphs)
    count = lambda nodes: pool(nodes.double(), graphs, "sum")  # noqa: E731
    total = first + second
    spoken = (first != 0).any(dim=1), (second != 0).any(dim=1)
    either, both = spoken[0] | spoken[1], spoken[0] & spoken[1]
    cosine = (unit(first) * unit(second)).sum(dim=1) * both
    per_graph = {
        "nodes": count((total != 0).any(dim=1)) / graphs.count,
        "nodes a channel": count((total != 0).double().mean(dim=1)) / graphs.count,
        "gini": gini(total.norm(dim=1), graphs),
        "met": count(both) / count(either).clamp(min=1),
        "opposed": count(cosine < 0) / count(either).clamp(min=1),
        "strength": count(cosine.abs()) / count(both).clamp(min=1),
        "divided": (count(cosine < 0) > 0) & (count(cosine > 0) > 0),
    }
    return {name: values.double().mean().item() for name, values in per_graph.items()}


def unit(gradient: Tensor) -> Tensor:
    """Every row at norm 1, or 0 where it is 0."""
    norm = gradient.norm(dim=1, keepdim=True)
    return gradient / torch.where(norm > 0, norm, 1)


def gini(values: Tensor, graphs: Segments) -> Tensor:
    """The Gini coefficient of the values of every graph of sorted nodes: 0 all equal, 1 one has all; [B]."""
    order = values.argsort()
    order = order[graphs.index[order].argsort(stable=True)]
    rank = torch.arange(1, len(values) + 1, device=values.device) - graphs.ptr[graphs.index]
    weighted, total = pool(torch.stack([rank * values[order], values[order]], dim=1), graphs, "sum").T
    n = graphs.count
    excess = 2 * weighted - (n + 1) * total
    return (excess / (total * (n - 1)).where(total > 0, 1)).clamp(min=0)


SAMPLE, LEARNING_RATE = 300, 0.01


@dataclass(frozen=True)
class Task:
    """Graphs of two nodes or more with two yes-or-no labels each: y float [1, 2]."""

    data: str
    graphs: tuple[Data, ...]
    available: int
    labels: tuple[str, ...]

    @property
    def answers(self) -> Tensor:
        """Both labels of all graphs, [B, 2]."""
        return torch.cat([graph.y for graph in self.graphs])

    @property
    def sentence(self) -> str:
        """On how many graphs, which labels, and for how many of the graphs these are equal."""
        sample = sampled(len(self.graphs), self.available)
        equal = 100 * (self.answers[:, 0] == self.answers[:, 1]).double().mean().item()
        return (
            f"{self.data}: {len(self.graphs)} graphs of two nodes or more{sample}; the labels are "
            f"{' and '.join(self.labels)}, each cut in two as evenly as may be, equal for {equal:.0f} %."
        )


def choose(graphs: GraphSet, seed: int) -> Task:
    """A task on at most `SAMPLE` graphs."""
    picked = [graph for graph in drawn(graphs, SAMPLE, seed) if graph.num_nodes > 1]
    if not picked:
        raise UserError(f"{graphs.name}: expected graphs of two nodes or more, got none.")
    asked = {name: above for name, above in questions(picked, graphs.node_names).items() if above.any()}
    if len(asked) < 2:
        raise UserError(
            f"{graphs.name}: expected graphs that differ in two of class, proportions and size, "
            f"got {' and '.join(asked) or 'none'}."
        )
    labels = tuple(asked)[:2]
    y = torch.stack([asked[label] for label in labels], dim=1).float()
    kept = tuple(
        Data(x=graph.x, edge_index=graph.edge_index, y=row[None])
        for graph, row in zip(picked, y, strict=True)
    )
    return Task(graphs.name, kept, len(graphs), labels)


def questions(graphs: Sequence[Data], names: Sequence[str] | None) -> dict[str, Tensor]:
    """Class or family, proportion of the kind of node that is cut most evenly, and size: each bool [B]."""
    field = "family" if "family" in graphs[0] else "class"
    classes = [str(graph.family) if field == "family" else str(int(graph.y)) for graph in graphs]
    distinct = sorted(set(classes))
    sizes = torch.tensor([graph.num_nodes for graph in graphs])
    proportions = torch.stack([graph.x.double().sum(dim=0) for graph in graphs]) / sizes[:, None]
    cuts = torch.stack([upper(column) for column in proportions.T])
    kind = int((cuts.double().mean(dim=1) - 0.5).abs().argmin())
    named = names[kind] if names else f"of kind {kind}"
    return {
        field: upper(torch.tensor([*map(distinct.index, classes)])),
        f"share of nodes {named}": cuts[kind],
        "size": upper(sizes),
    }


def upper(values: Tensor) -> Tensor:
    """Which values are above the border that comes nearest to halving them; none where all are equal."""
    borders = values.unique()
    shares = (values > borders[:, None]).double().mean(dim=1)
    return values > borders[(shares - 0.5).abs().argmin()]


def measure(tasks: Sequence[Task], log: RowLog, device: str, seed: int, folds: int, epochs: int) -> list[Row]:
    """How gradients spread in every network at every logged epoch, and its accuracy on held-out graphs."""
    rows = []
    for task in tasks:
        if folds > len(task.graphs):
            raise UserError(f"--folds {folds}: {task.data} has only {len(task.graphs)} graphs to train on.")
        share = task.answers.mean(dim=0)
        common = {"data": task.data, "seed": seed, "graphs": len(task.graphs)}
        majority = torch.maximum(share, 1 - share).mean().item()
        work = common | {"readout": None, "fold": None}
        rows += log.measure(work, ("majority",), partial(dict, majority=majority))
        sides = KFold(folds, shuffle=True, random_state=seed).split(task.graphs)
        runs = [
            (*fold, head, name) for fold in enumerate(sides) for head in (VECTOR, MAPS) for name in READOUTS
        ]
        for fold, (train, test), head, readout in tracked(runs, f"training on {task.data}"):
            history = cache(partial(trained, task, train, test, readout, head, device, seed + fold, epochs))
            work = common | {"readout": readout, "fold": fold, "folds": folds, "head": head}
            work |= {"layers": LAYERS, "width": WIDTH, "learning rate": LEARNING_RATE}
            for epoch in logged(epochs):
                compute = partial(at_epoch, history, epoch)
                rows += log.measure(work | {"epoch": epoch}, (*SPREAD, *LABELS, "accuracy"), compute)
    return rows


def logged(epochs: int) -> list[int]:
    """The epochs after which gradients are looked at: 0, 1, 3, 10, 30, ... and the last."""
    early = [factor * 10**power for power in range(len(str(epochs))) for factor in (1, 3)]
    return [0, *(epoch for epoch in early if epoch < epochs), epochs]


def at_epoch(history: Callable[[], Mapping[int, dict[str, float]]], epoch: int) -> dict[str, float]:
    """What was found at an epoch."""
    return history()[epoch]


def trained(
    task: Task,
    train: Sequence[int],
    test: Sequence[int],
    readout: str,
    head: str,
    device: str,
    seed: int,
    epochs: int,
) -> dict[int, dict[str, float]]:
    """What is found at each logged epoch of training, each epoch one step on all graphs to train on."""
    torch.manual_seed(seed)
    network = Network(task.graphs[0].x.size(1), readout, head).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    batch, held_out = (Batch.from_data_list([task.graphs[place] for place in side]) for side in (train, test))
    batch, held_out = batch.to(device), held_out.to(device)
    found = {}
    for epoch in range(epochs + 1):
        if epoch in logged(epochs):
            found[epoch] = spread(*gradients(network, batch), batch) | {
                "accuracy": accuracy(network, held_out)
            }
        optimiser.zero_grad()
        losses(network(batch), batch).mean().backward()
        optimiser.step()
    return found


def accuracy(network: Network, batch: Batch) -> float:
    """The share of right answers, of both labels together."""
    network.eval()
    with torch.no_grad():
        right = (network(batch) > 0) == (batch.y > 0)
    network.train()
    return right.double().mean().item()


DEMOCRATIC = ("sum", "mean")
TINY, HALF = 1e-9, 0.5


def tables(rows: Sequence[Row]) -> list[Table]:
    """How gradients spread, and where labels meet, before training and at its end."""
    spreading = ("set", "head", "readout", "nodes [%]", "nodes a channel [%]", "Gini")
    meeting = (*spreading[:3], "met [%]", "opposed [%]", "|cosine|", "divided [%]", "right [%]")
    last = max(present(rows, "epoch"))
    when = f"at first → after {last} epochs"
    percent, plain = (100, 0), (1, 2)  # factor and decimals
    shown = dict.fromkeys((*SPREAD, *LABELS, "accuracy"), percent) | {"gini": plain, "strength": plain}
    return [
        table(f"Nodes with a gradient, {when}", spreading, lines(rows, SPREAD, shown), 3),
        table(f"Two labels on one node, {when}", meeting, lines(rows, (*LABELS, "accuracy"), shown), 3),
    ]


def lines(
    rows: Sequence[Row], metrics: Sequence[str], shown: Mapping[str, tuple[int, int]]
) -> Iterator[list[str]]:
    """One line for each set, head and readout: the first and the last value of each metric."""
    for data in present(rows, "data"):
        last = max(present(rows, "epoch", data=data))
        for head in (VECTOR, MAPS):
            for readout in READOUTS:
                at = partial(average, rows, data=data, head=head, readout=readout)
                cells = []
                for metric in metrics:
                    factor, decimals = shown[metric]
                    ends = (factor * at(metric=metric, epoch=epoch) for epoch in (0, last))
                    cells.append(" → ".join(f"{value:.{decimals}f}" for value in ends))
                yield [data, head, readout, *cells]
            yield []


def cases(rows: Sequence[Row]) -> Iterator[tuple[str, str, list[Row]]]:
    """Each set and head, and its rows."""
    for data in present(rows, "data"):
        for head in (VECTOR, MAPS):
            yield data, head, [row for row in rows if row["data"] == data and row.get("head") == head]


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """The mean is democratic, the max winner-take-all, and labels meet so, on each set with either head."""
    for data, head, chosen in cases(rows):
        yield Finding(f"{data}, {head}", *of_spread(chosen))
        yield Finding(f"{data}, {head}", *of_labels(chosen, head))


def numbers(rows: Sequence[Row]) -> str:
    """How unequal gradients are after training."""
    last = max(present(rows, "epoch"))
    gini = {
        name: ends(
            (average(found, metric="gini", epoch=last, readout=name) for *_, found in cases(rows)), ".2f"
        )
        for name in ("mean", "max")
    }
    return f"Gini coefficient after training: {', '.join(f'{name} {value}' for name, value in gini.items())}"


def of_spread(rows: Sequence[Row]) -> tuple[bool, str]:
    """Whether every node gets the same from sum and mean, and a few get most from max, at every epoch."""
    epochs = present(rows, "epoch")
    values = {
        name: [average(rows, readout=name, metric="gini", epoch=epoch) for epoch in epochs]
        for name in READOUTS
    }
    nodes = [row["value"] for row in rows if row["metric"] == "nodes" and row["readout"] in DEMOCRATIC]
    democratic = min(nodes) == 1 and max(max(values[name]) for name in DEMOCRATIC) <= TINY
    takes_all = min(values["max"]) > HALF
    said = [
        f"sum and mean {'are' if democratic else 'are not'} democratic",
        f"max {'is' if takes_all else 'is not'} winner-take-all",
    ]
    wins = partial(average, rows, readout="max", metric="nodes a channel")
    reached = [100 * wins(epoch=epoch) for epoch in (epochs[0], epochs[-1])]
    ends = ", ".join(f"{name} {found[0]:.2f} → {found[-1]:.2f}" for name, found in values.items())
    return democratic and takes_all, (
        f"{' and '.join(said)} "
        f"(Gini coefficient at first → after {epochs[-1]} epochs: {ends}); in one channel max reaches "
        f"{reached[0]:.0f} → {reached[1]:.0f} % of the nodes"
    )


def of_labels(rows: Sequence[Row], head: str) -> tuple[bool, str]:
    """Whether labels agree or disagree as one on all nodes for sum and mean, and fight or miss for max."""
    of_two = [row for row in rows if row["readout"] in DEMOCRATIC]
    met = min(row["value"] for row in of_two if row["metric"] == "met") == 1
    as_one = met and max(row["value"] for row in of_two if row["metric"] == "divided") == 0
    of_max = partial(average, rows, readout="max")
    metric = "divided" if head == VECTOR else "met"
    values = [of_max(metric=metric, epoch=epoch) for epoch in present(rows, "epoch")]
    if head == VECTOR:
        right = min(values) > HALF
        said = (
            f"they {'fight' if right else 'do not fight'} over the winners: in {100 * min(values):.0f} % of "
            "the graphs or more they oppose on some nodes and agree on others"
        )
    else:
        right = max(values) < HALF
        said = (
            f"they {'miss' if right else 'do not miss'} each other: of the nodes that hear one, "
            f"{100 * max(values):.0f} % or fewer hear both"
        )
    return as_one and right, (
        f"after sum and mean both losses have a gradient at all "
        f"nodes and {'' if as_one else 'do not '}pull as one in every graph, after max {said}"
    )


COLOURS = figures.COLOURS | {"softmax": "#e69f00", "median": "#7b4ea3"}


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """For each set and head, the Gini coefficient over the epochs, and how the labels meet."""
    sheets = [
        (data, head, labels) for data in present(rows, "data") for head in (VECTOR, MAPS) for labels in (0, 1)
    ]
    columns = 2 if len(sheets) == 4 else 4  # one set in a square, several in a row each
    drawing, panels = figures.panels(len(sheets), width=3.2, height=2.5, columns=columns)
    for panel, (data, head, labels) in zip(panels, sheets, strict=True):
        metric = ("divided" if head == VECTOR else "met") if labels else "gini"
        draw(panel, [row for row in rows if row["data"] == data and row.get("head") == head], metric)
        panel.set_title(f"{data}: {head}", fontsize=9.5)
    figures.legend(drawing, {name: (COLOURS[name], "-") for name in READOUTS})
    return figures.save(drawing, out, "gradients")


def draw(panel: Axes, rows: Sequence[Row], metric: str) -> None:
    """One line a readout; sum lies under mean, which does the same."""
    epochs = present(rows, "epoch")
    factor = 1 if metric == "gini" else 100
    for name, marker in zip(READOUTS, "os^Dv", strict=True):
        values = [factor * average(rows, readout=name, metric=metric, epoch=epoch) for epoch in epochs]
        size, width = (8, 3) if name == "sum" else (4, 1.5)
        panel.plot(epochs, values, f"-{marker}", color=COLOURS[name], markersize=size, linewidth=width)
    label = {
        "gini": "Gini of the gradient norms",
        "divided": "graphs divided [%]",
        "met": "nodes that hear both [%]",
    }
    panel.set_xscale("symlog", linthresh=1)
    ticks = [epoch for epoch in epochs if str(epoch).strip("0") in ("", "1")]
    panel.set_xticks(ticks, [str(epoch) for epoch in ticks])
    panel.set_xticks([], minor=True)
    panel.set(xlabel="epochs of training", ylabel=label[metric], ylim=(-0.04 * factor, 1.04 * factor))


EXPERIMENT = Experiment(
    name="gradients",
    title="Gradients",
    question=(
        "Which nodes receive the gradient of each readout, and at which nodes do the losses of two labels "
        "both have a gradient?"
    ),
    claim="A mean shares the gradient among all nodes, a max passes it to the nodes with the maximum",
    theory=(
        "A mean is democratic: like a sum, it gives every node of a graph the same gradient. A max is "
        "winner-take-all: few nodes get most. Two labels that are learned at once speak to all nodes "
        "behind a mean; behind a max they fight over the winners, or, where every label has a map of its "
        "own, miss each other."
    ),
    setup=(
        "GIN with two labels a graph (class, proportion of a kind of node, or size, each cut in two), "
        "behind one shared vector or with a map of the nodes for each label. The gradient of the loss "
        "with respect to the node states before the readout: the share of nodes that have any, the Gini "
        "coefficient of its norms, where both labels meet and whether they pull apart; at first and "
        "through training, averaged over folds."
    ),
    source=(
        "Average pooling finds the whole extent of an object, max pooling its most telling part: [Zhou et "
        "al. 2016](https://arxiv.org/abs/1512.04150). The gradients themselves: proposition 8 above."
    ),
    caveats=(
        (
            "It is the gradient before the readout; what message passing makes of it further down is not "
            "measured."
        ),
        "Two labels that were made of class, composition and size stand for a multi-label problem.",
        "Median and softmax stand beside sum, mean and max; the claim says nothing of them.",
        (
            "Nodes that are alike by symmetry tie and share: in rings, where most are, a max is not "
            "winner-take-all."
        ),
    ),
    drawings=(
        Drawing(
            "gradients",
            "For each data set and head, the Gini coefficient of the gradient over nodes and how two "
            "labels meet, over the epochs, a line for each readout.",
            "Through training: how unequally nodes share the gradient, and how two labels meet. Sum "
            "lies under mean.",
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
    quick={"folds": 2},
)
