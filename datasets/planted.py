"""A table of molecules with targets whose best readout is known: to learn on, and to test with."""

from __future__ import annotations

import csv
import random
from pathlib import Path

COLUMNS = ("smiles", "fluorines", "share", "extensive", "intensive", "presence")
RINGS = (6, 24)  # atoms of the smallest and the largest ring
MANY, MOST = 6, 0.5


def write_csv(path: str | Path, molecules: int = 500, seed: int = 0) -> None:
    """Write substituted cycloalkanes, each ring carbon with or without one fluorine and one chlorine.

        planted.write_csv("planted.csv"); load("planted.csv", target="extensive")

    Two targets are numbers: `fluorines` counts the fluorine atoms, which a sum reads off, and `share` is
    their number per ring atom, for a mean. Three are "yes" or "no": `extensive` for six fluorines or more,
    `intensive` for a share of a half or more, `presence` where there is any chlorine, for a maximum. Ring
    size, share of fluorine and share of chlorine are drawn independently; half of the rings have none.
    """
    draw = random.Random(seed)
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        table.writerows(_row(draw) for _ in range(molecules))


def _row(draw: random.Random) -> tuple[object, ...]:
    size, density = draw.randint(*RINGS), draw.uniform(0.1, 0.9)
    fluorine = [draw.random() < density for _ in range(size)]
    chlorine = [False] * size
    if draw.random() < 0.5:
        for place in draw.sample(range(size), draw.randint(1, size)):
            chlorine[place] = True
    smiles = "".join(
        "C" + "1" * (place in (0, size - 1)) + "(F)" * fluorine[place] + "(Cl)" * chlorine[place]
        for place in range(size)
    )
    count, share = sum(fluorine), sum(fluorine) / size
    answers = (count >= MANY, share >= MOST, any(chlorine))
    return (smiles, count, f"{share:.4f}", *("yes" if answer else "no" for answer in answers))
