"""Local pooling: the same readouts over ring systems, then over molecules."""

from itertools import pairwise

import networkx as nx
import pytest
import torch
from bits import assert_same_bits
from torch_geometric.data import Batch, Data

from readouts import Segments, readout


def ring_systems(data):
    """Number the fragments of a molecule [N]: rings that share atoms are one, other atoms are alone."""
    graph = nx.Graph(data.edge_index.T.tolist())
    rings = nx.Graph()
    rings.add_nodes_from(range(data.num_nodes))
    for ring in nx.cycle_basis(graph):
        nx.add_cycle(rings, ring)
    fragment = torch.empty(data.num_nodes, dtype=torch.int64)
    for number, atoms in enumerate(nx.connected_components(rings)):
        fragment[list(atoms)] = number
    return fragment


def molecule(*paths):
    """A molecule from the paths of its atoms."""
    edges = [pair for path in paths for pair in pairwise(path)]
    ends = torch.tensor([*edges, *[pair[::-1] for pair in edges]]).T
    return Data(edge_index=ends, num_nodes=int(ends.max()) + 1)


BIPHENYL = molecule([0, 1, 2, 3, 4, 5, 0, 6, 7, 8, 9, 10, 11, 6])
NAPHTHALENE = molecule([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0], [4, 9])
TOLUENE = molecule([0, 1, 2, 3, 4, 5, 6, 1])
SPIROPENTANE = molecule([0, 1, 2, 0, 3, 4, 0])
HEXANE = molecule([0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    ("data", "sizes"),
    [
        (BIPHENYL, [6, 6]),
        (NAPHTHALENE, [10]),
        (TOLUENE, [1, 6]),
        (SPIROPENTANE, [5]),
        (HEXANE, [1] * 6),
    ],
    ids=["biphenyl", "naphthalene", "toluene", "spiropentane", "hexane"],
)
def test_ring_systems(data, sizes):
    assert sorted(torch.bincount(ring_systems(data)).tolist()) == sizes


@pytest.fixture
def fragments():
    """A batch of molecules: x, the fragment of every atom, the molecule of every fragment, of every atom."""
    molecules = [BIPHENYL, NAPHTHALENE, TOLUENE, SPIROPENTANE, HEXANE]
    batch = Batch.from_data_list(molecules)
    numbers = [ring_systems(data) for data in molecules]
    counts = torch.tensor([int(number.max()) + 1 for number in numbers])
    starts = counts.cumsum(0) - counts
    fragment = torch.cat(numbers) + starts[batch.batch]
    return torch.randn(batch.num_nodes, 4), fragment, torch.arange(5).repeat_interleave(counts), batch.batch


def test_largest_ring_system_of_every_molecule(fragments):
    _, fragment, owner, _ = fragments
    sizes = readout(torch.ones(len(fragment), dtype=torch.int64), fragment, "sum")
    assert readout(sizes, owner, "max").tolist() == [6, 10, 6, 5, 1]
    assert readout(sizes, owner, "min").tolist() == [6, 10, 1, 5, 1]


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min", "var", "std", "median"])
def test_global_pooling_is_local_pooling_whose_window_is_the_graph(fragments, reduce):
    x, _, _, batch = fragments
    local = readout(x, batch, reduce)
    for outer in ("sum", "mean", "max", "median"):
        assert_same_bits(readout(local, torch.arange(5), outer), local)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min", "var", "median"])
def test_local_pooling_whose_window_is_the_node_is_global_pooling(fragments, reduce):
    x, _, _, batch = fragments
    nodes = torch.arange(len(x))
    assert_same_bits(readout(readout(x, nodes, "sum"), batch, reduce), readout(x, batch, reduce))


@pytest.mark.parametrize("reduce", ["max", "min"])
def test_extremes_of_extremes_have_the_bits(fragments, reduce):
    x, fragment, owner, batch = fragments
    assert_same_bits(readout(readout(x, fragment, reduce), owner, reduce), readout(x, batch, reduce))


def test_sums_of_sums_have_the_bits_for_integers(fragments):
    x, fragment, owner, batch = fragments
    x = (1000 * x).long()
    assert_same_bits(readout(readout(x, fragment, "sum"), owner, "sum"), readout(x, batch, "sum"))


def test_sums_of_sums_of_floats_are_rounded_twice():
    x = torch.tensor([2.0**24, 1.0, 1.0])
    fragment, owner, batch = torch.tensor([0, 0, 1]), torch.tensor([0, 0]), torch.tensor([0, 0, 0])
    assert readout(x, batch, "sum").tolist() == [2**24 + 2]
    assert readout(readout(x, fragment, "sum"), owner, "sum").tolist() == [2**24]  # 2^24 + 1 is a tie, twice


def test_sums_of_sums_lose_no_more_than_the_rounding(fragments):
    x, fragment, owner, batch = fragments
    once, local = readout(x, batch, "sum"), readout(x, fragment, "sum")
    twice = readout(local, owner, "sum")
    unit = 2.0**-24
    bound = unit * (once.abs() + twice.abs() + readout(local.abs(), owner, "sum"))
    assert ((twice - once).abs() <= bound).all()
    assert_same_bits(readout(readout(x.double(), fragment, "sum"), owner, "sum").float(), once)


def test_means_of_means_weigh_fragments_and_not_atoms(fragments):
    x, fragment, owner, batch = fragments
    means, size = readout(x, fragment, "mean"), torch.bincount(fragment)
    over_fragments, over_atoms = readout(means, owner, "mean"), readout(x, batch, "mean")
    same = [0, 1, 3, 4]  # fragments of one size; toluene has a ring and a single atom
    torch.testing.assert_close(over_fragments[same], over_atoms[same])
    assert not torch.isclose(over_fragments[2], over_atoms[2], atol=1e-3).any()
    weighted = readout(means * size.unsqueeze(1), owner, "sum") / torch.bincount(batch).unsqueeze(1)
    torch.testing.assert_close(weighted, over_atoms)


@pytest.mark.parametrize("inner", ["sum", "mean", "max", "std"])
@pytest.mark.parametrize("outer", ["sum", "mean", "max", "std"])
def test_two_levels_have_one_value_for_all_orders(fragments, inner, outer, node_permutations):
    x, fragment, owner, _ = fragments
    expected = readout(readout(x, fragment, inner), Segments.from_batch(owner), outer)
    names = torch.randperm(len(owner))  # fragments may be numbered in any way, too
    for order in node_permutations(len(x)):
        renumbered = names[fragment[order]]
        owners = torch.empty_like(owner)
        owners[names] = owner
        assert_same_bits(readout(readout(x[order], renumbered, inner), owners, outer), expected)


def test_gradients_flow_through_both_levels(fragments):
    x, fragment, owner, _ = fragments
    leaf = x.clone().requires_grad_()
    readout(readout(leaf, fragment, "mean"), owner, "sum").sum().backward()
    size = torch.bincount(fragment)[fragment]
    assert_same_bits(leaf.grad, (1 / size).unsqueeze(1).expand_as(x))


def test_atoms_in_several_windows_are_taken_once_for_each():
    x = torch.arange(10.0)
    rings = nx.minimum_cycle_basis(nx.Graph(NAPHTHALENE.edge_index.T.tolist()))
    nodes = torch.tensor([atom for ring in rings for atom in ring])
    ring = torch.tensor([number for number, atoms in enumerate(rings) for _ in atoms])
    sums = readout(x[nodes], ring, "sum")
    assert sorted(len(atoms) for atoms in rings) == [6, 6]
    assert sums.sum() == x.sum() + 4 + 9  # the two atoms that both rings share
