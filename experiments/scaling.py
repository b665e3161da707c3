"""What it costs to read out graphs whose nodes are spread over processes, measured and computed."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist
from matplotlib.ticker import NullFormatter
from torch import Tensor
from torch.multiprocessing.spawn import spawn

import readouts
from experiments import figures
from experiments.console import Table, table
from experiments.experiment import Experiment, Finding
from experiments.experiment import span as ends
from experiments.jobs import Job, carry_out
from experiments.options import flag
from experiments.records import Row, RowLog, pick
from experiments.speed.timing import peak_beyond
from readouts import distributed
from readouts.numerics import superaccumulator
from readouts.ops.superaccumulator import sums

PROCESSES = (1, 2, 4)
LINES = {
    "sum": figures.COLOURS["sum"],
    "max": figures.COLOURS["max"],
    "sum+mean+max": figures.INK,
    "std": figures.COLOURS["mean"],
    "median": figures.GREY,
}
READOUTS = tuple(LINES)
METRICS = ("seconds", "messages", "bytes counted", "bytes computed", "memory", "same bits")
NODES, GRAPHS, FEATURES = 1_000_000, 1000, 16
QUICK_NODES = 100_000
REPEATS = 5
WORD = 8  # bytes of an integer in a message
BISECTIONS = 16  # at most, two bits each
HEAD, SPAN = 5, 3  # integers: what ranks agree on before a call, and before a sum
PAPER = ((8, 10**9, 10**5), (128, 10**11, 10**6), (1024, 10**12, 10**6))  # ranks, nodes, graphs
WIDTH = 64  # features on paper
PAPER_READOUTS = ("sum", "max", "std", "median")
PAPER_WORDS, PAPER_SQUARE_WORDS = 4, 6  # of sums of float32 numbers and of squares, from eight decades


def measure(tasks: Sequence[object], log: RowLog, seed: int, quick: bool) -> list[Row]:
    """One run for each number of processes and each readout; there are no data sets."""
    nodes, jobs = QUICK_NODES if quick else NODES, []
    for processes in PROCESSES:
        for readout in READOUTS:
            work = {"data": f"{nodes} nodes", "readout": readout, "seed": seed, "fold": None}
            work |= {"processes": processes, "graphs": GRAPHS, "features": FEATURES}
            jobs.append(Job([(work, METRICS)], partial(run, processes, readout, seed, nodes)))
    return carry_out(jobs, log, "running processes")


def run(processes: int, readout: str, seed: int, nodes: int) -> list[dict[str, float]]:
    """Start the processes, wait for them, and put together what they found."""
    with tempfile.TemporaryDirectory() as folder:
        finish(processes, readout, seed, nodes, folder)
        found = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(processes)]
    limbs = [span([f["windows"][power] for f in found]) for power in (0, 1)]
    computed = sum(WORD * size for size in messages(readout, GRAPHS, FEATURES, *limbs))
    seconds, memory = (max(f[name] for f in found) for name in ("seconds", "memory"))
    same, sizes = float(all(f["same"] for f in found)), found[0]["sizes"]
    return [dict(zip(METRICS, (seconds, len(sizes), sum(sizes), computed, memory, same), strict=True))]


def finish(processes: int, *arguments: Any) -> None:
    """Do the work in processes that leave Ctrl-C to this one, which then ends them.

    Processes inherit that a signal is blocked; here it waits until all of them have started.
    """
    ensure_running()  # of multiprocessing, which would unblock the signal when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        started = spawn(work, (processes, *arguments), processes, join=False)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            while not started.join():
                pass
        except KeyboardInterrupt:
            for process in started.processes:
                process.terminate()
            raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def work(rank: int, processes: int, readout: str, seed: int, nodes: int, folder: str) -> None:
    """What one process does: measure a readout of its nodes, and write down what it found."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", store, timedelta(minutes=5), processes, rank)
    x, index = features(seed, nodes)
    mine, graphs = x[rank::processes].clone().requires_grad_(), index[rank::processes].clone()
    names = tuple(readout.split("+"))
    call = partial(step, partial(distributed.readout, reduce=names, size=GRAPHS), mine, graphs)
    step(partial(distributed.readout, reduce=names, size=GRAPHS), mine[:9], graphs[:9])  # loads the kernels
    memory = peak_beyond(call, "cpu")
    sizes, (out, gradient) = counted(call)
    expected, wanted = step(partial(readouts.readout, reduce=names, size=GRAPHS), x.requires_grad_(), index)
    result = {
        "sizes": sizes,
        "memory": memory,
        "same": same(out, expected) and same(gradient, wanted[rank::processes]),
        "windows": windows(mine.detach(), graphs),
        "seconds": median(timed(call) for _ in range(REPEATS)),
    }
    torch.save(result, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def features(seed: int, nodes: int) -> tuple[Tensor, Tensor]:
    """Random features, float32 [N, F], and the graph of every node; all graphs have the same size."""
    x = torch.randn(nodes, FEATURES, generator=torch.Generator().manual_seed(seed))
    return x, torch.arange(nodes) * GRAPHS // nodes


def step(readout: Callable[..., Tensor], x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Forward and backward: the result and the gradient of its sum."""
    out = readout(x, index)
    return out.detach(), torch.autograd.grad(out.sum(), x)[0]


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two float32 tensors have the same bits."""
    return one.view(torch.int32).equal(other.view(torch.int32))


def counted(call: Callable[[], Any]) -> tuple[list[int], Any]:
    """The bytes of every message of a call, and what it returns."""
    sizes: list[int] = []
    original = dist.all_reduce

    def counting(message: Tensor, *arguments: Any) -> Any:
        sizes.append(message.nbytes)
        return original(message, *arguments)

    with patch.object(dist, "all_reduce", counting):
        return sizes, call()


def timed(call: Callable[[], Any]) -> float:
    """Seconds from when all processes are there."""
    dist.barrier()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def windows(x: Tensor, index: Tensor) -> list[tuple[int, int]]:
    """Which limbs the exact sums over this process have, those of x and those of squared deviations."""
    mean = distributed.readout(x.double(), index, "mean", size=GRAPHS)
    squares = (x.double() - mean[index]).square()
    return [superaccumulator.window(sums(values, index, GRAPHS)) for values in (x, squares)]


def span(windows: Sequence[tuple[int, int]]) -> int:
    """How many limbs hold all windows."""
    return max(high for _, high in windows) - min(low for low, _ in windows)


def messages(readout: str, graphs: int, features: int, limbs: int, square_limbs: int) -> Iterator[int]:
    """The integers in every message of a readout of float32 features, forward; backward has none."""
    names, cells = set(readout.split("+")), graphs * features
    yield from (HEAD, graphs)  # the calls are compared, the nodes counted
    if "max" in names:
        yield from (cells, cells)  # keys and ties
    if names & {"sum", "mean", "std"}:
        yield from (SPAN, limbs * cells)
    if "std" in names:
        yield from (SPAN, square_limbs * cells)
    if "median" in names:
        yield from (2 * cells, *[3 * 2 * cells] * BISECTIONS, 2 * cells)  # ends, pivots of two ranks, ties


def value(rows: Sequence[Row], readout: str, processes: int, metric: str) -> float:
    """The value of one metric."""
    found: float = pick(rows, readout=readout, processes=processes, metric=metric)
    return found


def tables(rows: Sequence[Row]) -> list[Table]:
    """What was measured, and apart from it what is computed."""
    columns = ("readout", "processes", "ms", "messages", "kB counted", "kB computed", "peak MB", "same bits")
    measured = f"Measured: forward and backward of {rows[0]['data']}, {GRAPHS} graphs, {FEATURES} features"
    on_paper = f"Computed, not measured: {WIDTH} features, float32, sums of {PAPER_WORDS} limbs"
    paper = ("ranks", "nodes", "graphs", "features a rank [GB]", *(f"{name} [GB]" for name in PAPER_READOUTS))
    return [table(measured, columns, table_lines(rows)), table(on_paper, paper, paper_lines(), 0)]


def table_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """A line for each readout and number of processes; a rule after each readout."""
    for readout in READOUTS:
        for processes in PROCESSES:
            found = (value(rows, readout, processes, metric) for metric in METRICS)
            seconds, sent, *sizes, memory, same = found
            shown = [f"{1000 * seconds:.1f}", f"{sent:.0f}", *(f"{size / 1000:.1f}" for size in sizes)]
            yield [readout, f"{processes}", *shown, f"{memory / 1e6:.0f}", "yes" if same else "NO"]
        yield []


def paper_lines() -> Iterator[list[str]]:
    """A line for each number of ranks: what a rank holds, and what it sends in a ring for each readout."""
    for ranks, nodes, graphs in PAPER:
        held = f"{4 * WIDTH * nodes / ranks / 1e9:.0f}"
        sent = (f"{ring_bytes(name, ranks, graphs) / 1e9:.1f}" for name in PAPER_READOUTS)
        yield [f"{ranks}", f"{nodes:.0e}", f"{graphs:.0e}", held, *sent]


def ring_bytes(readout: str, ranks: int, graphs: int) -> float:
    """Bytes that a rank sends if every message goes around a ring: its size twice, but for its own share."""
    payload = WORD * sum(messages(readout, graphs, WIDTH, PAPER_WORDS, PAPER_SQUARE_WORDS))
    return 2 * (ranks - 1) / ranks * payload


def sent(rows: Sequence[Row], readout: str, metric: str = "bytes counted") -> list[float]:
    """Bytes that each process sends, for every number of processes."""
    return [value(rows, readout, processes, metric) for processes in PROCESSES]


def findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """The bits of one process on any number of them, and messages that do not grow with them."""
    exact = all(row["value"] for row in rows if row["metric"] == "same bits")
    said = f"outputs and gradients {'have' if exact else 'do NOT have'} the bits of one process"
    yield Finding("bits", exact, said, "check")
    sizes, most = ([sent(rows, name, f"bytes {how}") for name in READOUTS] for how in ("counted", "computed"))
    level = all(len(set(of_readout)) == 1 for of_readout in sizes)
    in_all = [sum(of_processes) for of_processes in zip(*sizes, strict=True)]
    computed = not np.greater(sizes, most).any()
    grown = f"messages of {PROCESSES[-1]} processes are {in_all[-1] / in_all[0]:.2f} times as large as of one"
    said = f"{grown}; {'none is' if computed else 'SOME ARE'} larger than computed"
    yield Finding("messages", level, said, "check")


def numbers(rows: Sequence[Row]) -> str:
    """What each process sends."""
    told = ", ".join(f"{name} {ends((size / 1000 for size in sent(rows, name)), '.0f')}" for name in READOUTS)
    return f"kB sent by each process: {told}"


def figure(rows: Sequence[Row], out: Path) -> list[Path]:
    """Seconds and bytes against the number of processes, a line for each readout."""
    drawing, panels = figures.panels(2, width=3.2)
    kinds = ("seconds", "ms", 1000), ("bytes counted", "kB", 1 / 1000)
    for panel, (metric, unit, scale) in zip(panels, kinds, strict=True):
        for readout, colour in LINES.items():
            values = [scale * size for size in sent(rows, readout, metric)]
            panel.plot(PROCESSES, values, color=colour, marker="o", markersize=4)
        panel.set(xscale="log", yscale="log", xlabel="processes")
        panel.set_title(f"{metric.split()[0]} of forward and backward [{unit}]", fontsize=9)
        panel.set_xticks(PROCESSES, [f"{processes}" for processes in PROCESSES])
        panel.xaxis.set_minor_formatter(NullFormatter())
    figures.legend(drawing, {readout: (colour, "-") for readout, colour in LINES.items()})
    return figures.save(drawing, out, "scaling")


EXPERIMENT = Experiment(
    name="scaling",
    title="Many processes",
    question="What does distributing nodes over processes cost?",
    claim="Nodes spread over processes give the bits of one, and messages do not grow with nodes",
    theory="""Exact sums merge in any order, so a readout need not see its graph in one piece: outputs and
    gradients have the bits of one process however the nodes are dealt out, and what is sent grows with graphs
    and features, never with nodes. Both are checks of the implementation.""",
    setup="""The nodes of every graph are dealt out in turns to 1, 2 and 4 processes of one thread each on one
    machine. Each readout runs forward and backward in fresh processes: seconds, bytes of its messages
    (counted around every `all_reduce`, and computed from sizes), memory beyond the features.""",
    source="""Sums in fixed point: Kulisch and Miranker, *Computer arithmetic in theory and practice*, 1981.
    How it is done: `docs/scaling.md`.""",
    caveats=(
        """More processes than cores, and memory that they share: seconds on one machine say little about a
        cluster.""",
        "The table for many ranks is computed from sizes, not measured.",
    ),
    alt="""Seconds and bytes of messages of each readout over the number of processes; the bytes are level
    lines.""",
    caption="Time and messages of forward and backward over the number of processes.",
    measure=measure,
    tables=tables,
    findings=findings,
    numbers=numbers,
    figure=figure,
    options={"quick": flag("A tenth of the nodes.", "quick")},
    data=None,
    on_device=False,
    in_all=False,
    one_thread=False,
)
