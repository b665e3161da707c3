"""Sketches of molecules, by RDKit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdCoordGen

from readouts.attribution.sketch import Bond, Points, Sketch, centred

TYPES = {
    1.0: Chem.BondType.SINGLE,
    1.5: Chem.BondType.AROMATIC,
    2.0: Chem.BondType.DOUBLE,
    3.0: Chem.BondType.TRIPLE,
}
TABLE = Chem.GetPeriodicTable()
SYMBOLS = frozenset(TABLE.GetElementSymbol(number) for number in range(1, 119))


def sketch(
    symbols: Sequence[str],
    charges: Sequence[int],
    orders: Mapping[tuple[int, int], float],
    scores: Sequence[float],
) -> Sketch:
    """Lay a molecule out; `orders` has the order of the bond between each pair of bonded atoms."""
    unknown = [symbol for symbol in symbols if symbol not in SYMBOLS]
    if unknown:
        raise ValueError(f"symbols: expected symbols of chemical elements, got {unknown[0]!r}")
    compound = build(symbols, charges, orders)
    rdCoordGen.AddCoords(compound)
    points = compound.GetConformer().GetPositions()[:, :2]
    lengths = [np.linalg.norm(points[first] - points[second]) for first, second in orders]
    points = centred(points, float(np.mean(lengths)) if lengths else 1.0)
    centres = ring_centres(compound, points)
    return Sketch(
        points=points,
        scores=list(scores),
        labels=[label(compound.GetAtomWithIdx(atom)) for atom in range(len(symbols))],
        bonds=[Bond(*pair, order, centres.get(frozenset(pair))) for pair, order in orders.items()],
        skeletal=True,
    )


def build(
    symbols: Sequence[str], charges: Sequence[int], orders: Mapping[tuple[int, int], float]
) -> Chem.Mol:
    """Make a molecule of just these atoms and bonds; its valences may be odd."""
    result = Chem.RWMol()
    for symbol, charge in zip(symbols, charges, strict=True):
        atom = Chem.Atom(symbol)
        atom.SetNoImplicit(True)
        atom.SetFormalCharge(charge)
        result.AddAtom(atom)
    for (first, second), order in orders.items():
        result.AddBond(first, second, TYPES[order])
    result.UpdatePropertyCache(strict=False)
    Chem.FastFindRings(result)
    return result.GetMol()


def ring_centres(compound: Chem.Mol, points: Points) -> dict[frozenset[int], Points]:
    """Map the bonds of rings to the centre of the smallest ring that they are in."""
    centres: dict[frozenset[int], Points] = {}
    for ring in sorted(Chem.GetSymmSSSR(compound), key=len, reverse=True):
        atoms = list(ring)
        for pair in zip(atoms, atoms[1:] + atoms[:1], strict=True):
            centres[frozenset(pair)] = points[atoms].mean(axis=0)
    return centres


def label(atom: Chem.Atom) -> str:
    """Symbol and charge; nothing for a carbon that its bonds show."""
    charge = atom.GetFormalCharge()
    if atom.GetSymbol() == "C" and not charge and atom.GetDegree():
        return ""
    size = str(abs(charge)) if abs(charge) > 1 else ""
    sign = "" if charge == 0 else "+" if charge > 0 else "−"
    return atom.GetSymbol() + (f"$^{{{size}{sign}}}$" if sign else "")
