"""Covers of a graph: disjoint copies and random lifts, which message passing cannot tell from the graph.

A cover maps onto its base so that the neighbours of a node correspond one to one to those of its image.
Every node then has the states of its image at every depth, so a readout that sees only the proportions of
states, as mean and max do, is the same for both (Bamberger 2022, arXiv 2206.11876).

A k-fold cover is laid out in k sheets of n nodes: node u of sheet i is row i n + u, above node u of the base.
"""

from __future__ import annotations

import networkx as nx
import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

DRAWS_PER_SHEET = 100


def copies(data: Data, k: int) -> Data:
    """Return k disjoint copies of a graph, sheet after sheet, as one graph.

    Tensors with one row per node or per edge are repeated, all other fields are kept, also a `y` of one row.
    The edges come sorted by (source, target). Raises `ValueError` for k < 1 and for node indices in fields
    other than `edge_index`.
    """
    _check_sheets(k)
    return _cover(data, k, torch.arange(k).unsqueeze(1).expand(k, data.num_edges))


def lift(data: Data, k: int, *, seed: int, connected: bool = True) -> Data:
    """Return a random k-fold cover: every edge {u, v} draws a permutation s and becomes (u, i) - (v, s(i)).

    With `connected`, the permutations of each component are drawn until its lift is connected, so that the
    lift has as many components as the base: one, if the base is connected. Every component then needs a
    cycle, because all that covers a tree (an isolated node too) is copies of it.

    Fields are repeated as in `copies`. Raises `ValueError` for k < 1, for edges that are not simple and
    undirected (self-loops, duplicates, one direction only), and for `connected` lifts of trees with k > 1.
    """
    _check_sheets(k)
    forward, backward = _undirected(data)
    voltages = _voltages(data.edge_index[:, forward], data.num_nodes, k, seed, connected)
    landing = torch.empty(k, data.num_edges, dtype=torch.int64)
    landing[:, forward] = voltages
    landing[:, backward] = voltages.argsort(dim=0)
    return _cover(data, k, landing)


def projection(data: Data, k: int) -> Tensor:
    """Return the node of `data` below each node of its k-fold `copies` or `lift`, int64 [k n]."""
    return torch.arange(data.num_nodes).repeat(k)


def is_cover(cover: Data, base: Data, projection: Tensor) -> bool:
    """Tell whether `projection` (int64 [cover nodes], values below n) makes `cover` a cover of `base`.

    It does if it reaches every node, maps the neighbours of each node one to one to those of its image, and
    finds every node and edge field of `base` repeated above it. Raises `ValueError` for edges that are not
    simple and undirected.
    """
    _undirected(cover)
    _undirected(base)
    n = base.num_nodes
    if len(projection) != cover.num_nodes or not torch.equal(projection.unique(), torch.arange(n)):
        return False
    if cover.num_edges != int(torch.bincount(base.edge_index[0], minlength=n)[projection].sum()):
        return False
    code, order = (base.edge_index[0] * n + base.edge_index[1]).sort()
    source, target = cover.edge_index
    image = projection[source] * n + projection[target]
    place = torch.searchsorted(code, image)
    if not torch.equal(code[place.clamp(max=len(code) - 1)], image):
        return False
    if torch.stack([source, place]).unique(dim=1).size(1) != cover.num_edges:
        return False
    above = {"node": projection, "edge": order[place]}
    return all(
        torch.equal(cover[key], base[key][above[level]])
        for key in base.to_dict()
        if key != "edge_index" and (level := _level(base, key)) in above
    )


def _check_sheets(k: int) -> None:
    if k < 1:
        raise ValueError(f"a cover needs k >= 1 sheets, got k={k}")


def _undirected(data: Data) -> tuple[Tensor, Tensor]:
    """Return the positions of the edges u -> v with u < v, and those of v -> u in the same order."""
    source, target = data.edge_index
    if bool((source == target).any()):
        raise ValueError("edge_index must have no self-loops: node u cannot be its own neighbour in a cover")
    code, order = (source * data.num_nodes + target).sort()
    if bool((code[1:] == code[:-1]).any()):
        raise ValueError("edge_index must list every edge once in each direction, got duplicate edges")
    reverse, reverse_order = (target * data.num_nodes + source).sort()
    if not torch.equal(code, reverse):
        raise ValueError("edge_index must list both directions of every edge, got a directed edge list")
    forward = source[order] < target[order]
    return order[forward], reverse_order[forward]


def _voltages(edges: Tensor, n: int, k: int, seed: int, connected: bool) -> Tensor:
    """Draw a permutation of the k sheets for each of m undirected edges [2, m]: int64 [k, m]."""
    random = np.random.default_rng(seed)
    sheets = np.arange(k).repeat(edges.size(1)).reshape(k, -1)
    voltages = random.permuted(sheets, axis=0)
    if connected and k > 1:
        base = nx.Graph()
        base.add_nodes_from(range(n))
        base.add_edges_from(edges.T.tolist())
        for component in nx.connected_components(base):
            inside = np.flatnonzero(np.isin(edges[0].numpy(), list(component)))
            if len(inside) < len(component):
                raise ValueError("a tree has no connected lift: every cover of it is disjoint copies")
            voltages[:, inside] = _connecting(edges[:, inside], n, sheets[:, inside], random)
    return torch.from_numpy(voltages)


def _connecting(edges: Tensor, n: int, sheets: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draw permutations for the edges of one component until its lift is connected.

    The hardest component is a single cycle, whose lift is connected with probability 1 / k.
    """
    u, v = edges.numpy()
    for _ in range(DRAWS_PER_SHEET * len(sheets)):
        voltages = random.permuted(sheets, axis=0)
        lifted = nx.Graph()
        lifted.add_edges_from(zip((sheets * n + u).flat, (voltages * n + v).flat, strict=True))
        if nx.is_connected(lifted):
            return voltages
    raise RuntimeError(f"no connected lift in {DRAWS_PER_SHEET * len(sheets)} draws")


def _cover(data: Data, k: int, landing: Tensor) -> Data:
    """Build the cover whose edge e, starting in sheet i, ends in sheet `landing[i, e]` (int64 [k, E])."""
    n = data.num_nodes
    source = (torch.arange(k).unsqueeze(1) * n + data.edge_index[0]).flatten()
    target = (landing * n + data.edge_index[1]).flatten()
    order = (source * (k * n) + target).argsort(stable=True)
    cover = Data(edge_index=torch.stack([source, target])[:, order])
    for key, value in data.clone().to_dict().items():
        if key == "num_nodes":
            cover.num_nodes = k * n
        elif key != "edge_index":
            level = _level(data, key)
            rows = torch.cat([value] * k) if level != "graph" else value
            cover[key] = rows[order] if level == "edge" else rows
    return cover


def _level(data: Data, key: str) -> str:
    """Tell whether a field belongs to the `"node"`, the `"edge"` or the `"graph"`.

    A tensor with one row per node or per edge belongs to them (where there are as many edges as nodes, "edge"
    in its name decides), but a single row of `y` belongs to the graph, even if that has only one node.
    """
    value = data[key]
    if not isinstance(value, Tensor) or value.dim() == 0:
        return "graph"
    if data.__cat_dim__(key, value) != 0:
        raise ValueError(f"{key} holds node indices or an adjacency matrix; only edge_index can be covered")
    rows, nodes, edges = len(value), data.num_nodes, data.num_edges
    if key == "y" and rows == 1:
        return "graph"
    if rows == edges and ("edge" in key or edges != nodes):
        return "edge"
    return "node" if rows == nodes else "graph"
