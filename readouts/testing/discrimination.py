"""Find out what a model can distinguish: a graph from its copies, its covers, and other proportions."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from readouts.testing.engine import Examination, Question, narrowest, outputs
from readouts.testing.inputs import Graphs, fuse, join, only, read, sort_by_target, sorted_by_target, take
from readouts.testing.isolation import Model, modes, untouched
from readouts.testing.outputs import Two, same_bits, staying
from readouts.testing.report import name_of
from readouts.testing.verdict import Pair, Verdict, judge

LABELS = {
    "sum": "k copies have k times the value",
    "size": "depends on the number of copies, like a sum followed by other layers",
    "mean": "depends on proportions, not on sizes",
    "max": "depends on the set of labels only",
    "nothing": "distinguishes none of these, nor a change of the features",
    "random": "the same input gives different results",
}


@dataclass(frozen=True)
class ReportCard:
    """What a model can distinguish; None where the input has no graphs for the comparison.

    Example:
        >>> from readouts import global_add_pool
        >>> x, batch = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1])
        >>> found = check_size_sensitivity(global_add_pool, x, batch=batch)
        >>> found.behaves_like, found.copies
        ('sum', True)

    Attributes:
        model: class or name of the model.
        mode: training or evaluation mode.
        copies: distinguishes a graph from two or three disjoint copies of it.
        lift: distinguishes a graph from a connected graph that covers it twice.
        proportions: distinguishes two kinds of graphs mixed 1:1 from the same mixed 2:1.
        additive: gives k copies k times the value of one, up to rounding.
        behaves_like: ``"sum"``, ``"size"``, ``"mean"``, ``"max"``, ``"nothing"`` or ``"random"``.
        labels: distinguishes a graph from the other graphs, and from itself with negated or shifted features.
    """

    model: str
    mode: str
    copies: bool
    lift: bool | None
    proportions: bool | None
    additive: bool
    behaves_like: str
    labels: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as values for JSON."""
        return dataclasses.asdict(self)

    @property
    def sentence(self) -> str:
        """Say in one line what the model behaves like."""
        return f"behaves like {self.behaves_like}: {LABELS[self.behaves_like]}"

    def __str__(self) -> str:
        mode = f", {self.mode}" if self.mode else ""
        rows = [
            ("a graph and its disjoint copies", self.copies),
            ("a graph and its connected double cover", self.lift),
            ("the same labels in other proportions", self.proportions),
            ("other labels", self.labels),
        ]
        says = {True: "distinguished", False: "the same output", None: "not tested: no such graph"}
        lines = [f"  {what:<40}{says[seen]}" for what, seen in rows]
        return "\n".join([f"{self.model}{mode}: {self.sentence}", *lines])


def check_size_sensitivity(model: Model, *inputs: Any, **named: Any) -> ReportCard:
    """Find out whether a model behaves like sum, mean or max, from what it can distinguish.

    Example:
        >>> from readouts import readout
        >>> x, batch = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 1])
        >>> print(check_size_sensitivity(readout, x, batch=batch))
        readout: behaves like mean: depends on proportions, not on sizes
          a graph and its disjoint copies         the same output
          a graph and its connected double cover  not tested: no such graph
          the same labels in other proportions    distinguished
          other labels                            distinguished

    The graphs of the input are compared with their disjoint copies, with a random connected double cover
    (where they have a cycle), and in mixtures of two of them; if the input has one graph only, it is mixed
    with one of its nodes. Two results are the same if they differ by no more than rounding. At most the
    first four graphs are used.

    Args:
        model: any callable with one row of output per graph; neither it nor the inputs are changed.
        inputs: ``Data``, ``Batch``, a list of ``Data``, or tensors x, ``edge_index`` and ``batch``, as far as
            it takes them.
        named: inputs that the model takes by keyword.

    Raises:
        TypeError, ValueError: the inputs cannot be understood, or an output has no row per graph.

    Source: Xu et al., arXiv 1810.00826, for sum, mean and max; Bamberger, arXiv 2206.11876, for covers.
    """
    graphs = read(inputs, named, model)
    count = torch.bincount(graphs.member, minlength=graphs.size)
    singles = [only(graphs, [graph]) for graph in count.nonzero().flatten().tolist()[:4]]
    with untouched():
        examination = Examination(
            model,
            Question("report card", outputs, staying),
            narrowest(model, singles[0], outputs(model, singles[0], None, 0).values()),
        )
        copies = any(_apart(examination, one, _times(one, k)) for one in singles for k in (2, 3))
        covers = [(one, cover) for one in singles if (cover := double_cover(one)) is not None]
        lift = any(_apart(examination, *two) for two in covers) if covers else None
        mixtures = _mixtures(singles)
        proportions = any(_apart(examination, *two) for two in mixtures) if mixtures else None
        labels = copies or bool(proportions) or _sees_labels(examination, singles)
        additive = copies and all(_adds_up(examination, one, k) for one in singles for k in (2, 3))
        one, other = (outputs(model, singles[0], None, seed) for seed in (0, 1))
        random = any(not same_bits(one[name], other[name]) for name in one)
    alike = "size" if copies else "mean" if proportions else "max" if labels or lift else "nothing"
    alike = "random" if random else "sum" if additive else alike
    return ReportCard(name_of(model), modes(model), copies, lift, proportions, additive, alike, labels)


def _sees_labels(examination: Examination, singles: list[Graphs]) -> bool:
    """Return whether a graph is distinguished from the others, or from itself with other features."""
    one = singles[0]
    changes = [one.change_features(lambda value: -value), one.change_features(lambda value: 2 * value + 1)]
    for other in [*singles[1:], *changes]:
        with suppress(Exception):  # the model may not take such features
            if _apart(examination, one, other):
                return True
    return False


def _apart(examination: Examination, one: Graphs, two: Graphs) -> bool:
    return _compare(examination, one, two, 1) is Verdict.BROKEN


def _adds_up(examination: Examination, one: Graphs, copies: int) -> bool:
    return _compare(examination, one, _times(one, copies), copies) is not Verdict.BROKEN


def _compare(examination: Examination, one: Graphs, two: Graphs, factor: int) -> Verdict:
    """Compare `factor` times the result of the first input with the result of the second."""
    runs: list[dict[str, Two]] = []
    for dtype in (None, examination.other):
        with nullcontext() if dtype is None else suppress(Exception):  # the model may know one dtype only
            first, second = (outputs(examination.model, graphs, dtype, 0) for graphs in (one, two))
            runs.append({name: (factor * value, second[name]) for name, value in first.items()})
    for name, both in runs[0].items():
        shapes = [list(value.shape) for value in both]
        if shapes[0] != shapes[1]:
            got = f"{shapes[0]} for {one.num_nodes} nodes and {shapes[1]} for {two.num_nodes}"
            raise ValueError(f"model: expected one row per graph in {name}, got {got}")
    pairs = [Pair(name, 0, *(run[name] for run in runs)) for name in runs[0]]
    return judge(pairs, examination.own).verdict


def _times(graphs: Graphs, copies: int) -> Graphs:
    return fuse(join([graphs] * copies))


def _mixtures(singles: list[Graphs]) -> list[tuple[Graphs, Graphs]]:
    """Return pairs of mixtures of two kinds of graphs: 1:1 and 2:1, and 1:1 and 1:2."""
    one, others = singles[0], singles[1:]
    if not others and one.num_nodes > 1:
        others = [take(one, [node], [], [0]) for node in range(min(3, one.num_nodes))]
    pairs = [pair for other in others for pair in ((one, other), (other, one))]
    return [(fuse(join([one, other])), fuse(join([one, one, other]))) for one, other in pairs]


def double_cover(graphs: Graphs) -> Graphs | None:
    """Return a connected double cover of a graph; None if ten random ones are disconnected.

    Every edge between u and v joins the first copy of u to the first or to the second copy of v, the same way
    for both directions.
    """
    if not graphs.num_edges:
        return None
    count, ends = graphs.num_nodes, graphs.links["edge_index"].long()
    pair = ends.min(dim=0).values * count + ends.max(dim=0).values
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        crosses = torch.randint(2, (count * count,), generator=generator)[pair].bool() & (ends[0] != ends[1])
        second = torch.stack([ends[0] + count, torch.where(crosses, ends[1], ends[1] + count)])
        first = torch.stack([ends[0], torch.where(crosses, ends[1] + count, ends[1])])
        lifted = torch.cat([first, second], dim=1)
        if _connected(lifted, 2 * count):
            doubled = _times(graphs, 2)
            dtype = graphs.links["edge_index"].dtype
            cover = replace(doubled, links={**doubled.links, "edge_index": lifted.to(dtype)})
            return sort_by_target(cover) if sorted_by_target(graphs) else cover
    return None


def _connected(ends: Tensor, count: int) -> bool:
    reached = torch.zeros(count, dtype=torch.bool)
    reached[0] = True
    for _ in range(count):
        before = int(reached.sum())
        reached[ends[1][reached[ends[0]]]] = True
        reached[ends[0][reached[ends[1]]]] = True
        if int(reached.sum()) == before:
            break
    return bool(reached.all())
