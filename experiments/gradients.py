"""How the gradient of a loss spreads over the nodes, and where two labels meet.

The gradient is that with respect to the states in front of the readout (in front of the scores, where the
head makes maps), in networks without a ReLU there, in float64, on the graphs that are trained on. The *Gini
coefficient* of its norms r over the n nodes of a graph is sum_ij |r_i - r_j| / (2 (n - 1) sum_i r_i): 0 where
all nodes get the same, 1 where one gets all. Nodes that are alike by symmetry tie and share.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch_geometric.data import Data

from datasets import GraphSet
from experiments import by_node, figures
from experiments.by_node import Aim, Fold, Task, Values
from experiments.console import Table, UserError, table
from experiments.experiment import Experiment, Finding, sentences, span
from experiments.jobs import Job, carry_out
from experiments.learning import networks
from experiments.learning.batches import Batch
from experiments.learning.networks import StackedLinear
from experiments.models import on_grid
from experiments.options import FOLDS
from experiments.records import Row, RowLog, average, present
from experiments.samples import sampled
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
LOGGED = (*SPREAD, *LABELS, "right")


class Network(networks.Network):
    """A GIN with two logits, without a ReLU in front of the readout, or of the head where that makes maps."""

    def __init__(self, features: int, readout: str, head: str) -> None:
        """Draw the weights from torch's generator."""
        super().__init__("gin", "mean", features, 2, by_node.WIDTH, by_node.ROUNDS)
        self.readout = READOUTS[readout]()
        self.head = StackedLinear(by_node.WIDTH, 2)
        self.maps = head == MAPS

    def nodes(self, batch: Batch) -> Tensor:
        """Node states, float [N, width], of either sign."""
        x = batch.x
        for place, (layer, norm, read) in enumerate(zip(self.rounds, self.norms, batch.rounds, strict=True)):
            x = norm(layer(x.relu() if place else x, read), read.share, read.nodes)
        return x

    def logits(self, states: Tensor, graphs: Segments) -> Tensor:
        """Logits of the two labels, float [B, 2]."""
        if self.maps:
            states = self.head(states)
        pooled: Tensor = self.readout(states, graphs)
        return pooled if self.maps else self.head(pooled)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of the two labels of the graphs of a batch, float [1, B, 2]."""
        return self.logits(self.nodes(batch), batch.graphs)[None]


def losses(logits: Tensor, y: Tensor) -> Tensor:
    """The cross entropy of both labels, [B, 2]; in this form no gradient of a sure answer rounds to 0."""
    return softplus(logits * (1 - 2 * y))


def right(outputs: Tensor, y: Tensor) -> Tensor:
    """The share of right answers, of both labels together, [1]."""
    return ((outputs > 0) == (y > 0)).double().mean(dim=(1, 2))


AIM = Aim(lambda outputs, y: losses(outputs, y).mean(dim=(1, 2)), right, lambda y: y.mean(dim=0) - 0.5)


def gradients(network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
    """The gradient of the loss of each label with respect to the node states, each float64 [N, width].

    States and weights of the head are on a grid on which products and sums are exact, so that nodes that are
    alike tie to the bit, and no noise picks a winner.
    """
    network = copy.deepcopy(network).double().eval()
    with torch.no_grad():
        states = on_grid(network.nodes(replace(batch, x=batch.x.double()))).requires_grad_()
        for weight in network.head.parameters():
            weight.copy_(on_grid(weight))
    first, second = losses(network.train().logits(states, batch.graphs), batch.y).sum(dim=0)
    (of_first,) = torch.autograd.grad(first, states, retain_graph=True)
    (of_second,) = torch.autograd.grad(second, states)
    return of_first, of_second


def spread(first: Tensor, second: Tensor, graphs: Segments) -> dict[str, float]:
    """How two gradients [N, F] spread over the nodes of graphs: the means over the graphs.

    Of the gradient of both labels: "nodes", the share of nodes that have any; "nodes a channel", the share
    that has it in one channel; "gini" of the norms. Of the nodes that either label speaks to: "met", the
    share that both do; "opposed", the share where their cosine is negative. Where they meet: "strength", the
    mean of |cosine|. "divided": the share of graphs where they oppose on some nodes and agree on others.
    """
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


@dataclass(frozen=True)
class Labels(Task):
    """A task of two yes-or-no labels for each graph: y float [1, 2]."""

    labels: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """On how many graphs, which labels, and for how many of the graphs these are equal."""
        equal = sum(bool(graph.y[0, 0] == graph.y[0, 1]) for graph in self.graphs) / len(self.graphs)
        return (
            f"{self.data}: {len(self.graphs)} graphs of two nodes or more"
            f"{sampled(len(self.graphs), self.available)}; the labels are {' and '.join(self.labels)}, "
            f"each cut in two as evenly as may be, equal for {100 * equal:.0f} %."
        )


def choose(graphs: GraphSet, seed: int) -> Labels:
    """A task on a sample."""
    picked = by_node.sample(graphs, seed, least=2)
    asked = {name: above for name, above in questions(picked, graphs.node_names).items() if above.any()}
    if len(asked) < 2:
        raise UserError(
            f"{graphs.name}: expected graphs that differ in two of class, proportions and size, "
            f"got {' and '.join(asked) or 'none'}."
        )
    labels = tuple(asked)[:2]
    y = torch.stack([asked[label] for label in labels], dim=1).float()
    pairs = zip(picked, y, strict=True)
    kept = tuple(Data(x=graph.x, edge_index=graph.edge_index, y=row[None]) for graph, row in pairs)
    return Labels(graphs.name, kept, len(graphs), 2, labels)


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


def measure(
    tasks: Sequence[Labels], log: RowLog, device: str, seed: int, folds: int, epochs: int
) -> list[Row]:
    """How gradients spread in every network at every logged epoch, and its accuracy on held-out graphs."""
    jobs = []
    for task in tasks:
        for fold in by_node.folds_of(task, folds, seed, epochs, device):
            for head in (VECTOR, MAPS):
                for name in READOUTS:
                    work = fold.work(name, head=head)
                    rows: by_node.Rows = [(work | {"epoch": epoch}, LOGGED) for epoch in logged(epochs)]
                    rows.append((work | {"epoch": epochs}, by_node.TRAINED))
                    jobs.append(Job(rows, partial(follow, fold, name, head)))
    return carry_out(jobs, log, "training and reading gradients")


def logged(epochs: int) -> list[int]:
    """The epochs after which gradients are looked at: 0, 1, 3, 10, 30, ... and the last."""
    early = [factor * 10**power for power in range(len(str(epochs))) for factor in (1, 3)]
    return [0, *(epoch for epoch in early if epoch < epochs), epochs]


def follow(fold: Fold, readout: str, head: str) -> Values:
    """What is found at each logged epoch of training, and how that went."""
    fold.begin()
    network = Network(fold.task.features, readout, head).to(fold.device)
    seen, asked = (by_node.together(network, fold.side(side)) for side in (fold.known, fold.held_out))
    found = []

    def look(epoch: int) -> None:
        if epoch in logged(fold.epochs):
            answered = by_node.scores(network, asked, right).item()
            found.append(spread(*gradients(network, seen), seen.graphs) | {"right": answered})

    trained = by_node.train(network, fold, AIM, look)
    return found + trained


DEMOCRATIC = ("sum", "mean")
TINY, HALF = 1e-9, 0.5


def tables(rows: Sequence[Row]) -> list[Table]:
    """How gradients spread, and where labels meet, before training and at its end."""
    spreading = ("set", "head", "readout", "nodes [%]", "nodes a channel [%]", "Gini")
    meeting = (*spreading[:3], "met [%]", "opposed [%]", "|cosine|", "divided [%]", "right [%]")
    when = f"at first → after {max(present(rows, 'epoch'))} epochs"
    found = table(f"Nodes with a gradient, {when}", spreading, lines(rows, SPREAD), 3)
    return [found, table(f"Two labels on one node, {when}", meeting, lines(rows, (*LABELS, "right")), 3)]


def lines(rows: Sequence[Row], metrics: Sequence[str]) -> Iterator[list[str]]:
    """One line for each set, head and readout: the first and the last value of each metric."""
    for data, head, of_case in cases(rows):
        for readout in READOUTS:
            at = partial(path, of_case, readout=readout)
            yield [data, head, readout, *(arrow(name, at(metric=name)) for name in metrics)]
        yield []


def path(rows: Sequence[Row], metric: str, **wanted: str) -> list[float]:
    """A metric at every logged epoch, on average."""
    epochs = present(rows, "epoch", metric=metric, **wanted)
    return [average(rows, metric=metric, epoch=epoch, **wanted) for epoch in epochs]


def arrow(metric: str, found: Sequence[float]) -> str:
    """The first and the last value, in percent but for those that are no shares."""
    factor, decimals = (1, 2) if metric in ("gini", "strength") else (100, 0)
    return " → ".join(f"{factor * value:.{decimals}f}" for value in (found[0], found[-1]))


def cases(rows: Sequence[Row]) -> Iterator[tuple[str, str, list[Row]]]:
    """Each set and head, and its rows."""
    for data in present(rows, "data"):
        for head in (VECTOR, MAPS):
            yield data, head, [row for row in rows if row["data"] == data and row.get("head") == head]


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """Sum and mean share alike, a check; max is winner-take-all, and labels meet so, with either head."""
    for data, head, chosen in cases(rows):
        last = max(present(chosen, "epoch"))
        of_max = [row for row in chosen if row["readout"] == "max"]  # the claims are about no other network
        against = by_node.objections(of_max, data, epoch=last)
        yield Finding(f"{data}, {head}, sum and mean", *of_democracy(chosen), "check", main=False)
        yield by_node.compared(f"{data}, {head}, max", against, of_winners(chosen))
        yield by_node.compared(f"{data}, {head}, two labels after max", against, of_labels(chosen, head))


def numbers(rows: Sequence[Row]) -> str:
    """How unequal gradients are after training."""
    last = {"metric": "gini", "epoch": max(present(rows, "epoch"))}
    found = {name: [average(of, readout=name, **last) for *_, of in cases(rows)] for name in ("mean", "max")}
    told = ", ".join(f"{name} {span(values, '.2f')}" for name, values in found.items())
    return f"Gini coefficient after training: {told}"


def of_democracy(rows: Sequence[Row]) -> tuple[bool, str]:
    """Whether sum and mean give every node of a graph the same, so that both labels pull as one."""
    of_two = [row for row in rows if row["readout"] in DEMOCRATIC]
    found = {name: [row["value"] for row in of_two if row["metric"] == name] for name in SPREAD + LABELS}
    equal = min(found["nodes"]) == 1 and max(found["gini"]) <= TINY
    as_one = min(found["met"]) == 1 and max(found["divided"]) == 0
    return equal and as_one, (
        f"every node {'gets' if equal else 'does not get'} the same gradient, and two losses "
        f"{'' if as_one else 'do not '}pull as one in every graph, at every epoch"
    )


def of_winners(rows: Sequence[Row]) -> tuple[bool, str]:
    """Whether a few nodes get most from max, at every epoch."""
    found = {name: path(rows, "gini", readout=name) for name in READOUTS}
    takes_all = min(found["max"]) > HALF
    ends = ", ".join(f"{name} {arrow('gini', values)}" for name, values in found.items())
    reached = arrow("nodes a channel", path(rows, "nodes a channel", readout="max"))
    return takes_all, (
        f"max {'is' if takes_all else 'is not'} winner-take-all (Gini coefficient at first → after "
        f"{max(present(rows, 'epoch'))} epochs: {ends}); in one channel max reaches {reached} % of the nodes"
    )


def of_labels(rows: Sequence[Row], head: str) -> tuple[bool, str]:
    """Whether two losses oppose on some winners of a max only, or, with maps, have few nodes in common."""
    if head == VECTOR:
        least = min(path(rows, "divided", readout="max"))
        said = (
            f"in {100 * least:.0f} % of the graphs or more, the gradients of two losses oppose on some nodes"
        )
        return least > HALF, f"{said} and agree on others"
    most = max(path(rows, "met", readout="max"))
    said = f"of the nodes with a gradient of one loss, {100 * most:.0f} % or fewer have one of both"
    return most < HALF, said


COLOURS = figures.COLOURS | {"softmax": "#e69f00", "median": "#7b4ea3"}


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """For each set and head, the Gini coefficient over the epochs, and how the labels meet."""
    draws = []
    for data, head, of_case in cases(rows):
        for metric in ("gini", "divided" if head == VECTOR else "met"):
            draws.append(partial(draw, of_case, metric, f"{data}: {head}"))
    columns = 2 if len(draws) == 4 else 4  # one set in a square, several in a row each
    entries = {name: (COLOURS[name], "-") for name in READOUTS}
    return figures.draw(out, "gradients", draws, entries, width=3.2, height=2.5, columns=columns)


LABELLED = {
    "gini": "Gini of the gradient norms",
    "divided": "graphs divided [%]",
    "met": "nodes with both gradients [%]",
}


def draw(rows: Sequence[Row], metric: str, title: str, panel: Axes) -> None:
    """One line a readout; sum lies under mean, which does the same."""
    epochs = present(rows, "epoch")
    factor = 1 if metric == "gini" else 100
    for name, marker in zip(READOUTS, "os^Dv", strict=True):
        values = [factor * value for value in path(rows, metric, readout=name)]
        size, width = (8, 3) if name == "sum" else (4, 1.5)
        panel.plot(epochs, values, f"-{marker}", color=COLOURS[name], markersize=size, linewidth=width)
    panel.set_xscale("symlog", linthresh=1)
    ticks = [epoch for epoch in epochs if str(epoch).strip("0") in ("", "1")]
    panel.set_xticks(ticks, [str(epoch) for epoch in ticks])
    panel.set_xticks([], minor=True)
    panel.set(xlabel="epochs of training", ylabel=LABELLED[metric], ylim=(-0.04 * factor, 1.04 * factor))
    panel.set_title(title, fontsize=9.5)


EXPERIMENT = Experiment(
    name="gradients",
    title="Gradients",
    question="""Which nodes receive the gradient of each readout, and at which nodes do the losses of two
    labels both have a gradient?""",
    claim="A mean shares the gradient among all nodes, a max passes it to the nodes with the maximum",
    theory="""A sum or a mean gives every node of a graph the same gradient; a max gives most to few nodes.
    Two losses therefore both have a gradient at all nodes after a mean; after a max they oppose on some
    winners and agree on others, or, where every label has a map of its own, have few nodes in common.""",
    setup="""GIN with two labels a graph (class, proportion of a kind of node, or size, each cut in two),
    after one shared vector or with a map of the nodes for each label. The gradient of the loss with respect
    to the node states before the readout: the share of nodes that have any, the Gini coefficient of its
    norms, where both labels meet and whether they pull apart; at first and through training (batch norm,
    batches of 32, Adam with a learning rate that halves), averaged over folds. That sum and mean give all
    nodes the same is a theorem, and checked; max is judged where training had converged and is ahead of
    naming the larger part.""",
    source="""Average pooling finds the whole extent of an object, max pooling its most telling part: [Zhou et
    al. 2016](https://arxiv.org/abs/1512.04150). The gradients themselves: proposition 8 above.""",
    caveats=(
        "It is the gradient before the readout, not what message passing makes of it further down.",
        "Two labels that were made of class, composition and size stand for a multi-label problem.",
        "Median and softmax stand beside sum, mean and max; the claim says nothing of them.",
        "Nodes that are alike by symmetry share: in rings, where most are, no few nodes get most.",
    ),
    alt="For each data set and head, how unequal gradients are and how two labels meet, over the epochs.",
    caption="""Through training: how unequally nodes share the gradient, and how two labels meet. Sum lies
    under mean.""",
    prepare=choose,
    measure=measure,
    parallel=True,
    tables=tables,
    findings=findings,
    numbers=numbers,
    figure=figure,
    notes=sentences,
    options={"folds": FOLDS, "epochs": by_node.EPOCHS},
    quick={"folds": 2},
)
