"""Time every readout on numbers that are hard to add, against normally distributed ones.

python -m experiments.speed.values
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

import readouts
from experiments.speed.timing import Thunk, interleave

LIMIT = 5.0  # times the time for normal numbers
Function = Callable[[Tensor, Tensor], Tensor]


def wide(x: Tensor) -> Tensor:
    """Return numbers spread evenly over all magnitudes of float32."""
    return x * torch.exp2(240 * torch.rand(x.shape) - 120)


def subnormal(x: Tensor) -> Tensor:
    """Return numbers below the smallest normal one."""
    return x * (torch.finfo(torch.float32).tiny / 16)


def softmax_weights(x: Tensor) -> Tensor:
    """Return the weights of a softmax over all nodes: positive, of many magnitudes."""
    return (8 * x).softmax(0)


def with_nan(x: Tensor) -> Tensor:
    """Return one NaN in a thousand numbers."""
    return x.masked_fill(torch.rand(x.shape) < 0.001, torch.nan)


def with_infinities(x: Tensor) -> Tensor:
    """Return one infinity in a thousand numbers."""
    return x.masked_fill(torch.rand(x.shape) < 0.001, torch.inf)


VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda x: x,
    "wide": wide,
    "subnormal": subnormal,
    "softmax weights": softmax_weights,
    "zeros": torch.zeros_like,
    "NaN": with_nan,
    "infinity": with_infinities,
    "same": torch.ones_like,
}


def functions() -> Iterator[tuple[str, Function]]:
    """Yield every readout without parameters as a function of nodes and their graphs."""
    for reduce in ("sum", "mean", "max", "min", "var", "std"):
        yield reduce, partial(readouts.readout, reduce=reduce)
    yield "median", readouts.median
    yield "quantile 0.9", lambda x, batch: readouts.quantile(x, batch, 0.9)
    yield "trimmed mean", lambda x, batch: readouts.trimmed_mean(x, batch, 0.1)
    yield "weighted mean", lambda x, batch: readouts.weighted_mean(x, x[:, :1].abs() + 1, batch)
    yield "softmax mean", lambda x, batch: readouts.softmax_mean(x, x, batch)
    yield "log-sum-exp", readouts.logsumexp
    yield "power mean 3", lambda x, batch: readouts.power_mean(x.abs(), 3.0, batch)
    yield "moments", readouts.moments


def molecules(graphs: int, features: int) -> tuple[Tensor, Tensor]:
    """Return normally distributed features of graphs with 10 to 30 nodes, and their batch."""
    sizes = torch.randint(10, 31, (graphs,))
    return torch.randn(int(sizes.sum()), features), torch.arange(graphs).repeat_interleave(sizes)


def step(function: Function, x: Tensor, batch: Tensor) -> Tensor:
    """Return the gradient of the sum of all outputs, after a forward pass."""
    x = x.detach().requires_grad_()
    function(x, batch).sum().backward()
    assert x.grad is not None
    return x.grad


def calls(function: Function, x: Tensor, batch: Tensor, backward: bool) -> Mapping[str, Thunk]:
    """Return a call for every kind of values."""
    run = partial(step, function) if backward else function
    return {name: partial(run, make(x), batch) for name, make in VALUES.items()}


def main() -> int:
    """Print a row for every readout; the exit code is 1 where a time is above the limit."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--graphs", type=int, default=512)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=0.2, help="for each readout and kind of values")
    asked = parser.parse_args()
    torch.manual_seed(0)
    x, batch = molecules(asked.graphs, asked.features)
    worst = 0.0
    kinds = list(VALUES)[1:]
    print("| readout | pass | normal, µs | " + " | ".join(kinds) + " |")
    print("|---|---|--:|" + "--:|" * len(kinds))
    for name, function in functions():
        for backward in (False, True):
            samples = interleave(calls(function, x, batch, backward), asked.seconds)
            seconds = {kind: taken.quantile(0.5) for kind, taken in samples.items()}
            ratios = [seconds[kind] / seconds["normal"] for kind in kinds]
            worst = max(worst, *ratios)
            row = [name, "both" if backward else "forward", f"{1e6 * seconds['normal']:.0f}"]
            print("| " + " | ".join(row + [f"{ratio:.2g}" for ratio in ratios]) + " |", flush=True)
    print(f"\nThe slowest takes {worst:.1f} times as long as on normal numbers; the limit is {LIMIT:.0f}.")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
