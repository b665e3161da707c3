"""Functions that several processes call, each on one thread, by joblib; what they share is sent once."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from experiments.console import UserError
from experiments.experiment import one_thread

LARGE = 2**16  # bytes of a pickle
KEPT = 4  # large arguments that a process holds
Values = Sequence[Mapping[str, float]]
Compute = Callable[[], Values]
Done = Generator[tuple[int, Values]]  # places of functions, and what they returned


def run_in_processes(computes: Sequence[Compute], jobs: int) -> Done:
    """Do several jobs at a time, in fresh processes of one thread each."""
    from joblib import parallel_config  # type: ignore[import-untyped]
    from joblib.externals.loky.process_executor import (  # type: ignore[import-untyped]
        TerminatedWorkerError,
    )

    start = {"initializer": prepare_process, "initargs": (os.getpid(),), "inner_max_num_threads": 1}
    try:
        yield from in_parallel(do_alone, computes, parallel_config("loky", n_jobs=jobs, **start))
    except TerminatedWorkerError as problem:
        said = "--jobs: a process was killed, perhaps for lack of memory; a rerun continues."
        raise UserError(said) from problem


def in_parallel(do: Callable[..., tuple[int, Values]], computes: Sequence[Compute], config: Any) -> Done:
    """Call `do` with every place and function, by a backend of joblib."""
    from joblib import Parallel, delayed

    with config:
        run = Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="2 * n_jobs")
    yield from run(delayed(do)(place, compute) for place, compute in enumerate(packed(computes)))


def packed(computes: Sequence[Compute]) -> list[Compute]:
    """The functions with large arguments packed that several of them share."""
    arguments = [value for compute in computes for value in arguments_of(compute)]
    times = Counter(map(id, arguments))
    shared = {id(value): value for value in arguments if times[id(value)] > 1}
    pickles = {key: pickle.dumps(value) for key, value in shared.items()}
    held = {key: Packed(content) for key, content in pickles.items() if len(content) > LARGE}
    return [exchanged(compute, lambda value: held.get(id(value), value)) for compute in computes]


def arguments_of(compute: Compute) -> Iterator[Any]:
    """The arguments of a partial."""
    if isinstance(compute, partial):
        yield from compute.args
        yield from compute.keywords.values()


def exchanged(compute: Compute, change: Callable[[Any], Any]) -> Compute:
    """The same with every argument of a partial changed."""
    if not isinstance(compute, partial):
        return compute
    keywords = {name: change(value) for name, value in compute.keywords.items()}
    return partial(compute.func, *map(change, compute.args), **keywords)


class Packed:
    """A large argument, compressed: in sets, most are one-hot rows and small integers.

    It is unpacked once in a process. An array of 1 MB or more is mapped into memory by joblib.
    """

    held: ClassVar[dict[str, Any]] = {}

    def __init__(self, content: bytes) -> None:
        """Take a pickle."""
        self.name = uuid.uuid4().hex
        self.content = np.frombuffer(zlib.compress(content, level=1), np.uint8)

    def unpacked(self) -> Any:
        """Return what this process holds, or unpack it in place of what came first."""
        if self.name not in self.held:
            while len(self.held) >= KEPT:
                del self.held[next(iter(self.held))]
            self.held[self.name] = pickle.loads(zlib.decompress(self.content.data))
        return self.held[self.name]


def prepare_process(parent: int) -> None:
    """Make a process deaf to Ctrl-C, and let it end when its parent is gone, killed or not."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=leave_with, args=(parent,), daemon=True).start()


def leave_with(parent: int) -> None:
    """End this process when its parent is another."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def do_alone(place: int, compute: Compute) -> tuple[int, Values]:
    """Do a job on one thread, with what it shares unpacked."""
    from joblib import parallel_config

    compute = exchanged(compute, lambda value: value.unpacked() if isinstance(value, Packed) else value)
    with one_thread(), parallel_config("sequential"):
        return place, compute()
