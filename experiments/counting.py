"""Linear probes of a pooled vector: what of counts, proportions and presence each readout keeps.

The *error* of ridge regression is its mean square divided by the variance of the target in the set; that of
logistic regression (presence) its share of wrong answers divided by that of naming the majority.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch_geometric.data import Data

from datasets import GraphSet
from experiments import figures
from experiments.accuracy import gate
from experiments.console import Table, UserError, percent, share, table
from experiments.experiment import Experiment, Finding, sentences, span
from experiments.jobs import Job, carry_out
from experiments.learning.batches import Resident, reside
from experiments.learning.training import Settings
from experiments.options import FOLDS, number
from experiments.records import Row, RowLog, average, present, values
from experiments.samples import drawn, sampled, untrained
from experiments.trained import GATE, gate_values, together, train, twins
from readouts import readout as pool

Matrix = npt.NDArray[np.float64]

READOUTS = ("sum", "mean", "max")
ATOMS, RANDOM, TRAINED = "atoms", "random GIN", "trained GIN"
PROBES = ("counts", "proportions", "presence")
EXACT = "exact counts"
CLAIMED = (("sum", "counts"), ("mean", "proportions"), ("max", "presence"))
DENIED = (("mean", "counts"), ("max", "counts"), ("max", "proportions"))
TINY = 0.01
SAMPLE, MOST_KINDS = 1000, 200
ROUNDS, LEARNING_RATE = 2, 0.01
Sides = tuple[list[int], list[int]]
RIDGES, LOOSE = np.logspace(-10, 2, 7), 1e4
BLUES = LinearSegmentedColormap.from_list("recovered", [figures.COLOURS["sum"], "#9cc9e4", "#f4f6f7"])


@dataclass(frozen=True)
class Task:
    """Graphs of a set, how many it has, and positions for fitting and for judging."""

    graphs: GraphSet
    available: int
    splits: tuple[Sides, ...]

    @property
    def states(self) -> tuple[str, ...]:
        """What is pooled; a set of one class trains no network."""
        several = len(set(self.graphs.targets.tolist())) > 1
        return (ATOMS, RANDOM, TRAINED) if several else (ATOMS, RANDOM)

    @property
    def sentence(self) -> str:
        """On how many graphs, what was left out, and twins in the folds."""
        name, sample = self.graphs.name, sampled(len(self.graphs), self.available)
        alone = untrained(len(self.states) - 1)
        both = twins(self.graphs.graphs, self.splits)
        return f"{name}: {len(self.graphs)} graphs{sample}, held out in turns{alone}; {both}."


def choose(graphs: GraphSet, seed: int, folds: int) -> Task:
    """A task on at most `SAMPLE` graphs."""
    picked = drawn(graphs, SAMPLE, seed)
    kinds = picked[0].x.size(1)
    if not 1 <= kinds <= MOST_KINDS:
        expected = f"expected 1 to {MOST_KINDS} kinds of nodes for a probe each"
        raise UserError(f"{graphs.name}: {expected}, got {kinds}.")
    kept = replace(graphs, graphs=tuple(picked))
    return Task(kept, len(graphs), split(graphs.name, kind_counts(picked), folds, seed))


def measure(tasks: Sequence[Task], log: RowLog, device: str, seed: int, epochs: int) -> list[Row]:
    """The errors of every probe on every readout of every kind of node states, on held-out graphs."""
    rows = []
    for task in tasks:
        resident = reside(task.graphs, "gin", ROUNDS).to(device)
        jobs = []
        for fold, state, readout in product(range(len(task.splits)), task.states, READOUTS):
            work = {"data": task.graphs.name, "readout": readout, "seed": seed, "fold": fold, "states": state}
            work |= {"folds": len(task.splits), "graphs": len(task.graphs)}
            trained = state == TRAINED
            settings = Settings(ROUNDS, epochs=epochs if trained else 0, learning_rates=(LEARNING_RATE,))
            work |= {} if state == ATOMS else {"settings": asdict(settings)}
            metrics = (*PROBES, EXACT, *((*GATE, "accuracy", "majority") if trained else ()))
            compute = partial(probe, task, resident, fold, state, readout, settings, seed + fold)
            jobs.append(Job([(work, metrics)], compute))
        rows += carry_out(jobs, log, f"probing {task.graphs.name}")
    return rows


def probe(
    task: Task, resident: Resident, fold: int, state: str, readout: str, settings: Settings, seed: int
) -> list[dict[str, float]]:
    """Pool atoms, or the states of a random or trained network, and judge what can be read off."""
    train_on, test = task.splits[fold]
    batch, gated = together(task.graphs.graphs, ROUNDS, resident.x.device), {}
    nodes = batch.x
    if state != ATOMS:
        stack = train(resident, train_on, readout, settings, seed)
        with torch.no_grad():
            nodes = stack.network.nodes(batch)
        if state == TRAINED:
            majority = float(resident.y[test].bincount().max()) / len(test)
            gated = gate_values(stack, train_on, readout)[0] | stack.judge(test)[0] | {"majority": majority}
    pooled = pool(nodes, batch.graphs, readout).double().cpu().numpy()
    return [judge(pooled, kind_counts(task.graphs.graphs), train_on, test) | gated]


def kind_counts(graphs: Sequence[Data]) -> Matrix:
    """How many nodes of each kind every graph has, float [B, L]."""
    kinds = graphs[0].x.size(1)
    found = [np.bincount(graph.x.argmax(dim=1).numpy(), minlength=kinds) for graph in graphs]
    return np.stack(found).astype(np.float64)


def split(data: str, counts: Matrix, folds: int, seed: int) -> tuple[Sides, ...]:
    """Positions for fitting and for judging; every graph is judged once, if its kinds are known by then."""
    if folds > len(counts):
        raise UserError(f"--folds {folds}: {data} has only {len(counts)} graphs.")
    sides = []
    for train_on, test in KFold(folds, shuffle=True, random_state=seed).split(counts):
        unknown = ~counts[train_on].any(axis=0)
        asked = [graph for graph in test.tolist() if not counts[graph, unknown].any()]
        if not asked:
            said = f"every graph held out in one of {folds} folds has kinds of nodes of its own"
            raise UserError(f"{data}: {said}.")
        sides.append((train_on.tolist(), asked))
    return tuple(sides)


def judge(pooled: Matrix, counts: Matrix, train: Sequence[int], test: Sequence[int]) -> dict[str, float]:
    """The errors of the three probes, and the share of graphs whose counts are all exact when rounded."""
    counts = counts[:, counts[train].any(axis=0)]
    proportions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    presence = counts > 0
    counted = regressed(pooled, counts, train, test)
    answers = classified(pooled, presence, train, test)
    divided = regressed(pooled, proportions, train, test)
    rarer = np.minimum(presence.mean(axis=0), 1 - presence.mean(axis=0))
    return {
        "counts": relative(np.square(counted - counts[test]), counts.var(axis=0)),
        "proportions": relative(np.square(divided - proportions[test]), proportions.var(axis=0)),
        "presence": relative((answers != presence[test]).astype(np.float64), rarer),
        EXACT: float((counted.round() == counts[test]).all(axis=1).mean()),
    }


def relative(losses: Matrix, blind: Matrix) -> float:
    """The mean loss in units of a blind guess; 0 where all graphs have one answer, which is then known."""
    return float(losses.mean() / blind.mean()) if blind.any() else 0.0


def regressed(pooled: Matrix, target: Matrix, train: Sequence[int], test: Sequence[int]) -> Matrix:
    """What ridge regression says of the held-out graphs, [T, L]; its penalty is chosen on the others."""
    probe = make_pipeline(StandardScaler(), RidgeCV(RIDGES)).fit(pooled[train], target[train])
    return np.asarray(probe.predict(pooled[test])).reshape(len(test), -1)


def classified(
    pooled: Matrix, presence: npt.NDArray[np.bool_], train: Sequence[int], test: Sequence[int]
) -> npt.NDArray[np.bool_]:
    """What a logistic regression for each kind says of the held-out graphs, [T, L]."""
    answers = np.empty((len(test), presence.shape[1]), bool)
    for kind, there in enumerate(presence.T):
        if there[train].all() or not there[train].any():
            answers[:, kind] = there[train[0]]
        else:
            probe = make_pipeline(StandardScaler(), LogisticRegression(C=LOOSE, solver="newton-cholesky"))
            answers[:, kind] = probe.fit(pooled[train], there[train]).predict(pooled[test])
    return answers


def over_folds(rows: Sequence[Row], data: str, state: str, readout: str, metric: str) -> float:
    """The mean of one metric over the folds."""
    return average(rows, data=data, states=state, readout=readout, metric=metric)


def tables(rows: Sequence[Row]) -> list[Table]:
    """Errors of each probe on each readout of each kind of states, averaged over folds."""
    columns, lines = ("set", "pooled", "readout", *PROBES, "all counts exact [%]"), []
    for data, state in cases(rows):
        for readout in READOUTS:
            at = partial(over_folds, rows, data, state, readout)
            lines.append([data, state, readout, *(shown(at(probe)) for probe in PROBES), percent(at(EXACT))])
        lines.append([])
    title = "What a linear probe recovers on held-out graphs: 0 is all of it, 1 a blind guess"
    return [table(title, columns, lines, text_columns=3)]


def cases(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Each set with each kind of its states."""
    return [(data, state) for data in present(rows, "data") for state in present(rows, "states", data=data)]


def shown(error: float) -> str:
    """An error in three decimals; those of a probe that fails badly are cut."""
    return share(error) if error < 10 else "> 10"


def of_atoms(error: Callable[[str, str], float]) -> tuple[bool, str]:
    """Whether each readout gave what it is said to hold, and nothing that it is said to lose."""
    against = [f"the {readout} gave no {probe}" for readout, probe in CLAIMED if error(readout, probe) > TINY]
    against += [f"the {readout} gave {probe}" for readout, probe in DENIED if error(readout, probe) <= TINY]
    as_claimed = "the sum gave counts, the mean proportions and no counts, the max presence alone"
    return not against, ", ".join(against) or as_claimed


def of_states(error: Callable[[str, str], float]) -> tuple[bool, str]:
    """Which readout each probe reads best, and whether that is as claimed of all three."""
    best = {}
    for probe in PROBES:
        errors = {readout: shown(error(readout, probe)) for readout in READOUTS}
        least = shown(min(error(readout, probe) for readout in READOUTS))
        best[probe] = [readout for readout in READOUTS if errors[readout] == least], least
    held = all(readout in best[probe][0] for readout, probe in CLAIMED)
    said = [f"{probe} off {' and '.join(names)} ({least})" for probe, (names, least) in best.items()]
    return held, f"{', '.join(said)} are read best"


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """A cross table for each set and kind of states: blue is recovered, framed is what is claimed."""
    sheets = cases(rows)
    drawing, panels = figures.panels(len(sheets), width=3.0, height=2.6)
    for panel, (data, state) in zip(panels, sheets, strict=True):
        draw(panel, np.array([[over_folds(rows, data, state, r, p) for r in READOUTS] for p in PROBES]))
        panel.set_title(f"{data}: {state}")
    said = "error of a linear probe on held-out graphs: 0 recovered, 1 a blind guess; framed: the claim"
    drawing.supxlabel(said, fontsize=9, color=figures.GREY)
    return figures.save(drawing, out, "counting")


def draw(panel: Axes, errors: Matrix) -> None:
    """Probes down, readouts across, the error in each field; a frame where it is claimed to be the least."""
    panel.imshow(errors.clip(0, 1), cmap=BLUES, vmin=0, vmax=1)
    for (row, column), error in np.ndenumerate(errors):
        colour = "white" if error < 0.25 else figures.INK
        panel.text(column, row, shown(error), ha="center", va="center", color=colour)
    frame: dict[str, Any] = {
        "fill": False,
        "edgecolor": figures.INK,
        "linewidth": 2,
        "zorder": 3,
        "clip_on": False,
    }
    for readout, probe in CLAIMED:
        corner = READOUTS.index(readout) - 0.5, PROBES.index(probe) - 0.5
        panel.add_patch(Rectangle(corner, 1, 1, **frame))
    panel.set_xticks(range(len(READOUTS)), READOUTS)
    panel.set_yticks(range(len(PROBES)), PROBES)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """For each set and kind of states: each readout gives what it is said to hold of atoms and nothing else
    (a check, by algebra), and the most of it of states.
    """
    for data, state in cases(rows):
        error = partial(over_folds, rows, data, state)
        exact = f"off the sum, all counts are right in {percent(error('sum', EXACT))} % of graphs"
        held, said = (of_atoms if state == ATOMS else of_states)(error)
        against = objections(rows, data) if state == TRAINED else []
        told = "; ".join((said, exact, *against))
        kind: Literal["check", "finding"] = "check" if state == ATOMS else "finding"
        yield Finding(f"{data}, {state}", None if against else held, told, kind)


def objections(rows: Sequence[Row], data: str) -> list[str]:
    """What the gate has against the trained networks of a set."""
    trained = [row for row in rows if row["data"] == data and row["states"] == TRAINED]
    gated = [row for row in trained if row["metric"] in GATE]
    if not gated:
        return ["how the networks were trained is not known"]
    found = {name: values(trained, readout=name, metric="accuracy") for name in present(trained, "readout")}
    return gate.objections(gated, "accuracy", found, {"majority": values(trained, metric="majority")})


def numbers(rows: Sequence[Row]) -> str:
    """How often all counts of atoms are right."""
    told = []
    for readout in READOUTS:
        exact = (100 * over_folds(rows, data, ATOMS, readout, EXACT) for data in present(rows, "data"))
        told.append(f"{readout} {span(exact)} %")
    return f"graphs with all atoms counted right: {', '.join(told)}"


EXPERIMENT = Experiment(
    name="counting",
    title="Counting",
    question="What does a linear probe recover from a pooled vector: counts, proportions, presence?",
    claim="A linear probe reads counts best off a sum, proportions off a mean, and presence off a max",
    theory="""Of one-hot atoms the sum holds the exact count of every kind, the mean the proportions and no
    counts, the max which kinds are there and no more: that is algebra, and a check. Whether each readout is
    still the best for its own of the states after message passing could come out otherwise, and is a
    finding.""",
    setup="""Ridge and logistic regression from the pooled vector to the counts, the proportions and the
    presence of every kind of atom, fitted on some graphs and judged on others: of the atoms themselves, of a
    random network's states, and of a trained one's (GIN of two rounds with batch norm, batches of 32, a
    learning rate of .01 that halves every 50 epochs, the last epoch). An error of 0 is recovered, 1 a blind
    guess.""",
    source="""[Xu et al. 2019](https://arxiv.org/abs/1810.00826); probing by linear models: [Alain and Bengio
    2016](https://arxiv.org/abs/1610.01644).""",
    caveats=(
        "A linear probe shows what is there to be read linearly; what it misses may still be there.",
        "The penalty of each probe is chosen on its training graphs.",
        "Trained networks that did not converge or do not beat the majority class decide nothing.",
    ),
    alt="""A table of colours for each kind of node states: readouts across, probes down, the error of a
    linear probe in each field.""",
    caption="Error of a linear probe on held-out graphs: blue is recovered; framed is what is claimed.",
    prepare=choose,
    measure=measure,
    parallel=True,
    tables=tables,
    findings=findings,
    numbers=numbers,
    figure=figure,
    notes=sentences,
    options={"folds": FOLDS, "epochs": number(100, 1, "Epochs of training, in batches of 32.")},
    quick={"epochs": 50},
)
