"""Does a network know larger graphs than it learned from, and does it know when it does not know?

Claims: on graphs larger than those of the training a mean readout keeps more of its skill than a sum, whose
embedding leaves the range that the head has seen. And a sum grows surer with size alone: of k disjoint copies
of a graph, which have the same proportions of everything, its logits are k times those of one, less the bias,
so that confidence and calibration error grow while the answers stay; the logits of mean, max, median and
attention do not move by a bit. It is the graph form of "average pooling is softmax at temperature H W".

The protocol for sizes is that of Buffelli et al. (arXiv 2207.07888): learn from the smallest half of the
graphs, ask about the largest tenth, weigh classes, report MCC. Temperature and calibration error: Guo et al.
(arXiv 1706.04599); average pooling in front of softmax: Lin et al. (arXiv 1312.4400).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache, partial
from importlib import metadata
from statistics import mean
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch

from experiments.accuracy.jobs import digest, one_thread
from experiments.accuracy.networks import Network
from experiments.accuracy.resident import Resident, reside
from experiments.accuracy.training import Settings
from experiments.console import tracked
from experiments.extrapolation.copies import COPIES, IDENTITIES, MOVED, copied, identities, logits_of, moved
from experiments.extrapolation.judging import (
    BASELINES,
    CALIBRATED,
    JUDGED,
    PREDICTED,
    calibration,
    fit_and_judge,
    judged,
)
from experiments.extrapolation.task import Parts, Task
from experiments.extrapolation.training import LEARNING_RATE, READOUTS, node_by_node, train
from experiments.rows import Row, RowLog

COPIED = "copies of between"


def measure(tasks: Sequence[Task], log: RowLog, device: str, epochs: int) -> list[Row]:
    """Skill by size, of baselines and networks, and what networks say of copies; on one thread."""
    settings = Settings(epochs=epochs, learning_rates=(LEARNING_RATE,))
    rows = []
    with one_thread():
        for task in tasks:
            resident = reside(task.graphs, "gin", settings.rounds).to(device)
            batches = {seed: cache(partial(copies_of, task, seed, device)) for seed in task.parts}
            for seed in task.parts:
                rows += measure_baselines(task, log, seed)
            runs = [(seed, readout) for seed in task.parts for readout in READOUTS]
            for seed, readout in tracked(runs, f"training on {task.graphs.name}"):
                rows += measure_network(
                    resident, task.parts[seed], batches[seed], log, readout, seed, settings
                )
    return rows


def copies_of(task: Task, seed: int, device: str) -> dict[int, Batch]:
    """Copies of held-out graphs."""
    return copied(task.held_out(seed), device)


def measure_baselines(task: Task, log: RowLog, seed: int) -> list[Row]:
    """How many graphs of what size are in each part, and what majority and size alone tell of them."""
    rows, parts = [], task.parts[seed]
    for part, positions in parts.items():
        work = {"data": task.graphs.name, "readout": None, "seed": seed, "fold": None, "part": part}
        sizes = [task.graphs[position].num_nodes for position in positions]
        facts = {"graphs": len(sizes)} | ({"nodes": mean(sizes)} if sizes else {})
        rows += log.measure(work, facts, lambda facts=facts: facts)  # type: ignore[misc]
        for baseline in BASELINES if positions else ():
            fit = partial(fit_and_judge, task, parts, part, baseline)
            rows += log.measure(work | {"readout": baseline}, PREDICTED, fit)
    return rows


def measure_network(
    resident: Resident,
    parts: Parts,
    batches: Callable[[], dict[int, Batch]],
    log: RowLog,
    readout: str,
    seed: int,
    settings: Settings,
) -> list[Row]:
    """Train a network, judge it on graphs of all sizes, and ask it about copies of held-out ones."""
    network = cache(partial(train, resident, parts, readout, seed, settings))
    plain = cache(lambda: node_by_node(network(), resident, settings))
    logits = cache(lambda: logits_of(plain(), batches()))
    work: dict[str, Any] = {"data": resident.data, "readout": readout, "seed": seed, "fold": None}
    work |= {"network": "gin", "settings": asdict(settings), "method": digest()}
    rows = []
    for part, positions in parts.items():
        if positions:
            compute = partial(judge_part, network, resident, positions)
            rows += log.measure(work | {"part": part}, JUDGED, compute)
    work |= {"part": COPIED, "libraries": {"torchmetrics": metadata.version("torchmetrics")}}
    for k in COPIES:
        rows += log.measure(work | {"k": k}, (*CALIBRATED, MOVED), partial(judge_copies, logits, batches, k))
    if readout == "sum":
        rows += log.measure(work, IDENTITIES, lambda: identities(plain(), logits(), batches()[1]))
    return rows


def judge_part(
    network: Callable[[], Network], resident: Resident, positions: Sequence[int]
) -> dict[str, float]:
    """Skill on the graphs of a part."""
    batch, trained = resident.batch(positions), network()
    with torch.no_grad():
        return judged(trained(batch), batch.y)


def judge_copies(
    logits: Callable[[], dict[int, Tensor]], batches: Callable[[], dict[int, Batch]], k: int
) -> dict[str, float]:
    """Calibration on k copies, and for how many graphs these have other logits than one."""
    found = logits()
    return calibration(found[k], batches()[1].y) | {MOVED: moved(found[k], found[1])}
