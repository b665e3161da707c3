"""What RDKit computes of the molecules of a set: targets that are extensive, intensive, or ask what exists.

Molecules are read from their SMILES where they have them, and else from labels whose meaning the readmes of
the sets publish: elements, and bond orders. Charges are in no label: a nitrogen of four bonds gets one, and
an oxygen of one bond next to it, as in nitro groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

from rdkit import Chem
from rdkit.Chem import Crippen, Descriptors, rdMolDescriptors
from rdkit.rdBase import BlockLogs
from torch_geometric.data import Data

from datasets import GraphSet
from experiments.console import UserError

EXTENSIVE, INTENSIVE, EXISTENTIAL = "extensive", "intensive", "existential"
BondType = Chem.BondType
BONDS = {
    "MUTAG": (BondType.AROMATIC, BondType.SINGLE, BondType.DOUBLE, BondType.TRIPLE),
    "PTC_MR": (BondType.TRIPLE, BondType.DOUBLE, BondType.SINGLE, BondType.AROMATIC),
    "Mutagenicity": (BondType.SINGLE, BondType.DOUBLE, BondType.TRIPLE),
    "rings": (BondType.ZERO, BondType.SINGLE, BondType.DOUBLE),
}
_ELECTRONEGATIVITY = """
H:2.20 Li:0.98 Be:1.57 B:2.04 C:2.55 N:3.04 O:3.44 F:3.98 Na:0.93 Mg:1.31 Al:1.61 Si:1.90 P:2.19 S:2.58
Cl:3.16 K:0.82 Ca:1.00 Fe:1.83 Co:1.88 Ni:1.91 Cu:1.90 Zn:1.65 As:2.18 Se:2.55 Br:2.96 Ag:1.93 In:1.78
Sn:1.96 I:2.66 Ba:0.89 Pt:2.28 Au:2.54 Hg:2.00 Pb:2.33
"""
PAULING = dict(pair.split(":") for pair in _ELECTRONEGATIVITY.split())


@dataclass(frozen=True)
class Target:
    """A property of molecules; one of `classes` is 1 where something exists, and 0 elsewhere."""

    name: str
    kind: str
    compute: Callable[[Chem.Mol], float]
    classes: bool = False


def electronegativity(molecule: Chem.Mol) -> float:
    """Return the mean of Pauling's electronegativity over all atoms, hydrogens included."""
    return mean(float(PAULING[atom.GetSymbol()]) for atom in Chem.AddHs(molecule).GetAtoms())


def largest_ring(molecule: Chem.Mol) -> float:
    """Return the size of the largest of the smallest rings, 0 without rings."""
    return float(max(map(len, molecule.GetRingInfo().AtomRings()), default=0))


def contains(smarts: str) -> Callable[[Chem.Mol], float]:
    """Return the function that says whether a pattern is in a molecule."""
    pattern = Chem.MolFromSmarts(smarts)
    return lambda molecule: float(molecule.HasSubstructMatch(pattern))


TARGETS = (
    Target("molecular weight", EXTENSIVE, Descriptors.MolWt),  # type: ignore[attr-defined]
    Target("heavy atoms", EXTENSIVE, lambda molecule: float(molecule.GetNumHeavyAtoms())),
    Target("molar refractivity", EXTENSIVE, Crippen.MolMR),  # type: ignore[attr-defined]
    Target("TPSA", EXTENSIVE, rdMolDescriptors.CalcTPSA),
    Target("sp3 carbons", INTENSIVE, rdMolDescriptors.CalcFractionCSP3),
    Target("electronegativity", INTENSIVE, electronegativity),
    Target("nitro group", EXISTENTIAL, contains("[N+](=O)[O-]"), classes=True),
    Target("halogen", EXISTENTIAL, contains("[F,Cl,Br,I]"), classes=True),
    Target("largest ring", EXISTENTIAL, largest_ring),
)


@dataclass(frozen=True)
class Molecules:
    """The values of all targets for each molecule that RDKit could read, by its position in the set."""

    values: dict[int, tuple[float, ...]]
    failures: dict[int, str]


def describe(graphs: GraphSet) -> Molecules:
    """Compute all targets of all graphs; raises `UserError` where atoms or bonds are not known."""
    read = reader_of(graphs)
    values, failures = {}, {}
    with BlockLogs():
        for position, graph in enumerate(graphs):
            try:
                molecule = Chem.RemoveHs(read(graph))
                values[position] = tuple(float(target.compute(molecule)) for target in TARGETS)
            except (ValueError, KeyError) as error:  # of RDKit, or an element without electronegativity
                failures[position] = " ".join(str(error).split())
    return Molecules(values, failures)


def reader_of(graphs: GraphSet) -> Callable[[Data], Chem.Mol]:
    """Return what makes a molecule of a graph."""
    if graphs.own and all("smiles" in graph for graph in graphs):
        return lambda graph: Chem.MolFromSmiles(graph.smiles)
    orders = BONDS.get(graphs.name)
    if orders is None or graphs.node_names is None:
        raise UserError(
            f"{graphs.name}: expected molecules whose atoms and bond orders are known (rings, MUTAG, PTC_MR, "
            "Mutagenicity, or your own SMILES), got labels without a published meaning."
        )
    names = graphs.node_names
    return lambda graph: molecule_of(graph, names, orders)


def molecule_of(graph: Data, node_names: Sequence[str], orders: Sequence[BondType]) -> Chem.Mol:
    """Return the sanitised molecule of a graph; raises `ValueError` where RDKit finds none."""
    molecule = Chem.RWMol()
    for label in graph.node_label.tolist():
        molecule.AddAtom(Chem.Atom(node_names[label]))
    for (first, second), label in zip(graph.edge_index.T.tolist(), graph.edge_label.tolist(), strict=True):
        if first < second:
            molecule.AddBond(first, second, orders[label])
    for bond in molecule.GetBonds():
        if bond.GetBondType() == BondType.AROMATIC:
            for part in (bond, bond.GetBeginAtom(), bond.GetEndAtom()):
                part.SetIsAromatic(True)
    for atom in molecule.GetAtoms():
        if not atom.GetIsAromatic():
            charge(atom)
    Chem.SanitizeMol(molecule)
    return molecule.GetMol()


def charge(atom: Chem.Atom) -> None:
    """Give a charge to a nitrogen of four bonds or an oxygen of three, and its opposite to an oxygen."""
    orders = sum(bond.GetBondTypeAsDouble() for bond in atom.GetBonds())
    if (atom.GetSymbol(), orders) not in (("N", 4), ("O", 3)):
        return
    atom.SetFormalCharge(1)
    for bond in atom.GetBonds():
        other = bond.GetOtherAtom(atom)
        single = bond.GetBondType() == BondType.SINGLE and other.GetDegree() == 1
        if single and other.GetSymbol() == "O":
            other.SetFormalCharge(-1)
            return
