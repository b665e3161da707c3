"""Jobs: pieces of work that do not depend on each other, and the rows that come of them.

One after the other in this process, or with `--jobs` in several processes, or with `--scheduler` on a Dask
cluster: each on one thread, so that a number does not depend on who computes it. The rows of a job are
written as soon as it is done, and a rerun does what is missing.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from experiments.console import UserError, tracked
from experiments.experiment import one_thread
from experiments.records import Row, RowLog

LARGE = 2**20  # bytes: joblib puts arrays of this size into memory that processes share
KEPT = 8  # large arguments that a process holds
Work = Mapping[str, Any]
Values = Sequence[Mapping[str, float]]
Done = Generator[tuple[int, Values]]


@dataclass(frozen=True)
class Job:
    """What is measured at once: for each set of rows its work and metrics, and what computes their values.

    `compute` can be pickled, and returns one mapping of metrics to values for each entry of `rows`. If it is
    a `partial`, a large argument that jobs share, such as a data set, is sent to each process once.
    """

    rows: Sequence[tuple[Work, Sequence[str]]]
    compute: Callable[[], Values]


@dataclass(frozen=True)
class Workers:
    """Who does the jobs; `sources` are the functions whose digest is the code of the rows."""

    jobs: int = 1
    scheduler: str | None = None
    sources: tuple[Callable[..., Any], ...] = ()


_workers: ContextVar[Workers] = ContextVar("workers")


@contextmanager
def working(workers: Workers) -> Iterator[None]:
    """Let `carry_out` give its jobs to these."""
    token = _workers.set(workers)
    try:
        yield
    finally:
        _workers.reset(token)


def carry_out(jobs: Sequence[Job], log: RowLog, what: str) -> list[Row]:
    """Do what is missing in the log, and return the rows of all jobs, in their order."""
    waiting = [job for job in jobs if known(job, log) is None]
    done = begin(waiting, _workers.get(Workers()))
    try:
        for place, found in tracked(done, what, len(waiting)):
            for (work, metrics), values in zip(waiting[place].rows, found, strict=True):
                log.measure(work, metrics, partial(dict, values))
    except BaseException as problem:
        done.throw(problem)  # ends the processes
    return [row for job in jobs for row in known(job, log) or ()]


class Missing(Exception):  # noqa: N818
    """A row is missing."""


def known(job: Job, log: RowLog) -> list[Row] | None:
    """Return the rows of a job, or None where one of them is missing."""

    def missing() -> Mapping[str, float]:
        raise Missing

    try:
        return [row for work, metrics in job.rows for row in log.measure(work, metrics, missing)]
    except Missing:
        return None


def begin(waiting: Sequence[Job], workers: Workers) -> Done:
    """Do jobs here, in processes or on a cluster; yields the place and the values of each as it gets done."""
    if workers.scheduler is not None and waiting:
        from experiments.cluster import run_on_cluster

        yield from run_on_cluster(waiting, workers.scheduler, workers.sources)
    elif workers.jobs > 1 and len(waiting) > 1:
        yield from run_in_processes(waiting, workers.jobs)
    else:
        for place, job in enumerate(waiting):
            with one_thread():
                found = job.compute()
            yield place, found


def run_in_processes(waiting: Sequence[Job], jobs: int) -> Done:
    """Do several jobs at a time, in fresh processes of one thread each."""
    from joblib import Parallel, delayed, parallel_config  # type: ignore[import-untyped]
    from joblib.externals.loky.process_executor import (  # type: ignore[import-untyped]
        TerminatedWorkerError,
    )

    held = {key: Packed(content) for key, content in large_arguments(waiting).items()}
    tasks = (
        delayed(in_process)(place, exchanged(job.compute, lambda value: held.get(id(value), value)))
        for place, job in enumerate(waiting)
    )
    start = {"initializer": prepare_process, "initargs": (os.getpid(),), "inner_max_num_threads": 1}
    with parallel_config("loky", n_jobs=jobs, **start):
        run = Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="2 * n_jobs")
    try:
        yield from run(tasks)
    except TerminatedWorkerError as problem:
        said = "--jobs: a process was killed, perhaps for lack of memory; a rerun continues."
        raise UserError(said) from problem


def large_arguments(waiting: Sequence[Job]) -> dict[int, bytes]:
    """Large arguments that several jobs share, pickled, by their identity."""
    arguments = [value for job in waiting for value in arguments_of(job.compute)]
    times = Counter(map(id, arguments))
    shared = {id(value): value for value in arguments if times[id(value)] > 1}
    packed = {key: pickle.dumps(value) for key, value in shared.items()}
    return {key: content for key, content in packed.items() if len(content) > LARGE}


def arguments_of(compute: Callable[[], Values]) -> Iterator[Any]:
    """The arguments of a partial."""
    if isinstance(compute, partial):
        yield from compute.args
        yield from compute.keywords.values()


def exchanged(compute: Callable[[], Values], change: Callable[[Any], Any]) -> Callable[[], Values]:
    """The same with every argument of a partial changed."""
    if not isinstance(compute, partial):
        return compute
    keywords = {name: change(value) for name, value in compute.keywords.items()}
    return partial(compute.func, *map(change, compute.args), **keywords)


class Packed:
    """A large argument on its way to a process: joblib maps the array into memory instead of sending it."""

    held: ClassVar[dict[str, Any]] = {}  # in a process: what it has unpacked, the latest last

    def __init__(self, content: bytes) -> None:
        """Take a pickle."""
        self.name, self.content = uuid.uuid4().hex, np.frombuffer(content, np.uint8)

    def unpacked(self) -> Any:
        """Unpack it, once in a process."""
        if self.name not in self.held:
            while len(self.held) >= KEPT:
                del self.held[next(iter(self.held))]
            self.held[self.name] = pickle.loads(self.content.data)
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


def in_process(place: int, compute: Callable[[], Values]) -> tuple[int, Values]:
    """Do a job alone, on one thread."""
    from joblib import parallel_config

    compute = exchanged(compute, lambda value: value.unpacked() if isinstance(value, Packed) else value)
    with one_thread(), parallel_config("sequential"):
        return place, compute()
