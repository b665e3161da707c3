from __future__ import annotations

import networkx as nx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.utils import is_undirected, to_networkx

from datasets.covers import copies, is_cover, lift, projection


def graph(n: int, edges: list[tuple[int, int]]) -> Data:
    """A simple graph with a field of every kind; the edge fields are the same in both directions."""
    directed = sorted(edges + [(v, u) for u, v in edges])
    edge_index = torch.tensor(directed, dtype=torch.int64).reshape(-1, 2).T
    low, high = edge_index.min(dim=0).values, edge_index.max(dim=0).values
    label = torch.arange(n) % 3
    return Data(
        x=torch.eye(3)[label],
        node_label=label,
        pos=torch.arange(2.0 * n).reshape(n, 2),
        train_mask=label == 0,
        edge_index=edge_index,
        edge_label=low * n + high,
        edge_attr=torch.stack([low, high], dim=1).float(),
        y=torch.tensor([1]),
        name="base",
        units=7,
    )


def cycle(n: int) -> Data:
    return graph(n, [(node, (node + 1) % n) for node in range(n)])


def components(data: Data) -> int:
    return nx.number_connected_components(to_networkx(data, to_undirected=True))


@st.composite
def simple_graphs(draw, min_nodes: int = 0) -> Data:
    n = draw(st.integers(min_nodes, 7))
    pairs = [(u, v) for v in range(n) for u in range(v)]
    return graph(n, draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else [])


@st.composite
def connected_graphs_with_a_cycle(draw) -> Data:
    n = draw(st.integers(3, 7))
    tree = {(draw(st.integers(0, v - 1)), v) for v in range(1, n)}
    rest = sorted({(u, v) for v in range(n) for u in range(v)} - tree)
    return graph(n, sorted(tree | set(draw(st.lists(st.sampled_from(rest), min_size=1)))))


sheets = st.integers(1, 5)
seeds = st.integers(0, 2**32 - 1)


@given(simple_graphs(), sheets)
def test_copies_are_disjoint_and_each_is_the_graph(base, k):
    many = copies(base, k)
    n = base.num_nodes
    assert is_cover(many, base, projection(base, k))
    assert components(many) == k * components(base) if n else many.num_nodes == 0
    for i in range(k):
        sheet = many.subgraph(torch.arange(i * n, (i + 1) * n))
        for key in ("x", "node_label", "pos", "train_mask", "edge_index", "edge_label", "edge_attr"):
            assert torch.equal(sheet[key], base[key]), key


@given(simple_graphs(), sheets, seeds)
def test_any_lift_is_a_cover_with_sorted_undirected_edges(base, k, seed):
    lifted = lift(base, k, seed=seed, connected=False)
    assert is_cover(lifted, base, projection(base, k))
    assert lifted.num_nodes == k * base.num_nodes
    assert lifted.num_edges == k * base.num_edges
    assert is_undirected(lifted.edge_index, [lifted.edge_label, lifted.edge_attr])
    code = lifted.edge_index[0] * lifted.num_nodes + lifted.edge_index[1]
    assert torch.equal(code, code.sort().values)


@given(connected_graphs_with_a_cycle(), sheets, seeds)
def test_connected_lift_is_a_connected_cover(base, k, seed):
    lifted = lift(base, k, seed=seed)
    assert is_cover(lifted, base, projection(base, k))
    assert components(lifted) == 1


@pytest.mark.parametrize("k", [2, 3, 10])
def test_connected_lift_of_a_cycle_is_the_long_cycle(k):
    lifted = to_networkx(lift(cycle(5), k, seed=0), to_undirected=True)
    assert nx.is_isomorphic(lifted, nx.cycle_graph(5 * k))


def test_connected_lift_keeps_the_number_of_components():
    two_cycles = graph(7, [(0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (5, 6), (3, 6)])
    assert components(lift(two_cycles, 6, seed=3)) == 2


def test_lifts_of_a_cycle_without_the_condition_fall_apart_sometimes():
    assert {components(lift(cycle(3), 2, seed=seed, connected=False)) for seed in range(20)} == {1, 2}


def test_lift_depends_on_the_seed_and_on_nothing_else():
    base = graph(6, [(u, v) for v in range(6) for u in range(v)])
    torch.manual_seed(0)
    first = lift(base, 4, seed=1)
    again = lift(base, 4, seed=1)
    other = lift(base, 4, seed=2)
    assert torch.equal(first.edge_index, again.edge_index)
    assert not torch.equal(first.edge_index, other.edge_index)


def test_every_permutation_of_an_edge_is_drawn_equally_often():
    edge = graph(2, [(0, 1)])
    landings = [
        tuple(lift(edge, 3, seed=seed, connected=False).edge_index[1, ::2].tolist()) for seed in range(600)
    ]
    counts = [landings.count(landing) for landing in set(landings)]
    assert len(counts) == 6
    assert min(counts) > 60


@pytest.mark.parametrize("build", [copies, lambda data, k: lift(data, k, seed=0, connected=False)])
def test_fields_of_the_graph_are_kept(build):
    built = build(cycle(4), 3)
    assert torch.equal(built.y, torch.tensor([1]))
    assert (built.name, built.units) == ("base", 7)


def test_as_many_nodes_as_edges_is_no_ambiguity_even_if_the_edges_are_unsorted():
    edge = Data(
        edge_index=torch.tensor([[1, 0], [0, 1]]),
        edge_label=torch.tensor([10, 20]),
        node_label=torch.tensor([1, 2]),
    )
    for cover in (copies(edge, 2), lift(edge, 2, seed=1, connected=False)):
        assert cover.edge_index[0].tolist() == [0, 1, 2, 3]
        assert cover.edge_label.tolist() == [20, 10, 20, 10]
        assert cover.node_label.tolist() == [1, 2, 1, 2]
        assert is_cover(cover, edge, projection(edge, 2))


def test_one_node_keeps_its_class():
    atom = copies(graph(1, []), 3)
    assert (atom.num_nodes, atom.x.shape, atom.y.shape) == (3, (3, 3), (1,))


def test_one_class_per_node_is_repeated():
    base = cycle(3)
    base.y = torch.tensor([4, 5, 6])
    assert copies(base, 2).y.tolist() == [4, 5, 6, 4, 5, 6]


def test_isolated_nodes_without_any_field_are_counted():
    base = Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=4)
    assert copies(base, 3).num_nodes == 12
    assert lift(base, 3, seed=0, connected=False).num_nodes == 12


def test_copies_of_a_directed_graph_with_loops_and_duplicates_are_still_copies():
    edge_index = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    doubled = copies(Data(x=torch.zeros(2, 1), edge_index=edge_index), 2)
    assert doubled.edge_index.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 1, 1, 2, 3, 3, 3]]


def test_base_copies_and_lifts_share_a_batch():
    base = cycle(3)
    batch = Batch.from_data_list([copies(base, 2), base, lift(base, 2, seed=0)])
    assert batch.ptr.tolist() == [0, 6, 9, 15]


def test_the_base_is_left_alone():
    base = cycle(4)
    before = base.clone()
    copies(base, 2).x.zero_()
    copies(base, 1).x.zero_()
    lift(base, 2, seed=0).edge_attr.zero_()
    lift(base, 2, seed=0).y.zero_()
    for key, value in before.to_dict().items():
        assert torch.equal(base[key], value) if isinstance(value, Tensor) else base[key] == value, key


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([(0, 1)], "directed edge list"),
        ([(0, 1), (1, 0), (2, 2)], "self-loops"),
        ([(0, 1), (0, 1), (1, 0), (1, 0)], "duplicate edges"),
    ],
)
def test_lift_refuses_edges_that_are_not_simple_and_undirected(edges, message):
    data = Data(edge_index=torch.tensor(edges).T, num_nodes=3)
    with pytest.raises(ValueError, match=message):
        lift(data, 2, seed=0, connected=False)


@pytest.mark.parametrize("k", [0, -1])
def test_no_sheets_are_refused(k):
    with pytest.raises(ValueError, match=f"k >= 1 sheets, got k={k}"):
        copies(cycle(3), k)
    with pytest.raises(ValueError, match=f"k >= 1 sheets, got k={k}"):
        lift(cycle(3), k, seed=0)


@pytest.mark.parametrize(
    "base",
    [
        graph(1, []),
        graph(3, [(0, 1), (1, 2)]),
        graph(4, [(0, 1), (1, 2), (0, 2)]),
        graph(6, [(0, 1), (1, 2), (0, 2), (0, 3), (1, 3), (4, 5)]),
    ],
    ids=["atom", "path", "triangle and atom", "cycles and edge"],
)
def test_trees_have_no_connected_lift(base):
    with pytest.raises(ValueError, match="a tree has no connected lift"):
        lift(base, 2, seed=0)
    assert is_cover(lift(base, 1, seed=0), base, projection(base, 1))


def test_other_fields_with_node_indices_are_refused():
    base = cycle(4)
    base.pair_index = torch.tensor([[0], [2]])
    with pytest.raises(ValueError, match="pair_index holds node indices"):
        copies(base, 2)


def relabelled(base: Data) -> Data:
    base.node_label = base.node_label.flip(0)
    return base


def with_other_bonds(base: Data) -> Data:
    base.edge_label = base.edge_label + 1
    return base


@pytest.mark.parametrize(
    ("cover", "above"),
    [
        (copies(cycle(3), 2), [0, 1, 2, 0, 1]),
        (copies(cycle(3), 2), [0, 1, 1, 0, 1, 1]),
        (copies(cycle(3), 2), [0, 1, 2, 0, 2, 1]),
        (cycle(6), [0, 1, 2, 0, 1, 2]),
        (copies(graph(3, [(0, 1), (1, 2)]), 2), [0, 1, 2, 0, 1, 2]),
        (relabelled(copies(cycle(3), 2)), [0, 1, 2, 0, 1, 2]),
        (with_other_bonds(copies(cycle(3), 2)), [0, 1, 2, 0, 1, 2]),
    ],
    ids=["short", "misses a node", "swapped", "other bonds of C6", "paths", "labels", "edge labels"],
)
def test_what_is_no_cover_of_the_triangle(cover, above):
    assert not is_cover(cover, cycle(3), torch.tensor(above))


def bare(data: Data) -> Data:
    return Data(edge_index=data.edge_index, num_nodes=data.num_nodes)


SQUARE, EDGES, TRIANGLE_AND_ATOM = (
    bare(cycle(4)),
    bare(graph(4, [(0, 1), (2, 3)])),
    bare(graph(4, [(0, 1), (1, 2), (0, 2)])),
)


@pytest.mark.parametrize(
    ("cover", "base", "above", "verdict"),
    [
        (copies(SQUARE, 2), SQUARE, [0, 1, 2, 3, 2, 1, 0, 3], True),
        (copies(SQUARE, 2), SQUARE, [0, 1, 0, 3, 2, 1, 2, 3], False),
        (EDGES, EDGES, [2, 3, 1, 0], True),
        (EDGES, EDGES, [0, 2, 1, 3], False),
        (bare(cycle(6)), bare(cycle(3)), [0, 1, 2, 0, 1, 2], True),
        (bare(cycle(6)), TRIANGLE_AND_ATOM, [0, 1, 2, 0, 1, 2], False),
        (TRIANGLE_AND_ATOM, bare(cycle(3)), [0, 1, 2], False),
        (TRIANGLE_AND_ATOM, TRIANGLE_AND_ATOM, [1, 2, 0, 3], True),
    ],
    ids=["turned", "folded", "swapped", "crossed", "hexagon", "missed atom", "no image", "rotated"],
)
def test_what_is_a_cover_when_only_edges_count(cover, base, above, verdict):
    assert is_cover(cover, base, torch.tensor(above)) is verdict
