"""Jobs: pieces of work that do not depend on each other, and the rows that come of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from experiments.console import tracked
from experiments.experiment import one_thread
from experiments.records import Row, RowLog

Work = Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """What is measured at once: for each set of rows its work and metrics, and what computes their values.

    `compute` can be pickled, and returns one mapping of metrics to values for each entry of `rows`.
    """

    rows: Sequence[tuple[Work, Sequence[str]]]
    compute: Callable[[], Sequence[Mapping[str, float]]]


def carry_out(jobs: Sequence[Job], log: RowLog, what: str) -> list[Row]:
    """Do what is missing in the log, and return the rows of all jobs, in their order."""
    waiting = [job for job in jobs if known(job, log) is None]
    for job in tracked(waiting, what):
        with one_thread():
            found = job.compute()
        for (work, metrics), values in zip(job.rows, found, strict=True):
            log.measure(work, metrics, partial(dict, values))
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
