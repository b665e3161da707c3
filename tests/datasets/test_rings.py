from __future__ import annotations

import re
from collections import Counter
from itertools import combinations

import pytest
import torch
from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from datasets import covers, load, rings
from datasets.collisions import colours, keys, separations

MEMBERS = [(family, units) for family, kind in rings.FAMILIES.items() for units in kind.members]

SMILES = {
    "cyclopropane": "C1CC1",
    "cyclohexane": "C1CCCCC1",
    "cyclobutadiene": "C1=CC=C1",
    "benzene": "c1ccccc1",
    "cyclooctatetraene": "C1=CC=CC=CC=C1",
    "ethylene oxide": "C1CO1",
    "1,4-dioxane": "O1CCOCC1",
    "12-crown-4": "C1COCCOCCOCCO1",
    "18-crown-6": "C1COCCOCCOCCOCCOCCO1",
    "1,3,5-trioxane": "C1OCOCO1",
    "1,3,5,7-tetroxocane": "C1OCOCOCO1",
    "hexamethylcyclotrisiloxane": "C[Si]1(C)O[Si](C)(C)O[Si](C)(C)O1",
    "hexachlorocyclotriphosphazene": "ClP1(Cl)=NP(Cl)(Cl)=NP(Cl)(Cl)=N1",
    "octachlorocyclotetraphosphazene": "ClP1(Cl)=NP(Cl)(Cl)=NP(Cl)(Cl)=NP(Cl)(Cl)=N1",
}

FORMULAS = {
    "cyclododecane": "C12H24",
    "[18]annulene": "C18H18",
    "24-crown-8": "C16H32O8",
    "1,3,5,7,9-pentoxecane": "C5H10O5",
    "hexadecamethylcyclooctasiloxane": "C16H48O8Si8",
    "tetradecachlorocycloheptaphosphazene": "Cl14N7P7",
}


def molecule(data) -> Chem.Mol:
    """The RDKit molecule of exactly these atoms and bonds; RDKit may add no hydrogen and finds no charge."""
    editable = Chem.RWMol()
    for label in data.node_label.tolist():
        atom = Chem.Atom(rings.NODE_NAMES[label])
        atom.SetNoImplicit(True)
        editable.AddAtom(atom)
    orders = {rings.SINGLE: Chem.BondType.SINGLE, rings.DOUBLE: Chem.BondType.DOUBLE}
    for (u, v), order in zip(data.edge_index.T.tolist(), data.edge_label.tolist(), strict=True):
        if u < v:
            editable.AddBond(u, v, orders[order])
    Chem.SanitizeMol(editable)
    return editable.GetMol()


def by_name(name: str):
    return next(data for data in rings.load() if data.name == name)


@pytest.mark.parametrize(("family", "units"), MEMBERS, ids=lambda value: str(value))
def test_member_is_the_molecule_that_its_formula_says(family, units):
    data = rings.ring(family, units)
    mol = molecule(data)
    kind = rings.FAMILIES[family]

    unit = {element: int(count or 1) for element, count in re.findall(r"([A-Z][a-z]?)(\d*)", kind.unit)}
    elements = Counter(atom.GetSymbol() for atom in mol.GetAtoms())
    assert elements == {element: units * count for element, count in unit.items()}

    valence = {"H": 1, "C": 4, "O": 2, "N": 3, "Si": 4, "P": 5, "Cl": 1}
    for atom in mol.GetAtoms():
        assert atom.GetTotalValence() == valence[atom.GetSymbol()]
        assert atom.GetNumRadicalElectrons() == 0
        assert atom.GetFormalCharge() == 0

    (cycle,) = mol.GetRingInfo().AtomRings()
    assert len(cycle) == units * len(kind.ring)
    assert int(data.y) == rings.ring_class(len(cycle))
    assert len(Chem.GetMolFrags(mol)) == 1


@pytest.mark.parametrize("name", SMILES)
def test_structure_is_the_textbook_one(name):
    expected = Chem.CanonSmiles(SMILES[name])
    assert Chem.MolToSmiles(Chem.RemoveHs(molecule(by_name(name)))) == expected


@pytest.mark.parametrize("name", FORMULAS)
def test_formula_is_the_textbook_one(name):
    assert CalcMolFormula(molecule(by_name(name))) == FORMULAS[name]


def test_load_is_the_set_that_the_interface_promises():
    loaded = rings.load()
    assert loaded.name == "rings"
    assert loaded.classes == len(rings.CLASS_NAMES)
    assert loaded.node_names == rings.NODE_NAMES
    assert len(loaded) == len(MEMBERS) == 40
    assert len({data.name for data in loaded}) == 40
    assert set(Counter(data.family for data in loaded).values()) <= set(range(3, 9))
    assert {int(data.y) for data in loaded} == {0, 1, 2, 3}
    for data in loaded:
        n = data.num_nodes
        assert data.x.dtype == torch.float32
        assert torch.equal(data.x, torch.eye(len(rings.NODE_NAMES))[data.node_label])
        for field in (data.node_label, data.edge_index, data.edge_label, data.y):
            assert field.dtype == torch.int64
        code = data.edge_index[0] * n + data.edge_index[1]
        assert torch.equal(code, code.unique())
        assert data.is_undirected()
        assert not data.has_self_loops()
        assert data.validate()


def test_load_through_the_common_door():
    assert [data.name for data in load("rings")] == [data.name for data in rings.load()]


@pytest.mark.parametrize(
    ("ring_atoms", "name"),
    [(3, "small"), (4, "small"), (5, "common"), (7, "common"), (8, "medium"), (11, "medium"), (12, "large")],
)
def test_ring_class(ring_atoms, name):
    assert rings.CLASS_NAMES[rings.ring_class(ring_atoms)] == name


@pytest.mark.parametrize("family", rings.FAMILIES)
def test_molecules_with_a_multiple_of_the_units_are_covers_bond_orders_included(family):
    units = sorted(rings.FAMILIES[family].members)
    towers = [(m, n) for m, n in combinations(units, 2) if n % m == 0] + [(units[0], 11 * units[0])]
    for few, many in towers:
        small, big = rings.ring(family, few), rings.ring(family, many)
        assert covers.is_cover(big, small, covers.projection(small, many // few))


def test_kekule_bonds_alternate_around_the_ring():
    benzene = by_name("benzene")
    double = benzene.edge_index[:, benzene.edge_label == rings.DOUBLE]
    carbons = (benzene.node_label == rings.NODE_NAMES.index("C")).nonzero().flatten()
    assert sorted(double[0].tolist()) == carbons.tolist()


@pytest.mark.parametrize("aggregation", ["sum", "mean", "max"])
def test_mean_sees_the_family_and_nothing_else(aggregation):
    loaded = rings.load()
    for colouring in colours(loaded, 4, aggregation):
        for readout in ("mean", "max"):
            key_of_family = {
                (data.family, int(key)) for data, key in zip(loaded, keys(colouring, readout), strict=True)
            }
            assert len(key_of_family) == len(rings.FAMILIES)
        assert len(set(keys(colouring, "mean").tolist())) == len(rings.FAMILIES)
        assert len(set(keys(colouring, "sum").tolist())) == len(loaded)


def test_ceiling_of_mean_is_the_majority_class_of_each_family():
    loaded = rings.load()
    majorities = sum(
        max(Counter(int(data.y) for data in loaded if data.family == family).values())
        for family in rings.FAMILIES
    )
    by_readout = {entry.readout: entry for entry in separations(loaded, 0)}
    assert by_readout["sum"].ceiling == 1
    assert by_readout["mean"].ceiling * len(loaded) == majorities
    assert by_readout["mean"].pairs == 3 * 28 + 6 + 15 + 15


@pytest.mark.parametrize(
    ("family", "units", "message"),
    [
        ("kryptonite", 3, "family must be one of cycloalkane, .*got 'kryptonite'"),
        ("cycloalkane", 2, "at least 3 ring atoms"),
        ("crown ether", 0, "at least 3 ring atoms"),
        ("annulene", 5, "needs an even ring, got units=5"),
    ],
)
def test_ring_says_what_it_cannot_build(family, units, message):
    with pytest.raises(ValueError, match=message):
        rings.ring(family, units)


def test_a_ring_without_a_name_is_called_by_its_formula():
    assert rings.ring("crown ether", 100).name == "(C2H4O)100"
