"""What the contenders of a case are given, who is admitted to the timing, and the yardsticks beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from experiments.speed.check import Deviation, Expected, Truth, worst
from experiments.speed.contenders import (
    COPY,
    EXACT,
    FRESH,
    GROUPED,
    OURS,
    READ,
    WARM,
    Builder,
    convolution_contenders,
    readout_contenders,
)
from experiments.speed.modules import Modules
from experiments.speed.shapes import Batch, Case, bytes_moved, make, reads
from experiments.speed.timing import Thunk, captured

Judge = Callable[[str, Tensor, Tensor | None], Deviation]


class Problem(Protocol):
    """The data of a case, who takes part, and what is right.

    Attributes:
        batch: what is reduced.
        features: what a contender takes.
    """

    batch: Batch
    features: Tensor

    def contenders(self, case: Case, quick: bool) -> dict[str, Builder]:
        """Who takes part, by name."""

    def judge(self, case: Case, gradient: Tensor | None) -> Judge:
        """A function of contender, output and gradient that tells how far they are off."""


class Readout:
    """Nodes of graphs are reduced."""

    def __init__(self, batch: Batch) -> None:
        """Hold a batch, whose truth all cases with the same data share."""
        self.batch, self.features, self.truth = batch, batch.x, Truth(batch)

    def contenders(self, case: Case, quick: bool) -> dict[str, Builder]:
        """All ways to reduce nodes."""
        return readout_contenders(case.reduce, quick)

    def judge(self, case: Case, gradient: Tensor | None) -> Judge:
        """Compare with the truth; ours exact must be rounded to nearest, too."""
        expected = Expected(self.truth, case.reduce, gradient)
        return lambda name, out, slope: expected.check(out, slope, name in OURS, name in (EXACT, GROUPED))


class Convolution:
    """Neighbours are summed: targets are the graphs, and messages from random sources are the nodes."""

    def __init__(self, messages: Batch, seed: int) -> None:
        """Take as many nodes as there are targets."""
        device = messages.x.device
        generator = torch.Generator(device).manual_seed(seed)
        self.features = messages.x[: messages.size].clone()
        self.source = torch.randint(messages.size, messages.index.shape, device=device, generator=generator)
        self.batch = Batch(self.features[self.source], messages.index, messages.size, shuffled=True)
        self.truth = Truth(self.batch)

    def contenders(self, case: Case, quick: bool) -> dict[str, Builder]:
        """All ways to sum neighbours."""
        return convolution_contenders(self.source)

    def judge(self, case: Case, gradient: Tensor | None) -> Judge:
        """The gradient of a sum over neighbours is a sum over neighbours, with edges turned round."""
        forward = Expected(self.truth, case.reduce, None)
        if gradient is None:
            return lambda name, out, slope: forward.check(out, None, exact=name == EXACT)
        sent_back = Batch(gradient[self.batch.index], self.source, self.batch.size, shuffled=True)
        backward = Expected(Truth(sent_back), ("sum",), None)

        def judge(name: str, out: Tensor, slope: Tensor | None) -> Deviation:
            assert slope is not None
            return worst(forward.check(out, None, exact=name == EXACT), backward.check(slope, None))

        return judge


def pose(case: Case, seed: int, device: str) -> Problem:
    """Make the data of a case."""
    batch = make(case, seed, device)
    if case.through == "module":
        return Modules(batch)
    return Readout(batch) if case.through == "readout" else Convolution(batch, seed)


@dataclass(frozen=True)
class Entry:
    """Something to be timed, and the bytes that it moves."""

    call: Thunk
    size: int


@dataclass(frozen=True)
class Refusal:
    """Why a contender is not timed, and in numbers."""

    verdict: str
    values: Mapping[str, float]


def admit(
    case: Case, problem: Problem, quick: bool, seed: int
) -> tuple[dict[str, Entry], dict[str, Refusal]]:
    """Run every contender once: those whose result is right may be timed, those that err or raise may not."""
    gradient = gradient_of_outputs(case, problem, seed)
    judge = problem.judge(case, gradient)
    admitted: dict[str, Entry] = {}
    refused: dict[str, Refusal] = {}
    for name, builder in problem.contenders(case, quick).items():
        try:
            call = thunk(builder, case, problem, gradient)
            out, slope = call()
            found = judge(name, out, slope)
            del out, slope
            if found.right:
                admitted[name] = Entry(
                    captured(call) if case.timing == "CUDA graph" else call, bytes_moved(case)
                )
            else:
                values = {"samples": 0, "deviation": found.size}
                refused[name] = Refusal(f"wrong: {found.what}", values)
        except Exception as error:  # whatever another package throws is its result
            refused[name] = Refusal(f"failed: {sentence(error)}", {"samples": 0})
    return admitted, refused


def gradient_of_outputs(case: Case, problem: Problem, seed: int) -> Tensor | None:
    """Random numbers for a backward pass to start from; None if there is no backward pass."""
    if case.direction == "forward":
        return None
    x = problem.features
    shape = (problem.batch.size, len(case.reduce) * x.shape[1])
    generator = torch.Generator(x.device).manual_seed(seed + 1)
    return torch.randn(shape, dtype=x.dtype, device=x.device, generator=generator)


def thunk(
    builder: Builder, case: Case, problem: Problem, gradient: Tensor | None
) -> Callable[[], tuple[Tensor, Tensor | None]]:
    """A call without arguments that returns the output and, if there is one, the gradient of the features."""
    x = problem.features.detach()
    contender = builder(problem.batch, case.reduce)
    if gradient is None:
        return lambda: (contender(x), None)
    x.requires_grad_()

    def both() -> tuple[Tensor, Tensor | None]:
        out = contender(x)
        return out, torch.autograd.grad(out, x, gradient[:, : out.shape[1]])[0]

    return both


def sentence(error: Exception) -> str:
    """The first line of a message, not too long."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}".rstrip(": ")


def yardsticks(case: Case, problem: Problem) -> dict[str, Entry]:
    """What memory allows: a plain read; reads and a write; on a GPU a copy, too."""
    x = problem.batch.x.detach()
    target = torch.empty_like(x)
    entries = {COPY: Entry(lambda: target.copy_(x), 2 * x.nbytes)} if x.is_cuda else {}
    if case.direction == "forward" or case.through == "module":
        entries[READ] = Entry(x.sum, x.nbytes)
    if case.direction != "forward":
        times = reads(case)
        size = (times + 1) * x.nbytes
        entries[FRESH] = Entry(lambda: read_and_write(x, times, torch.empty_like(x)), size)
        entries[WARM] = Entry(lambda: read_and_write(x, times, target), size)
    return {name: Entry(prepared(entry.call, case), entry.size) for name, entry in entries.items()}


def prepared(call: Thunk, case: Case) -> Thunk:
    """The call as it is timed: as it is, or as a CUDA graph."""
    return captured(call) if case.timing == "CUDA graph" else call


def read_and_write(x: Tensor, reads: int, target: Tensor) -> None:
    """Read x some times, and write as much once."""
    for _ in range(reads):
        x.sum()
    target.fill_(1)
