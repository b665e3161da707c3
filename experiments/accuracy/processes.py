"""Jobs on this machine: one after the other in this process, or several at a time in fresh ones."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

import torch

from experiments.accuracy.jobs import Done, Job, Key, Residents
from experiments.experiment import one_thread
from experiments.learning.batches import Resident
from experiments.learning.training import Settings


def run_here(waiting: Sequence[Job], residents: Residents, settings: Settings, device: str) -> Done:
    """One job after the other, in this process, on one thread."""
    placed = {key: resident.to(device) for key, resident in residents.items()}
    for job in waiting:
        with one_thread():
            values = job.run(placed[job.key], settings)
        yield job, values


def run_in_processes(
    waiting: Sequence[Job], residents: Residents, settings: Settings, device: str, jobs: int
) -> Done:
    """Several jobs at a time, in fresh processes, each of which holds all sets on the device."""
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=begin,
        initargs=(pickle.dumps(residents), device),
    )
    with pool:
        futures = {pool.submit(in_process, job, settings): job for job in waiting}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:  # end the processes, whatever they are at; the pool then drops what waits
            for child in set(multiprocessing.active_children()).difference(others):
                child.terminate()
            raise


_held: dict[Key, Resident] = {}


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
    return job.run(_held[job.key], settings)
