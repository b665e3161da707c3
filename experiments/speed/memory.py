"""Peak memory of forward and backward, in a process of its own.

A fresh process is needed because the operating system's number, the largest resident memory so far, only
grows. The kernels are loaded by a call on a tiny batch before.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from experiments.console import tracked
from experiments.records import ROOT, Row, RowLog
from experiments.speed.cases import BACKWARD, TRIPLE, Case, even, make_batch
from experiments.speed.implementations import IMPLEMENTATIONS, OURS, PYG
from experiments.speed.measure import RIGHT, Settings
from experiments.speed.timing import peak_beyond

CONTENDERS = (OURS, PYG)
PEAK = "peak bytes beyond x"


def measure(shapes: Sequence[str], log: RowLog, settings: Settings) -> list[Row]:
    """The most memory that forward and backward of sum, mean and max need beyond the features."""
    if not can_measure(settings.device):
        return []
    rows = []
    for shape, name in tracked([(shape, name) for shape in shapes for name in CONTENDERS], "peak memory"):
        work = Case(even(shape), BACKWARD).work | settings.work | {"contender": name, "verdict": RIGHT}
        used = partial(peak, shape, name, settings.device, settings.threads)
        rows += log.measure(work, (PEAK,), lambda used=used: {PEAK: used()})  # type: ignore[misc]
    return rows


def can_measure(device: str) -> bool:
    """Return whether this system tells the peak of a process."""
    return device == "cuda" or Path("/proc/self/status").exists()


def peak(shape: str, contender: str, device: str, threads: int) -> int:
    """Bytes beyond the features that forward and backward of sum, mean and max need at most."""
    command = [sys.executable, "-m", "experiments.speed.memory", shape, contender, device, str(threads)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise RuntimeError(f"measuring the memory of {contender} failed: {answer.stderr.strip()[-500:]}")
    return int(answer.stdout.split()[-1])


def main(shape: str, contender: str, device: str, threads: str) -> None:
    """Run it once on a tiny batch, once on the real one, and print the difference."""
    torch.set_num_threads(int(threads))
    for name in ("4x5x6", shape):
        batch = make_batch(Case(even(name), BACKWARD), 0, device)
        x = batch.x.requires_grad_()
        call = IMPLEMENTATIONS[contender].build(batch, TRIPLE)
        outputs = batch.size, len(TRIPLE) * x.shape[1]
        gradient = torch.ones(outputs, device=device)
        used = peak_beyond(lambda: torch.autograd.backward(call(x), gradient), device)  # noqa: B023
    print(used)


if __name__ == "__main__":
    main(*sys.argv[1:])
