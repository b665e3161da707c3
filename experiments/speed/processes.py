"""What only a fresh process can tell: how long the first call takes, and how much memory one needs at most.

`import readouts` is timed after that of PyTorch, and then the first call, on a tiny batch. The operating
system's number for memory, the largest so far, only grows; kernels are loaded by a call on a tiny batch
before.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from itertools import product
from statistics import median

import torch

from experiments.console import tracked
from experiments.records import ROOT, Row, RowLog
from experiments.speed.batches import make_batch
from experiments.speed.grid import BACKWARD, FORWARD, SMALL, TRIPLE, Case, even
from experiments.speed.implementations import IMPLEMENTATIONS, OURS, PYG
from experiments.speed.measure import RIGHT, Settings
from experiments.speed.timing import field_of, peak_beyond

STARTS = IMPORT, FIRST = "import", "first call"
PEAK = "peak bytes beyond x"
PROCESSES = 3
PROGRAM = f"""
import json, time, torch
x, index = torch.randn(144, 16), torch.arange(8).repeat_interleave(18)
start = time.perf_counter()
import readouts
imported = time.perf_counter()
readouts.readout(x, index, {TRIPLE!r}, size=8)
print(json.dumps({{"{IMPORT}": imported - start, "{FIRST}": time.perf_counter() - imported}}))
"""


def answer(*arguments: str) -> str:
    """What a fresh process of Python prints."""
    command = [sys.executable, *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"measuring in a fresh process failed: {run.stderr.strip()[-500:]}")
    return run.stdout


def measure_starts(log: RowLog, settings: Settings) -> list[Row]:
    """Seconds of the import and of the first call, medians of some processes."""

    def compute() -> dict[str, float]:
        runs = [json.loads(answer("-c", PROGRAM)) for _ in tracked(range(PROCESSES), "starting processes")]
        return {metric: median(run[metric] for run in runs) for metric in STARTS}

    work = Case(even(SMALL[0]), FORWARD).work | settings.work | {"contender": OURS, "verdict": RIGHT}
    return log.measure(work | {"program": PROGRAM}, STARTS, compute)


def measure_memory(shapes: Sequence[str], log: RowLog, settings: Settings) -> list[Row]:
    """The most memory that forward and backward of sum, mean and max need beyond the features."""
    rows: list[Row] = []
    if not (settings.device == "cuda" or field_of("/proc/self/status", "VmHWM")):
        return rows
    for shape, name in tracked(list(product(shapes, (OURS, PYG))), "peak memory"):
        work = Case(even(shape), BACKWARD).work | settings.work | {"contender": name, "verdict": RIGHT}
        rows += log.measure(work, (PEAK,), partial(peak, shape, name, settings.device, settings.threads))
    return rows


def peak(shape: str, contender: str, device: str, threads: int) -> dict[str, int]:
    """Bytes beyond the features that forward and backward of sum, mean and max need at most."""
    printed = answer("-m", "experiments.speed.processes", shape, contender, device, str(threads))
    return {PEAK: int(printed.split()[-1])}


def main(shape: str, contender: str, device: str, threads: str) -> None:
    """Run it once on a tiny batch, once on the real one, and print the difference."""
    torch.set_num_threads(int(threads))
    for name in ("4x5x6", shape):
        batch = make_batch(Case(even(name), BACKWARD), 0, device)
        x = batch.x.requires_grad_()
        call = IMPLEMENTATIONS[contender].build(batch, TRIPLE)
        gradient = torch.ones(batch.size, len(TRIPLE) * x.shape[1], device=device)
        used = peak_beyond(lambda: torch.autograd.backward(call(x), gradient), device)  # noqa: B023
    print(used)


if __name__ == "__main__":
    main(*sys.argv[1:])
