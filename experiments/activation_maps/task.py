"""Molecules of which it is known what classes and atoms are, and the groups of atoms that one asks about.

Aromatic NO2 and NH2 are among the groups that make a mutagen (Kazius et al., J. Med. Chem. 48, 312, 2005,
the source of Mutagenicity), and Luo et al. (arXiv 2011.04573) take the two as what explanations should find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from datasets import GraphSet
from experiments.console import UserError

MUTAGENS = {"MUTAG": 1, "Mutagenicity": 0}
BOND_ORDERS = {"MUTAG": (1.5, 1.0, 2.0, 3.0), "Mutagenicity": (1.0, 2.0, 3.0)}


@dataclass(frozen=True)
class Task:
    """Molecules with y = 1 for mutagens; which atoms are in NO2, in NH2, and where rings are fused."""

    graphs: GraphSet
    molecules: tuple[Data, ...]
    nitro: tuple[Tensor, ...]
    amino: tuple[Tensor, ...]
    fused: tuple[Tensor, ...]


def choose(graphs: GraphSet) -> Task:
    """Prepare a set of which it is known what its classes and atoms are."""
    if graphs.name not in MUTAGENS or graphs.node_names is None:
        raise UserError(f"--data: expected {' or '.join(MUTAGENS)}, sets of mutagens, got {graphs.name}.")
    names, orders = graphs.node_names, BOND_ORDERS[graphs.name]
    mutagens = [(graph.y == MUTAGENS[graphs.name]).float() for graph in graphs]
    return Task(
        graphs,
        tuple(
            Data(x=graph.x, edge_index=graph.edge_index, y=y)
            for graph, y in zip(graphs, mutagens, strict=True)
        ),
        tuple(nitro_atoms(graph, names) for graph in graphs),
        tuple(amino_atoms(graph, names, orders) for graph in graphs),
        tuple(fused_atoms(graph) for graph in graphs),
    )


def nitro_atoms(graph: Data, node_names: Sequence[str]) -> Tensor:
    """Which atoms are a nitrogen with two oxygens that have no other neighbour, or one of these: bool [n]."""
    element = np.array(node_names)[graph.node_label]
    degree = torch.bincount(graph.edge_index[0], minlength=graph.num_nodes)
    tips = torch.from_numpy(element == "O") & (degree == 1)
    return centres_and_arms(graph, torch.from_numpy(element == "N"), tips)


def amino_atoms(graph: Data, node_names: Sequence[str], orders: Sequence[float]) -> Tensor:
    """Which atoms are a nitrogen with two hydrogens and one single bond to another atom, or one of these.

    Where a set has no hydrogens, the nitrogen is alone at the end of its single bond. Bool [n].
    """
    element = np.array(node_names)[graph.node_label]
    nitrogen, hydrogen = (torch.from_numpy(element == name) for name in ("N", "H"))
    first, second = graph.edge_index
    single = torch.tensor(orders)[graph.edge_label] == 1.0
    heavy = ~hydrogen[second]
    bonds, single_bonds = (
        torch.bincount(first[kind], minlength=graph.num_nodes) for kind in (heavy, heavy & single)
    )
    ends = nitrogen & (bonds == 1) & (single_bonds == 1)
    return centres_and_arms(graph, ends, hydrogen) if "H" in node_names else ends


def centres_and_arms(graph: Data, centres: Tensor, tips: Tensor) -> Tensor:
    """Those of the centres that have exactly two tips as neighbours, and these tips: bool [n]."""
    first, second = graph.edge_index
    arms = centres[first] & tips[second]
    result = torch.bincount(first[arms], minlength=graph.num_nodes) == 2
    arms &= result[first]
    result[second[arms]] = True
    return result


def fused_atoms(graph: Data) -> Tensor:
    """Which atoms have three or more bonds in rings, as where two rings are fused: bool [n]."""
    skeleton = nx.Graph(graph.edge_index.T.tolist())
    skeleton.remove_edges_from(list(nx.bridges(skeleton)))
    result = torch.zeros(graph.num_nodes, dtype=torch.bool)
    result[[atom for atom, degree in skeleton.degree if degree >= 3]] = True
    return result
