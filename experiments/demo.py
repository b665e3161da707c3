"""The main job: what sum, mean and max can and cannot see, in one run and three lines.

Claim: a mean or max readout cannot tell a molecule from its copies, whatever the network learns; a sum can.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean

from datasets import GraphSet
from experiments import collisions, copies, tower, tower_picture
from experiments.console import say
from experiments.rows import Row, RowLog

FOLDS, EPOCHS, SEEDS = 4, 100, 3


def run(sets: Sequence[GraphSet], out: Path, device: str, seed: int) -> list[Path]:
    """Measure, print and draw all three experiments; what is written is returned."""
    written = []
    with RowLog(out, "collisions") as log:
        rows = collisions.measure(sets, log)
        written += [log.path, *collisions.figure(rows, out)]
    say(*collisions.tables(rows))

    towers = [found for graphs in sets for found in tower.find_towers(graphs)]
    with RowLog(out, "tower", device) as log:
        tower_rows = tower.measure(towers, log, device, range(seed, seed + SEEDS))
        written += [log.path, *tower_picture.save(tower_rows, towers, out)]
    say(*tower.tables(tower_rows), *tower.remarks(towers))

    tasks = [copies.choose(graphs, None, seed) for graphs in sets]
    with RowLog(out, "copies", device) as log:
        copy_rows = copies.measure(tasks, log, device, seed, FOLDS, EPOCHS)
        written += [log.path, *copies.figure(copy_rows, out)]
    say(*copies.tables(copy_rows), *(task.sentence for task in tasks), "", *headline(copy_rows), "")
    return written


def headline(rows: Sequence[Row]) -> Iterator[str]:
    """One line a readout: how often it tells held-out molecules from copies, on average over the sets."""
    sets = list(dict.fromkeys(row["data"] for row in rows))
    for readout in copies.READOUTS:
        per_set = [copies.per_fold(rows, data, readout, "accuracy") for data in sets]
        average = mean(mean(folds) for folds in per_set)
        judged = verdict([accuracy for folds in per_set for accuracy in folds])
        yield f"{readout.capitalize():<5}{copies.percent(average):>6} %  {judged}"


def verdict(accuracies: Sequence[float]) -> str:
    """What the accuracies of all folds amount to; 50 % is what guessing gets."""
    if all(accuracy == 0.5 for accuracy in accuracies):
        return "cannot tell a held-out molecule from its copies: as good as guessing, in every fold"
    if all(accuracy == 1 for accuracy in accuracies):
        return "tells every held-out molecule from its copies"
    share = "nearly all" if mean(accuracies) > 0.95 else "some"
    return f"tells {share} molecules from their copies"
