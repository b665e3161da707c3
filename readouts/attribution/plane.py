"""Sketches of plain graphs, by networkx."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import networkx as nx
import numpy as np

from readouts.attribution.sketch import Bond, Points, Sketch, centred

GAP = 1.0


def sketch(nodes: int, edges: Iterable[tuple[int, int]], scores: Sequence[float]) -> Sketch:
    """Lay a graph out: every component by its distances, the components in rows."""
    graph = nx.Graph()
    graph.add_nodes_from(range(nodes))
    graph.add_edges_from(edges)
    parts = [sorted(part) for part in nx.connected_components(graph)]
    places = pack([spread(graph.subgraph(part), part) for part in parts])
    points = np.zeros((nodes, 2))
    for part, place in zip(parts, places, strict=True):
        points[part] = place
    return Sketch(
        points=centred(points, 1.0),
        scores=list(scores),
        labels=[""] * nodes,
        bonds=[Bond(first, second) for first, second in graph.edges],
        skeletal=False,
    )


def spread(component: nx.Graph, nodes: Sequence[int]) -> Points:
    """Place a connected graph so that nodes are as far apart as paths between them are long.

    The unit is the typical distance of a node to the node next to it.
    """
    if len(nodes) == 1:
        return np.zeros((1, 2))
    found = nx.kamada_kawai_layout(component)
    points = np.array([found[node] for node in nodes])
    points = points @ np.linalg.svd(points - points.mean(axis=0))[2].T  # the long side lies flat
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    np.fill_diagonal(apart, np.inf)
    return centred(points, float(np.median(apart.min(axis=0))))


def pack(parts: Sequence[Points]) -> list[Points]:
    """Set components in rows, tall ones first, into an area about as wide as it is high."""
    sizes = [np.ptp(part, axis=0) + GAP for part in parts]
    width = max([np.sqrt(sum(size.prod() for size in sizes)), *(size[0] for size in sizes)], default=0.0)
    result, corner, height = [np.zeros((0, 2))] * len(parts), np.zeros(2), 0.0
    for position in sorted(range(len(parts)), key=lambda position: -sizes[position][1]):
        size = sizes[position]
        if corner[0] + size[0] > width + 1e-9:
            corner, height = np.array([0.0, corner[1] - height]), 0.0
        result[position] = parts[position] + corner + size * (0.5, -0.5)
        corner += (size[0], 0.0)
        height = max(height, size[1])
    return result
