"""The embedded data set: ring molecules that differ in nothing but the number of their repeat units.

Within a family all molecules have the same composition, and the same neighbourhoods at every depth: any two
of them have a common cover (Bamberger 2022, arXiv 2206.11876). Their chemistry depends on the size all the
same: ethylene oxide alkylates DNA, 1,4-dioxane is a solvent, 18-crown-6 binds potassium. All are known
compounds, with their hydrogens, and built by the code below, without network or files.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import torch
from torch_geometric.data import Data

from datasets.graphs import GraphSet

NODE_NAMES = ("C", "H", "O", "N", "Si", "P", "Cl")
CLASS_NAMES = ("small", "common", "medium", "large")
SINGLE, DOUBLE = 1, 2


@dataclass(frozen=True)
class Atom:
    """An element and the atoms that hang on it by single bonds, away from the ring."""

    element: str
    substituents: tuple[Atom, ...] = ()


@dataclass(frozen=True)
class Family:
    """Rings of one repeat unit: its formula, its ring atoms in order, and the known members by unit count.

    With `alternating`, the ring bonds are double, single, double, ... from the first ring atom on.
    """

    unit: str
    ring: tuple[Atom, ...]
    members: dict[int, str]
    alternating: bool = False


_H, _CL = Atom("H"), Atom("Cl")
_CH2 = Atom("C", (_H, _H))
_METHYL = Atom("C", (_H, _H, _H))

FAMILIES = {
    "cycloalkane": Family(
        unit="CH2",
        ring=(_CH2,),
        members={
            3: "cyclopropane",
            4: "cyclobutane",
            5: "cyclopentane",
            6: "cyclohexane",
            7: "cycloheptane",
            8: "cyclooctane",
            10: "cyclodecane",
            12: "cyclododecane",
        },
    ),
    "annulene": Family(
        unit="CH",
        ring=(Atom("C", (_H,)),),
        members={
            4: "cyclobutadiene",
            6: "benzene",
            8: "cyclooctatetraene",
            10: "[10]annulene",
            12: "[12]annulene",
            14: "[14]annulene",
            16: "[16]annulene",
            18: "[18]annulene",
        },
        alternating=True,
    ),
    "crown ether": Family(
        unit="C2H4O",
        ring=(_CH2, _CH2, Atom("O")),
        members={
            1: "ethylene oxide",
            2: "1,4-dioxane",
            3: "9-crown-3",
            4: "12-crown-4",
            5: "15-crown-5",
            6: "18-crown-6",
            7: "21-crown-7",
            8: "24-crown-8",
        },
    ),
    # The pentamer and the 15-mer have been isolated from residues of the polymerisation of trioxane.
    "cyclic formal": Family(
        unit="CH2O",
        ring=(_CH2, Atom("O")),
        members={
            3: "1,3,5-trioxane",
            4: "1,3,5,7-tetroxocane",
            5: "1,3,5,7,9-pentoxecane",
            15: "1,3,5,7,9,11,13,15,17,19,21,23,25,27,29-pentadecaoxacyclotriacontane",
        },
    ),
    "cyclosiloxane": Family(
        unit="C2H6OSi",
        ring=(Atom("Si", (_METHYL, _METHYL)), Atom("O")),
        members={
            3: "hexamethylcyclotrisiloxane",
            4: "octamethylcyclotetrasiloxane",
            5: "decamethylcyclopentasiloxane",
            6: "dodecamethylcyclohexasiloxane",
            7: "tetradecamethylcycloheptasiloxane",
            8: "hexadecamethylcyclooctasiloxane",
        },
    ),
    "phosphazene": Family(
        unit="NPCl2",
        ring=(Atom("P", (_CL, _CL)), Atom("N")),
        members={
            3: "hexachlorocyclotriphosphazene",
            4: "octachlorocyclotetraphosphazene",
            5: "decachlorocyclopentaphosphazene",
            6: "dodecachlorocyclohexaphosphazene",
            7: "tetradecachlorocycloheptaphosphazene",
            8: "hexadecachlorocyclooctaphosphazene",
        },
        alternating=True,
    ),
}


def load() -> GraphSet:
    """Return all members of all families, smallest first within a family.

    The fields are those of `ring`; the class `y` is the ring-size class of organic chemistry (`ring_class`).
    """
    return GraphSet(
        name="rings",
        graphs=tuple(ring(family, units) for family in FAMILIES for units in FAMILIES[family].members),
        classes=len(CLASS_NAMES),
        node_names=NODE_NAMES,
        notes=("built by code: known ring molecules, hydrogens included",),
    )


def ring(family: str, units: int) -> Data:
    """Build the ring of `units` repeat units of a family, also one that is not among the known members.

    Atoms are numbered unit by unit, each ring atom before its substituents. So the molecule of k times as
    many units covers one of n atoms by j -> j mod n, which is `covers.projection`.

    The graph has the fields of `GraphSet`, with `edge_label` 1 for single and 2 for double bonds (one Kekulé
    structure), `name` (str; the formula where `members` has none), `family` (str) and `units` (int). Raises
    `ValueError` for an unknown family, for fewer than three ring atoms, and for an odd number of ring atoms
    where bonds alternate.
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
    kind = FAMILIES[family]
    ring_atoms = units * len(kind.ring)
    if ring_atoms < 3:
        raise ValueError(f"a ring needs at least 3 ring atoms, got {family} with units={units}")
    if kind.alternating and ring_atoms % 2:
        raise ValueError(f"{family} alternates its bonds and needs an even ring, got units={units}")

    elements, bonds, backbone = _chain(kind.ring * units)
    for position, atom in enumerate(backbone):
        order = DOUBLE if kind.alternating and position % 2 == 0 else SINGLE
        bonds.append((atom, backbone[(position + 1) % ring_atoms], order))

    node_label = torch.tensor([NODE_NAMES.index(element) for element in elements])
    edges = sorted([(u, v, order) for u, v, order in bonds] + [(v, u, order) for u, v, order in bonds])
    source, target, edge_label = torch.tensor(edges).unbind(dim=1)
    return Data(
        x=torch.nn.functional.one_hot(node_label, len(NODE_NAMES)).float(),
        node_label=node_label,
        edge_index=torch.stack([source, target]),
        edge_label=edge_label.clone(),
        y=torch.tensor([ring_class(ring_atoms)]),
        name=kind.members.get(units, f"({kind.unit}){units}"),
        family=family,
        units=units,
    )


def ring_class(ring_atoms: int) -> int:
    """Return the index in `CLASS_NAMES`: small rings 3-4 atoms, common 5-7, medium 8-11, large 12 and more.

    The names are those of organic chemistry (Eliel & Wilen, Stereochemistry of Organic Compounds, 1994).
    """
    return bisect_right((5, 8, 12), ring_atoms)


def _chain(atoms: tuple[Atom, ...]) -> tuple[list[str], list[tuple[int, int, int]], list[int]]:
    """Number atoms, each before its substituents: all elements, bonds to substituents, numbers of `atoms`."""
    elements: list[str] = []
    bonds: list[tuple[int, int, int]] = []

    def place(atom: Atom) -> int:
        number = len(elements)
        elements.append(atom.element)
        for substituent in atom.substituents:
            bonds.append((number, place(substituent), SINGLE))
        return number

    return elements, bonds, [place(atom) for atom in atoms]
