"""Networks x readouts and baselines on the folds of each set: who does it, and its rows.

Jobs run in processes of one thread each, here or on a cluster, so that a number does not depend on how many
there are. The rows of a job are written as soon as it is done, and a rerun does what is missing.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from datasets import GraphSet
from experiments.accuracy.cluster import run_on_cluster
from experiments.accuracy.jobs import Done, Job, Plan, Residents, digest, list_jobs
from experiments.accuracy.networks import READOUTS
from experiments.accuracy.processes import run_here, run_in_processes
from experiments.accuracy.resident import Resident, reside
from experiments.console import UserError, tracked, writing
from experiments.rows import Row, RowLog

FAILURE = "accuracy.failure.txt"


def measure(
    sets: Sequence[GraphSet],
    log: RowLog,
    plan: Plan,
    device: str,
    jobs: int = 1,
    scheduler: str | None = None,
) -> list[Row]:
    """The rows of all jobs and ceilings, in the order of the plan.

    Jobs run in `jobs` processes, or on the workers of the Dask cluster whose scheduler has this address.
    """
    listed = [job for graphs in sets for job in list_jobs(graphs, plan)]
    kinds = [(graphs, network) for graphs in sets for network in plan.networks]
    residents = {
        (graphs.name, network): reside(graphs, network, plan.settings.rounds, plan.attributes)
        for graphs, network in tracked(kinds, "colouring nodes")
    }
    rows = [row for resident in residents.values() for row in ceilings(resident, plan, log)]
    waiting = [job for job in listed if not known(job, log)]
    failure = log.path.with_name(FAILURE)
    failure.unlink(missing_ok=True)
    try:
        with closing(begin(waiting, residents, plan, device, jobs, scheduler)) as done:
            for _, (job, values) in zip(tracked(waiting, "training"), done, strict=True):
                log.measure(job.work, job.metrics, partial(dict, values))
    except UserError:
        raise
    except Exception:
        with writing(failure):
            failure.write_text(traceback.format_exc())
        raise
    return rows + [row for job in listed for row in known(job, log)]


def begin(
    waiting: Sequence[Job], residents: Residents, plan: Plan, device: str, jobs: int, scheduler: str | None
) -> Done:
    """Run jobs here, in processes or on a cluster; yields each as it gets done."""
    if scheduler is not None:
        return run_on_cluster(waiting, residents, plan.settings, device, scheduler)
    if jobs > 1:
        return run_in_processes(waiting, residents, plan.settings, device, jobs)
    return run_here(waiting, residents, plan.settings, device)


class Missing(Exception):  # noqa: N818
    """A row is missing."""


def known(job: Job, log: RowLog) -> list[Row]:
    """The rows of a job; none where one of them is missing."""

    def missing() -> Mapping[str, float]:
        raise Missing

    try:
        return log.measure(job.work, job.metrics, missing)
    except Missing:
        return []


def ceilings(resident: Resident, plan: Plan, log: RowLog) -> Iterator[Row]:
    """The accuracy ceiling of each readout on the whole set, behind this kind of network."""
    everything = range(len(resident))
    for readout in plan.readouts:
        work: dict[str, Any] = {"data": resident.data, "readout": readout, "seed": None, "fold": None}
        work |= {"network": resident.network, "rounds": plan.settings.rounds}
        work |= {"attributes": plan.attributes, "method": digest()}
        found = partial(resident.ceiling, READOUTS[readout].view, everything)
        yield from log.measure(work, ("ceiling",), lambda found=found: {"ceiling": found()})  # type: ignore[misc]
