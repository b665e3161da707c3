"""What the rows of those experiments amount to whose tables used to speak for themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean

from experiments import copies, demo, tower
from experiments.console import share
from experiments.report.headlines import ceilings_at, strayed, sum_error, towers
from experiments.rows import Row, pick, present
from experiments.speed.cells import gather
from experiments.speed.tables import summary
from experiments.speed.thresholds import evaluate


def of_collisions(rows: Sequence[Row]) -> Iterator[str]:
    """Ceilings on atoms and after one round, and how many pairs are left for mean aggregation at the end."""
    deepest = max(row["depth"] for row in rows if "depth" in row)
    for data in present(rows, "data"):
        atoms, round_ = (
            ", ".join(f"{view} {share(ceiling)}" for view, ceiling in ceilings_at(rows, data, depth).items())
            for depth in (0, 1)
        )
        left = {
            aggregation: pick(
                rows, data=data, depth=deepest, aggregation=aggregation, readout="mean", metric="pairs"
            )
            for aggregation in ("sum", "mean")
        }
        yield (
            f"{data}: ceilings on atoms are {atoms}; after one injective round {round_}. Pairs that the mean "
            f"still confuses after {deepest} rounds: {left['sum']} with injective aggregation, "
            f"{left['mean']} with mean aggregation."
        )


def of_tower(rows: Sequence[Row]) -> Iterator[str]:
    """For each tower, whether the bits are the same, and whether the sums are the multiples of the first."""
    for (data, name), found in towers(rows).items():
        apart = present([row for row in strayed(found) if row["readout"] != "sum"], "readout")
        together = [readout for readout in present(found, "readout") if readout not in ("sum", *apart)]
        count = len(present(found, "position"))
        said = f"{listed(together)} place all {count} graphs on one point, bit for bit" if together else ""
        against = f"{listed(apart)} {'does' if len(apart) == 1 else 'do'} not" if apart else ""
        factor = max(row["factor"] for row in found)
        off = tower.small(sum_error(found))
        sums = f"the sums go up to {factor:.4g} times the first, off by {off} of that at most"
        yield f"{data}, {name}: {'; '.join(filter(None, (said, against, sums)))}."


def of_copies(rows: Sequence[Row]) -> Iterator[str]:
    """For each set and readout, how many held-out molecules it tells from their copies."""
    for data in present(rows, "data"):
        for readout in copies.READOUTS:
            folds = copies.per_fold(rows, data, readout, "accuracy")
            yield f"{data}, {readout}: {demo.verdict(folds)} ({copies.percent(mean(folds))} %)."


def of_speed(rows: Sequence[Row]) -> Iterator[str]:
    """How many limits are met in how many cells; the table of misses names the others."""
    outcomes = evaluate(gather(rows))
    yield f"Limits: {summary(outcomes)}."


def listed(names: Sequence[str]) -> str:
    """A, B and C."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
