"""How fast are readouts, and what else could one take?

Claim: exact, order-independent readouts run at the speed of memory. All contenders of a case take turns on
the same data, in one process. The result of each is checked before it is timed, values and gradient; one that
is wrong is reported and not timed.

The yardstick of a forward pass is a plain read, `x.sum()`; that of forward and backward are the reads that
are needed and one write. The write goes to *fresh* memory, as a gradient does: the operating system has to
find and clear its pages, which takes longer than the write itself. Beside it stands the same with a write to
*warm* memory, which nobody who returns a new tensor can have.

Everything that a time depends on is a field of its row: a rerun measures only what is missing.
"""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib import metadata, util
from pathlib import Path

import torch

from experiments.console import tracked
from experiments.rows import OUTCOME, Row, RowLog, identity, read_rows
from experiments.speed.contenders import FRESH, PYG, READ, WARM
from experiments.speed.memory import CONTENDERS, can_measure, peak
from experiments.speed.problems import Problem, admit, pose, yardsticks
from experiments.speed.shapes import TRIPLE, Case, bytes_moved
from experiments.speed.timing import Samples, cuda_events, interleave, wall

RIGHT, PEAK = "right", "peak bytes beyond x"
OF_A_CONTENDER = ("contender", "verdict", "metric", "bytes", *OUTCOME)


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
        return 0.05 if self.quick else 0.25

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
    names = ("numba", "triton", "torch_scatter", "pyg_lib")
    return {name: metadata.version(name) for name in names if util.find_spec(name)}


def measure(cases: Sequence[Case], log: RowLog, settings: Settings) -> list[Row]:
    """Measure the cases that have no rows yet, and return the rows of all.

    The row that closes a case is written last: after a kill, the case is measured again.
    """
    torch.set_num_threads(settings.threads)
    work = settings.work
    prepared = lru_cache(maxsize=1)(partial(pose, seed=settings.seed, device=settings.device))

    def compute(case: Case) -> dict[str, int]:
        problem = prepared(replace(case, direction="forward", reduce=TRIPLE, timing="eager"))
        return {"contenders": record(case, problem, log, settings, work)}

    closed = []
    for case in tracked(cases, "timing"):
        closed += log.measure(case.work | work, ("contenders",), partial(compute, case))
    wanted = {case_of(row) for row in closed}
    return [row for row in read_rows(log.path) if "contender" in row and case_of(row) in wanted]


def case_of(row: Row) -> str:
    """The fields that all rows of a case share."""
    return identity({key: value for key, value in row.items() if key not in OF_A_CONTENDER})


def record(case: Case, problem: Problem, log: RowLog, settings: Settings, work: Mapping[str, object]) -> int:
    """Check all contenders of a case, time those that are right, write their rows; return how many."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # parts of PyTorch call themselves beta
        admitted, refused = admit(case, problem, settings.quick, settings.seed)
        entries = admitted | yardsticks(case, problem)
        clock = cuda_events if settings.device == "cuda" else wall
        calls = {name: entry.call for name, entry in entries.items()}
        samples = interleave(calls, settings.share, clock)

    def write(name: str, verdict: str, size: int, values: Mapping[str, float]) -> None:
        fields = {"contender": name, "verdict": verdict, "bytes": size}
        log.measure({**case.work, **work, **fields}, values, lambda: values)

    for name, entry in entries.items():
        write(name, RIGHT, entry.size, numbers(samples[name], entry.size, samples))
    for name, refusal in refused.items():
        write(name, refusal.verdict, bytes_moved(case), refusal.values)
    return len(entries) + len(refused)


def numbers(sample: Samples, size: int, samples: Mapping[str, Samples]) -> dict[str, float]:
    """The values of a contender: times, bandwidth, and ratios to others of the same case."""
    seconds = sample.quantile(0.5)
    values = {"seconds": seconds, "p20": sample.quantile(0.2), "p80": sample.quantile(0.8)}
    values |= {"samples": len(sample.seconds), "GB/s": size / seconds / 1e9}
    bases = {READ: "times plain read", FRESH: "times fresh write", WARM: "times warm write", PYG: "times PyG"}
    return values | {
        metric: seconds / samples[base].quantile(0.5) for base, metric in bases.items() if base in samples
    }


def measure_memory(cases: Sequence[Case], log: RowLog, settings: Settings) -> list[Row]:
    """The most memory that forward and backward need beyond the features."""
    if not can_measure(settings.device):
        return []
    entries = [(case, name) for case in cases for name in CONTENDERS]
    rows = []
    for case, name in tracked(entries, "peak memory"):
        work = case.work | settings.work | {"contender": name, "verdict": RIGHT}
        used = partial(peak, case.shape.name, name, settings.device, settings.threads)
        rows += log.measure(work, (PEAK,), lambda used=used: {PEAK: used()})  # type: ignore[misc]
    return rows
