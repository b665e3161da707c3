"""A table of molecules with targets whose best readout is known: to learn on, and to test with."""

from __future__ import annotations

import csv
import random
from pathlib import Path

COLUMNS = ("smiles", "fluorines", "share", "heaviest", "extensive", "intensive", "presence")
RINGS = (6, 24)  # atoms of the smallest and the largest ring
MANY, MOST = 6, 0.5
MASSES = {"F": 19.0, "Cl": 35.5, "Br": 79.9, "I": 126.9}


def write_csv(path: str | Path, molecules: int = 500, seed: int = 0) -> None:
    """Write substituted cycloalkanes whose ring carbons bear up to two halogens.

        planted.write_csv("planted.csv"); load("planted.csv", target="extensive")

    Three targets are numbers: `fluorines` counts the fluorine atoms, for a sum; `share` is their number per
    ring atom, for a mean; `heaviest` is the mass of the heaviest halogen, for a maximum. Three are "yes" or
    "no": `extensive` for six fluorines or more, `intensive` for a share of a half or more, `presence` where
    there is any chlorine. Ring size, share of fluorine and share of chlorine are drawn independently;
    half of the rings have no chlorine, and three in ten have one atom of bromine or iodine.
    """
    draw = random.Random(seed)
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        table.writerows(_row(draw) for _ in range(molecules))


def _row(draw: random.Random) -> tuple[object, ...]:
    size, density = draw.randint(*RINGS), draw.uniform(0.1, 0.9)
    fluorine = [draw.random() < density for _ in range(size)]
    other = [""] * size
    if draw.random() < 0.5:
        for place in draw.sample(range(size), draw.randint(1, size)):
            other[place] = "Cl"
    if draw.random() < 0.3:
        free = [place for place in range(size) if not other[place]] or list(range(1, size))
        other[draw.choice(free)] = draw.choice(("Br", "I"))
    smiles = "".join(
        "C" + "1" * (place in (0, size - 1)) + "(F)" * has_fluorine + f"({halogen})" * bool(halogen)
        for place, (has_fluorine, halogen) in enumerate(zip(fluorine, other, strict=True))
    )
    count, share = sum(fluorine), sum(fluorine) / size
    heaviest = max((MASSES[element] for element in (*other, *("F" * count)) if element), default=0.0)
    answers = (count >= MANY, share >= MOST, "Cl" in other)
    return (smiles, count, f"{share:.4f}", heaviest, *("yes" if answer else "no" for answer in answers))
