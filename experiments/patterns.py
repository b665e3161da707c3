"""Groups of atoms that a pattern names, found by RDKit in graphs whose nodes are atoms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rdkit import Chem
from rdkit.rdBase import BlockLogs
from torch import Tensor
from torch_geometric.data import Data

from datasets import GraphSet
from experiments.console import UserError
from experiments.molecules import are_elements, molecule

GROUPS = {"NO2": "[#7](~[#8;D1])~[#8;D1]", "NH2": "[#7;X3;H2] [#7;X3;H2]~[#1]", "fused": "[x3,x4]"}
BOND_ORDERS = {"MUTAG": (1.5, 1.0, 2.0, 3.0), "Mutagenicity": (1.0, 2.0, 3.0)}  # of the readmes
ORDERS = {"single": 1.0, "aromatic": 1.5, "double": 2.0, "triple": 3.0}


def nodes_of(graphs: GraphSet, pattern: str) -> tuple[Tensor, ...]:
    """Return which nodes of each graph are in the pattern, bool [n].

    A pattern is one of `GROUPS`, or SMARTS; of several with blanks between, atoms in any count. Without bond
    orders, only the bond `~` of SMARTS matches. Where nodes are no atoms, the pattern is a label of nodes.
    """
    symbols = symbols_of(graphs)
    if symbols is None:
        names = graphs.node_names or tuple(map(str, range(graphs.num_features)))
        if pattern not in names:
            raise UserError(
                f"--pattern: expected one of the node labels of {graphs.name}, whose nodes are no atoms "
                f"({', '.join(names[:20])}), got {pattern}."
            )
        return tuple(graph.node_label == names.index(pattern) for graph in graphs)
    with BlockLogs():
        queries = [Chem.MolFromSmarts(part) for part in GROUPS.get(pattern, pattern).split()]
    if not all(queries):
        raise UserError(f"--pattern: expected SMARTS or one of {', '.join(GROUPS)}, got {pattern}.")
    return tuple(matched(compound(graph, graphs), queries) for graph in graphs)


def symbols_of(graphs: GraphSet) -> Sequence[str] | None:
    """Return the element of each node label; None where nodes are no atoms."""
    names = graphs.node_names
    return names if names and are_elements(names) else None


def bonds_of(graph: Data, graphs: GraphSet) -> Tensor | None:
    """Return the order of every bond, [E]; None where it is not known."""
    orders: Sequence[float] | None = BOND_ORDERS.get(graphs.name)
    if graphs.edge_names and set(graphs.edge_names) <= ORDERS.keys():
        orders = [ORDERS[name] for name in graphs.edge_names]
    return None if orders is None or "edge_label" not in graph else torch.tensor(orders)[graph.edge_label]


def compound(graph: Data, graphs: GraphSet) -> Chem.Mol:
    """Return the molecule of a graph, atom by atom; charges and hydrogens are those of its SMILES, if any."""
    symbols, bonds = symbols_of(graphs) or (), bonds_of(graph, graphs)
    ends = graph.edge_index.T.tolist()
    known = [0.0] * len(ends) if bonds is None else bonds.tolist()
    orders = {
        (first, second): order for (first, second), order in zip(ends, known, strict=True) if first < second
    }
    implicit = bonds is not None and "H" not in symbols
    bare = molecule([symbols[label] for label in graph.node_label.tolist()], orders, implicit)
    if "smiles" not in graph:
        return bare
    whole = Chem.MolFromSmiles(graph.smiles)
    order = whole.GetSubstructMatch(bare)
    return Chem.RenumberAtoms(whole, order) if len(order) == whole.GetNumAtoms() else bare


def matched(found: Chem.Mol, queries: Sequence[Chem.Mol]) -> Tensor:
    """Return which atoms are in a match, bool [n]."""
    result = torch.zeros(found.GetNumAtoms(), dtype=torch.bool)
    most = max(1000, 4 * len(result))
    for query in queries:
        matches = found.GetSubstructMatches(query, uniquify=False, maxMatches=most)
        result[[atom for match in matches for atom in match]] = True
    return result
