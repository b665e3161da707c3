"""Molecules with the score of every atom as its colour, drawn by RDKit on axes of matplotlib."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse, Patch, PathPatch
from matplotlib.path import Path
from matplotlib.transforms import Affine2D
from rdkit import Chem
from rdkit.Chem import rdCoordGen
from rdkit.Chem.Draw import rdMolDraw2D

TYPES = {
    1.0: Chem.BondType.SINGLE,
    1.5: Chem.BondType.AROMATIC,
    2.0: Chem.BondType.DOUBLE,
    3.0: Chem.BondType.TRIPLE,
}
TABLE = Chem.GetPeriodicTable()
SYMBOLS = frozenset(TABLE.GetElementSymbol(number) for number in range(1, 119))
CODES = {"M": Path.MOVETO, "L": Path.LINETO, "Q": Path.CURVE3, "C": Path.CURVE4}
PIXELS_PER_INCH = 100  # of RDKit's canvas
OPTIONS = {
    "atomHighlightsAreCircles": True,
    "bondLineWidth": 1.2,
    "clearBackground": False,
    "highlightRadius": 0.35,
    "maxFontSize": 16,
    "minFontSize": 8,
    "padding": 0.03,
    "prepareMolsBeforeDrawing": False,  # aromatic bonds stay dashed, nothing is added
}


def build(
    symbols: Sequence[str], charges: Sequence[int] | None, orders: Mapping[tuple[int, int], float]
) -> Chem.Mol:
    """Make a molecule of just these atoms and bonds, laid out in the plane; its valences may be odd."""
    result = Chem.RWMol()
    charges = oxide_charges(symbols, orders) if charges is None else charges
    for symbol, charge in zip(symbols, charges, strict=True):
        if symbol not in SYMBOLS:
            raise ValueError(f"symbols: expected symbols of chemical elements, got {symbol!r}")
        atom = Chem.Atom(symbol)
        atom.SetNoImplicit(True)
        atom.SetFormalCharge(int(charge))
        result.AddAtom(atom)
    for (first, second), order in orders.items():
        result.AddBond(first, second, TYPES[order])
    return laid_out(result)


def parse(data: Any) -> Chem.Mol:
    """Return the molecule of a SMILES string; an RDKit molecule as it is."""
    if isinstance(data, Chem.Mol):
        return data
    if not isinstance(data, str):
        raise TypeError(f"data: expected a graph, a SMILES string or an RDKit Mol, got {type(data).__name__}")
    found = Chem.MolFromSmiles(data)
    if found is None:
        raise ValueError(f"data: expected a SMILES string of a molecule, got {data!r}")
    return found


def laid_out(compound: Chem.Mol) -> Chem.Mol:
    """Return a copy of a molecule with coordinates in the plane; its valences may be odd."""
    result = Chem.Mol(compound)
    result.UpdatePropertyCache(strict=False)
    rdCoordGen.AddCoords(result)
    return result


def oxide_charges(symbols: Sequence[str], orders: Mapping[tuple[int, int], float]) -> list[int]:
    """Return the charges of nitro groups and N-oxides: +1 for N with four bonds, -1 for its single O."""
    bonds: dict[int, dict[int, float]] = {node: {} for node in range(len(symbols))}
    for (first, second), order in orders.items():
        bonds[first][second] = bonds[second][first] = order
    charges = [0] * len(symbols)
    for node, neighbours in bonds.items():
        lone = [
            other
            for other, order in neighbours.items()
            if symbols[other] == "O" and order == 1 and len(bonds[other]) == 1
        ]
        if symbols[node] == "N" and lone and sum(neighbours.values()) == 4:
            charges[node], charges[lone[0]] = 1, -1
    return charges


def draw_molecule(
    compound: Chem.Mol,
    colours: npt.NDArray[np.float64],
    axes: Axes,
    corner: tuple[float, float],
    room: Sequence[float],
    bond: float,
) -> None:
    """Draw a molecule in the middle of a part of the axes, whose unit is the inch.

    Args:
        compound: a molecule such as `build` gives.
        colours: the colour of every atom [n, 4].
        axes: where to draw.
        corner: the lower left corner of the part.
        room: width and height of the part.
        bond: the length of a bond; shorter where the molecule would not fit.
    """
    width, height = (round(side * PIXELS_PER_INCH) for side in room)
    canvas = rdMolDraw2D.MolDraw2DSVG(width, height)
    options = canvas.drawOptions()
    options.useBWAtomPalette()
    for name, value in (OPTIONS | {"fixedBondLength": bond * PIXELS_PER_INCH}).items():
        setattr(options, name, value)
    atoms = dict(enumerate(map(tuple, colours.tolist())))
    canvas.DrawMolecule(compound, highlightAtoms=list(atoms), highlightAtomColors=atoms, highlightBonds=[])
    canvas.FinishDrawing()
    to_inches = Affine2D().translate(0, -height).scale(1 / PIXELS_PER_INCH, -1 / PIXELS_PER_INCH)
    place = to_inches.translate(*corner) + axes.transData
    for element in ElementTree.fromstring(canvas.GetDrawingText()):
        shape = _shape(element.attrib)
        if shape is not None:
            axes.add_patch(shape).set_transform(place)


def _shape(given: Mapping[str, str]) -> Patch | None:
    """Make a patch of an ellipse or a path of RDKit's SVG: a highlight, a line of a bond, or a letter."""
    style = dict(part.split(":") for part in given.get("style", "").split(";") if ":" in part)
    if "cx" in given:
        x, y, across, up = (float(given[name]) for name in ("cx", "cy", "rx", "ry"))
        return Ellipse((x, y), 2 * across, 2 * up, facecolor=style["fill"], linewidth=0)
    if "d" not in given:
        return None
    points: list[list[float]] = []
    codes: list[int] = []
    for kind, numbers in re.findall("([A-Z])([^A-Z]*)", given["d"]):
        pairs = np.array(re.findall(r"-?[\d.]+", numbers), dtype=float).reshape(-1, 2).tolist()
        points += pairs
        codes += [int(CODES[kind])] * len(pairs)
    return PathPatch(
        Path(points, codes),
        facecolor=style.get("fill", given.get("fill")),
        edgecolor=style.get("stroke", "none"),
        linewidth=float(style.get("stroke-width", "0px").removesuffix("px")) * 72 / PIXELS_PER_INCH,
        linestyle=(0, (3, 2)) if "stroke-dasharray" in style else "-",
    )
