"""What public functions do on a GPU besides returning values: not wait, be captured, repeat their bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.gpu.inputs import TRIPLE, hashed
from experiments.gpu.rows import Run
from experiments.speed import timing
from readouts import Segments, median, power_mean, quantile, readout, softmax_mean, trimmed_mean
from readouts.nn import MultiReadout
from readouts.reductions import ELEMENTARY

NODES, GRAPHS, FEATURES = 4000, 100, 64
ROUNDED = ("softmax_mean", "power_mean")  # exp and log of a GPU round otherwise than those of a CPU
CLOSE = 1e-5
Call = Callable[[Tensor], Tensor]


class Calls:
    """Public functions of the same batch on a device, by name, each of the features alone."""

    def __init__(self, device: str) -> None:
        self.x = hashed(NODES, FEATURES, torch.float32, 3, 6).to(device)
        index = ((torch.arange(NODES) * 7919) % NODES % GRAPHS).to(device)
        ptr = torch.arange(0, NODES + 1, NODES // GRAPHS, device=device)
        segments, pool = Segments.from_batch(index, GRAPHS), MultiReadout(list(TRIPLE))
        self.index = index
        self.by_name: dict[str, Call] = {
            "readout": lambda x: readout(x, index, TRIPLE, size=GRAPHS),
            "readout of ptr": lambda x: readout(x, None, TRIPLE, ptr=ptr),
            "readout of Segments": lambda x: readout(x, segments, ELEMENTARY),
            "readout of one graph": lambda x: readout(x, None, TRIPLE),
            "MultiReadout": lambda x: pool(x, index, dim_size=GRAPHS),
            "median": lambda x: median(x, index, size=GRAPHS),
            "quantile": lambda x: quantile(x, index, 0.3, size=GRAPHS),
            "trimmed_mean": lambda x: trimmed_mean(x, index, 0.2, size=GRAPHS),
            "softmax_mean": lambda x: softmax_mean(x, x, index, size=GRAPHS),
            "power_mean": lambda x: power_mean(x.abs() + 1, 2.0, index, size=GRAPHS),
        }


def both(call: Call, x: Tensor) -> tuple[Tensor, Tensor]:
    """The output, and the gradient of a weighted sum of its entries."""
    leaf = x.detach().requires_grad_()
    out = call(leaf)
    (slope,) = torch.autograd.grad(out, leaf, weights_like(out))
    return out.detach(), slope


def weights_like(out: Tensor) -> Tensor:
    """Small integers, the same on every device."""
    return (torch.arange(out.numel(), device=out.device) % 7 - 3).to(out.dtype).view(out.shape)


def verdict(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> dict[str, Any]:
    """Whether bits are equal, and else how far values are apart."""
    if all(map(torch.equal, found, expected)):
        return {"holds": True}
    far = max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))
    return {"holds": False, "apart": far}


def as_on_a_cpu(name: str, call: Call, x: Tensor) -> dict[str, Any]:
    """The bits of the CPU, forward and backward; close where exp or log take part."""
    cpu = Calls("cpu")
    answer = verdict(tuple(t.cpu() for t in both(call, x)), both(cpu.by_name[name], cpu.x))
    if name in ROUNDED and answer.get("apart", 1) < CLOSE:
        answer["holds"] = True
    return answer


def without_waiting(name: str, call: Call, x: Tensor) -> dict[str, Any]:
    """No call makes the CPU wait for the device, forward or backward."""
    both(call, x)  # compiling may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        both(call, x)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"holds": True}


def on_another_stream(name: str, call: Call, x: Tensor) -> dict[str, Any]:
    """The same bits on a stream of its own."""
    expected, stream = both(call, x), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = both(call, x)
    stream.synchronize()
    return verdict(found, expected)


def captured(name: str, call: Call, x: Tensor) -> dict[str, Any]:
    """A CUDA graph of forward and backward, replayed on other features."""
    held, found = x.clone(), []
    replay = timing.captured(lambda: found.append(both(call, held)))
    held.mul_(2)
    replay()
    torch.cuda.synchronize()
    return verdict(found[-1], both(call, held))


def deterministic(name: str, call: Call, x: Tensor) -> dict[str, Any]:
    """The same bits again, and under PyTorch's deterministic algorithms, which fill new memory with NaN."""
    expected = both(call, x)
    torch.use_deterministic_algorithms(True)
    try:
        found = both(call, x)
    finally:
        torch.use_deterministic_algorithms(False)
    return verdict(found, expected)


def double_backward(calls: Calls) -> dict[str, Any]:
    """Second derivatives in float64, with the bits of the CPU."""

    def second(x: Tensor, index: Tensor) -> Tensor:
        leaf = x.double().requires_grad_()
        out = readout(leaf, index, ("mean", "std", "max"), size=GRAPHS)
        (slope,) = torch.autograd.grad(out.square().sum(), leaf, create_graph=True)
        return torch.autograd.grad((slope * weights_like(slope)).sum(), leaf)[0]

    cpu = Calls("cpu")
    return verdict((second(calls.x, calls.index).cpu(),), (second(cpu.x, cpu.index),))


def autocast(calls: Calls) -> dict[str, Any]:
    """A layer in half precision before a readout: its dtype, and finite gradients."""
    layer, device = torch.nn.Linear(FEATURES, FEATURES).to(calls.x.device), calls.x.device.type
    dtype = torch.float16 if device == "cuda" else torch.bfloat16
    with torch.autocast(device, dtype):
        out = readout(layer(calls.x), calls.index, TRIPLE, size=GRAPHS)
    out.float().sum().backward()
    finite = layer.weight.grad is not None and bool(layer.weight.grad.isfinite().all())
    return {"holds": finite and out.dtype == dtype, "dtype": str(out.dtype)}


def compiled(calls: Calls) -> dict[str, Any]:
    """torch.compile with CUDA graphs, called four times."""
    function = torch.compile(
        lambda x: readout(x.relu(), calls.index, TRIPLE, size=GRAPHS), mode="reduce-overhead", fullgraph=True
    )
    expected = readout(calls.x.relu(), calls.index, TRIPLE, size=GRAPHS)
    return {"holds": all(torch.equal(function(calls.x), expected) for _ in range(4))}


OF_EVERY_CALL = (as_on_a_cpu, deterministic)
OF_EVERY_CALL_ON_CUDA = (without_waiting, on_another_stream, captured)
OF_THE_DEVICE = (double_backward, autocast)


def checks(device: str, calls: Calls) -> Iterator[tuple[str, str, Callable[[], dict[str, Any]]]]:
    """All checks: what is checked, of which call, and how."""
    on_cuda = device == "cuda"
    for check in (*OF_EVERY_CALL, *(OF_EVERY_CALL_ON_CUDA if on_cuda else ())):
        for name, call in calls.by_name.items():
            yield check.__name__, name, partial(check, name, call, calls.x)
    for of_device in (*OF_THE_DEVICE, *((compiled,) if on_cuda else ())):
        yield of_device.__name__, "readout", partial(of_device, calls)


def measure(run: Run, share: float) -> None:
    """Make all checks until a share of the budget is spent."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        calls = Calls(run.device)
        for check, name, compute in checks(run.device, calls):
            if run.left(share) < 0:
                run.row("interface", stopped="the time is up")
                return
            run.attempt("interface", {"check": check.replace("_", " "), "call": name}, compute)
