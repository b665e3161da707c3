"""The stream that `stream_dask.py` and `stream_ray.py` read: synthetic nodes, from any position on.

A node's features are quotients of two random integers, so that their magnitudes span nineteen
orders: plain floating-point sums would depend on how the stream is cut.
"""

import argparse
import hashlib
import resource
import time
from pathlib import Path

import numpy as np
import torch

from readouts import Accumulator

REDUCE = ("sum", "mean", "std", "max", "min")
GRAPHS, FEATURES = 1000, 4
CHUNK = 2**17  # nodes in memory at once


def nodes(begin: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x [N, 4] and the graphs of these nodes; node i has the i-th block of a counting generator."""
    bits = np.random.Philox(key=0, counter=begin).random_raw(FEATURES * (end - begin))
    high, low = bits.view(np.int32).reshape(-1, 2).astype(np.float64).T
    x = (high / (low + 2.0**31 + 1.0)).astype(np.float32).reshape(-1, FEATURES)
    return torch.from_numpy(x), torch.arange(begin, end) % GRAPHS


def read(begin: int, end: int) -> Accumulator:
    """Return an accumulator with the nodes of a part of the stream."""
    accumulator = Accumulator(REDUCE, size=GRAPHS)
    for start in range(begin, end, CHUNK):
        accumulator.update(*nodes(start, min(start + CHUNK, end)))
    return accumulator


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10**8, help="length of the stream")
    parser.add_argument("--parts", type=int, default=64, help="tasks that the stream is cut into")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    return parser.parse_args()


def cut(length: int, parts: int) -> list[tuple[int, int]]:
    """Return begin and end of parts of nearly equal length."""
    return [(length * part // parts, length * (part + 1) // parts) for part in range(parts)]


def memory() -> tuple[int, int]:
    """Return the peak private memory of this process and its mapped files, in bytes.

    Mapped files are the code of libraries, of which the processes of a machine share one copy.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    peak, files = (1024 * int(fields[name].split()[0]) for name in ("VmHWM", "RssFile"))
    return peak - files, files


def report(total: Accumulator, start: float, peaks: list[tuple[int, int]]) -> None:
    """Print a graph's readouts, a digest of all of them, time and memory."""
    result = total.result()
    print(f"nodes {int(total.count.sum()):,}, graphs {total.size:,}, features {FEATURES}")
    for name, values in zip(REDUCE, result[0].view(len(REDUCE), FEATURES).tolist(), strict=True):
        print(f"  {name:4} of graph 0  ", *(f"{value:14.7g}" for value in values))
    print("all results  sha256", hashlib.sha256(result.numpy().tobytes()).hexdigest()[:16])
    print(f"time         {time.perf_counter() - start:.1f} s")
    own, shared = zip(*peaks, strict=True)
    used = f"{(sum(own) + max(shared)) / 1e6:.0f} MB in {len(peaks)} processes"
    print(f"peak memory  {used}, {max(shared) / 1e6:.0f} MB of them shared libraries")
