"""Shrink a failing input, and write it as a few lines of code that can be pasted into a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

import torch
from torch import Tensor
from torch_geometric.data import Data

from readouts.testing.engine import Trial
from readouts.testing.inputs import Graphs, Match, only, parts_of, permute, same, take
from readouts.testing.outputs import same_bits
from readouts.testing.progress import TimeUpError, listener, listening

BUDGET = 100


@dataclass(frozen=True)
class Shuffle:
    """An input and an order of its nodes and of its edges."""

    graphs: Graphs
    nodes: Tensor
    edges: Tensor

    def trial(self) -> Trial:
        """Return the input before and after reordering."""
        second, match = permute(self.graphs, self.nodes, self.edges)
        return Trial("shuffled", self.graphs, second, match)

    def keep(self, nodes: list[int], edges: list[int], graphs: list[int]) -> Shuffle:
        """Keep some nodes, edges and graphs, and restrict the two orders to them."""
        if edges:
            inside = torch.isin(self.graphs.links["edge_index"], torch.tensor(nodes)).all(dim=0)
            edges = [edge for edge in edges if inside[edge]]
        smaller = take(self.graphs, nodes, edges, graphs)
        return Shuffle(smaller, _rest(self.nodes, nodes), _rest(self.edges, edges))


def _rest(order: Tensor, kept: list[int]) -> Tensor:
    place = torch.full((len(order),), -1)
    place[kept] = torch.arange(len(kept))
    left = place[order]
    return left[left >= 0]


@dataclass(frozen=True)
class Company:
    """A batch, and the number of the graph whose result must be the same without the others."""

    graphs: Graphs
    graph: int

    def trial(self) -> Trial:
        """Return the graph alone and in its batch."""
        return company(self.graphs, self.graph, "in company")

    def keep(self, nodes: list[int], edges: list[int], graphs: list[int]) -> Company:
        """Keep some nodes, edges and graphs, the graph itself among them."""
        return Company(take(self.graphs, nodes, edges, graphs), graphs.index(self.graph))


@dataclass(frozen=True)
class Motion:
    """An input with positions, and a rotation and a shift of them, float64."""

    graphs: Graphs
    rotation: Tensor
    shift: Tensor

    def trial(self) -> Trial:
        """Return the input before and after its positions moved, which rounds nothing."""
        pos = self.graphs.nodes["pos"]
        divisor = {2: 5, 3: 3}[len(self.shift)]  # the matrix times it has integer entries
        steps = (pos.double() / divisor) @ (self.rotation * divisor).round().t() + self.shift
        moved = replace(self.graphs, nodes={**self.graphs.nodes, "pos": steps.to(pos.dtype)})
        return Trial("moved", self.graphs, moved, same(self.graphs))

    def keep(self, nodes: list[int], edges: list[int], graphs: list[int]) -> Motion:
        """Keep some nodes, edges and graphs."""
        return replace(self, graphs=take(self.graphs, nodes, edges, graphs))


Case = Shuffle | Company | Motion
C = TypeVar("C", Shuffle, Company, Motion)


def company(graphs: Graphs, graph: int, label: str) -> Trial:
    """Return a trial that compares a graph alone with the same graph in a batch."""
    match = Match(*parts_of(graphs, [graph]), torch.tensor([graph]), graphs.counts)
    return Trial(label, only(graphs, [graph]), graphs, match)


def shrink(case: C, fails: Callable[[Trial], bool]) -> C:
    """Simplify a failing case in at most `BUDGET` tries: fewer items, a simpler order, plainer values.

    When the time is up, the case is returned as it is then.
    """
    best = [case]
    with suppress(TimeUpError):
        for simpler in _simpler(case, fails) if listener().shrink else ():
            best.append(simpler)
    return best[-1]


def _simpler(case: C, fails: Callable[[Trial], bool]) -> Iterator[C]:
    """Yield simpler and simpler failing cases."""
    tries = BUDGET

    def holds(candidate: Case) -> bool:
        nonlocal tries
        tries -= 1
        listener().stage(f"making the counterexample smaller, {tries} tries at most", 1 - tries / BUDGET)
        try:
            with listening(replace(listener(), stage=lambda text, share: None)):
                return fails(candidate.trial())
        except Exception:  # the model does not take the smaller input
            return False

    before = None
    while case is not before:
        before = case
        for step in (_fewer_graphs, _fewer_nodes, _swaps, _fewer_nodes, _fewer_edges, _plainer_values):
            while (
                simpler := next((each for each in step(case) if tries > 0 and holds(each)), None)
            ) is not None:
                case = simpler
                yield case


def _pieces(count: int) -> Iterator[list[int]]:
    """Yield 0 .. count - 1 without one half, one quarter, ... one item."""
    width = (count + 1) // 2
    while width and count > 1:
        for start in range(0, count, width):
            yield [item for item in range(count) if not start <= item < start + width]
        width = 0 if width == 1 else (width + 1) // 2


def _fewer_graphs(case: C) -> Iterator[C]:
    graphs = case.graphs
    for kept in _pieces(graphs.size):
        inside = torch.isin(graphs.member, torch.tensor(kept)).nonzero().flatten().tolist()
        edges = torch.isin(graphs.edge_member, torch.tensor(kept)).nonzero().flatten().tolist()
        if inside and not (isinstance(case, Company) and case.graph not in kept):
            yield case.keep(inside, edges, kept)


def _fewer_nodes(case: C) -> Iterator[C]:
    graphs = case.graphs
    before = torch.bincount(graphs.member, minlength=graphs.size)
    for kept in _pieces(graphs.num_nodes):
        after = torch.bincount(graphs.member[kept], minlength=graphs.size)
        if not (isinstance(case, Company) and after[case.graph] == 0):
            filled = ((after > 0) | (before == 0)).nonzero().flatten().tolist()
            yield case.keep(kept, list(range(graphs.num_edges)), filled)


def _fewer_edges(case: C) -> Iterator[C]:
    graphs: Graphs = case.graphs
    for kept in [[], *_pieces(graphs.num_edges)]:
        if len(kept) < graphs.num_edges:
            yield case.keep(list(range(graphs.num_nodes)), kept, list(range(graphs.size)))


def _swaps(case: C) -> Iterator[C]:
    """Yield simpler orders: of nodes alone, of edges alone, two nodes swapped, two edges swapped."""
    if not isinstance(case, Shuffle):
        return
    graphs = case.graphs
    nodes, edges = torch.arange(graphs.num_nodes), torch.arange(graphs.num_edges)
    moved = [int((case.nodes != nodes).sum()), int((case.edges != edges).sum())]
    if all(moved):
        yield replace(case, edges=edges)
        yield replace(case, nodes=nodes)
    if moved[0] > 2:
        for one, two in _pairs(graphs.member):
            yield replace(case, nodes=_swapped(nodes, one, two), edges=edges)
    if moved[1] > 2:
        for one, two in _pairs(graphs.edge_member):
            yield replace(case, nodes=nodes, edges=_swapped(edges, one, two))


def _pairs(member: Tensor) -> list[tuple[int, int]]:
    """Return up to thirty pairs of items of one graph."""
    near = combinations(range(min(len(member), 60)), 2)
    pairs = [(one, two) for one, two in near if member[one] == member[two]]
    return pairs[:: max(1, len(pairs) // 30)][:30]


def _swapped(order: Tensor, one: int, two: int) -> Tensor:
    order = order.clone()
    order[[one, two]] = order[[two, one]]
    return order


def _plainer_values(case: C) -> Iterator[C]:
    """Yield cases with zeros, small integers or few digits instead of whole tensors or columns."""
    graphs = case.graphs
    for name, value in {**graphs.nodes, **graphs.edges}.items():
        exact = isinstance(case, Motion) and name == "pos"  # other positions may round when they move
        for plain in _plain(value) if value.is_floating_point() and not exact else ():
            if not plain.equal(value):
                nodes = {**graphs.nodes, name: plain} if name in graphs.nodes else graphs.nodes
                edges = {**graphs.edges, name: plain} if name in graphs.edges else graphs.edges
                yield replace(case, graphs=replace(graphs, nodes=nodes, edges=edges))


def _plain(value: Tensor) -> Iterator[Tensor]:
    yield torch.zeros_like(value)
    if not value.equal(value.round()):
        yield value.sign() + 0.0  # no -0
        yield value.round() + 0.0
        yield (value * 4).round() / 4 + 0.0
    for column in range(value.shape[1]) if value.dim() == 2 else ():
        plainer = value.clone()
        plainer[:, column] = 0
        yield plainer


def lines(case: Case, output: str, rows: str, close: bool) -> str:
    """Write a case as code that fails.

    Args:
        case: the case.
        output: name of the tensor that differs.
        rows: what the rows of this tensor move with: ``"nodes"``, ``"edges"``, ``"graphs"`` or ``""``.
        close: whether `torch.testing.assert_close` accepts the difference, so that the code compares bits.
    """
    part = output.removeprefix("output")
    if isinstance(case, Shuffle):
        written, moved_by = _shuffled(case, rows)
        left, right = f"after{part}", f"before{part}{moved_by}"
    elif isinstance(case, Motion):
        both = case.trial()
        calls = zip(("before", "after"), (both.first, both.second), strict=True)
        written = [f"{name} = model({_call(graphs)})" for name, graphs in calls]
        left, right = f"after{part}", f"before{part}"
    else:
        trial = case.trial()
        place = getattr(trial.match, rows).tolist() if rows else ""
        written = [f"alone = model({_call(trial.first)})", f"together = model({_call(trial.second)})"]
        left, right = f"together{part}{place}", f"alone{part}"
    check = f"assert torch.equal({left}, {right})"
    return "\n".join([*written, check if close else f"torch.testing.assert_close({left}, {right})"])


def _shuffled(case: Shuffle, rows: str) -> tuple[list[str], str]:
    """Write both calls of the model, and the index that moves the rows of the first result."""
    graphs = case.graphs
    match = case.trial().match
    orders = {"order": match.nodes.argsort(), "edges": match.edges.argsort()}
    moves = {name: order for name, order in orders.items() if not order.equal(torch.arange(len(order)))}
    written = [f"{name} = {literal(order)}" for name, order in moves.items()]
    mover = {"nodes": "order", "edges": "edges"}.get(rows, "")
    moved_by = f"[{mover}]" if mover in moves else ""
    if graphs.form == "batch" and graphs.size > 1:
        before, after = (_passed(graphs, [_batch(each)]) for each in (graphs, case.trial().second))
        calls = [f"before = model({before})", f"after = model({after})"]
        return [*(written if moved_by else []), *calls], moved_by
    if "order" in moves and graphs.links:
        written.append("place = order.argsort()")

    def moved(name: str, value: str) -> str:
        if name in graphs.nodes or name == "batch":
            return f"{value}[order]" if "order" in moves else value
        if name in graphs.links:
            value = f"place[{value}]" if "order" in moves else value
            return f"{value}[:, edges]" if name == "edge_index" and "edges" in moves else value
        return f"{value}[edges]" if name in graphs.edges and "edges" in moves else value

    if graphs.form == "tensors":
        names = zip(graphs.arguments, graphs.call(), strict=True)
        given = [f"{name} = {_argument(value)}" for name, value in names]
        after = _passed(graphs, [moved(name, name) for name in graphs.arguments])
        calls = [f"before = model({_passed(graphs, [*graphs.arguments])})", f"after = model({after})"]
        return [*given, *written, *calls], moved_by
    data = graphs.call()[0] if graphs.form == "data" else graphs.call()[0].get_example(0)
    other = ", ".join(f"{name}={moved(name, f'data.{name}')}" for name in data.to_dict())
    wrapped = _passed(graphs, ["{}" if graphs.form == "data" else "Batch.from_data_list([{}])"])
    calls = [f"before = model({wrapped.format('data')})", f"after = model({wrapped.format('other')})"]
    return [f"data = Data({_keywords(data)})", *written, f"other = Data({other})", *calls], moved_by


def _call(graphs: Graphs) -> str:
    if graphs.form == "tensors":
        return _passed(graphs, [*map(_argument, graphs.call())])
    return _passed(
        graphs, [_batch(graphs) if graphs.form == "batch" else f"Data({_keywords(graphs.call()[0])})"]
    )


def _passed(graphs: Graphs, values: list[str]) -> str:
    """Write arguments, the last ones by keyword."""
    names = [""] * (len(values) - len(graphs.keywords)) + [f"{name}=" for name in graphs.keywords]
    return ", ".join(f"{name}{value}" for name, value in zip(names, values, strict=True))


def _argument(value: object) -> str:
    return literal(value) if isinstance(value, Tensor) else repr(value)


def _batch(graphs: Graphs) -> str:
    parts = graphs.call()[0].to_data_list()
    return f"Batch.from_data_list([{', '.join(f'Data({_keywords(part)})' for part in parts)}])"


def _keywords(data: Data) -> str:
    return ", ".join(f"{name}={_argument(value)}" for name, value in data.to_dict().items())


def literal(value: Tensor) -> str:
    """Write a tensor as code that gives the same bits."""
    plain = value.dtype in (torch.float32, torch.int64, torch.bool)
    dtype = "" if plain else f", dtype={value.dtype}"
    if value.numel() == 0:
        return f"torch.zeros({', '.join(map(str, value.shape))}, dtype={value.dtype})"
    for few in (torch.zeros_like(value), torch.ones_like(value)):
        if value.numel() > 8 and same_bits(value, few):
            size = ", ".join(map(str, value.shape))
            return f"torch.{'ones' if few.any() else 'zeros'}({size}, dtype={value.dtype})"
    return f"torch.tensor({_nested(value)}{dtype})"


def _nested(value: Tensor) -> str:
    if value.dim():
        return "[" + ", ".join(_nested(row) for row in value) + "]"
    if not value.dtype.is_floating_point:
        return repr(value.item())
    number = value.item()
    if number != number:
        return "torch.nan"
    if abs(number) == float("inf"):
        return "torch.inf" if number > 0 else "-torch.inf"
    return str(value.numpy()) if value.dtype in (torch.float32, torch.float64) else repr(number)


def gradient_lines(case: Shuffle, leaf: str, owner: str, rows: str, close: bool) -> str:
    """Write a case whose gradient does not move with the nodes or edges.

    Args:
        case: the case.
        leaf: name of the node or edge feature, or of the parameter.
        owner: the module that has the parameter, as code; "" for a feature.
        rows, close: as for `lines`, of the gradient.
    """
    tensors = case.graphs.form == "tensors"
    every = [*case.graphs.arguments] if tensors else ["data"]
    names = [*every[: len(every) - len(case.graphs.keywords)], *case.graphs.keywords]
    wanted = f"{owner}.get_parameter({leaf!r})" if owner else leaf if tensors else f"{names[0]}.{leaf}"
    function = [
        "from readouts.testing.gradients import loss",
        f"def gradient({', '.join(names)}):",
        *([] if owner else [f"    {wanted} = {wanted}.detach().requires_grad_()"]),
        f"    return torch.autograd.grad(loss(model({_passed(case.graphs, names)})), {wanted})[0]",
    ]
    written = lines(case, "output", rows, close).replace("= model(", "= gradient(")
    return "\n".join([*function, written])
