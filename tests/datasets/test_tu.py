"""TU sets: what the text files mean, what is refused, and the facts of the six real sets."""

from __future__ import annotations

import copy
import hashlib
import io
import os
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch

from datasets import tables, tu
from datasets.graphs import GraphSet
from readouts.commands.tu import checksums, fetch
from readouts.commands.tu.errors import DataError
from tests.tu_files import SOUND, archive_of, publish, write_set

MIRROR = os.environ.get("READOUTS_TU_MIRROR", "")


@pytest.fixture(autouse=True)
def _away_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("READOUTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("READOUTS_TU_MIRROR", raising=False)
    monkeypatch.setattr(fetch, "SITE", "http://127.0.0.1:9")


def load(tmp_path: Path, **changes: str | None) -> GraphSet:
    write_set(tmp_path / "mirror", **changes)
    return tu.load("TINY", mirror=tmp_path / "mirror")


def complaint(tmp_path: Path, **changes: str | None) -> str:
    with pytest.raises(DataError) as caught:
        load(tmp_path, **changes)
    message = str(caught.value)
    assert "\n" not in message
    return message


def edges(graph_set: GraphSet, graph: int) -> list[list[int]]:
    found: list[list[int]] = graph_set[graph].edge_index.t().tolist()
    return found


def test_a_sound_set_is_read_as_it_stands(tmp_path: Path) -> None:
    tiny = load(tmp_path)
    triangle, path = tiny
    assert (tiny.name, len(tiny), tiny.classes, tiny.node_names) == ("TINY", 2, 2, None)
    assert edges(tiny, 0) == [[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]]
    assert edges(tiny, 1) == [[0, 1], [1, 0], [1, 2], [2, 1]]
    assert triangle.node_label.tolist() == [0, 1, 0]
    assert path.x.tolist() == [[0, 0, 1], [0, 0, 1], [0, 1, 0]]
    assert triangle.edge_label.tolist() == [0, 0, 0, 1, 0, 1]
    assert path.edge_label.tolist() == [1, 1, 0, 0]
    assert [graph.y.tolist() for graph in tiny] == [[0], [1]]
    assert tiny.notes == (
        "not verified: no digests of TINY are known",
        "class labels 1..2 renumbered in sorted order, 0..1",
    )


def test_dtypes_and_layout(tmp_path: Path) -> None:
    real = "1.5, 2\n" * 6
    graph = load(tmp_path, node_attributes=real, edge_attributes="0.25\n" * 10)[0]
    assert graph.x.dtype == graph.node_attr.dtype == graph.edge_attr.dtype == torch.float32
    assert graph.y.dtype == graph.node_label.dtype == graph.edge_index.dtype == torch.int64
    assert graph.edge_label.dtype == torch.int64
    assert graph.edge_index.is_contiguous()
    assert graph.node_attr.tolist() == [[1.5, 2.0]] * 3
    assert graph.edge_attr.tolist() == [[0.25]] * 6
    assert graph.validate()


def test_a_graph_owns_its_memory(tmp_path: Path) -> None:
    graph = copy.deepcopy(load(tmp_path)[0])
    assert graph.x.untyped_storage().nbytes() == graph.x.numel() * 4


def test_self_loops_go_and_are_counted(tmp_path: Path) -> None:
    looped = load(tmp_path, A=SOUND["A"] + "6, 6\n1, 1\n", edge_labels=SOUND["edge_labels"] + "7\n7\n")
    assert edges(looped, 1) == [[0, 1], [1, 0], [1, 2], [2, 1]]
    assert "self-loops removed: 2" in looped.notes


def test_repeated_edges_are_merged_and_the_first_label_is_kept(tmp_path: Path) -> None:
    repeated = load(tmp_path, A=SOUND["A"] + "4, 5\n5, 6\n", edge_labels=SOUND["edge_labels"] + "1\n1\n")
    assert edges(repeated, 1) == [[0, 1], [1, 0], [1, 2], [2, 1]]
    assert repeated[1].edge_label.tolist() == [1, 1, 0, 0]
    assert "repeated edges merged: 2" in repeated.notes
    assert "of these with another label than the first, which is kept: 1" in repeated.notes


def test_one_direction_becomes_two_with_the_same_label(tmp_path: Path) -> None:
    halved = load(tmp_path, A="2, 1\n2, 3\n3, 2\n6, 5\n", edge_labels="1\n0\n0\n2\n")
    assert edges(halved, 0) == [[0, 1], [1, 0], [1, 2], [2, 1]]
    assert halved[0].edge_label.tolist() == [1, 1, 0, 0]
    assert edges(halved, 1) == [[1, 2], [2, 1]]
    assert halved[1].edge_label.tolist() == [2, 2]
    assert "one-directional edges completed with their reverse: 2" in halved.notes


def test_directions_with_different_labels_are_kept_and_counted(tmp_path: Path) -> None:
    lopsided = load(tmp_path, A="1, 2\n2, 1\n4, 5\n5, 4\n", edge_labels="0\n1\n2\n2\n")
    assert lopsided[0].edge_label.tolist() == [0, 1]
    assert "edges with different labels in their two directions: 1" in lopsided.notes


def test_empty_graphs_and_isolated_nodes_stay(tmp_path: Path) -> None:
    sparse = load(
        tmp_path,
        A="1, 2\n2, 1\n",
        edge_labels=None,
        graph_indicator="2\n2\n2\n4\n4\n4\n",
        graph_labels="5\n5\n-1\n7\n5\n",
    )
    assert [graph.num_nodes for graph in sparse] == [0, 3, 0, 3, 0]
    assert [graph.num_edges for graph in sparse] == [0, 2, 0, 0, 0]
    assert [int(graph.y) for graph in sparse] == [1, 1, 0, 2, 1]
    assert sparse[0].x.shape == (0, 3)
    assert sparse[0].edge_index.shape == (2, 0)
    assert {"graphs without edges: 4", "graphs without nodes: 3"} <= set(sparse.notes)


def test_a_set_without_any_edge_or_node(tmp_path: Path) -> None:
    nothing = load(tmp_path, A="", edge_labels="", graph_indicator="", node_labels="")
    assert [graph.num_nodes for graph in nothing] == [0, 0]
    assert nothing[0].x.shape == (0, 0)


def test_nodes_of_a_graph_need_not_stand_together(tmp_path: Path) -> None:
    scattered = load(
        tmp_path,
        A="1, 3\n3, 1\n2, 4\n4, 2\n",
        edge_labels="1\n1\n0\n0\n",
        graph_indicator="2\n1\n2\n1\n1\n2\n",
        node_labels="0\n1\n2\n3\n4\n5\n",
        node_attributes="10\n11\n12\n13\n14\n15\n",
    )
    assert [graph.node_label.tolist() for graph in scattered] == [[1, 3, 4], [0, 2, 5]]
    assert scattered[1].node_attr.flatten().tolist() == [10, 12, 15]
    assert edges(scattered, 0) == edges(scattered, 1) == [[0, 1], [1, 0]]
    assert [graph.edge_label.tolist() for graph in scattered] == [[0, 0], [1, 1]]


def test_degrees_stand_in_for_missing_node_labels(tmp_path: Path) -> None:
    unlabelled = load(tmp_path, node_labels=None)
    assert unlabelled[1].node_label.tolist() == [1, 2, 1]
    assert unlabelled[1].x.tolist() == [[0, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert "no node labels: degrees stand in for them" in unlabelled.notes


def test_degrees_too_many_for_memory_share_the_last_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MOST_ONE_HOT_BYTES", 2 * 6 * 4)
    unlabelled = load(tmp_path, node_labels=None)
    assert unlabelled[1].node_label.tolist() == [1, 1, 1]
    assert "nodes of a degree above 1, labelled 1: 4" in unlabelled.notes


@pytest.mark.parametrize(
    ("given", "kept", "note"),
    [
        ("3\n1\n1\n2\n2\n3\n", [2, 0, 0], "node labels 1..3 renumbered in sorted order, 0..2"),
        ("0\n9\n9\n-4\n0\n0\n", [1, 2, 2], "node labels -4..9 renumbered in sorted order, 0..2"),
        (
            "0, 1\n0, 0\n1, 0\n0, 0\n0, 0\n0, 0\n",
            [1, 0, 2],
            "labels of 2 columns became one per distinct row, 0..2",
        ),
    ],
)
def test_other_node_labels_are_renumbered(tmp_path: Path, given: str, kept: list[int], note: str) -> None:
    relabelled = load(tmp_path, node_labels=given)
    assert relabelled[0].node_label.tolist() == kept
    assert any(note in said for said in relabelled.notes)


def test_windows_line_ends_and_trailing_blank_lines(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "mirror")
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")
    assert edges(tu.load("TINY", mirror=tmp_path / "mirror"), 1) == [[0, 1], [1, 0], [1, 2], [2, 1]]


@pytest.mark.parametrize(
    "changes",
    [
        {"graph_labels": "1.0\n2.0\n"},
        {"A": SOUND["A"].replace(", ", " ")},
        {"A": SOUND["A"].replace(", ", "\t").replace("1", "  1")},
        {"A": "\ufeff" + SOUND["A"]},
        {
            part: SOUND[part].replace("\n", ".0\n")
            for part in ("graph_indicator", "node_labels", "edge_labels")
        },
    ],
    ids=["1.0", "blanks", "tabs", "byte order mark", "reals"],
)
def test_other_spellings_of_the_same_numbers(tmp_path: Path, changes: dict[str, str]) -> None:
    sound, other = load(tmp_path / "sound"), load(tmp_path / "other", **changes)
    assert other.notes == sound.notes
    for graph, same in zip(other, sound, strict=True):
        assert graph.to_dict().keys() == same.to_dict().keys()
        assert all(torch.equal(value, same[key]) for key, value in graph.to_dict().items())


@pytest.mark.parametrize(
    ("changes", "targets"),
    [
        ({"graph_labels": "0.5\n1\n"}, [[0.5], [1.0]]),
        ({"graph_labels": None, "graph_attributes": "0.5\n1\n"}, [[0.5], [1.0]]),
        ({"graph_labels": None, "graph_attributes": "0.5, 2\n1, 3\n"}, [[[0.5, 2.0]], [[1.0, 3.0]]]),
    ],
)
def test_a_regression_set_has_targets_and_no_classes(
    tmp_path: Path, changes: dict[str, str | None], targets: list[object]
) -> None:
    regression = load(tmp_path, **changes)
    assert (regression.classes, regression.num_classes) == (0, 0)
    assert [graph.y.tolist() for graph in regression] == targets
    assert regression[0].y.dtype == torch.float32


def test_attributes_of_graphs_with_classes_are_kept(tmp_path: Path) -> None:
    both = load(tmp_path, graph_attributes="0.5, 2\n1, 3\n")
    assert both.classes == 2
    assert [graph.graph_attr.tolist() for graph in both] == [[[0.5, 2.0]], [[1.0, 3.0]]]


def test_numbers_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    odd = load(tmp_path, node_attributes="nan 1e39\n" + "1 -inf\n" * 5, edge_attributes="nan\n" * 10)
    assert odd[0].node_attr[0].isnan().tolist() == [True, False]
    assert odd[0].node_attr[:2, 1].tolist() == [float("inf"), float("-inf")]
    assert {
        "node attributes that are NaN: 1",
        "node attributes that are infinite in float32: 6",
        "edge attributes that are NaN: 10",
    } <= set(odd.notes)


def test_labels_whose_one_hot_rows_fill_the_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MOST_ONE_HOT_BYTES", 2 * 6 * 4)
    assert "3 different labels of 6 nodes would make one-hot rows" in complaint(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"A": "1, 2\n2, x\n"}, "TINY_A.txt, line 2: expected 2 integers, got '2, x'"),
        ({"A": "1, 2\n2\n"}, "TINY_A.txt, line 2: expected 2 integers, got '2'"),
        ({"A": "1, 2\n\n2, 1\n"}, "TINY_A.txt, line 2: expected 2 integers, got ''"),
        ({"A": "1, 2, 3\n"}, "TINY_A.txt has 3 columns, expected 2"),
        ({"A": "1, 2\n1, 7\n", "edge_labels": None}, "TINY_A.txt, line 2: edge 1, 7 in a set of 6 nodes"),
        ({"A": "0, 1\n", "edge_labels": None}, "TINY_A.txt, line 1: edge 0, 1 in a set of 6 nodes"),
        ({"A": "1, 2\n3, 4\n", "edge_labels": None}, "line 2: edge 3, 4 joins graphs 1, 2"),
        ({"A": None}, "there is no data set 'TINY'"),
        ({"graph_indicator": "1\n1\n1\n2\n2\n3\n"}, "line 6: graph 3, but graph_labels names 2 graphs"),
        ({"graph_indicator": "0\n1\n1\n2\n2\n2\n"}, "line 1: graph 0, but graph_labels names 2 graphs"),
        ({"graph_indicator": "1\n1\n1.5\n2\n2\n2\n"}, "line 3: expected 1 integer, got '1.5'"),
        ({"graph_indicator": None}, "lacks TINY_graph_indicator.txt"),
        ({"graph_labels": ""}, "TINY_graph_labels.txt is empty"),
        ({"graph_labels": "1, 0\n2, 0\n"}, "TINY_graph_labels.txt has 2 columns, expected 1"),
        ({"graph_labels": "one\ntwo\n"}, "TINY_graph_labels.txt, line 1: expected 1 integer, got 'one'"),
        ({"graph_labels": None, "graph_attributes": ""}, "TINY_graph_attributes.txt is empty"),
        ({"graph_attributes": "0.5\n"}, "TINY_graph_attributes.txt has 1 lines for 2 graphs"),
        ({"A": "1 2\n2,, 1\n"}, "TINY_A.txt, line 2: expected 2 integers, got '2,, 1'"),
        ({"graph_labels": "1.0\n1e300\n", "graph_indicator": "1\n2.5\n"}, "line 2: expected 1 integer"),
        ({"node_labels": "0\n1\n"}, "TINY_node_labels.txt has 2 lines for 6 nodes"),
        ({"node_attributes": "0\n" * 7}, "TINY_node_attributes.txt has 7 lines for 6 nodes"),
        ({"node_attributes": "0\n" * 5 + "a\n"}, "line 6: expected 1 number, got 'a'"),
        ({"edge_labels": "0\n" * 9}, "TINY_edge_labels.txt has 9 lines for 10 edges"),
        ({"edge_attributes": "0\n" * 11}, "TINY_edge_attributes.txt has 11 lines for 10 edges"),
        ({"node_labels": "9" * 30 + "\n" * 6}, "line 1: expected 1 integer"),
    ],
)
def test_unsound_files_are_refused_in_one_sentence(
    tmp_path: Path, changes: dict[str, str | None], words: str
) -> None:
    assert words in complaint(tmp_path, **changes)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (write_set(tmp_path / "mirror") / "TINY_A.txt").write_bytes(b"\xff\xfe1, 2\n")
    with pytest.raises(DataError, match=r"TINY_A\.txt is not text"):
        tu.load("TINY", mirror=tmp_path / "mirror")


def test_a_known_set_is_verified_and_says_nothing_about_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(write_set(tmp_path / "mirror"), monkeypatch)
    notes = tu.load("TINY", mirror=tmp_path / "mirror").notes
    assert notes == ("class labels 1..2 renumbered in sorted order, 0..1",)


def test_another_digest_is_an_error_that_names_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_set(tmp_path / "mirror")
    publish(folder, monkeypatch)
    (folder / "TINY_node_labels.txt").write_text("0\n1\n0\n2\n2\n0\n")
    actual = hashlib.sha256((folder / "TINY_node_labels.txt").read_bytes()).hexdigest()
    with pytest.raises(DataError) as caught:
        tu.load("TINY", mirror=tmp_path / "mirror")
    message = str(caught.value)
    assert "TINY_node_labels.txt" in message
    assert actual in message
    assert checksums.DIGESTS["TINY"]["node_labels"] in message


def test_a_wrong_archive_never_reaches_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_set(tmp_path / "texts")
    publish(folder, monkeypatch)
    (folder / "TINY_A.txt").write_text("1, 2\n")
    (tmp_path / "mirror").mkdir()
    archive_of(folder).rename(tmp_path / "mirror" / "TINY.zip")
    with pytest.raises(DataError, match=r"TINY_A\.txt from .*TINY\.zip is not the published one"):
        tu.load("TINY", mirror=tmp_path / "mirror")
    assert not (tmp_path / "cache" / "TINY").exists()


@pytest.mark.parametrize("change", ["missing", "strange"])
def test_a_known_set_has_exactly_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    folder = write_set(tmp_path / "mirror")
    publish(folder, monkeypatch)
    if change == "missing":
        (folder / "TINY_edge_labels.txt").unlink()
    else:
        (folder / "TINY_node_attributes.txt").write_text("1\n" * 6)
    with pytest.raises(DataError, match=r"as published"):
        tu.load("TINY", mirror=tmp_path / "mirror")


@pytest.fixture(scope="module")
def real_sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, GraphSet]:
    if not Path(MIRROR).is_dir() or not MIRROR:
        pytest.skip("READOUTS_TU_MIRROR names no folder with the real TU sets")
    cache = tmp_path_factory.mktemp("tu")
    return {name: tu.load(name, mirror=MIRROR, cache=cache) for name in FACTS}


# graphs, share of the majority class, nodes, edges (both directions): counted in the files with wc and uniq.
FACTS = {
    "MUTAG": (188, 0.665, 3371, 7442),
    "PTC_MR": (344, 0.558, 4915, 10108),
    "ENZYMES": (600, 0.167, 19580, 74564),
    "PROTEINS": (1113, 0.596, 43471, 162088),
    "NCI1": (4110, 0.500, 122747, 265506),
    "Mutagenicity": (4337, 0.554, 131488, 266894),
}


@pytest.mark.parametrize("name", FACTS)
def test_facts_of_the_real_sets(real_sets: dict[str, GraphSet], name: str) -> None:
    graphs, majority, nodes, both_directions = FACTS[name]
    loaded = real_sets[name]
    classes = Counter(int(graph.y) for graph in loaded)
    assert len(loaded) == graphs
    assert sorted(classes) == list(range(loaded.classes))
    assert round(max(classes.values()) / graphs, 3) == pytest.approx(majority, abs=1e-9)
    assert sum(graph.num_nodes for graph in loaded) == nodes
    assert sum(graph.num_edges for graph in loaded) == both_directions
    assert not any(graph.has_self_loops() or graph.is_directed() for graph in loaded)
    assert not any("not verified" in note for note in loaded.notes)


@pytest.mark.parametrize("name", ["MUTAG", "PTC_MR", "Mutagenicity"])
def test_published_names_cover_the_node_labels(real_sets: dict[str, GraphSet], name: str) -> None:
    names = real_sets[name].node_names
    assert names is not None
    assert len(names) == real_sets[name][0].x.shape[1]
    assert "C" in names


def test_the_crown_ethers_of_mutagenicity(real_sets: dict[str, GraphSet]) -> None:
    names = real_sets["Mutagenicity"].node_names
    assert names is not None
    for repeats, graph in {1: 1427, 2: 2785, 4: 1879, 5: 1067, 6: 1026, 7: 2756}.items():
        found = real_sets["Mutagenicity"][graph]
        atoms = Counter(names[label] for label in found.node_label.tolist())
        assert atoms == {"C": 2 * repeats, "H": 4 * repeats, "O": repeats}
        assert int(found.y) == (repeats > 1)


def test_mutag_agrees_with_a_line_by_line_reading(real_sets: dict[str, GraphSet]) -> None:
    def lines(part: str) -> list[list[int]]:
        unpacked = Path(MIRROR) / "MUTAG" / f"MUTAG_{part}.txt"
        if unpacked.is_file():
            text = unpacked.read_text()
        else:
            with zipfile.ZipFile(Path(MIRROR) / "MUTAG.zip") as bundle:
                text = io.TextIOWrapper(bundle.open(f"MUTAG/MUTAG_{part}.txt")).read()
        return [[int(number) for number in line.split(",")] for line in text.split("\n") if line]

    graph_of = [graph for (graph,) in lines("graph_indicator")]
    local = [graph_of[:node].count(graph) for node, graph in enumerate(graph_of)]
    bonds: dict[int, dict[tuple[int, int], int]] = {graph: {} for graph in graph_of}
    for (u, v), (bond,) in zip(lines("A"), lines("edge_labels"), strict=True):
        bonds[graph_of[u - 1]][local[u - 1], local[v - 1]] = bond
    for number, graph in enumerate(real_sets["MUTAG"], start=1):
        expected = sorted(bonds[number].items())
        assert [tuple(edge) for edge in graph.edge_index.t().tolist()] == [edge for edge, _ in expected]
        assert graph.edge_label.tolist() == [bond for _, bond in expected]
    labels = [label for graph in real_sets["MUTAG"] for label in graph.node_label.tolist()]
    assert labels == [label for (label,) in lines("node_labels")]
