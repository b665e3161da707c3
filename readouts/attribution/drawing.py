"""`draw`: a graph with the score of every node as its colour, by RDKit for molecules, else by networkx."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

if TYPE_CHECKING:
    import networkx as nx
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]

SUFFIXES = (".svg", ".png")
ORDERS = (1.0, 1.5, 2.0, 3.0)
INK, GREY, COLOURS = "#222222", "#a8a8a8", ["#0072b2", "#ffffff", "#d55e00"]
STYLE = {"svg.hashsalt": "readouts", "text.color": INK, "font.size": 9}  # hashsalt: reproducible files
PIXELS_PER_INCH = 200

LONGEST_BOND, SHORTEST_BOND, WIDEST, DISC = 0.46, 0.28, 9.0, 0.7  # inches; diameter of a node in bonds
LEAST_WIDTH = 2.0  # inches of axes that have room for a colour scale
MARGIN, BAR_WIDTH, BAR_HEIGHT, BAR_SPACE, TITLE_SPACE = 0.3, 0.13, 1.5, 0.95, 0.3  # inches


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
    ax: Axes | None = None,
) -> Figure:
    """Draw a graph with every node in the colour of its score: orange above 0, blue below, white at 0.

    Example:
        >>> figure = draw("C[N+](=O)[O-]", torch.tensor([-0.2, 0.9, 0.5, 0.5]))

    With `symbols`, or for a molecule, RDKit draws a skeletal formula, in which atoms without a letter are
    carbon; otherwise networkx draws a plain graph. Nothing is added to what is given: hydrogens are drawn
    where they are nodes. Sizes grow with the graph.

    Args:
        data: a graph with `num_nodes` and `edge_index` [2, E], such as PyG's `Data`; or a molecule: a SMILES
            string or an RDKit `Mol`, whose atoms are the nodes, in the same order.
        scores: finite scores [N], such as `contributions` or `class_activation` give.
        path: where to write the picture, ending in .svg or .png; None to write nothing.
        symbols: chemical symbol of every node, for molecules.
        charges: formal charge of every atom; by default +1 for N and -1 for O in nitro groups and
            N-oxides that are given with four bonds to N, else 0.
        bonds: order of every column of `edge_index`, one of 1, 1.5 (aromatic), 2 and 3; by default
            ``data.edge_attr``, if it holds such orders in shape [E] or [E, 1], and single bonds if not.
        limit: the score of the darkest colour; by default the largest magnitude. To compare pictures,
            give all the same.
        label: the text beside the colour scale.
        title: the text above the graph.
        ax: axes to draw on, as large as they are; by default a new figure that fits the graph. The colour
            scale is left out on axes less than two inches wide.

    Returns:
        The matplotlib figure.

    Raises:
        ImportError: matplotlib, networkx or RDKit is missing: install ``readouts[draw]``.
        TypeError: `scores` or `bonds` is no tensor.
        ValueError: an argument does not fit the graph, or has a value that cannot be drawn.
    """
    if path is not None and Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"path: expected a name that ends in {' or '.join(SUFFIXES)}, got {str(path)!r}")
    if limit is not None and not 0 < limit < math.inf:
        raise ValueError(f"limit: expected a positive number, got {limit}")
    compound = _molecule_of(data)
    nodes = int(data.num_nodes) if compound is None else compound.GetNumAtoms()
    if nodes == 0:
        raise ValueError("data: expected a graph with nodes, got none")
    if not isinstance(scores, Tensor):
        raise TypeError(f"scores: expected a tensor, got {type(scores).__name__}")
    if scores.shape != (nodes,):
        raise ValueError(f"scores: expected shape ({nodes},), one for each node, got {tuple(scores.shape)}")
    if not scores.isfinite().all():
        raise ValueError("scores: expected finite numbers, got NaN or infinity")
    given = {"symbols": symbols, "charges": charges, "bonds": bonds}
    for name in given if compound is not None else ():
        if given[name] is not None:
            raise ValueError(f"{name}: expected None for a molecule, which has its own, got {given[name]}")
    if compound is None and symbols is None and (charges is not None or bonds is not None):
        raise ValueError("symbols: expected the chemical symbol of every node, got None")
    for name, listed in (("symbols", symbols), ("charges", charges)):
        if listed is not None and len(listed) != nodes:
            raise ValueError(f"{name}: expected one for each of the {nodes} nodes, got {len(listed)}")
    orders = bond_orders(data, bonds) if compound is None else {}
    with _extra():
        scale = colour_scale(limit or float(scores.abs().max()) or 1.0)
        colours = scale.to_rgba(np.array(scores.tolist()))
        if compound is None and symbols is None:
            graph, points = _lay_out(nodes, orders)
            paint = partial(_draw_network, graph, points, colours)
        else:
            from readouts.attribution import molecule

            if compound is None:
                compound = molecule.build(symbols or (), charges, orders)
            else:
                compound = molecule.laid_out(compound)
            points = compound.GetConformer().GetPositions()[:, :2]
            paint = partial(molecule.draw_molecule, compound, colours)
        page = _page if ax is None else partial(_on_axes, ax)
        figure = page(points, paint, scale, label, title)
        if path is not None:
            _save(figure, path)
    return figure


def _molecule_of(data: Any) -> Any:
    """Return the RDKit molecule of a SMILES string or of RDKit itself; None for a graph."""
    if not isinstance(data, str) and not type(data).__module__.startswith("rdkit."):
        return None
    with _extra():
        from readouts.attribution import molecule

        return molecule.parse(data)


def bond_orders(data: Any, bonds: Tensor | None) -> dict[tuple[int, int], float]:
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


def _page(
    points: Array, paint: Callable[..., None], scale: ScalarMappable, label: str, title: str | None
) -> Figure:
    """Draw a graph, its colour scale and its title on a page that grows with the graph."""
    import matplotlib
    from matplotlib.figure import Figure

    extent = np.ptp(points, axis=0)
    bond = float(np.clip(WIDEST / max(extent.max(), 1.0), SHORTEST_BOND, LONGEST_BOND))
    room, above = extent * bond + 2 * MARGIN, TITLE_SPACE if title else 0.0
    width, height = room[0] + BAR_SPACE, max(room[1], BAR_HEIGHT + 0.3) + above
    middle = (height - above) / 2
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(0, height))
        paint(axes, (0.0, middle - room[1] / 2), room, bond)
        axes.set_axis_off()
        colour_bar(figure, scale, label, (room[0], middle - BAR_HEIGHT / 2))
        if title:
            axes.text(MARGIN / 2, height - TITLE_SPACE / 2, title, va="center", fontsize=11)
    return figure


def _on_axes(
    ax: Axes,
    points: Array,
    paint: Callable[..., None],
    scale: ScalarMappable,
    label: str,
    title: str | None,
) -> Figure:
    """Draw a graph, its colour scale and its title on given axes, whose unit becomes the inch."""
    import matplotlib

    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError("ax: expected axes of a figure, got axes without one")
    box = ax.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
    has_bar = box.width >= LEAST_WIDTH
    room = np.array([box.width - (BAR_SPACE if has_bar else 0.0), box.height])
    fitting = (room - 2 * MARGIN) / np.maximum(np.ptp(points, axis=0), 0.1)
    with matplotlib.rc_context(STYLE):
        ax.set(xlim=(0, box.width), ylim=(0, box.height))
        paint(ax, (0.0, 0.0), room, float(np.clip(fitting.min(), 0.02, LONGEST_BOND)))
        ax.set_axis_off()
        if has_bar:
            length = min(BAR_HEIGHT, 0.8 * box.height)
            colour_bar(figure, scale, label, (box.x0 + room[0], box.y0 + (box.height - length) / 2), length)
        if title:
            ax.set_title(title, fontsize=11)
    return figure


def _lay_out(nodes: int, edges: Iterable[tuple[int, int]]) -> tuple[nx.Graph, Array]:
    """Lay a graph out by the distances of its nodes, its components apart; the unit is a typical distance."""
    import networkx as nx

    graph = nx.Graph()
    graph.add_nodes_from(range(nodes))
    graph.add_edges_from(edges)
    if nodes == 1:
        return graph, np.zeros((1, 2))
    paths = dict(nx.all_pairs_shortest_path_length(graph))
    apart = max(max(lengths.values()) for lengths in paths.values()) + 2
    distances = {one: {other: paths[one].get(other, apart) for other in graph} for one in graph}
    found = nx.kamada_kawai_layout(graph, dist=distances)
    points = np.array([found[node] for node in range(nodes)])
    gaps = np.linalg.norm(points[:, None] - points, axis=-1)
    np.fill_diagonal(gaps, np.inf)
    return graph, points / np.median(gaps.min(axis=0))


def _draw_network(
    graph: nx.Graph,
    points: Array,
    colours: Array,
    axes: Axes,
    corner: tuple[float, float],
    room: Array,
    bond: float,
) -> None:
    """Draw nodes and edges in the middle of a part of the axes, whose unit is the inch."""
    import networkx as nx

    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    nx.draw_networkx(
        graph,
        dict(enumerate((points - middle) * bond + corner + room / 2)),
        ax=axes,
        with_labels=False,
        node_color=colours,
        node_size=(72 * bond * DISC) ** 2,  # square points
        edgecolors=INK,
        linewidths=0.8,
        edge_color=GREY,
    )


def colour_scale(limit: float) -> ScalarMappable:
    """Map scores from -limit to limit to colours, white at 0."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    colours = LinearSegmentedColormap.from_list("score", COLOURS, N=257)
    return ScalarMappable(Normalize(-limit, limit), colours)


def colour_bar(
    figure: Figure, scale: ScalarMappable, label: str, corner: tuple[float, float], length: float = BAR_HEIGHT
) -> None:
    """Draw an upright scale; its lower left corner and its length in inches."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((corner[0] / width, corner[1] / height, BAR_WIDTH / width, length / height))
    low, high = scale.get_clim()
    bar = figure.colorbar(scale, cax=axes)
    bar.set_ticks([low, 0, high], labels=[f"−{high:.3g}", "0", f"{high:.3g}"])
    bar.set_label(label, labelpad=-6)
    bar.outline.set_linewidth(0.5)
    axes.tick_params(length=2, width=0.5, labelsize=8)


def _save(figure: Figure, path: str | Path) -> None:
    """Write SVG or PNG, without a date."""
    import matplotlib

    metadata = {"Date": None} if str(path).lower().endswith(".svg") else {"Software": None}
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, dpi=PIXELS_PER_INCH, metadata=metadata)


@contextmanager
def _extra() -> Iterator[None]:
    """Name the extra whose packages drawing needs."""
    try:
        yield
    except ImportError as problem:
        raise ImportError(f"draw: expected the packages of readouts[draw], got: {problem}") from problem
