"""The peak of memory is that of inputs, outputs and gradients, and a tenth."""

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, gc, sys
import torch
from readouts import readout
from readouts.functional.order import median
from readouts.functional.weighted import softmax_mean, weighted_mean

FEATURES, BYTES = 64, 2**25
torch.set_num_threads(1)  # which would wait for each other on a busy machine

def status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return 1024 * int(line.split()[1])

READOUTS = {
    **{name: lambda x, i, b, weight, name=name: readout(x, i, name, size=b)
       for name in ("sum", "mean", "max", "min", "var", "std", "median")},
    "several": lambda x, i, b, weight: readout(x, i, ("sum", "mean", "max", "std"), size=b),
    "lower": lambda x, i, b, weight: median(x, i, size=b, interpolation="lower"),
    "softmax": lambda x, i, b, weight: softmax_mean(x, weight, i, size=b),
    "weighted": lambda x, i, b, weight: weighted_mean(x, weight, i, size=b),
}

def run(dtype, name, layout, numbers):
    nodes = numbers // FEATURES
    index, size = torch.arange(nodes) // 40, (nodes + 39) // 40
    if layout == "unsorted":
        index = index[torch.randperm(nodes)]
    if dtype.is_floating_point:
        x = torch.zeros(nodes, FEATURES, dtype=dtype)
        x[::3], x[:, ::5] = 1.5, -3
        x.requires_grad_()
    else:
        x = torch.zeros(nodes, FEATURES, dtype=dtype)
        x[::3] = 1
    weight = torch.rand(nodes)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    open("/proc/self/clear_refs", "w").write("5")  # forget the peak so far
    before = status("VmRSS")
    out = READOUTS[name](x, index, size, weight)
    if out.requires_grad:
        out.backward(torch.ones_like(out))
    given = x.nbytes + index.nbytes + weight.nbytes
    made = out.nbytes + (x.grad.nbytes + out.nbytes if x.grad is not None else 0)
    return (given + status("VmHWM") - before) / (given + made)

for line in sys.stdin.read().splitlines():
    dtype, name, layout = line.split()
    dtype = getattr(torch, dtype)
    run(dtype, name, layout, 2**16)
    print(f"{run(dtype, name, layout, BYTES // dtype.itemsize):.3f}", line, flush=True)
"""
CASES = """\
float32 several sorted
float32 several unsorted
float32 median sorted
float32 softmax sorted
float32 weighted sorted
float64 std sorted
float16 sum sorted
float16 lower sorted
uint8 sum sorted
uint8 several sorted
uint8 max sorted
uint8 median sorted
bool mean sorted
bool several sorted
int8 std sorted
int16 mean sorted
int32 sum sorted
int64 lower sorted
""".splitlines()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of memory from /proc")
def test_peak_of_memory():
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], input="\n".join(CASES), capture_output=True, text=True, check=True
    )
    found = [line.split(maxsplit=1) for line in run.stdout.splitlines()]
    assert len(found) == len(CASES)
    assert [line for line in found if float(line[0]) > 1.1] == []
