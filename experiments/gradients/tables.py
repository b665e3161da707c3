"""Tables and verdicts from rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from rich.table import Table

from experiments.console import table
from experiments.gradients.networks import LABELS, MAPS, READOUTS, SPREAD, VECTOR
from experiments.rows import Row, average, present

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


def verdicts(rows: Sequence[Row]) -> Iterator[str]:
    """For each set and head, whether mean is democratic and max winner-take-all, and how two labels meet."""
    for data in present(rows, "data"):
        for head in (VECTOR, MAPS):
            chosen = [row for row in rows if row["data"] == data and row.get("head") == head]
            yield f"{data}, {head}: {of_spread(chosen)}."
            yield f"{data}, {head}: {of_labels(chosen, head)}."


def of_spread(rows: Sequence[Row]) -> str:
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
    return (
        f"{'as' if democratic and takes_all else 'not as'} claimed, {' and '.join(said)} "
        f"(Gini coefficient at first → after {epochs[-1]} epochs: {ends}); in one channel max reaches "
        f"{reached[0]:.0f} → {reached[1]:.0f} % of the nodes"
    )


def of_labels(rows: Sequence[Row], head: str) -> str:
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
    return (
        f"{'as' if as_one and right else 'not as'} claimed, behind sum and mean both labels speak to all "
        f"nodes and {'' if as_one else 'do not '}pull as one in every graph, behind max {said}"
    )
