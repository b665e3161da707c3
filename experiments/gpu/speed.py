"""How long readouts take on a GPU beside other ways and beside memory, and which kernels they start."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.gpu.rows import MOST, Run
from experiments.speed import implementations as by
from experiments.speed.batches import Batch, make_batch
from experiments.speed.grid import BACKWARD, EAGER, FORWARD, GRAPHED, UNSORTED, WIDE, Case, edges, even
from experiments.speed.implementations import OURS, baselines, contenders
from experiments.speed.measure import fits, gradient_of_outputs, timed_call
from experiments.speed.timing import Thunk, captured, cuda_events, interleave, wall
from readouts import readout

PEERS = (*by.OF_US, by.PYG, by.INDEX_ADD, by.SCATTER)
SEED, SECONDS = 0, 0.15  # for each contender
CHECKED = 64  # graphs that are also computed on the CPU
REPEATED = 3
FIVE = ("sum", "mean", "max", "min", "std")


def cases() -> Iterator[Case]:
    """What is timed, the most important first."""
    molecules = even("4096x30x256")
    for shape in (molecules, even("128x18x64"), even("64x20000x64"), even("1x1000000x64")):
        for direction in (FORWARD, BACKWARD):
            yield Case(shape, direction)
    stream = edges(1_000_000, 100_000, 64, SEED)
    for direction in (FORWARD, BACKWARD):
        yield Case(stream, direction, ("sum",), layout=UNSORTED)
        yield Case(even("65536x30x256"), direction)
    yield Case(molecules, FORWARD, dtype="float16")
    yield Case(even("128x18x64"), BACKWARD, timing=GRAPHED)
    yield Case(molecules, BACKWARD, FIVE)
    yield Case(molecules, FORWARD, kind=WIDE)
    yield Case(molecules, FORWARD, dtype="float64")
    yield Case(molecules, FORWARD, ("median",))
    yield Case(even("1x4194304x64"), BACKWARD)


def measure(run: Run, share: float) -> None:
    """Time case by case until a share of the budget is spent."""
    for case in cases():
        if run.left(share) < 0:
            run.row("speed", stopped="the time is up")
            return
        name = {"shape": case.shape.name, "names": "+".join(case.reduce), "direction": case.direction}
        name |= {"dtype": case.dtype, "kind": case.kind, "layout": case.layout, "timing": case.timing}
        if not fits(case, run.device):
            run.row("speed", **name, error="memory does not suffice")
            continue
        batch = make_batch(case, SEED, run.device)
        gradient = gradient_of_outputs(case, batch, SEED)
        run.attempt("speed", name, partial(times, case, batch, gradient, run))
        if run.device == "cuda" and case.timing == EAGER:
            run.attempt("kernels", name, partial(kernels, case, batch, gradient))


def times(case: Case, batch: Batch, gradient: Tensor | None, run: Run) -> dict[str, Any]:
    """Microseconds of each contender whose results are right, and of memory alone."""
    found: dict[str, Any] = {"megabytes": round(batch.x.nbytes / 1e6, 1)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # parts of PyTorch call themselves beta
        calls, said = admitted(case, batch, gradient)
        calls |= baselines(case, batch.x)
        if case.timing == GRAPHED:
            calls = {name: captured(call) for name, call in calls.items()}
        samples = interleave(calls, SECONDS, cuda_events if run.device == "cuda" else wall)
    taken = {f"{name} us": round(1e6 * sample.quantile(0.5), 2) for name, sample in samples.items()}
    return found | said | taken


def admitted(case: Case, batch: Batch, gradient: Tensor | None) -> tuple[dict[str, Thunk], dict[str, Any]]:
    """The calls of contenders that run, and how far their results are from the exact ones, or why not."""
    calls: dict[str, Thunk] = {}
    said: dict[str, Any] = {}
    for name, build in contenders(batch, case.reduce).items():
        if name in PEERS:
            try:
                said[f"{name} apart"] = apart(
                    build(batch, case.reduce)(batch.x), batch, case, name in by.OF_US
                )
                call = timed_call(build, batch, case.reduce, gradient)
                call()
                calls[name] = call
            except Exception as problem:  # whatever another package throws is its result
                said[f"{name} error"] = f"{type(problem).__name__}: {problem}"[:MOST]
    return calls, said


def apart(out: Tensor, batch: Batch, case: Case, ours: bool) -> float:
    """How far the rows of the first graphs are from those of the CPU; ours must have the same bits."""
    if "median" in case.reduce:
        return 0.0
    some = (batch.index < CHECKED).nonzero().flatten()
    size = min(CHECKED, batch.size)
    exact = readout(batch.x[some].cpu(), batch.index[some].cpu(), case.reduce, size=size)
    here = out.detach()[:size].cpu()
    if ours and not torch.equal(here, exact):
        raise ValueError(f"{int((here != exact).sum())} of {exact.numel()} numbers differ from the CPU's")
    return float((here.double() - exact.double()).abs().max())


def kernels(case: Case, batch: Batch, gradient: Tensor | None) -> dict[str, Any]:
    """Launches of one call, and the microseconds of each kernel, by the profiler."""
    from torch.profiler import ProfilerActivity, profile

    call = timed_call(contenders(batch, case.reduce)[OURS], batch, case.reduce, gradient)
    call()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(REPEATED):
            call()
        torch.cuda.synchronize()
    found = {}
    for event in profiler.key_averages():
        if event.device_time_total:
            time = round(event.device_time_total / REPEATED, 2)
            found[event.key[:60]] = {"launches": event.count / REPEATED, "us": time}
    return {"kernels": found}
