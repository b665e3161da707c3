"""`draw`: a graph with the score of every node as its colour."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from readouts.attribution.sketch import Sketch

ORDERS = (1.0, 1.5, 2.0, 3.0)
SUFFIXES = (".svg", ".png")


def draw(
    data: Any,
    scores: Tensor,
    path: str | Path | None = None,
    *,
    symbols: Sequence[str] | None = None,
    charges: Sequence[int] | None = None,
    bonds: Tensor | None = None,
    limit: float | None = None,
    label: str = "score",
    title: str | None = None,
) -> Figure:
    """Draw a graph with every node in the colour of its score: orange above 0, blue below, white at 0.

    With `symbols` it is drawn as a skeletal formula, laid out by RDKit, in which atoms without a letter
    are carbon; without, as a plain graph, laid out by networkx. Nothing is added to what is given: hydrogens
    are drawn where they are nodes. Sizes grow with the graph.

    Args:
        data: a graph with `num_nodes` and `edge_index` [2, E], such as PyG's `Data`.
        scores: finite scores [N], such as `contributions` or `class_activation` give.
        path: where to write the picture, ending in .svg or .png; None to write nothing.
        symbols: chemical symbol of every node, for molecules.
        charges: formal charge of every atom.
        bonds: order of every column of `edge_index`, one of 1, 1.5 (aromatic), 2 and 3; by default
            ``data.edge_attr``, if it holds such orders in shape [E] or [E, 1], and single bonds if not.
        limit: the score of the darkest colour; by default the largest magnitude. To compare pictures,
            give all the same.
        label: what the colour scale says.
        title: what stands above.

    Returns:
        The matplotlib figure.

    Raises:
        ImportError: matplotlib, networkx or RDKit is not there: they come with ``readouts[draw]``.
        TypeError: `scores` or `bonds` is no tensor.
        ValueError: an argument does not fit the graph, or has a value that cannot be drawn.
    """
    if path is not None and Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"path: expected a name that ends in {' or '.join(SUFFIXES)}, got {str(path)!r}")
    if limit is not None and not 0 < limit < math.inf:
        raise ValueError(f"limit: expected a positive number, got {limit}")
    drawn = sketch(data, scores, symbols=symbols, charges=charges, bonds=bonds)
    with _extra():
        from readouts.attribution import picture
    figure = picture.sheet(drawn, limit or max(map(abs, drawn.scores)) or 1.0, label, title)
    if path is not None:
        picture.save(figure, path)
    return figure


def sketch(
    data: Any,
    scores: Tensor,
    *,
    symbols: Sequence[str] | None = None,
    charges: Sequence[int] | None = None,
    bonds: Tensor | None = None,
) -> Sketch:
    """Lay a graph out in the plane; for the arguments see `draw`."""
    nodes = int(data.num_nodes)
    if nodes == 0:
        raise ValueError("data: expected a graph with nodes, got none")
    if not isinstance(scores, Tensor):
        raise TypeError(f"scores: expected a tensor, got {type(scores).__name__}")
    if scores.shape != (nodes,):
        raise ValueError(f"scores: expected shape ({nodes},), one for each node, got {tuple(scores.shape)}")
    if not scores.isfinite().all():
        raise ValueError("scores: expected finite numbers, got NaN or infinity")
    if symbols is None:
        if charges is not None or bonds is not None:
            raise ValueError("symbols: expected the chemical symbol of every node, got None")
        with _extra():
            from readouts.attribution import plane

            return plane.sketch(nodes, _orders(data, None), scores.tolist())
    for name, given in (("symbols", symbols), ("charges", charges)):
        if given is not None and len(given) != nodes:
            raise ValueError(f"{name}: expected one for each of the {nodes} nodes, got {len(given)}")
    with _extra():
        from readouts.attribution import molecule
    return molecule.sketch(
        symbols,
        [0] * nodes if charges is None else [int(charge) for charge in charges],
        _orders(data, bonds),
        scores.tolist(),
    )


def _orders(data: Any, bonds: Tensor | None) -> dict[tuple[int, int], float]:
    """Return the bond order between each pair of neighbours; of both directions the first counts."""
    ends = [(first, second) for first, second in data.edge_index.T.tolist()]
    strangers = {node for pair in ends for node in pair} - set(range(data.num_nodes))
    if strangers:
        raise ValueError(
            f"data: expected edges between its {data.num_nodes} nodes, got node {min(strangers)}"
        )
    if bonds is None:
        bonds = getattr(data, "edge_attr", None)
        if bonds is None or bonds.numel() != len(ends) or not set(bonds.flatten().tolist()) <= set(ORDERS):
            bonds = torch.ones(len(ends))
    if not isinstance(bonds, Tensor):
        raise TypeError(f"bonds: expected a tensor, got {type(bonds).__name__}")
    orders = bonds.flatten().tolist()
    if len(orders) != len(ends) or not set(orders) <= set(ORDERS):
        expected = ", ".join(f"{order:g}" for order in ORDERS)
        raise ValueError(f"bonds: expected one of {expected} for each of the {len(ends)} edges, got {bonds}")
    found: dict[tuple[int, int], float] = {}
    for pair, order in zip(ends, orders, strict=True):
        if pair[0] != pair[1] and pair[::-1] not in found:
            found.setdefault(pair, float(order))
    return found


@contextmanager
def _extra() -> Iterator[None]:
    """Say which packages drawing needs."""
    try:
        yield
    except ImportError as problem:
        raise ImportError(f"draw: expected the packages of readouts[draw], got: {problem}") from problem
