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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import metadata, util

import torch
from torch import Tensor

from experiments.console import tracked
from experiments.records import Row, RowLog, identity
from experiments.speed.batches import Batch, make_batch
from experiments.speed.check import Deviation, check_shuffle, make_check
from experiments.speed.grid import FORWARD, GRAPHED, Case
from experiments.speed.implementations import OF_US, Builder, baselines, contenders
from experiments.speed.oracle import Truth
from experiments.speed.timing import Thunk, captured, cuda_events, field_of, interleave, wall

RIGHT, SECONDS, REFUSED, CLOSED = "right", "seconds", "refused", "contenders"
SPREAD = ("p20", "p80", "repeats", "samples")
OF_A_CONTENDER = ("contender", "verdict", "metric", "bytes", *SPREAD, "value")
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
        packages = [name for name in ("triton", "torch_scatter", "pyg_lib") if util.find_spec(name)]
        return {
            "seed": self.seed,
            "fold": None,
            "quick": self.quick,
            "threads": self.threads,
            "machine": machine(self.device),
            "libraries": {name: metadata.version(name) for name in packages},
        }


def machine(device: str) -> str:
    """The processor and its cores, or the GPU."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    names = field_of("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()
    return f"{names}, {os.cpu_count()} cores"


def measure(cases: Sequence[Case], log: RowLog, settings: Settings) -> list[Row]:
    """Measure the cases that have no rows yet, and return the rows of all.

    The row that closes a case is written last: after an interruption, the case is measured again.
    """
    torch.set_num_threads(settings.threads)
    work = settings.work
    prepared = lru_cache(maxsize=1)(lambda data: Truth(make_batch(data, settings.seed, settings.device)))
    closed = []
    for case in tracked([case for case in cases if fits(case, settings.device)], "timing"):
        compute = partial(record, case, prepared, log, settings, case.work | work)
        closed += log.measure(case.work | work, (CLOSED,), compute)
    wanted = {case_of(row) for row in closed}
    of_contenders = [(case_of(row), row) for row in log.rows if "contender" in row]
    return list({(case, row["contender"]): row for case, row in of_contenders if case in wanted}.values())


def case_of(row: Row) -> str:
    """The fields that all rows of a case share."""
    return identity({key: value for key, value in row.items() if key not in OF_A_CONTENDER})


def fits(case: Case, device: str) -> bool:
    """Return whether memory suffices for the data, their copies and the oracle's."""
    needed = ROOM * 4 * case.numbers
    if device == "cuda":
        return needed < torch.cuda.mem_get_info()[0]
    available = field_of("/proc/meminfo", "MemAvailable")
    return not available or needed < 1024 * int(available)


def too_large(cases: Sequence[Case], device: str) -> list[str]:
    """Name the shapes that memory does not suffice for."""
    return list(dict.fromkeys(case.shape.name for case in cases if not fits(case, device)))


def record(
    case: Case, prepared: Callable[[Case], Truth], log: RowLog, settings: Settings, work: Row
) -> dict[str, int]:
    """Check all contenders of a case, time those that are right, write their rows; return how many."""
    truth = prepared(case.data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # parts of PyTorch call themselves beta
        calls, refused = validate(case, truth, settings.seed)
        calls |= baselines(case, truth.batch.x)
        if case.timing == GRAPHED:
            calls = {name: captured(call) for name, call in calls.items()}
        samples = interleave(calls, settings.share, cuda_events if settings.device == "cuda" else wall)
    for name, sample in samples.items():
        fields = {"contender": name, "verdict": RIGHT, **sample.spread}
        log.measure(work | fields, (SECONDS,), partial(dict, {SECONDS: sample.quantile(0.5)}))
    for name, (deviation, verdict) in refused.items():
        fields = {"contender": name, "verdict": verdict}
        log.measure(work | fields, (REFUSED,), partial(dict, {REFUSED: deviation}))
    return {CLOSED: len(calls) + len(refused)}


def validate(case: Case, truth: Truth, seed: int) -> tuple[dict[str, Thunk], dict[str, Deviation]]:
    """Run every contender once: those that are right may be timed, those that are wrong or raise may not.

    Ours are run on shuffled nodes, too, but not attention: it has a matrix product in it, whose last bits may
    depend on the place of a row. A deviation of 0 stands for an exception.
    """
    batch = truth.batch
    gradient = gradient_of_outputs(case, batch, seed)
    check = make_check(truth, case.reduce, gradient)
    admitted: dict[str, Thunk] = {}
    refused: dict[str, Deviation] = {}
    for name, builder in contenders(batch, case.reduce).items():
        run = partial(run_once, builder, case.reduce)
        try:
            found = check(*run(batch, gradient), name in OF_US)
            if found.right and name in OF_US and "attention" not in case.reduce:
                found = check_shuffle(run, batch, gradient)
            if found.right:
                admitted[name] = timed_call(builder, batch, case.reduce, gradient)
            else:
                refused[name] = Deviation(found.size, f"wrong: {found.what}")
        except Exception as error:  # whatever another package throws is its result
            first = (str(error).strip().splitlines() or [""])[0]
            refused[name] = Deviation(0, f"failed: {type(error).__name__}: {first[:160]}".rstrip(": "))
    return admitted, refused


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
    if gradient is not None:
        torch.autograd.backward(out, gradient)
    return out.detach(), x.grad


def timed_call(builder: Builder, batch: Batch, reduce: Sequence[str], gradient: Tensor | None) -> Thunk:
    """A call without arguments, forward alone or with backward."""
    x = batch.x.detach().requires_grad_(gradient is not None)
    contender, backward = builder(batch, reduce), torch.autograd.backward
    if gradient is None:
        return lambda: contender(x)

    def both() -> None:
        x.grad = None
        backward(contender(x), gradient)

    return both
