"""Peak memory of forward and backward, in a process of its own.

A fresh process is needed as a number of the operating system, the largest resident memory so far, only grows.
The kernels are loaded, and compiled if need be, on a tiny batch before.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from experiments.rows import ROOT
from experiments.speed.contenders import EXACT, FAST, PYG, readout_contenders
from experiments.speed.shapes import TRIPLE, Case, even, make
from experiments.speed.timing import peak_beyond

CONTENDERS = (EXACT, FAST, PYG)


def can_measure(device: str) -> bool:
    """Whether this system tells the peak of a process."""
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
        batch = make(Case(even(name), "forward+backward"), 0, device)
        x = batch.x.requires_grad_()
        call = readout_contenders(TRIPLE, quick=True)[contender](batch, TRIPLE)
        outputs = batch.size, len(TRIPLE) * x.shape[1]
        gradient = torch.ones(outputs, device=device)
        used = peak_beyond(lambda: torch.autograd.grad(call(x), x, gradient), device)  # noqa: B023
    print(used)


if __name__ == "__main__":
    main(*sys.argv[1:])
