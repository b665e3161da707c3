"""Molecules that are given as graphs: RDKit's form, names, and pictures with bond orders left aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from rdkit import Chem
from rdkit.Chem import rdDepictor
from scipy.optimize import brentq
from torch_geometric.data import Data

from datasets import rings
from experiments.figures import INK

LARGEST_POLYGON, INWARDS = 8, 0.5
AROMATIC = 1.5
BONDS = {
    0.0: Chem.BondType.UNSPECIFIED,
    1.0: Chem.BondType.SINGLE,
    AROMATIC: Chem.BondType.AROMATIC,
    2.0: Chem.BondType.DOUBLE,
    3.0: Chem.BondType.TRIPLE,
}
PERIODIC_TABLE = Chem.GetPeriodicTable()


def name(graph: Data, node_names: Sequence[str] | None, position: int) -> str:
    """The graph's own name, that of the ring molecule that it is, or its formula and its place in the set."""
    if "name" in graph:
        return str(graph.name)
    if node_names is None or not are_elements(node_names):
        return f"graph #{position}"
    for ring in rings.load():
        if ring.num_nodes == graph.num_nodes and skeleton(ring, rings.NODE_NAMES) == skeleton(
            graph, node_names
        ):
            return str(ring.name)
    return f"{formula(graph, node_names)} #{position}"


def formula(graph: Data, node_names: Sequence[str]) -> str:
    """Element counts in Hill order: carbon, hydrogen, then the alphabet."""
    counts = Counter(node_names[label] for label in graph.node_label.tolist())
    order = sorted(counts, key=lambda element: ({"C": 0, "H": 1}.get(element, 2), element))
    return "".join(f"{element}{counts[element] if counts[element] > 1 else ''}" for element in order)


def are_elements(node_names: Sequence[str]) -> bool:
    """Whether all node labels are chemical symbols."""
    symbols = {PERIODIC_TABLE.GetElementSymbol(number) for number in range(1, 119)}
    return set(node_names) <= symbols


def skeleton(graph: Data, node_names: Sequence[str]) -> str:
    """The canonical SMILES of the graph with single bonds only."""
    elements = [node_names[label] for label in graph.node_label.tolist()]
    return str(Chem.MolToSmiles(molecule(elements, dict.fromkeys(edges(graph), 1.0))))


def molecule(
    elements: Sequence[str], orders: Mapping[tuple[int, int], float], implicit: bool = False
) -> Chem.Mol:
    """An RDKit molecule of these atoms, and hydrogens if `implicit`; bonds of order 0 are of unknown type."""
    result = Chem.RWMol()
    for element in elements:
        atom = Chem.Atom(element)
        atom.SetNoImplicit(not implicit)
        result.AddAtom(atom)
    for (first, second), order in orders.items():
        result.AddBond(first, second, BONDS[order])
        if order == AROMATIC:
            result.GetBondBetweenAtoms(first, second).SetIsAromatic(True)
            for end in (first, second):
                result.GetAtomWithIdx(end).SetIsAromatic(True)
    result.UpdatePropertyCache(strict=False)
    Chem.FastFindRings(result)
    return result.GetMol()


def edges(graph: Data) -> list[tuple[int, int]]:
    """Each undirected edge once."""
    return [(first, second) for first, second in graph.edge_index.T.tolist() if first < second]


@dataclass(frozen=True)
class Sketch:
    """A skeletal formula, or a plain graph where nodes are no atoms: points in bond lengths, centred."""

    points: dict[int, np.ndarray]
    labels: dict[int, str]
    bonds: list[tuple[int, int]]

    @property
    def extent(self) -> float:
        """The larger of width and height, in bond lengths."""
        return float(np.ptp(np.array(list(self.points.values())), axis=0).max())

    def draw(self, axes: Axes, centre: tuple[float, float], bond: float) -> None:
        """Draw around `centre`, with bonds of length `bond` in axes units."""
        places = {node: np.array(centre) + bond * point for node, point in self.points.items()}
        for first, second in self.bonds:
            (x, y), (u, v) = places[first], places[second]
            axes.plot([x, u], [y, v], color=INK, linewidth=1.2, solid_capstyle="round", zorder=2)
        size = min(8.0, max(5.5, round(45 * bond)))
        box = {"boxstyle": "circle,pad=0.06", "facecolor": "white", "edgecolor": "none"}
        for node, label in self.labels.items():
            if label:
                x, y = places[node]
                axes.text(x, y, label, ha="center", va="center", fontsize=size, bbox=box, zorder=3)


def sketch(graph: Data, node_names: Sequence[str] | None) -> Sketch:
    """Lay a graph out in the plane: rings as crowns, other molecules as RDKit does, the rest by springs."""
    labels = skeletal_labels(graph, node_names)
    bonds = [(first, second) for first, second in edges(graph) if first in labels and second in labels]
    skeleton = nx.Graph(bonds)
    skeleton.add_nodes_from(labels)
    if bonds and nx.is_connected(skeleton) and all(degree == 2 for _, degree in skeleton.degree):
        points = crown([first for first, _ in nx.find_cycle(skeleton)], labels)
    elif node_names is not None and are_elements(node_names):
        points = depiction([node_names[int(graph.node_label[node])] for node in labels], labels, bonds)
    else:
        points = nx.kamada_kawai_layout(skeleton)
    lengths = [np.linalg.norm(points[first] - points[second]) for first, second in bonds]
    corners = np.array(list(points.values()))
    middle = (corners.min(axis=0) + corners.max(axis=0)) / 2
    scale = np.mean(lengths) if lengths else 1.0
    return Sketch({node: (point - middle) / scale for node, point in points.items()}, labels, bonds)


def crown(ring: Sequence[int], labels: Mapping[int, str]) -> dict[int, np.ndarray]:
    """Bonds of length 1 around a circle, in large rings with the labelled atoms pulled inwards."""
    start = next((place for place, node in enumerate(ring) if labels[node]), 0)
    ring = [*ring[start:], *ring[:start]]
    pull = np.array([INWARDS if labels[node] and len(ring) > LARGEST_POLYGON else 0.0 for node in ring])

    def turns(radius: float) -> np.ndarray:
        here, there = radius - pull, radius - np.roll(pull, -1)
        return np.arccos(np.clip((here**2 + there**2 - 1) / (2 * here * there), -1, 1))

    radius = brentq(lambda radius: turns(radius).sum() - 2 * np.pi, 0.51 + pull.max(), len(ring))
    angles = np.pi / 2 - np.concatenate([[0], turns(radius).cumsum()[:-1]])
    points = (radius - pull)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return dict(zip(ring, points, strict=True))


def depiction(
    elements: Sequence[str], nodes: Iterable[int], bonds: Sequence[tuple[int, int]]
) -> dict[int, np.ndarray]:
    """Where RDKit draws the atoms."""
    number = {node: position for position, node in enumerate(nodes)}
    drawn = molecule(elements, {(number[first], number[second]): 1.0 for first, second in bonds})
    rdDepictor.SetPreferCoordGen(True)
    rdDepictor.Compute2DCoords(drawn)
    return dict(zip(number, drawn.GetConformer().GetPositions()[:, :2], strict=True))


def skeletal_labels(graph: Data, node_names: Sequence[str] | None) -> dict[int, str]:
    """Nodes that are drawn and what is written there: nothing for carbon, no hydrogens on their own."""
    if node_names is None or not are_elements(node_names):
        return dict.fromkeys(range(graph.num_nodes), "•")
    elements = [node_names[label] for label in graph.node_label.tolist()]
    hydrogens: Counter[int] = Counter()
    hidden = set()
    for first, second in edges(graph):
        for atom, other in ((first, second), (second, first)):
            if elements[atom] == "H" and elements[other] != "H":
                hydrogens[other] += 1
                hidden.add(atom)
    written = {0: "", 1: "H"}
    labels = {}
    for node, element in enumerate(elements):
        if node not in hidden:
            count = hydrogens[node]
            labels[node] = "" if element == "C" else element + written.get(count, f"H$_{count}$")
    return labels
