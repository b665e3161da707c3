"""Networks x readouts and baselines on the folds of each set: what is to be done, by whom, and its rows.

One job is one method on one fold. Jobs run in processes of one thread each, so that a number does not depend
on how many there are; its rows are written as soon as it is done, and a rerun does what is missing.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets import GraphSet
from datasets.splits import Split, stratified_folds
from experiments.accuracy import baselines, training
from experiments.accuracy.baselines import BASELINES
from experiments.accuracy.networks import READOUTS
from experiments.accuracy.resident import NETWORKS, Resident, reside
from experiments.accuracy.training import Settings
from experiments.console import UserError, tracked, writing
from experiments.rows import Row, RowLog

FOLDS = 10
VALIDATION = 0.1
QUICK = ("sum", "mean", "max")
FAILURE = "accuracy.failure.txt"
MEASURING = ("baselines", "measure", "networks", "products", "resident", "training")

Residents = Mapping[tuple[str, str], Resident]


@dataclass(frozen=True)
class Plan:
    """What the user asked for: networks, readouts, folds (None: as many as the classes allow, up to ten)."""

    networks: tuple[str, ...]
    readouts: tuple[str, ...]
    folds: int | None = None
    repeats: int = 1
    seed: int = 0
    attributes: bool = False
    settings: Settings = field(default_factory=Settings)


def plan(
    networks: Sequence[str],
    readouts: Sequence[str],
    folds: int | None,
    repeats: int,
    seed: int,
    attributes: bool,
    epochs: int,
    quick: bool,
) -> Plan:
    """A plan from the command line; with `quick`, one for a first look."""
    chosen = readouts or (QUICK if quick else tuple(READOUTS))
    for option, names, known in (("network", networks, NETWORKS), ("readout", chosen, READOUTS)):
        for name in names:
            if name not in known:
                raise UserError(f"--{option}: expected one of {', '.join(known)}, got {name}.")
    settings = Settings(epochs=epochs)
    if quick:
        settings = replace(settings, epochs=min(epochs, 50), learning_rates=settings.learning_rates[:1])
    return Plan(
        networks=tuple(dict.fromkeys(networks)),
        readouts=tuple(dict.fromkeys(chosen)),
        folds=folds,
        repeats=repeats,
        seed=seed,
        attributes=attributes,
        settings=settings,
    )


@dataclass(frozen=True)
class Job:
    """One method on one fold; a baseline has no network, and borrows the resident of any."""

    data: str
    network: str
    method: str
    split: Split
    seed: int
    work: Mapping[str, Any]

    @property
    def metrics(self) -> tuple[str, ...]:
        """What it measures."""
        return baselines.METRICS if self.method in BASELINES else training.METRICS

    def run(self, residents: Residents, settings: Settings) -> dict[str, float]:
        """Train and judge, or fit and judge."""
        resident = residents[self.data, self.network]
        if self.method in BASELINES:
            return baselines.fit_and_judge(resident, self.split, self.method, self.seed)
        return training.train_and_judge(resident, self.split, self.method, settings, self.seed)


def measure(sets: Sequence[GraphSet], log: RowLog, plan: Plan, device: str, jobs: int) -> list[Row]:
    """The rows of all jobs and ceilings, in the order of the plan."""
    listed = [job for graphs in sets for job in list_jobs(graphs, plan)]
    kinds = [(graphs, network) for graphs in sets for network in plan.networks]
    residents = {
        (graphs.name, network): reside(graphs, network, plan.settings.rounds, plan.attributes)
        for graphs, network in tracked(kinds, "colouring nodes")
    }
    rows = [row for resident in residents.values() for row in ceilings(resident, plan, log)]
    run_all = run_here if jobs == 1 else partial(run_in_processes, jobs=jobs)
    failure = log.path.with_name(FAILURE)
    failure.unlink(missing_ok=True)
    try:
        rows += run_all(listed, residents, log, plan.settings, device)
    except Exception:
        with writing(failure):
            failure.write_text(traceback.format_exc())
        raise
    return rows


def list_jobs(graphs: GraphSet, plan: Plan) -> Iterator[Job]:
    """All jobs of a set, a fold at a time; every method gets the same folds and seeds."""
    check(graphs, plan)
    folds = plan.folds or min(FOLDS, smallest_class(graphs))
    share = max(VALIDATION, graphs.classes / (len(graphs) - -(-len(graphs) // folds)))
    methods: list[tuple[str | None, str]] = [(None, name) for name in BASELINES]
    methods += [(network, readout) for network in plan.networks for readout in plan.readouts]
    for seed in range(plan.seed, plan.seed + plan.repeats):
        try:
            splits = stratified_folds(graphs, folds, share, seed).splits
        except ValueError as problem:
            raise UserError(f"accuracy: {problem}.") from problem
        for fold, split in enumerate(splits):
            for network, method in methods:
                work: dict[str, Any] = {"data": graphs.name, "readout": method, "seed": seed, "fold": fold}
                work |= {"network": network, "folds": folds, "attributes": plan.attributes}
                work |= {"method": digest()}
                if network is None:
                    work |= {"libraries": {"scikit-learn": metadata.version("scikit-learn")}}
                else:
                    work |= {"settings": asdict(plan.settings) | {"validation": share}}
                yield Job(graphs.name, network or plan.networks[0], method, split, seed + fold, work)


def smallest_class(graphs: GraphSet) -> int:
    """The number of graphs in the smallest class."""
    return int(np.bincount([int(graph.y) for graph in graphs], minlength=graphs.classes).min())


def check(graphs: GraphSet, plan: Plan) -> None:
    """Refuse what has no answer, in one sentence."""
    if len({int(graph.y) for graph in graphs}) < 2:
        raise UserError(f"{graphs.name}: all {len(graphs)} graphs are of one class; accuracy needs two.")
    if plan.attributes and not all("node_attr" in graph for graph in graphs):
        raise UserError(f"--attributes: {graphs.name} has no node attributes.")


@cache
def digest() -> str:
    """A digest of the files that a number depends on; those of tables and figures only read rows."""
    folder = Path(__file__).parent
    sources = b"".join((folder / f"{name}.py").read_bytes() for name in MEASURING)
    return hashlib.sha256(sources).hexdigest()[:16]


def ceilings(resident: Resident, plan: Plan, log: RowLog) -> Iterator[Row]:
    """The accuracy ceiling of each readout on the whole set, behind this kind of network."""
    everything = range(len(resident))
    for readout in plan.readouts:
        work: dict[str, Any] = {"data": resident.data, "readout": readout, "seed": None, "fold": None}
        work |= {"network": resident.network, "rounds": plan.settings.rounds}
        work |= {"attributes": plan.attributes, "method": digest()}
        found = partial(resident.ceiling, READOUTS[readout].view, everything)
        yield from log.measure(work, ("ceiling",), lambda found=found: {"ceiling": found()})  # type: ignore[misc]


def run_here(
    listed: Sequence[Job], residents: Residents, log: RowLog, settings: Settings, device: str
) -> list[Row]:
    """One job after the other, in this process, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    placed = {key: resident.to(device) for key, resident in residents.items()}
    try:
        rows = [
            log.measure(job.work, job.metrics, partial(job.run, placed, settings))
            for job in tracked(listed, "training")
        ]
    finally:
        torch.set_num_threads(threads)
    return [row for found in rows for row in found]


def run_in_processes(
    listed: Sequence[Job], residents: Residents, log: RowLog, settings: Settings, device: str, jobs: int
) -> list[Row]:
    """Several jobs at a time: a thread for each writes its rows, and waits for a process that computes."""
    with processes(jobs, residents, device) as pool, ThreadPoolExecutor(jobs) as writers:

        def finish(job: Job) -> list[Row]:
            return log.measure(job.work, job.metrics, lambda: pool.submit(in_process, job, settings).result())

        futures = [writers.submit(finish, job) for job in listed]
        try:
            return [row for future in tracked(futures, "training") for row in future.result()]
        except BaseException:
            stop(futures)
            raise


def stop(futures: Sequence[Future[list[Row]]]) -> None:
    """Drop what waits and end the processes, whatever they are at."""
    for future in futures:
        future.cancel()
    for child in multiprocessing.active_children():
        child.terminate()


@contextmanager
def processes(jobs: int, residents: Residents, device: str) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes, each of which holds all sets on the device."""
    pool = ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=begin,
        initargs=(pickle.dumps(residents), device),
    )
    with pool:
        yield pool


_held: dict[tuple[str, str], Resident] = {}


def begin(residents: bytes, device: str) -> None:
    """Prepare a process: one thread, deaf to Ctrl-C, and gone when its parent is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=leave_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _held.update({key: resident.to(device) for key, resident in pickle.loads(residents).items()})


def leave_with_parent() -> None:
    """Wait for the parent's end, killed or not, and end this process."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def in_process(job: Job, settings: Settings) -> dict[str, float]:
    """Run a job on the sets that this process holds."""
    return job.run(_held, settings)
