"""Graphs of one's own from files and functions: what is kept, what is told, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, HeteroData, InMemoryDataset

from datasets import load
from datasets.graphs import GraphSet
from readouts.commands.tu.errors import DataError
from tests.tu_files import write_set

NONE = {"x": None, "edge_attr": None}


def cycle(nodes: int) -> Tensor:
    forth = torch.stack([torch.arange(nodes), (torch.arange(nodes) + 1) % nodes])
    return torch.cat([forth, forth.flip(0)], dim=1)


def graph(place: int, **changes: Any) -> Data:
    """A cycle of at least three nodes with integer labels, and a whole number to predict."""
    nodes = 3 + place
    fields = {
        "x": torch.arange(nodes)[:, None] % 2,
        "edge_index": cycle(nodes),
        "y": torch.tensor([place % 2]),
    }
    return Data(**{key: value for key, value in (fields | changes).items() if value is not None})


def graphs(**changes: Callable[[int], Any]) -> list[Data]:
    return [graph(place, **{key: make(place) for key, make in changes.items()}) for place in range(10)]


def stored(tmp_path: Path, held: Any, **options: Any) -> GraphSet:
    torch.save(held, tmp_path / "graphs.pt")
    return load(tmp_path / "graphs.pt", **options)


def complaint(source: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def refused(tmp_path: Path, held: Any, **options: Any) -> str:
    torch.save(held, tmp_path / "graphs.pt")
    return complaint(tmp_path / "graphs.pt", **options)


class Cycles(InMemoryDataset):
    """A data set of PyG that keeps its graphs in memory."""

    def __init__(self, held: list[Data]) -> None:
        super().__init__()
        self.data, self.slices = self.collate(held)


def test_a_list_of_data(tmp_path: Path) -> None:
    found = stored(tmp_path, graphs())
    assert (found.name, len(found), found.task, found.class_names) == (
        "graphs.pt",
        10,
        "classification",
        ("0", "1"),
    )
    assert found[2].node_label.tolist() == [0, 1, 0, 1, 0]
    assert found[2].x.tolist() == [[1, 0], [0, 1]] * 2 + [[1, 0]]
    assert found[1].edge_index.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3], [1, 3, 0, 2, 1, 3, 0, 2]]
    assert (found.features, found.edge_features, found.degrees) == ("categorical", None, False)
    assert found.notes == (
        "2 whole numbers, taken as classes",
        "x: taken as labels, 2 different",
    )


@pytest.mark.parametrize("kind", ["list", "tuple", "batch", "saved", "saved by hand"])
def test_all_ways_to_store_graphs_mean_the_same(tmp_path: Path, kind: str) -> None:
    made = graphs()
    path = tmp_path / "graphs.pt"
    if kind == "saved":
        InMemoryDataset.save(made, str(path))
    else:
        whole = Cycles(made)
        held = {
            "list": made,
            "tuple": tuple(made),
            "batch": Batch.from_data_list(made),
            "saved by hand": (whole._data, whole.slices),
        }
        torch.save(held[kind], path)
    found, expected = load(path), stored(tmp_path, made)
    assert len(found) == 10
    for one, other in zip(found, expected, strict=True):
        assert one.to_dict().keys() == other.to_dict().keys()
        assert all(torch.equal(one[key], other[key]) for key in one.to_dict())


def test_more_graphs_than_a_check_reads(tmp_path: Path) -> None:
    made = [graph(place % 7) for place in range(100)]
    InMemoryDataset.save(made, str(tmp_path / "many.pt"))
    assert [one.num_nodes for one in load(tmp_path / "many.pt")] == [one.num_nodes for one in made]


def test_nothing_else_is_unpickled_without_trust(tmp_path: Path) -> None:
    whole = Cycles(graphs())
    said = refused(tmp_path, whole)
    assert "expected a list of Data or a data set of PyG, got " in said
    assert said.endswith("Cycles, which is unpickled only with trust")
    assert len(stored(tmp_path, whole, trust=True)) == 10


def test_one_hot_rows_and_several_integers_are_labels(tmp_path: Path) -> None:
    one_hot = stored(tmp_path, graphs(x=lambda place: torch.eye(3)[torch.arange(3 + place) % 2]))
    assert (one_hot.features, one_hot[0].node_label.tolist()) == ("categorical", [0, 1, 0])
    codes = torch.tensor([[7, 1], [6, 0], [7, 0]])
    several = stored(tmp_path, graphs(x=lambda place: codes[torch.arange(3 + place) % 3]))
    assert several[0].node_label.tolist() == [2, 0, 1]
    assert "node labels of 2 columns became one per distinct row, 0..2" in several.notes
    numbers = stored(tmp_path, graphs(x=lambda place: None, z=lambda place: 6 + torch.arange(3 + place) % 2))
    assert numbers[0].node_label.tolist() == [0, 1, 0]


def test_numbers_are_kept_as_they_are(tmp_path: Path) -> None:
    made = graphs(x=lambda place: 100 * torch.rand(3 + place, 2, dtype=torch.float64))
    found = stored(tmp_path, made)
    assert (found.features, found.degrees) == ("numeric", True)
    assert torch.equal(found[3].node_attr, made[3].x.float())
    assert found[3].node_label.tolist() == [2] * 6
    assert found.notes[1:] == (
        "x: 2 numbers each, as they were given",
        "no node labels: degrees stand in for them",
    )
    many = stored(tmp_path, graphs(x=lambda place: 1000 * place + torch.arange(3 + place)[:, None] * 40))
    assert many.features == "categorical"
    wide = [graph(100 + place, x=1000 * place + torch.arange(103 + place)[:, None]) for place in range(10)]
    assert stored(tmp_path, wide).features == "numeric"


def test_nothing_on_nodes_means_degrees(tmp_path: Path) -> None:
    found = stored(tmp_path, graphs(x=lambda place: None))
    assert (found.features, found[0].node_label.tolist()) == ("degrees", [2, 2, 2])


def test_edge_features_are_kept_and_told(tmp_path: Path) -> None:
    labelled = stored(
        tmp_path, graphs(edge_attr=lambda place: torch.ones(2 * (3 + place)).long() * (place % 2))
    )
    assert (labelled.edge_features, labelled[1].edge_label.tolist()) == ("edge labels", [1] * 8)
    weighted = stored(tmp_path, graphs(edge_weight=lambda place: torch.rand(2 * (3 + place))))
    assert (weighted.edge_features, weighted[0].edge_attr.shape) == ("1 edge attribute", (6, 1))
    several = stored(tmp_path, graphs(edge_attr=lambda place: torch.rand(2 * (3 + place), 4)))
    assert several.edge_features == "4 edge attributes"
    assert load("rings").edge_features == "edge labels"


def test_edges_become_simple_and_attributes_that_are_left_out_are_told(tmp_path: Path) -> None:
    made = graphs(
        edge_index=lambda place: torch.tensor([[0, 1, 1], [1, 2, 1]]), pos=lambda place: torch.zeros(3, 3)
    )
    found = stored(tmp_path, made)
    assert found[0].edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert found.notes[2:5] == (
        "not used: pos",
        "self-loops removed: 10",
        "one-directional edges completed with their reverse: 20",
    )
    assert stored(tmp_path, graphs(edge_index=lambda place: None))[0].num_edges == 0


def test_targets_of_many_kinds(tmp_path: Path) -> None:
    assert stored(tmp_path, graphs(y=lambda place: 0.5 * place)).targets.tolist() == [
        0.5 * p for p in range(10)
    ]
    assert stored(tmp_path, graphs(y=lambda place: "ab"[place % 2])).class_names == ("a", "b")
    assert stored(tmp_path, graphs(y=lambda place: torch.tensor(place % 2 == 0))).class_names == (
        "False",
        "True",
    )
    assert stored(tmp_path, graphs(y=lambda place: torch.tensor([[place + 0.5]]))).task == "regression"
    columns = graphs(y=lambda place: torch.tensor([[place % 2, place + 0.5]]), gap=lambda place: place + 0.25)
    found = stored(tmp_path, columns, target="1")
    assert (found.name, found.targets.tolist()) == ("graphs.pt:1", [place + 0.5 for place in range(10)])
    assert stored(tmp_path, columns, target="0").task == "classification"
    assert stored(tmp_path, columns, target="gap").targets.tolist() == [place + 0.25 for place in range(10)]


BAD_GRAPHS: dict[str, tuple[Callable[[], Any], dict[str, str], str]] = {
    "three": (lambda: graphs()[:3], {}, "graphs.pt: expected 10 graphs or more, got 3"),
    "none": (list, {}, "graphs.pt: expected 10 graphs or more, got 0"),
    "one": (lambda: graph(0), {}, "got one Data"),
    "tensor": (lambda: torch.ones(3), {}, "got one Tensor"),
    "dict": (lambda: {"a": 1}, {}, "got one dict"),
    "number": (lambda: 3, {}, "got int"),
    "tensors": (lambda: [torch.ones(3)], {}, "got Tensor at position 0"),
    "slices": (lambda: (graph(0), {"x": 3}), {}, "cannot take apart the graphs of"),
    "no y": (lambda: graphs(y=lambda place: None), {}, "graph 0 (x, edge_index), got 'y'"),
    "no target": (graphs, {"target": "gap"}, "graph 0 (x, edge_index, y), got 'gap'"),
    "a vector": (
        lambda: graphs(y=lambda place: torch.ones(4)),
        {},
        "a column of y, 0 to 3, got y with 4 values",
    ),
    "column": (graphs, {"target": "1"}, "expected a column of y, 0 to 0, got 1"),
    "y of something": (
        lambda: graphs(y=lambda place: [1, 2]),
        {},
        "expected y to be a number or a text, got list",
    ),
    "one class": (lambda: graphs(y=lambda place: 1), {}, "expected two different values or more, got 1"),
    "infinite": (
        lambda: graphs(y=lambda place: place / 0.5 if place else float("nan")),
        {},
        "got nan in graph 0",
    ),
    "edges": (
        lambda: graphs(edge_index=lambda place: torch.tensor([[0], [99]])),
        {},
        "graph 0: expected edge_index of nodes 0 to 2, got 0 to 99",
    ),
    "real edges": (lambda: graphs(edge_index=lambda place: torch.ones(2, 1)), {}, "got float32 [2, 1]"),
    "sparse": (lambda: graphs(adj_t=lambda place: torch.eye(3)), {}, "expected edge_index, got adj_t"),
    "nothing": (lambda: [Data() for _ in range(10)], {}, "expected x or num_nodes, got attributes none"),
    "some x": (
        lambda: [*graphs()[:9], graph(9, x=None, num_nodes=12)],
        {},
        "graph 9: expected x [12, columns], got none",
    ),
    "widths": (
        lambda: [*graphs()[:9], graph(9, x=torch.ones(12, 2, dtype=torch.int64))],
        {},
        "graph 9: expected x like that of graph 0, int64 [3, 1], got int64 [12, 2]",
    ),
    "edge rows": (
        lambda: graphs(edge_attr=lambda place: torch.ones(3)),
        {},
        "graph 0: expected edge_attr [6, columns], got float32 [3]",
    ),
}


@pytest.mark.parametrize("kind", BAD_GRAPHS)
def test_graphs_that_are_unfit(tmp_path: Path, kind: str) -> None:
    make, options, expected = BAD_GRAPHS[kind]
    assert expected in refused(tmp_path, make(), **options)


def test_files_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "graphs.pt"
    assert complaint(path) == f"cannot read {path}: No such file or directory"
    expected = f"{path}: expected a list of Data or a data set of PyG, got"
    for text in ("", "smiles,y\nCCO,1\n"):
        path.write_text(text)
        assert complaint(path).startswith(f"{expected} a file that raises ")
        assert complaint(path, trust=True).startswith(expected)
    torch.save(graphs(), path)
    path.write_bytes(path.read_bytes()[:1000])
    assert complaint(path).startswith(f"{expected} a file that raises ")
    assert refused(tmp_path, [HeteroData()]).endswith(
        "storage.BaseStorage, which is unpickled only with trust"
    )
    assert refused(tmp_path, [HeteroData()], trust=True).endswith("got HeteroData at position 0")


MODULE = """
from test_own_graphs_made import graphs, graph

def listed(): return graphs()
def generated(): yield from graphs()
def raising(): raise ValueError("no such\\nthing")
def breaking():
    yield graph(0)
    raise KeyError("later")
def leaving(): raise SystemExit(3)
def nothing(): return None
def needing(path): return graphs()
held = graphs()
"""


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module in the current folder that makes graphs."""
    made = type(sys)("test_own_graphs_made")
    made.graphs, made.graph = graphs, graph  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "test_own_graphs_made", made)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "factory_of_graphs.py").write_text(MODULE)
    yield "factory_of_graphs"
    sys.modules.pop("factory_of_graphs", None)


@pytest.mark.parametrize("name", ["listed", "generated", "held"])
def test_a_function_makes_graphs(factory: str, name: str) -> None:
    found = load(f"{factory}:{name}")
    assert (found.name, len(found)) == (f"{factory}:{name}", 10)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("raising", "factory_of_graphs:raising() raises ValueError: no such"),
        ("breaking", "factory_of_graphs:breaking raises KeyError: 'later'"),
        ("leaving", "factory_of_graphs:leaving() raises SystemExit: 3"),
        ("nothing", "factory_of_graphs:nothing: expected an iterable of Data, got NoneType"),
        ("needing", "factory_of_graphs:needing() raises TypeError: needing() missing 1 required positional"),
        (
            "absent",
            "cannot load factory_of_graphs:absent: expected a name in factory_of_graphs, got 'absent'",
        ),
    ],
)
def test_functions_that_make_none(factory: str, name: str, expected: str) -> None:
    assert complaint(f"{factory}:{name}").startswith(expected)


def test_a_module_that_is_not_there() -> None:
    assert "cannot import no_such_module: ModuleNotFoundError" in complaint("no_such_module:make")


def test_tu_sets_predict_their_graph_attributes(tmp_path: Path) -> None:
    write_set(tmp_path, graph_attributes="0.5, 3.25\n1.5, 2.25\n")
    found = load("TINY", tmp_path, target="1")
    assert (found.name, found.task, found.targets.tolist()) == ("TINY:1", "regression", [3.25, 2.25])
    assert load("TINY", tmp_path).task == "classification"
    assert complaint("TINY", mirror=tmp_path, target="2").endswith("a column of TINY, 0 to 1, got 2")
    assert complaint("rings", target="0").endswith("expected none for rings, which has classes only, got '0'")
    assert load("rings", task="regression").targets.tolist() == [float(one.y) for one in load("rings")]


def test_tu_sets_of_regression_predict_a_column(tmp_path: Path) -> None:
    write_set(tmp_path, graph_labels=None, graph_attributes="0.5, 3.25\n1.5, 2.25\n")
    assert load("TINY", tmp_path).targets.shape == (2, 2)
    assert load("TINY", tmp_path, target="0").targets.tolist() == [0.5, 1.5]
    assert "a column of TINY, 0 to 1, got None" in complaint("TINY", mirror=tmp_path, task="regression")


def test_features_of_tu_sets(tmp_path: Path) -> None:
    write_set(tmp_path / "a", node_attributes="1.5\n" * 6)
    write_set(tmp_path / "b", node_attributes="1.5\n" * 6, node_labels=None)
    write_set(tmp_path / "c", node_labels=None)
    assert [load("TINY", tmp_path / part).features for part in "abc"] == ["both", "numeric", "degrees"]


def test_numbers_beside_labels(tmp_path: Path) -> None:
    made = graphs(
        x=lambda place: torch.rand(3 + place, 2),
        z=lambda place: 6 + torch.arange(3 + place) % 2,
        edge_attr=lambda place: torch.eye(2)[torch.arange(2 * (3 + place)) % 2],
        edge_weight=lambda place: torch.rand(2 * (3 + place)),
    )
    found = stored(tmp_path, made)
    assert (found.features, found.edge_features) == ("both", "edge labels and 1 edge attribute")
    assert (found[0].node_label.tolist(), found.num_features) == ([0, 1, 0], 2)
    assert torch.equal(found[0].node_attr, made[0].x)


def test_a_set_that_was_stored_comes_back(tmp_path: Path) -> None:
    whole = load("rings")
    back = stored(tmp_path, list(whole))
    assert "not used: family, node_label, units" in back.notes
    for one, other in zip(whole, back, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("x", "node_label", "edge_index", "y"))
        assert torch.equal(one.edge_label, other.edge_label + 1)
        assert one.name == other.name


def test_graphs_without_nodes_are_kept(tmp_path: Path) -> None:
    empty = Data(
        x=torch.empty(0, 1, dtype=torch.int64), edge_index=torch.empty(2, 0).long(), y=torch.tensor([0])
    )
    found = stored(tmp_path, [*graphs(), empty])
    assert (len(found), found[10].num_nodes, found[10].x.shape) == (11, 0, (0, 2))
    assert "graphs without nodes: 1" in found.notes
