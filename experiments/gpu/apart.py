"""Programs that need a process of their own: `python -m experiments.gpu.apart negative` or `profiled`."""

from __future__ import annotations

import sys

import torch

from experiments.gpu.inputs import TRIPLE
from readouts import Segments, readout

GRAPHS, NODES, FEATURES = 4096, 30, 256


def negative() -> None:
    """Give a negative index: an assertion on the device, after which the process can do nothing more."""
    x = torch.randn(4000, 64, device="cuda").requires_grad_()
    index = torch.randint(0, 100, (4000,), device="cuda")
    index[:3] = -1
    readout(x, index, "sum", size=100).sum().backward()
    torch.cuda.synchronize()
    print("accepted")


def profiled() -> None:
    """Run forward and backward once while Nsight Compute watches, after a warm-up that it does not see."""
    x = torch.randn(GRAPHS * NODES, FEATURES, device="cuda").requires_grad_()
    ptr = torch.arange(0, GRAPHS * NODES + 1, NODES, device="cuda")
    segments = Segments.from_ptr(ptr, len(x))
    for watched in (False, False, True):
        torch.cuda.synchronize()
        if watched:
            torch.cuda.profiler.start()
        out = readout(x, segments, TRIPLE)
        torch.autograd.grad(out, x, torch.ones_like(out))
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()


if __name__ == "__main__":
    {"negative": negative, "profiled": profiled}[sys.argv[1]]()
