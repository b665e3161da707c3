"""How long calls take, in turns, and how much memory one takes at most."""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

Thunk = Callable[[], object]
Clock = Callable[[Thunk, int], float]
SAMPLE_SECONDS = 0.0002  # a sample of a quick call takes at least as long
WARM_UPS, LONG = 2, 0.1  # calls before the first sample, but for those of a tenth of a second and more
FEW, MOST = 5, 101
PATIENCE = 6


def wall(call: Thunk, repeats: int) -> float:
    """Seconds a call, on the CPU."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def cuda_events(call: Thunk, repeats: int) -> float:
    """Seconds a call, between two events in the stream of the GPU."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000 / repeats


def captured(call: Thunk) -> Thunk:
    """The call as a CUDA graph, which costs the CPU nothing; warmed up on a stream of its own before."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


@dataclass
class Samples:
    """What was measured of one call; a quick call is repeated within a sample."""

    repeats: int = 1
    seconds: list[float] = field(default_factory=list)
    spent: float = 0.0

    def take(self, call: Thunk, clock: Clock) -> None:
        """Measure once more.

        A call is made once before, untimed, unless it takes long: memory and code that lie idle during the
        turns of others leave the caches, and the first call to touch them again would pay for those turns.
        """
        if not self.seconds or self.seconds[0] < LONG:
            call()
        seconds = clock(call, self.repeats)
        self.seconds.append(seconds)
        self.spent += seconds * self.repeats

    def wants_more(self, share: float) -> bool:
        """Whether its share of time is left, or a few shares while there are few samples."""
        taken = len(self.seconds)
        allowed = share if taken >= FEW else PATIENCE * share
        return taken == 0 or (self.spent < allowed and taken < MOST)

    def quantile(self, q: float) -> float:
        """A quantile of seconds a call."""
        return torch.tensor(self.seconds, dtype=torch.float64).quantile(q).item()

    @property
    def spread(self) -> dict[str, float]:
        """What a row says besides the median."""
        within = {"p20": self.quantile(0.2), "p80": self.quantile(0.8)}
        return within | {"repeats": self.repeats, "samples": len(self.seconds)}


def begin(call: Thunk, clock: Clock) -> Samples:
    """Warm up, and find out how often a call is repeated within a sample; one that takes long is a sample."""
    seconds = clock(call, 1)
    if seconds >= LONG:
        return Samples(1, [seconds], seconds)
    for _ in range(WARM_UPS):
        seconds = min(seconds, clock(call, 1))
    return Samples(max(1, math.ceil(SAMPLE_SECONDS / max(seconds, 1e-7))))


def interleave(calls: Mapping[str, Thunk], share: float, clock: Clock = wall) -> dict[str, Samples]:
    """Time all calls in rounds, in a new order each, so that noise strikes all alike.

    Every call gets `share` seconds and at most `MOST` samples, a slow one up to `PATIENCE` times that for
    `FEW` samples; one that has spent its share sits out. All have run before.
    """
    samples = {name: begin(call, clock) for name, call in calls.items()}
    shuffle = random.Random(0).shuffle
    gc.collect(1)  # the young: all of PyTorch's objects would take longer than most cases
    gc.disable()
    try:
        while waiting := [name for name, sample in samples.items() if sample.wants_more(share)]:
            shuffle(waiting)
            for name in waiting:
                samples[name].take(calls[name], clock)
    finally:
        gc.enable()
    return samples


def medians(calls: Mapping[str, Thunk], share: float) -> list[float]:
    """Seconds that each takes, timed in turns for `share` seconds."""
    return [sample.quantile(0.5) for sample in interleave(calls, share).values()]


def field_of(path: str, name: str) -> str:
    """A field of a file in which Linux tells of itself, without its unit; "" on other systems."""
    lines = Path(path).read_text().splitlines() if Path(path).exists() else []
    found = (line.partition(":")[2].strip() for line in lines if line.startswith(name))
    return next(found, "").removesuffix(" kB")


def peak_beyond(call: Thunk, device: str) -> int:
    """Bytes that a call needs at most beyond what is there before it.

    On the CPU, the process must be a fresh one: what was freed before could be taken again unseen.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    earlier = field_of("/proc/self/status", "VmHWM")
    call()
    return 1024 * (int(field_of("/proc/self/status", "VmHWM")) - int(earlier))
