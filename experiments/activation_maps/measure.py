"""Rows: who has nitro groups; for each fold and readout what was learned, where the score is, and curves.

All maps are of molecules that were held out, and those of untrained networks stand beside them. What is drawn
comes from the first fold and does not depend on the maps: molecules with a nitro group, evenly spaced in the
order of the set, and for the gallery the first of each class that the network with a mean gets right, or
wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from statistics import mean

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from datasets import GraphSet
from datasets.splits import Split, stratified_folds
from experiments.activation_maps import worth
from experiments.activation_maps.maps import (
    BATCH_SIZE,
    LAYERS,
    LEARNING_RATE,
    READOUTS,
    WIDTH,
    activation_maps,
    logits,
    train,
)
from experiments.activation_maps.task import MUTAGENS, Task, choose
from experiments.console import UserError, tracked
from experiments.models import GIN
from experiments.rows import Row, RowLog

COUNTS = ("mutagens with", "others with", "mutagens without", "others without")
LEARNED = ("train accuracy", "accuracy", "majority", "size only")
SHARES = ("atoms", "score", "ranked", "fused atoms", "fused score")
MAPPED = (*SHARES, "drop top", "drop nitro", "drop random", "half")
GROUPS = ("NO2", "NH2")
HITS = tuple(f"{group} {what}" for group in GROUPS for what in ("molecules", "hits", "expected"))
CURVES = tuple(worth.point(order, part) for order in worth.ORDERS for part in worth.REMOVED)
SHOWN = tuple(f"shown {place}" for place in range(4))
KINDS = ("mutagen, right", "mutagen, wrong", "other, right", "other, wrong")
GALLERY = tuple(f"{kind} {place}" for place in range(2) for kind in KINDS)
NONE, PICKING = -1, "mean"


def measure(
    sets: Sequence[GraphSet], log: RowLog, device: str, seed: int, folds: int, steps: int
) -> list[Row]:
    """The rows of all sets."""
    if not sets:
        raise UserError(f"--data: expected {' or '.join(MUTAGENS)}, sets of mutagens, got none.")
    rows = []
    for task in [choose(graphs) for graphs in sets]:
        work = {"data": task.graphs.name, "readout": None, "seed": seed, "fold": None}
        rows += log.measure(work, COUNTS, partial(count, task))
        splits = stratified_folds(task.graphs, folds, validation=0.0, seed=seed).splits
        for fold, split in tracked(list(enumerate(splits)), f"training on {task.graphs.name}"):
            rows += measure_fold(task, split, log, device, seed, work | {"fold": fold, "folds": folds}, steps)
    return rows


def measure_fold(
    task: Task, split: Split, log: RowLog, device: str, seed: int, work: Row, steps: int
) -> list[Row]:
    """Both readouts on one fold, trained and untrained; in the first fold also what is to be drawn."""
    work = work | {"layers": LAYERS, "width": WIDTH, "draws": worth.DRAWS}
    work |= {"batch size": BATCH_SIZE, "learning rate": LEARNING_RATE}
    rows = []
    learn = {
        (readout, length): cache(partial(train, task, split, readout, device, seed + work["fold"], length))
        for readout in READOUTS
        for length in (steps, 0)
    }
    for (readout, length), learned in learn.items():
        here = work | {"readout": readout, "steps": length}
        found = partial(judge, task, split, readout, learned, seed)
        rows += log.measure(here, (*LEARNED, *MAPPED, *HITS), found)
        if length:
            rows += log.measure(here, CURVES, partial(curves, task, split, readout, learned, seed))
    if work["fold"] == 0:
        here = work | {"readout": PICKING, "steps": steps}
        picked = partial(pick_molecules, task, split, learn[PICKING, steps])
        drawn = log.measure(here, (*SHOWN, *GALLERY), picked)
        rows += drawn
        for position in dict.fromkeys(row["value"] for row in drawn if row["value"] != NONE):
            metrics = ["logit", *(f"atom {atom}" for atom in range(len(task.nitro[position])))]
            for readout in READOUTS:
                compute = partial(one_map, task, position, readout, learn[readout, steps])
                rows += log.measure(here | {"readout": readout, "molecule": position}, metrics, compute)
    return rows


def count(task: Task) -> dict[str, int]:
    """How many mutagens and others have a nitro group, and have none."""
    kinds = [(float(m.y), bool(nitro.any())) for m, nitro in zip(task.molecules, task.nitro, strict=True)]
    order = ((1.0, True), (0.0, True), (1.0, False), (0.0, False))
    return dict(zip(COUNTS, map(kinds.count, order), strict=True))


def judge(task: Task, split: Split, readout: str, learn: Callable[[], GIN], seed: int) -> dict[str, float]:
    """What was learned, and where the maps of held-out molecules with nitro groups have their score."""
    network = learn()
    sides = [[task.molecules[position] for position in side] for side in (split.train, split.test)]
    right = [((logits(network, side) > 0) == torch.cat([m.y for m in side]).bool()) for side in sides]
    mutagens = mean(float(molecule.y) for molecule in sides[1])
    values = [*(side.double().mean().item() for side in right), max(mutagens, 1 - mutagens)]
    values += [size_only(*sides)]
    held_out = [position for position in split.test if task.nitro[position].any()]
    molecules, nitro = [task.molecules[i] for i in held_out], [task.nitro[i] for i in held_out]
    maps = activation_maps(network, molecules, readout)
    values += worth.shares(torch.cat(maps), torch.cat(nitro))
    values += [mean(worth.ranked(scores, group) for scores, group in zip(maps, nitro, strict=True))]
    values += worth.shares(torch.cat(maps), torch.cat([task.fused[i] for i in held_out]))
    values += worth.drops(network, molecules, maps, nitro, seed)
    all_maps = activation_maps(network, sides[1], readout)
    values += [mean(map(worth.half, all_maps))]
    return dict(zip((*LEARNED, *MAPPED), values, strict=True)) | hits(task, split, all_maps)


def size_only(train: Sequence[Data], test: Sequence[Data]) -> float:
    """The held-out accuracy of the one threshold on the number of atoms that is best in training."""

    def accuracies(molecules: Sequence[Data], threshold: Tensor) -> Tensor:
        sizes = torch.tensor([m.num_nodes for m in molecules])
        right = (sizes > threshold.unsqueeze(1)) == torch.cat([m.y for m in molecules]).bool()
        share_right = right.double().mean(dim=1)
        return torch.stack([share_right, 1 - share_right])  # mutagens are the larger, or the smaller

    thresholds = torch.tensor([m.num_nodes + 0.5 for m in train]).unique()
    best = accuracies(train, thresholds).argmax()
    return accuracies(test, thresholds).flatten()[best].item()


def hits(task: Task, split: Split, maps: Sequence[Tensor]) -> dict[str, float]:
    """Of the held-out mutagens with a group: how many, whose best atom is in it, how many by chance."""
    result = {}
    for name, groups in zip(GROUPS, (task.nitro, task.amino), strict=True):
        found = [
            (worth.hit(scores, groups[position]), groups[position].double().mean().item())
            for position, scores in zip(split.test, maps, strict=True)
            if groups[position].any() and task.molecules[position].y == 1
        ]
        result[f"{name} molecules"] = float(len(found))
        result[f"{name} hits"] = sum(in_group for in_group, _ in found)
        result[f"{name} expected"] = sum(part for _, part in found)
    return result


def curves(task: Task, split: Split, readout: str, learn: Callable[[], GIN], seed: int) -> dict[str, float]:
    """The deletion curves of all held-out molecules."""
    molecules = [task.molecules[position] for position in split.test]
    found = worth.deletions(learn(), molecules, activation_maps(learn(), molecules, readout), seed)
    return dict(zip(CURVES, [value for order in worth.ORDERS for value in found[order]], strict=True))


def pick_molecules(task: Task, split: Split, learn: Callable[[], GIN]) -> dict[str, int]:
    """Positions of the molecules to draw; `NONE` where the fold has no more of a kind."""
    with_nitro = [position for position in split.test if task.nitro[position].any()]
    evenly = np.linspace(0, len(with_nitro) - 1, min(len(SHOWN), len(with_nitro))).round().astype(int)
    result = dict.fromkeys((*SHOWN, *GALLERY), NONE)
    result |= {f"shown {place}": with_nitro[at] for place, at in enumerate(evenly)}
    molecules = [task.molecules[position] for position in split.test]
    for position, molecule, logit in zip(split.test, molecules, logits(learn(), molecules), strict=True):
        mutagen = bool(molecule.y)
        kind = f"{'mutagen' if mutagen else 'other'}, {'right' if (logit > 0) == mutagen else 'wrong'}"
        free = [metric for metric in GALLERY if metric.startswith(kind) and result[metric] == NONE]
        result |= dict.fromkeys(free[:1], position)
    return result


def one_map(task: Task, position: int, readout: str, learn: Callable[[], GIN]) -> dict[str, float]:
    """The logit of one molecule, and the score of each of its atoms."""
    molecule = [task.molecules[position]]
    (scores,) = activation_maps(learn(), molecule, readout)
    (logit,) = logits(learn(), molecule).tolist()
    return {"logit": logit} | {f"atom {atom}": score for atom, score in enumerate(scores.tolist())}
