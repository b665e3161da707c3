"""Time every readout on numbers that are hard to add, against normally distributed ones.

python -m experiments.speed.values
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import typer
from torch import Tensor

import readouts
from experiments.speed.timing import medians

LIMIT = 5.0  # times the time for normal numbers
VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda x: x,
    "wide": lambda x: x * torch.exp2(240 * torch.rand(x.shape) - 120),  # all magnitudes of float32
    "subnormal": lambda x: x * (torch.finfo(torch.float32).tiny / 16),
    "softmax weights": lambda x: (8 * x).softmax(0),
    "zeros": torch.zeros_like,
    "NaN": lambda x: x.masked_fill(torch.rand(x.shape) < 0.001, torch.nan),
    "infinity": lambda x: x.masked_fill(torch.rand(x.shape) < 0.001, torch.inf),
    "same": torch.ones_like,
}
REDUCTIONS = ("sum", "mean", "max", "min", "var", "std")
Readout = Callable[[Tensor, Tensor], Tensor]
READOUTS: dict[str, Readout] = {
    **{reduce: partial(readouts.readout, reduce=reduce) for reduce in REDUCTIONS},
    "median": readouts.median,
    "quantile 0.9": lambda x, batch: readouts.quantile(x, batch, 0.9),
    "trimmed mean": lambda x, batch: readouts.trimmed_mean(x, batch, 0.1),
    "weighted mean": lambda x, batch: readouts.weighted_mean(x, x[:, :1].abs() + 1, batch),
    "softmax mean": lambda x, batch: readouts.softmax_mean(x, x, batch),
    "log-sum-exp": readouts.logsumexp,
    "power mean 3": lambda x, batch: readouts.power_mean(x.abs(), 3.0, batch),
    "moments": readouts.moments,
}


def both(function: Readout, x: Tensor, batch: Tensor) -> Tensor:
    """Return the gradient of the sum of all outputs, after a forward pass."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x, batch).sum(), x)[0]


def main(graphs: int = 512, features: int = 64, seconds: float = 0.2) -> None:
    """Print a row for every readout; the exit code is 1 where a time is above the limit."""
    torch.manual_seed(0)
    sizes = torch.randint(10, 31, (graphs,))
    x, batch = torch.randn(int(sizes.sum()), features), torch.arange(graphs).repeat_interleave(sizes)
    inputs, worst = {kind: make(x) for kind, make in VALUES.items()}, 0.0
    print("| readout | pass | normal, µs | " + " | ".join(list(VALUES)[1:]) + " |")
    print("|---|---|--:|" + "--:|" * (len(VALUES) - 1))
    for name, function in READOUTS.items():
        directions: dict[str, Readout] = {"forward": function, "both": partial(both, function)}
        for direction, run in directions.items():
            calls = {kind: partial(run, values, batch) for kind, values in inputs.items()}
            normal, *others = medians(calls, seconds)
            worst = max(worst, *(other / normal for other in others))
            cells = [name, direction, f"{1e6 * normal:.0f}", *(f"{other / normal:.2g}" for other in others)]
            print("| " + " | ".join(cells) + " |", flush=True)
    print(f"\nThe slowest takes {worst:.1f} times as long as on normal numbers; the limit is {LIMIT:.0f}.")
    raise typer.Exit(int(worst > LIMIT))


if __name__ == "__main__":
    typer.run(main)
