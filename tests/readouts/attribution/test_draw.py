"""Drawing: every node is on paper in the colour of its score, apart from the others, in SVG and PNG."""

import builtins
import re
import sys

import networkx as nx
import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Ellipse, PathPatch
from rdkit import Chem
from torch_geometric.data import Data

from readouts.attribution import draw, molecule
from readouts.attribution.drawing import LONGEST_BOND

NITROMETHANE = {"symbols": ["C", "N", "O", "O"], "charges": [0, 1, 0, -1]}


def graph_of(network):
    network = nx.convert_node_labels_to_integers(network)
    edges = torch.tensor(list(network.edges), dtype=torch.long).reshape(-1, 2)
    return Data(edge_index=edges.t(), num_nodes=len(network))


@pytest.fixture
def nitromethane():
    return Data(edge_index=torch.tensor([[0, 1, 1, 1, 2, 3], [1, 0, 2, 3, 1, 1]]), num_nodes=4)


def discs(figure):
    """The nodes of a plain graph."""
    (found,) = (kind for kind in figure.axes[0].collections if isinstance(kind, PathCollection))
    return found


def lines(figure):
    """The edges of a plain graph."""
    found = [kind for kind in figure.axes[0].collections if isinstance(kind, LineCollection)]
    return [segment for kind in found for segment in kind.get_segments()]


def in_inches(figure, patch, points):
    return figure.axes[0].transData.inverted().transform(patch.get_transform().transform(points))


def atoms(figure):
    """The highlights of a molecule: centres in inches, and colours."""
    found = [patch for patch in figure.axes[0].patches if isinstance(patch, Ellipse)]
    return np.array([in_inches(figure, patch, (0, 0)) for patch in found]), [p.get_facecolor() for p in found]


def outlines(figure):
    return [patch for patch in figure.axes[0].patches if isinstance(patch, PathPatch)]


def strokes(figure):
    """The straight lines of the bonds of a molecule, in inches, and whether they are solid."""
    straight = [patch for patch in outlines(figure) if len(patch.get_path().vertices) == 2]
    return [(in_inches(figure, p, p.get_path().vertices), p.get_linestyle() == "-") for p in straight]


def letters(figure):
    """The glyphs of a molecule: outlines that are filled."""
    return [patch for patch in outlines(figure) if patch.get_facecolor()[3] > 0]


def luminance(colour):
    """The relative luminance of an sRGB colour (WCAG 2)."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_diverge_around_zero():
    figure = draw(graph_of(nx.path_graph(5)), torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]))
    colours = discs(figure).get_facecolor()
    assert to_hex(colours[2]) == "#ffffff"
    assert (to_hex(colours[0]), to_hex(colours[4])) == ("#0072b2", "#d55e00")
    redness = colours[:, 0] - colours[:, 2]
    assert (np.diff(redness) > 0).all()
    (_, bar) = figure.axes
    assert [label.get_text() for label in bar.get_yticklabels()] == ["−2", "0", "2"]
    assert bar.get_ylabel() == "score"


def test_a_limit_makes_pictures_comparable():
    graph = graph_of(nx.path_graph(2))
    weak = draw(graph, torch.tensor([0.1, 0.0]), limit=1.0)
    strong = draw(graph, torch.tensor([1.0, 0.0]))
    assert discs(weak).get_facecolor()[0][2] > 0.8 > 0.1 > discs(strong).get_facecolor()[0][2]
    assert to_hex(discs(draw(graph, torch.zeros(2))).get_facecolor()[0]) == "#ffffff"


@pytest.mark.parametrize(
    "network",
    [
        nx.empty_graph(1),
        nx.path_graph(2),
        nx.complete_graph(20),
        nx.random_labeled_tree(80, seed=1),
        nx.random_labeled_tree(200, seed=1),
        nx.disjoint_union_all([nx.cycle_graph(n) for n in range(3, 9)]),
        nx.empty_graph(30),
    ],
    ids=["1", "2", "clique-20", "tree-80", "tree-200", "six-rings", "no-edges"],
)
def test_nodes_are_on_paper_and_apart(network):
    graph = graph_of(network)
    figure = draw(graph, torch.randn(graph.num_nodes))
    places, (width, height) = discs(figure).get_offsets(), figure.get_size_inches()
    radius = np.sqrt(discs(figure).get_sizes().max()) / 72 / 2
    assert len(places) == graph.num_nodes
    assert (places > radius).all()
    assert (places[:, 0] < width - 0.95 - radius).all()
    assert (places[:, 1] < height - radius).all()
    apart = np.linalg.norm(places[:, None] - places, axis=-1) + 9 * np.eye(len(places))
    assert np.median(apart.min(axis=0)) > 2 * radius
    assert len(lines(figure)) == network.number_of_edges()


def test_components_are_further_apart_than_neighbours():
    rings = nx.disjoint_union_all([nx.cycle_graph(n) for n in range(3, 9)])
    places = discs(draw(graph_of(rings), torch.zeros(len(rings)))).get_offsets()
    apart = np.linalg.norm(places[:, None] - places, axis=-1)
    together = np.array([[nx.has_path(rings, one, other) for other in rings] for one in rings])
    assert apart[~together].min() > max(apart[edge] for edge in rings.edges)


def test_paper_grows_with_the_graph():
    sizes = [2, 20, 80, 200]
    areas = [
        np.prod(draw(graph_of(nx.random_labeled_tree(n, seed=0)), torch.zeros(n)).get_size_inches())
        for n in sizes
    ]
    assert areas == sorted(areas)
    assert areas[0] < 5
    assert areas[-1] < 250


@pytest.mark.parametrize("kind", [torch.tensor, np.array, tuple])
def test_charges_of_any_kind(nitromethane, kind):
    given = NITROMETHANE | {"charges": kind(NITROMETHANE["charges"])}
    assert len(letters(draw(nitromethane, torch.zeros(4), **given))) == len("N+OO-")
    assert len(letters(draw(nitromethane, torch.zeros(4), symbols=NITROMETHANE["symbols"]))) == len("NOO")


def test_lone_carbon_has_a_letter():
    alone = Data(edge_index=torch.empty(2, 0, dtype=torch.long), num_nodes=1)
    assert len(letters(draw(alone, torch.ones(1), symbols=["C"]))) == 1
    pair = Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2)
    assert letters(draw(pair, torch.ones(2), symbols=["C", "C"])) == []


def test_molecule_has_colours_letters_charges_and_strokes(nitromethane):
    figure = draw(
        nitromethane,
        torch.tensor([0.0, 1.0, -1.0, 1.0]),
        **NITROMETHANE,
        bonds=torch.tensor([1, 1, 2, 1, 2, 1]),
        title="CH3NO2",
    )
    assert [text.get_text() for text in figure.axes[0].texts] == ["CH3NO2"]
    assert len(strokes(figure)) == 4  # C-N, N-O, and two of N=O
    centres, colours = atoms(figure)
    assert [to_hex(colour) for colour in colours] == ["#ffffff", "#d55e00", "#0072b2", "#d55e00"]
    marks = letters(figure)
    places = [in_inches(figure, mark, mark.get_path().vertices).mean(axis=0) for mark in marks]
    owners = [int(np.linalg.norm(centres - place, axis=1).argmin()) for place in places]
    assert owners == [1, 1, 2, 3, 3]  # N, +, O, O, -
    nitrogen, _, *oxygens, _ = [len(mark.get_path().vertices) for mark in marks]
    assert oxygens[0] == oxygens[1] != nitrogen


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_bond_orders_may_come_with_the_graph(nitromethane, shape):
    nitromethane.edge_attr = torch.tensor([1.0, 1, 3, 1, 3, 1]).reshape(shape)
    assert len(strokes(draw(nitromethane, torch.zeros(4), **NITROMETHANE))) == 5
    nitromethane.edge_attr = torch.randn(6, 1)  # something else than orders
    assert len(strokes(draw(nitromethane, torch.zeros(4), **NITROMETHANE))) == 3


def test_second_strokes_of_a_ring_are_inside():
    graph = graph_of(nx.cycle_graph(6))
    figure = draw(graph, torch.zeros(6), symbols=["C"] * 6, bonds=torch.full((6,), 1.5))
    centres, _ = atoms(figure)
    middle = centres.mean(axis=0)
    radii = sorted((np.linalg.norm(line.mean(axis=0) - middle), solid) for line, solid in strokes(figure))
    assert [solid for _, solid in radii] == [False] * 6 + [True] * 6
    assert radii[5][0] < 0.9 * radii[6][0]
    lengths = np.linalg.norm(centres - np.roll(centres, 1, axis=0), axis=-1)
    np.testing.assert_allclose(lengths, LONGEST_BOND, rtol=0.05)
    assert letters(figure) == []


def test_letters_stand_out_from_all_colours(nitromethane):
    figure = draw(nitromethane, torch.tensor([0.0, 0.0, -1.0, 1.0]), **NITROMETHANE)
    inks = {letter.get_facecolor() for letter in letters(figure)}
    ratios = [
        (luminance(colour) + 0.05) / (luminance(ink) + 0.05) for colour in atoms(figure)[1] for ink in inks
    ]
    assert min(ratios) > 3  # WCAG 2, 1.4.11


def test_directions_loops_and_repetitions_are_one_line():
    graph = Data(edge_index=torch.tensor([[0, 1, 0, 1], [1, 0, 1, 1]]), num_nodes=2)
    assert len(lines(draw(graph, torch.ones(2)))) == 1


@pytest.mark.parametrize("symbols", [None, ["C", "N", "O", "O"]], ids=["plain", "molecule"])
def test_files_are_what_their_names_say_and_reproducible(nitromethane, symbols, tmp_path):
    scores = torch.tensor([0.1, 2.0, -1.0, 0.0])
    for name in ("a.svg", "b.svg", "a.png", "b.PNG"):
        draw(nitromethane, scores, tmp_path / name, symbols=symbols)
    assert "<svg" in (tmp_path / "a.svg").read_text()
    assert re.search("#[dD]55[eE]00", (tmp_path / "a.svg").read_text())
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.PNG").read_bytes()
    pixels = imread(tmp_path / "a.png")[..., :3]
    orange = np.array([213, 94, 0]) / 255
    assert (np.abs(pixels - orange).max(axis=-1) < 0.01).mean() > 0.005


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"scores": [1.0] * 4}, TypeError, "scores: expected a tensor, got list"),
        (
            {"scores": torch.ones(3)},
            ValueError,
            r"scores: expected shape \(4,\), one for each node, got \(3,\)",
        ),
        ({"scores": torch.tensor([1, 1, 1, torch.nan])}, ValueError, "scores: expected finite numbers"),
        ({"path": "map.pdf"}, ValueError, "path: expected a name that ends in .svg or .png, got 'map.pdf'"),
        ({"symbols": ["C"]}, ValueError, "symbols: expected one for each of the 4 nodes, got 1"),
        ({"symbols": ["C", "N", "O", "Xx"]}, ValueError, "symbols: expected symbols of .* got 'Xx'"),
        ({"charges": [1]}, ValueError, "charges: expected one for each of the 4 nodes, got 1"),
        ({"symbols": None}, ValueError, "symbols: expected the chemical symbol of every node, got None"),
        ({"bonds": torch.ones(2)}, ValueError, "bonds: expected one of 1, 1.5, 2, 3 for each of the 6 edges"),
        ({"bonds": torch.full((6,), 4)}, ValueError, "bonds: expected one of 1, 1.5, 2, 3"),
        ({"bonds": [1] * 6}, TypeError, "bonds: expected a tensor, got list"),
        ({"limit": 0.0}, ValueError, "limit: expected a positive number, got 0.0"),
        ({"data": Data(edge_index=torch.tensor([[0], [4]]), num_nodes=4)}, ValueError, "got node 4"),
        ({"data": Data(num_nodes=0)}, ValueError, "data: expected a graph with nodes, got none"),
    ],
)
def test_bad_arguments(nitromethane, change, error, message):
    arguments = {"data": nitromethane, "scores": torch.ones(4), **NITROMETHANE} | change
    with pytest.raises(error, match=message):
        draw(**arguments)


@pytest.mark.parametrize(
    ("package", "symbols"), [("matplotlib", None), ("networkx", None), ("rdkit", ["C"] * 4)]
)
def test_missing_package_names_the_extra(nitromethane, package, symbols, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments):
        if name.partition(".")[0] == package:
            raise ImportError(f"No module named {package!r}")
        return real(name, *arguments)

    monkeypatch.delitem(sys.modules, "readouts.attribution.molecule", raising=False)
    monkeypatch.delattr("readouts.attribution.molecule", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ImportError, match=rf"draw: expected the packages of readouts\[draw\], got: .*{package}"
    ):
        draw(nitromethane, torch.ones(4), symbols=symbols)


class TestMolecules:
    @pytest.mark.parametrize("given", ["C[N+](=O)[O-]", "molecule"])
    def test_smiles_and_rdkit(self, given, nitromethane):
        data = Chem.MolFromSmiles("C[N+](=O)[O-]") if given == "molecule" else given
        figure = draw(data, torch.tensor([-0.2, 0.9, 0.5, 0.5]))
        bonds = torch.tensor([1.0, 1, 2, 1, 2, 1])
        expected = draw(nitromethane, torch.tensor([-0.2, 0.9, 0.5, 0.5]), bonds=bonds, **NITROMETHANE)
        assert [to_hex(colour) for colour in atoms(figure)[1]] == [to_hex(c) for c in atoms(expected)[1]]
        assert len(letters(figure)) == len(letters(expected))

    def test_hydrogens_that_are_atoms(self):
        ethanol = Chem.AddHs(Chem.MolFromSmiles("CCO"))
        assert len(atoms(draw(ethanol, torch.randn(9)))[0]) == 9
        assert ethanol.GetNumConformers() == 0

    def test_charges_of_nitro_groups_and_oxides(self):
        """Nitromethane, pyridine N-oxide, and what has no charge: nitrosomethane, five bonds, bare bonds."""
        for symbols, orders, expected in (
            ("CNOO", {(0, 1): 1, (1, 2): 2, (1, 3): 1}, [0, 1, 0, -1]),
            ("CNCO", {(0, 1): 1.5, (1, 2): 1.5, (1, 3): 1}, [0, 1, 0, -1]),
            ("CNO", {(0, 1): 1, (1, 2): 2}, [0, 0, 0]),
            ("CNOO", {(0, 1): 1, (1, 2): 2, (1, 3): 2}, [0, 0, 0, 0]),
            ("CNOO", {(0, 1): 1, (1, 2): 1, (1, 3): 1}, [0, 0, 0, 0]),
            ("CNOOC", {(0, 1): 1, (1, 2): 2, (1, 3): 1, (3, 4): 1}, [0, 0, 0, 0, 0]),
        ):
            assert molecule.oxide_charges(symbols, orders) == expected

    def test_charges_by_default(self, nitromethane):
        bonds = torch.tensor([1.0, 1, 2, 1, 2, 1])
        with_charges = draw(nitromethane, torch.ones(4), bonds=bonds, **NITROMETHANE)
        by_default = draw(nitromethane, torch.ones(4), bonds=bonds, symbols=NITROMETHANE["symbols"])
        none = draw(nitromethane, torch.ones(4), bonds=bonds, **(NITROMETHANE | {"charges": [0] * 4}))
        assert len(letters(by_default)) == len(letters(with_charges)) > len(letters(none))

    @pytest.mark.parametrize(
        ("data", "scores", "options", "message"),
        [
            ("C1CC", 3, {}, "data: expected a SMILES string of a molecule, got 'C1CC'"),
            ("CC", 3, {}, r"scores: expected shape \(2,\)"),
            ("", 0, {}, "data: expected a graph with nodes, got none"),
            ("CC", 2, {"symbols": ["C", "C"]}, "symbols: expected None for a molecule"),
        ],
    )
    def test_errors(self, data, scores, options, message):
        with pytest.raises(ValueError, match=message):
            draw(data, torch.ones(scores), **options)


class TestGivenAxes:
    @pytest.mark.parametrize("kind", ["graph", "molecule"])
    def test_it_stays_in_its_axes(self, kind):
        figure = Figure(figsize=(9, 3))
        axes = figure.subplots(1, 3)
        data = "c1ccccc1[N+](=O)[O-]" if kind == "molecule" else graph_of(nx.cycle_graph(9))
        assert draw(data, torch.linspace(-1, 1, 9), ax=axes[1], title="nitro") is figure
        figure.canvas.draw()
        box = axes[1].get_window_extent()
        for artist in (*axes[1].patches, *axes[1].collections):
            if artist is not axes[1].patch:
                extent = artist.get_window_extent()
                assert box.x0 - 1 <= extent.x0
                assert extent.x1 <= box.x1 + 1
                assert box.y0 - 1 <= extent.y0
                assert extent.y1 <= box.y1 + 1
        assert axes[1].get_title() == "nitro"
        assert len(figure.axes) == 4

    def test_small_axes_have_no_colour_scale(self):
        figure = Figure(figsize=(4, 1))
        draw("CCO", torch.ones(3), ax=figure.subplots(1, 4)[2])
        assert len(figure.axes) == 4
