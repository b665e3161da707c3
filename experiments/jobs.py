"""Jobs: pieces of work that do not depend on each other, and the rows that come of them.

One after the other in this process, or with `--jobs` in several processes, or with `--scheduler` on a Dask
cluster: each on one thread, so that a number does not depend on who computes it. The rows of a job are
written as soon as it is done, and a rerun does what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from experiments.console import tracked
from experiments.experiment import one_thread
from experiments.parallel import Done, Values, run_in_processes
from experiments.records import Row, RowLog

Work = Mapping[str, Any]


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
            log.add((*row, values) for row, values in zip(waiting[place].rows, found, strict=True))
    except BaseException as problem:
        done.throw(problem)  # ends the processes
    return [row for job in jobs for row in known(job, log) or ()]


def known(job: Job, log: RowLog) -> list[Row] | None:
    """Return the rows of a job, or None where one of them is missing."""
    found = [log.known(work, metrics) for work, metrics in job.rows]
    return None if None in found else [row for rows in found for row in rows or ()]


def begin(waiting: Sequence[Job], workers: Workers) -> Done:
    """Do jobs here, in processes or on a cluster; yields the place and the values of each as it gets done."""
    computes = [job.compute for job in waiting]
    if workers.scheduler is not None and computes:
        from experiments.cluster import run_on_cluster

        yield from run_on_cluster(computes, workers.scheduler, workers.sources)
    elif workers.jobs > 1 and len(computes) > 1:
        yield from run_in_processes(computes, workers.jobs)
    else:
        for place, compute in enumerate(computes):
            with one_thread():
                found = compute()
            yield place, found
