"""Measure the grid: check the results of all contenders of a case, then time those that are right in turns.

All contenders of a case run on the same data in one process. One whose output or gradient is wrong is
reported and not timed. One call is `out = f(x)`, and with the gradient `torch.autograd.backward(out, g)` for
a fixed g after `x.grad = None`: the same work for everybody.

A row of a contender holds the median in seconds as its value, and p20, p80, repeats (calls a sample) and
samples beside it. Everything that a time depends on is a field of its row: a rerun measures only what is
missing.
"""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib import metadata, util
from pathlib import Path

import torch
from torch import Tensor

from experiments.console import tracked
from experiments.records import Row, RowLog, identity
from experiments.speed.baselines import baselines
from experiments.speed.cases import FORWARD, GRAPHED, Batch, Case, bytes_moved, make_batch
from experiments.speed.check import Check, Deviation, check_shuffle, make_check, worst
from experiments.speed.implementations import OF_US, Builder, contenders
from experiments.speed.oracle import Truth
from experiments.speed.timing import Samples, Thunk, captured, cuda_events, interleave, wall

RIGHT, SECONDS, REFUSED, CLOSED = "right", "seconds", "refused", "contenders"
OF_A_CONTENDER = ("contender", "verdict", "metric", "bytes", "p20", "p80", "repeats", "samples", "value")
ROOM = 10  # copies of x in float32 that a case may need at once


@dataclass(frozen=True)
class Settings:
    """What a time depends on besides the case."""

    device: str
    seed: int
    quick: bool
    threads: int

    @property
    def share(self) -> float:
        """Seconds for each contender of a case."""
        return 0.03 if self.quick else 0.1

    @property
    def work(self) -> dict[str, object]:
        """The fields of a result row."""
        return {
            "seed": self.seed,
            "fold": None,
            "quick": self.quick,
            "threads": self.threads,
            "machine": machine(self.device),
            "libraries": libraries(),
        }


def machine(device: str) -> str:
    """The processor and its cores, or the GPU."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def libraries() -> dict[str, str]:
    """Versions of other packages that take part, where they are installed."""
    names = ("triton", "torch_scatter", "pyg_lib")
    return {name: metadata.version(name) for name in names if util.find_spec(name)}


@dataclass
class Problem:
    """The data of some cases, and what is right."""

    batch: Batch
    truth: Truth = field(init=False)

    def __post_init__(self) -> None:
        """Prepare the oracle, which computes nothing before it is asked."""
        self.truth = Truth(self.batch)


def make_case(data: Case, seed: int, device: str) -> Problem:
    """Make the data that all cases of a shape, dtype, kind and layout share."""
    return Problem(make_batch(data, seed, device))


def measure(cases: Sequence[Case], log: RowLog, settings: Settings) -> list[Row]:
    """Measure the cases that have no rows yet, and return the rows of all.

    The row that closes a case is written last: after an interruption, the case is measured again.
    """
    torch.set_num_threads(settings.threads)
    work = settings.work
    prepared = lru_cache(maxsize=1)(partial(make_case, seed=settings.seed, device=settings.device))

    def compute(case: Case) -> dict[str, int]:
        data = Case(case.shape, FORWARD, dtype=case.dtype, kind=case.kind, layout=case.layout)
        return {CLOSED: record(case, prepared(data), log, settings, work)}

    closed = []
    for case in tracked([case for case in cases if fits(case, settings.device)], "timing"):
        closed += log.measure(case.work | work, (CLOSED,), partial(compute, case))
    wanted = {case_of(row) for row in closed}
    rows = {
        identity({**row, **dict.fromkeys(OF_A_CONTENDER, 0), "contender": row["contender"]}): row
        for row in log.rows
        if "contender" in row and case_of(row) in wanted
    }
    return list(rows.values())


def case_of(row: Row) -> str:
    """The fields that all rows of a case share."""
    return identity({key: value for key, value in row.items() if key not in OF_A_CONTENDER})


def fits(case: Case, device: str) -> bool:
    """Return whether memory suffices for the data, their copies and the oracle's."""
    needed = ROOM * 4 * case.shape.nodes * case.shape.features
    meminfo = Path("/proc/meminfo")
    if device == "cuda":
        return needed < torch.cuda.mem_get_info()[0]
    if not meminfo.exists():
        return True
    sizes = dict(line.split(":") for line in meminfo.read_text().splitlines())
    return needed < 1024 * int(sizes["MemAvailable"].split()[0])


def too_large(cases: Sequence[Case], device: str) -> list[str]:
    """Name the shapes that memory does not suffice for."""
    return list(dict.fromkeys(case.shape.name for case in cases if not fits(case, device)))


@dataclass(frozen=True)
class Entry:
    """Something to be timed, and the bytes that it moves."""

    call: Thunk
    size: int


@dataclass(frozen=True)
class Refusal:
    """Why a contender is not timed; a deviation of 0 stands for an exception."""

    verdict: str
    deviation: float = 0.0


def record(case: Case, problem: Problem, log: RowLog, settings: Settings, work: Mapping[str, object]) -> int:
    """Check all contenders of a case, time those that are right, write their rows; return how many."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # parts of PyTorch call themselves beta
        admitted, refused = validate(case, problem, settings.seed)
        beside = {name: Entry(*one) for name, one in baselines(case, problem.batch.x).items()}
        entries = {name: prepare(entry, case) for name, entry in (admitted | beside).items()}
        clock = cuda_events if settings.device == "cuda" else wall
        calls = {name: entry.call for name, entry in entries.items()}
        samples = interleave(calls, settings.share, clock)

    def write(metric: str, value: float, fields: Mapping[str, object]) -> None:
        log.measure({**case.work, **work, **fields}, (metric,), lambda: {metric: value})

    for name, entry in entries.items():
        fields = {"contender": name, "verdict": RIGHT, "bytes": entry.size}
        write(SECONDS, samples[name].quantile(0.5), fields | spread(samples[name]))
    for name, refusal in refused.items():
        fields = {"contender": name, "verdict": refusal.verdict, "bytes": bytes_moved(case)}
        write(REFUSED, refusal.deviation, fields)
    return len(entries) + len(refused)


def prepare(entry: Entry, case: Case) -> Entry:
    """The call as it is timed: as it is, or as a CUDA graph."""
    return Entry(captured(entry.call), entry.size) if case.timing == GRAPHED else entry


def spread(sample: Samples) -> dict[str, float]:
    """What a row says of its samples besides their median."""
    return {
        "p20": sample.quantile(0.2),
        "p80": sample.quantile(0.8),
        "repeats": sample.repeats,
        "samples": len(sample.seconds),
    }


def validate(case: Case, problem: Problem, seed: int) -> tuple[dict[str, Entry], dict[str, Refusal]]:
    """Run every contender once: those that are right may be timed, those that are wrong or raise may not."""
    gradient = gradient_of_outputs(case, problem.batch, seed)
    check = make_check(problem.truth, case.reduce, gradient)
    admitted: dict[str, Entry] = {}
    refused: dict[str, Refusal] = {}
    for name, builder in contenders(problem.batch, case.reduce).items():
        try:
            found = check_one(name, builder, case, problem.batch, gradient, check)
            if found.right:
                call = timed_call(builder, problem.batch, case.reduce, gradient)
                admitted[name] = Entry(call, bytes_moved(case))
            else:
                refused[name] = Refusal(f"wrong: {found.what}", found.size)
        except Exception as error:  # whatever another package throws is its result
            refused[name] = Refusal(f"failed: {sentence(error)}")
    return admitted, refused


def check_one(
    name: str, builder: Builder, case: Case, batch: Batch, gradient: Tensor | None, check: Check
) -> Deviation:
    """Compare one contender with the oracle, and ours with itself on shuffled nodes.

    Attention has a matrix product in it, whose last bits may depend on the place of a row.
    """
    out, slope = run_once(builder, case.reduce, batch, gradient)
    found = check(out, slope, name in OF_US)
    if found.right and name in OF_US and "attention" not in case.reduce:
        run = partial(run_once, builder, case.reduce)
        found = worst(found, check_shuffle(run, batch, gradient, out, slope))
    return found


def gradient_of_outputs(case: Case, batch: Batch, seed: int) -> Tensor | None:
    """Random numbers for a backward pass to start from; None if there is no backward pass."""
    if case.direction == FORWARD:
        return None
    shape = (batch.size, len(case.reduce) * batch.x.shape[1])
    generator = torch.Generator(batch.x.device).manual_seed(seed + 1)
    return torch.randn(shape, dtype=batch.x.dtype, device=batch.x.device, generator=generator)


def run_once(
    builder: Builder, reduce: Sequence[str], batch: Batch, gradient: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The output and, if there is a gradient of the outputs, the gradient of the features."""
    x = batch.x.detach().requires_grad_(gradient is not None)
    out = builder(batch, reduce)(x)
    if gradient is None:
        return out, None
    torch.autograd.backward(out, gradient)
    return out.detach(), x.grad


def timed_call(builder: Builder, batch: Batch, reduce: Sequence[str], gradient: Tensor | None) -> Thunk:
    """A call without arguments, forward alone or with backward."""
    x = batch.x.detach()
    contender = builder(batch, reduce)
    if gradient is None:
        return lambda: contender(x)
    x.requires_grad_()
    backward = torch.autograd.backward

    def both() -> None:
        x.grad = None
        backward(contender(x), gradient)

    return both


def sentence(error: Exception) -> str:
    """The first line of a message, not too long."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}".rstrip(": ")
