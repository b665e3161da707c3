"""Ten propositions about readouts, each checked in numbers, in float32 and in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import gcd, log10
from pathlib import Path

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn
from torch_geometric.data import Data

from datasets import GraphSet, covers, rings
from datasets.collisions import collisions, colours
from experiments import figures
from experiments.console import Table, UserError, table, tiny
from experiments.experiment import Experiment, Finding, span
from experiments.jobs import Job, carry_out
from experiments.learning.batches import Batch
from experiments.learning.loop import fit
from experiments.learning.networks import Network, StackedLinear
from experiments.records import Row, RowLog, present
from experiments.trained import together
from readouts import readout
from readouts.nn import AttentionReadout, LogSumExpReadout, SizeAwareMeanReadout

Pair = tuple[Data, Data]
Outputs = dict[str, Tensor]
Numbers = dict[str, float]
DTYPES = {"float32": torch.float32, "float64": torch.float64}
TOLERANCES = {"float32": 1e-5, "float64": 1e-12}
APART = 1e-4
PROPORTIONAL = ("mean", "max", "min", "median", "std")
BLIND = (*PROPORTIONAL, "attention")
COUNTING = (*BLIND, "sum", "logsumexp")
SAMPLE, ROUNDS, WIDTH = 24, 3, 16
SHEETS, GROWTH, STEPS = (2, 3, 5), (2, 4, 8, 16), 200
MOMENTS = (((0, 4, 5), (1, 2, 6)), ((0, 3, 5, 6), (1, 2, 4, 7)))


@dataclass(frozen=True)
class Ground:
    """What a proposition is checked on: some graphs of a set, and all pairs in it that a mean confuses."""

    data: str
    graphs: tuple[Data, ...]
    confused: tuple[Pair, ...]
    device: str

    @property
    def kinds(self) -> int:
        """How many kinds of nodes the set has."""
        return int(self.graphs[0].x.size(1))


def choose(graphs: GraphSet, device: str, seed: int) -> Ground:
    """A seeded sample of the graphs that have nodes, and pairs of one mean after all rounds."""
    order = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(seed)).tolist()
    picked = [position for position in order if graphs[position].num_nodes > 0][:SAMPLE]
    if not picked:
        raise UserError(f"{graphs.name}: expected graphs with nodes, got none.")
    found = islice(collisions(colours(graphs, ROUNDS)[ROUNDS], "mean"), 2 * SAMPLE)
    pairs = tuple((bare(graphs[i]), bare(graphs[j])) for i, j in found if graphs[i].num_nodes > 0)
    return Ground(graphs.name, tuple(bare(graphs[position]) for position in picked), pairs, device)


def bare(graph: Data) -> Data:
    """The nodes and edges alone."""
    return Data(x=graph.x, edge_index=graph.edge_index)


def cycle(nodes: int, kinds: int) -> Data:
    """A cycle of nodes of one kind."""
    around = torch.arange(nodes)
    edges = torch.stack([around, (around + 1) % nodes])
    x = torch.zeros(nodes, kinds).index_fill_(1, torch.tensor([0]), 1)
    return Data(x=x, edge_index=torch.cat([edges, edges.flip(0)], dim=1))


def copied(ground: Ground) -> list[Pair]:
    """Graphs, and some copies of each."""
    return [(graph, covers.copies(graph, k)) for graph in ground.graphs for k in SHEETS]


def lifted(ground: Ground) -> list[Pair]:
    """Cycles below longer ones, graphs below connected random lifts, and pairs of the data."""
    pairs = [(cycle(m, ground.kinds), cycle(k * m, ground.kinds)) for m in (3, 5) for k in SHEETS]
    pairs += [(graph, lift) for graph in ground.graphs for lift in connected_lifts(graph)]
    return pairs + [pair for pair in map(by_size, ground.confused) if whole(pair)]


def connected_lifts(graph: Data) -> list[Data]:
    """A connected lift of two sheets; none of a graph with a component that is a tree."""
    try:
        return [covers.lift(graph, 2, seed=0)]
    except ValueError:
        return []


def by_size(pair: Pair) -> Pair:
    """The smaller one first."""
    return pair if pair[0].num_nodes <= pair[1].num_nodes else pair[::-1]


def whole(pair: Pair) -> bool:
    """Whether one size is a multiple of the other."""
    return gcd(pair[0].num_nodes, pair[1].num_nodes) == pair[0].num_nodes


def fractional(ground: Ground) -> list[Pair]:
    """Pairs whose sizes are no multiples of each other: two and five copies, and pairs of the data."""
    pairs = [(covers.copies(graph, 2), covers.copies(graph, 5)) for graph in ground.graphs]
    pairs.append((cycle(4, ground.kinds), cycle(10, ground.kinds)))
    return pairs + [pair for pair in map(by_size, ground.confused) if not whole(pair)]


def equal_sizes(ground: Ground) -> list[Pair]:
    """Graphs of one size that message passing confuses: two triangles and a hexagon, copies and lifts."""
    pairs = [(covers.copies(graph, 2), lift) for graph in ground.graphs for lift in connected_lifts(graph)]
    return [(covers.copies(cycle(3, ground.kinds), 2), cycle(6, ground.kinds)), *pairs]


def states(graphs: Sequence[Data], dtype: torch.dtype, seed: int, device: str) -> tuple[Tensor, Batch]:
    """Node states of a random network, [N, width], and the batch that they belong to."""
    torch.manual_seed(seed)
    network = Network("gin", "mean", graphs[0].x.size(1), 1, WIDTH, ROUNDS).to(device, dtype).eval()
    cast = [Data(x=graph.x.to(dtype), edge_index=graph.edge_index) for graph in graphs]
    batch = together(cast, ROUNDS, device)
    with torch.no_grad():
        return network.nodes(batch), batch


def embed(graphs: Sequence[Data], dtype: torch.dtype, seed: int, device: str) -> Outputs:
    """What each readout makes of the states of every graph, [B, width] each."""
    nodes, batch = states(graphs, dtype, seed, device)
    gate = StackedLinear(WIDTH, 1).to(device, dtype).eval()
    learned = {"attention": AttentionReadout(gate), "logsumexp": LogSumExpReadout()}
    learned |= {"mean, log n": SizeAwareMeanReadout()}
    with torch.no_grad():
        outputs = {name: readout(nodes, batch.graphs, name) for name in (*PROPORTIONAL, "sum")}
        return outputs | {name: module(nodes, batch.graphs) for name, module in learned.items()}


def deviation(values: Tensor, expected: Tensor) -> float:
    """The largest difference in a row over the largest entry of the row, of all rows; 0 means equal bits."""
    scale = expected.abs().amax(dim=1, keepdim=True)
    return float(((values - expected).abs() / torch.where(scale > 0, scale, 1)).max())


def distance(values: Tensor, others: Tensor) -> float:
    """The largest difference in a row, the least of all rows."""
    return float((values - others).abs().amax(dim=1).min())


def sides(
    pairs: Sequence[Pair], dtype: torch.dtype, seed: int, device: str
) -> tuple[Outputs, Outputs, Tensor]:
    """The readouts of first and second graphs, and how many times larger the second ones are, [P, 1]."""
    first, second = (embed([pair[side] for pair in pairs], dtype, seed, device) for side in (0, 1))
    ratios = [pair[1].num_nodes / pair[0].num_nodes for pair in pairs]
    return first, second, torch.tensor(ratios, dtype=dtype, device=device).unsqueeze(1)


def covering(
    pairs_of: Callable[[Ground], list[Pair]], ground: Ground, dtype: torch.dtype, seed: int
) -> Numbers:
    """Readouts that see proportions agree, the sums have the ratio of the sizes, logsumexp adds its log."""
    first, second, ratio = sides(pairs_of(ground), dtype, seed, ground.device)
    found = {name: deviation(second[name], first[name]) for name in BLIND}
    found["sum"] = deviation(second["sum"], ratio * first["sum"])
    found["logsumexp"] = deviation(second["logsumexp"], first["logsumexp"] + ratio.log())
    return found


def tower_covering(ground: Ground, dtype: torch.dtype, seed: int) -> Numbers:
    """The lifts of the set, and the crown ethers above ethylene oxide, which have kinds of their own."""
    crowns = [bare(rings.ring("crown ether", k)) for k in rings.FAMILIES["crown ether"].members]
    tower = covering(lambda _: [(crowns[0], crown) for crown in crowns], ground, dtype, seed)
    return {name: max(value, tower[name]) for name, value in covering(lifted, ground, dtype, seed).items()}


def size_beside(ground: Ground, dtype: torch.dtype, seed: int) -> Numbers:
    """The mean with log n beside it tells all of these pairs apart, and by log n alone."""
    pairs = [*copied(ground), *lifted(ground), *fractional(ground)]
    first, second, ratio = sides(pairs, dtype, seed, ground.device)
    one, other = first["mean, log n"], second["mean, log n"]
    return {
        "mean part": deviation(other[:, :-1], one[:, :-1]),
        "log n": deviation(other[:, -1:], one[:, -1:] + ratio.log()),
        "mean, log n": distance(one, other),
    }


def sets_only(ground: Ground, dtype: torch.dtype, seed: int) -> Numbers:
    """Bags of the same kinds in other proportions: the second kind twice as often, the third three times."""
    bags = [graph.x.argmax(dim=1) for graph in ground.graphs if len(graph.x.unique(dim=0)) > 1]
    bags.append(torch.tensor([0, 1]))
    others = [bag.repeat_interleave(bag.unique(return_inverse=True)[1] + 1) for bag in bags]
    kinds = max(2, ground.kinds)
    found = []
    for side in (bags, others):
        x = nn.functional.one_hot(torch.cat(side), kinds).to(ground.device, dtype)
        ptr = torch.tensor([0, *(len(bag) for bag in side)], device=ground.device).cumsum(0)
        found.append({name: readout(x, ptr=ptr, reduce=name) for name in ("max", "mean", "sum")})
    apart = {name: distance(found[0][name], found[1][name]) for name in ("mean", "sum")}
    return {"max": deviation(found[1]["max"], found[0]["max"])} | {f"{n}s": d for n, d in apart.items()}


def two_moments(ground: Ground, dtype: torch.dtype, seed: int) -> Numbers:
    """Numbers of one mean and std but other cubes, alone and beside the labels of graphs."""
    beside = [torch.zeros(0), *(graph.x.argmax(dim=1).float() for graph in ground.graphs)]
    bags = [
        [torch.cat([rest, torch.tensor(pair[side]).float()]) for rest in beside for pair in MOMENTS]
        for side in (0, 1)
    ]
    ptr = torch.tensor([0, *(len(bag) for bag in bags[0])], device=ground.device).cumsum(0)
    x, other = (torch.cat(side).to(ground.device, dtype).unsqueeze(1) for side in bags)
    found = {
        name: deviation(readout(other, ptr=ptr, reduce=name), readout(x, ptr=ptr, reduce=name))
        for name in ("mean", "std")
    }
    return found | {"cubes": distance(readout(x**3, ptr=ptr), readout(other**3, ptr=ptr))}


def gradients(ground: Ground, dtype: torch.dtype, seed: int) -> Numbers:
    """The gradient of a node: 1 of the sum, 1 / n of the mean, of the max nothing for all but the winners."""
    nodes, batch = states(ground.graphs, dtype, seed, ground.device)
    found = {}
    for name in ("sum", "mean", "max"):
        x = nodes.clone().requires_grad_()
        out = readout(x, batch.graphs, name)
        (grad,) = torch.autograd.grad(out.sum(), x)
        if name == "max":
            lost = nodes < out.detach()[batch.graphs.index]
            total = readout(grad, batch.graphs, "sum")
            found["losers of max"] = float((grad * lost).abs().max())
            found["winners of max"] = deviation(total, torch.ones_like(total))
        else:
            n = batch.graphs.count[batch.graphs.index].unsqueeze(1).to(dtype)
            found[name] = deviation(grad, (1 / n if name == "mean" else torch.ones_like(n)).expand_as(grad))
    return found


def logits(ground: Ground, dtype: torch.dtype, seed: int) -> Numbers:
    """Logits of a linear head on k copies: those of a sum are k times those of one, those of a mean stay."""
    pairs = [(graph, covers.copies(graph, k)) for graph in ground.graphs for k in GROWTH]
    first, second, ratio = sides(pairs, dtype, seed, ground.device)
    weight = torch.randn(2, WIDTH, dtype=torch.float64).to(ground.device, dtype)
    small, large = ({name: side[name] @ weight.T for name in ("sum", "mean")} for side in (first, second))
    return {
        "sum": deviation(large["sum"], ratio * small["sum"]),
        "mean": deviation(large["mean"], small["mean"]),
        "logits of sum": distance(large["sum"], small["sum"]),
    }


def proportions(ground: Ground, dtype: torch.dtype, seed: int) -> Numbers:
    """A head learns proportions of kinds from the graphs, and is then asked about copies of them."""
    large = [covers.copies(graph, GROWTH[-1]) for graph in ground.graphs]
    sides = [together(graphs, 0, ground.device) for graphs in (ground.graphs, large)]
    found = {}
    for name in ("mean", "sum"):
        seen, new = (readout(side.x.to(dtype), side.graphs, name) for side in sides)
        target = readout(sides[0].x.to(dtype), sides[0].graphs, "mean")
        torch.manual_seed(seed)
        head = nn.Sequential(nn.Linear(ground.kinds, 64), nn.ReLU(), nn.Linear(64, ground.kinds))
        head = head.to(ground.device, dtype)
        loss = partial(squared, target=target)
        for _ in fit(head, lambda seen=seen: [seen], loss, 0.01, STEPS, STEPS):  # type: ignore[misc]
            pass
        with torch.no_grad():
            learned, asked = head(seen), head(new)
        if name == "mean":
            found["mean"] = deviation(asked, learned)
        else:
            errors = [(answer - target).square().mean().sqrt().item() for answer in (learned, asked)]
            found["error growth of sum"] = errors[1] / max(errors[0], 1e-9)
    return found


def squared(outputs: Tensor, batch: Tensor, target: Tensor) -> Tensor:
    """The mean square error."""
    return (outputs - target).square().mean()


@dataclass(frozen=True)
class Proposition:
    """What is said, how it is measured, which numbers must vanish, and which must reach at least how much."""

    words: str
    measure: Callable[[Ground, torch.dtype, int], Numbers]
    equal: tuple[str, ...]
    apart: Mapping[str, float]


PROPOSITIONS = (
    Proposition("k copies: sum times k, mean and max the same", partial(covering, copied), COUNTING, {}),
    Proposition("connected lifts and towers: the same", tower_covering, COUNTING, {}),
    Proposition("the ratio of sizes need not be whole", partial(covering, fractional), COUNTING, {}),
    Proposition("equal sizes: the sum is blind too", partial(covering, equal_sizes), COUNTING, {}),
    Proposition(
        "log n beside the mean resolves 1-3", size_beside, ("mean part", "log n"), {"mean, log n": APART}
    ),
    Proposition("max sees the set only", sets_only, ("max",), {"means": APART, "sums": APART}),
    Proposition("mean and std do not suffice", two_moments, ("mean", "std"), {"cubes": APART}),
    Proposition(
        "gradients: 1, 1 / n, winners only", gradients, ("sum", "mean", "losers of max", "winners of max"), {}
    ),
    Proposition("logits of a sum grow with k", logits, ("sum", "mean"), {"logits of sum": APART}),
    Proposition("proportions: out of a sum's reach", proportions, ("mean",), {"error growth of sum": 2.0}),
)


def measure(grounds: Sequence[Ground], log: RowLog, seed: int) -> list[Row]:
    """The largest deviation or the least distance of everything that a proposition speaks of."""
    jobs = []
    for ground in grounds:
        for number, proposition in enumerate(PROPOSITIONS, start=1):
            for dtype in DTYPES:
                work = {"data": ground.data, "readout": None, "seed": seed, "fold": None}
                work |= {"proposition": number, "dtype": dtype, "graphs": len(ground.graphs)}
                metrics = (*proposition.equal, *proposition.apart)
                jobs.append(Job([(work, metrics)], partial(check, number, ground, dtype, seed)))
    return carry_out(jobs, log, "propositions")


def check(number: int, ground: Ground, dtype: str, seed: int) -> list[Numbers]:
    """The numbers of one proposition."""
    return [PROPOSITIONS[number - 1].measure(ground, DTYPES[dtype], seed)]


def measured(rows: Sequence[Row], data: str, number: int, dtype: str) -> Numbers:
    """What was measured of a proposition."""
    wanted = {"data": data, "proposition": number, "dtype": dtype}
    return {row["metric"]: row["value"] for row in rows if wanted.items() <= row.items()}


def wrong(found: Mapping[str, Numbers], number: int) -> list[str]:
    """Which numbers of all precisions are not as the proposition says."""
    proposition = PROPOSITIONS[number - 1]
    failed = []
    for dtype, values in found.items():
        failed += [f"{name} in {dtype}" for name in proposition.equal if values[name] > TOLERANCES[dtype]]
        failed += [f"{name} in {dtype}" for name, least in proposition.apart.items() if values[name] < least]
    return failed


def judged(found: Mapping[str, Numbers], number: int) -> str:
    """Whether the numbers of all precisions are as the proposition says, or what is not."""
    if failed := wrong(found, number):
        return f"fails: {', '.join(failed)}"
    equal = PROPOSITIONS[number - 1].equal
    bits = all(values[name] == 0 for values in found.values() for name in equal)
    return "to the bit" if bits else "holds"


def tables(rows: Sequence[Row]) -> list[Table]:
    """One table a set: the worst of each proposition in each precision."""
    columns = ("", "proposition", *DTYPES, "same bits", "apart by", "verdict")
    title = "Propositions on {}: largest deviation"
    return [table(title.format(data), columns, lines(rows, data), 2) for data in present(rows, "data")]


def lines(rows: Sequence[Row], data: str) -> Iterator[list[str]]:
    """One line a proposition; same bits and least distance are those of the worse precision."""
    for number, proposition in enumerate(PROPOSITIONS, start=1):
        found = {dtype: measured(rows, data, number, dtype) for dtype in DTYPES}
        equal = proposition.equal
        bits = sum(all(values[name] == 0 for values in found.values()) for name in equal)
        apart = [values[name] for values in found.values() for name in proposition.apart]
        worst = [tiny(max(values[name] for name in equal)) for values in found.values()]
        least = f"{min(apart):.2g}" if apart else ""
        kept = f"{bits} of {len(equal)}"
        yield [str(number), proposition.words, *worst, kept, least, judged(found, number)]


def failures(rows: Sequence[Row], data: str) -> dict[int, list[str]]:
    """The propositions that fail on a set, and where."""
    found = {
        number: wrong({dtype: measured(rows, data, number, dtype) for dtype in DTYPES}, number)
        for number in range(1, len(PROPOSITIONS) + 1)
    }
    return {number: failed for number, failed in found.items() if failed}


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """All ten hold, on each set."""
    for data in present(rows, "data"):
        failed = failures(rows, data)
        against = "".join(f"; {number} fails: {', '.join(names)}" for number, names in failed.items())
        held = len(PROPOSITIONS) - len(failed)
        yield Finding(data, not failed, f"{held} of {len(PROPOSITIONS)} propositions hold{against}", "check")


def numbers(rows: Sequence[Row]) -> str:
    """How many hold."""
    kept = (len(PROPOSITIONS) - len(failures(rows, data)) for data in present(rows, "data"))
    return f"{span(kept, 'd')} of {len(PROPOSITIONS)}"


COLOURS = {"float32": figures.COLOURS["mean"], "float64": figures.COLOURS["sum"]}
ZERO = -19.0


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """One panel a set."""
    entries = {dtype: (colour, "-") for dtype, colour in COLOURS.items()} | {"tolerance": (figures.GREY, ":")}
    draws = [partial(draw, rows, data) for data in present(rows, "data")]
    return figures.draw(out, "propositions", draws, entries, width=7.2, height=3.2, columns=1)


def draw(rows: Sequence[Row], data: str, panel: Axes) -> None:
    """Propositions down, deviations across, and the tolerances as lines."""
    panel.axvspan(ZERO - 0.8, ZERO + 0.8, color=figures.PALE, alpha=0.5, linewidth=0)
    for dtype, offset in zip(DTYPES, (-0.18, 0.18), strict=True):
        colour = COLOURS[dtype]
        panel.axvline(exponent(TOLERANCES[dtype]), color=colour, linestyle=":", linewidth=1)
        for number, proposition in enumerate(PROPOSITIONS, start=1):
            found = measured(rows, data, number, dtype)
            places = [exponent(found[name]) for name in proposition.equal]
            heights = [number + offset] * len(places)
            panel.plot(places, heights, "o", color=colour, markersize=5, mew=0, zorder=3)
    panel.set_yticks(
        range(1, len(PROPOSITIONS) + 1), [f"{p.words}  {n}" for n, p in enumerate(PROPOSITIONS, start=1)]
    )
    panel.set_ylim(len(PROPOSITIONS) + 0.6, 0.4)
    panel.set_xticks([ZERO, *range(-16, 0, 4)], ["0", *(f"$10^{{{e}}}$" for e in range(-16, 0, 4))])
    panel.set(title=data, xlim=(ZERO - 0.8, -3), xlabel="relative deviation")
    panel.grid(axis="y", color=figures.PALE, linewidth=0.5)
    panel.tick_params(axis="y", length=0, labelsize=8.5)


def exponent(value: float) -> float:
    """The place of a deviation on the axis."""
    return min(max(log10(value), -17.5), -3.2) if value else ZERO


EXPERIMENT = Experiment(
    name="propositions",
    title="Propositions",
    question="Do ten propositions about readouts hold numerically, in float32 and float64?",
    claim="Ten propositions about readouts hold in numbers, in float32 and in float64",
    theory="""What theory says of sums, means and maxima of node states holds of real graphs, of their copies
    and covers, with random weights, up to rounding and often to the bit: ten checks.""",
    setup="""Each proposition says of some numbers that they are equal (the largest relative deviation is
    shown, at most 10⁻⁵ in float32 and 10⁻¹² in float64), and of others that they are apart (the least
    distance is shown, at least 10⁻⁴; for the tenth how many times the error grows, at least twice).""",
    source="""[Xu et al. 2019](https://arxiv.org/abs/1810.00826), [Bamberger
    2022](https://arxiv.org/abs/2206.11876), [Corso et al. 2020](https://arxiv.org/abs/2004.05718), [Wagstaff
    et al. 2019](https://arxiv.org/abs/1901.09006).""",
    caveats=(
        "A number is no proof: it shows that theory and program agree where both were asked.",
        "Two dozen graphs of each set, drawn with a seed, and all pairs of the set that a mean confuses.",
    ),
    alt="""The relative deviations of each of the ten propositions on a logarithmic axis, with a column of
    their own for those that are exactly zero.""",
    caption="""Relative deviations; in the grey column they are exactly 0, the dotted lines are the
    tolerances.""",
    prepare=choose,
    measure=measure,
    parallel=True,
    tables=tables,
    findings=findings,
    numbers=numbers,
    figure=figure,
)
