"""Jobs on the workers of a Dask cluster, as tasks of joblib's backend for it.

Dask runs the jobs of a lost worker elsewhere. A worker takes one job at a time, on one thread, and only if
its code and its versions are those of this process, for its rows say so.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from joblib import parallel_config  # type: ignore[import-untyped]

from experiments.console import UserError
from experiments.digest import digest
from experiments.parallel import Compute, Done, Values, do_alone, in_parallel
from experiments.records import versions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

PATIENCE = 10  # seconds for a scheduler to answer, and for a first worker to be there
Sources = tuple[Callable[..., Any], ...]  # functions whose digest is the code of the rows
INSTALL = "--scheduler needs Dask: pip install 'dask[distributed]'."


def run_on_cluster(computes: Sequence[Compute], address: str, sources: Sources) -> Done:
    """Do all jobs, as workers get them done; raises `UserError` where the cluster cannot do them."""
    do = partial(on_worker, sources, stamp(sources))
    with connected(address) as client:
        yield from in_parallel(do, computes, parallel_config(backend(client)))


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """A client of the scheduler; what goes wrong with the cluster, and not with a job, is one sentence."""
    try:
        from distributed import Client, KilledWorker
    except ImportError as problem:
        raise UserError(INSTALL) from problem
    try:
        asyncio.run(answered(address))
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError) as problem:
        raise UserError(f"--scheduler: no Dask scheduler answers at {address}: {problem}.") from problem
    with client:
        try:
            yield client
        except TimeoutError as problem:
            raise UserError(f"--scheduler: {address} has no worker, after {PATIENCE} s.") from problem
        except KilledWorker as problem:
            raise UserError(
                f"--scheduler: workers died, one after the other, at one job: {problem}"
            ) from problem
        except CancelledError as problem:
            raise UserError(f"--scheduler: {address} is lost; a rerun continues.") from problem
        except (ImportError, RuntimeError) as problem:
            missing = problem if isinstance(problem, ImportError) else problem.__cause__
            if not isinstance(missing, ImportError):
                raise
            where = "scheduler and workers have to find this clone, say through PYTHONPATH"
            raise UserError(f"--scheduler: {where}: {missing}.") from problem


async def answered(address: str) -> None:
    """Return where something answers, else raise; a `Client` that finds nothing leaves tracebacks behind."""
    from distributed.comm.core import connect
    from distributed.security import Security

    (await connect(address, timeout=PATIENCE, **Security().get_connection_args("client"))).abort()


def backend(client: Client) -> Any:
    """joblib's backend for Dask, which by itself would wait forever for a job that Dask has given up.

    It would also run the jobs in this process where the cluster has one thread.
    """
    from joblib._dask import DaskDistributedBackend  # type: ignore[import-untyped]

    class Backend(DaskDistributedBackend):
        def submit(self, func: Any, callback: Callable[[object], None]) -> Any:
            def give_up(done: Future[object]) -> None:
                if (problem := done.exception()) is not None:
                    callback(problem)

            future = super().submit(func, callback)
            future.add_done_callback(give_up)
            return future

        def effective_n_jobs(self, n_jobs: int) -> int:
            return max(2, super().effective_n_jobs(n_jobs))

    return Backend(client=client, wait_for_workers_timeout=PATIENCE)


@cache
def stamp(sources: Sources) -> dict[str, str]:
    """What rows say of the process that measured them."""
    return {**versions(), "code": digest(sources)}


_alone = threading.Lock()


def on_worker(sources: Sources, expected: dict[str, str], place: int, compute: Compute) -> tuple[int, Values]:
    """Do a job in a worker, which may have several threads; the random numbers of torch are for all of them.

    Raises `UserError` where rows would not tell the truth about this worker.
    """
    found = stamp(sources)
    differing = [
        f"{name} {found[name]} instead of {expected[name]}" for name in found if found[name] != expected[name]
    ]
    if differing:
        raise UserError(f"--scheduler: a worker has {', '.join(differing)}.")
    with _alone:
        return do_alone(place, compute)
