"""Splits: every graph in its place, the same for everyone, and never on another set."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Data

from datasets.graphs import GraphSet
from datasets.splits import Split, Splits, balanced, fingerprint, size_split, stratified_folds


def path_graph(nodes: int, y: int) -> Data:
    forth = torch.stack([torch.arange(nodes - 1), torch.arange(1, nodes)])
    labels = torch.zeros(nodes, dtype=torch.int64)
    return Data(
        x=torch.ones(nodes, 1),
        node_label=labels,
        edge_index=torch.cat([forth, forth.flip(0)], 1),
        y=torch.tensor([y]),
    )


def graphs_of(sizes: list[int], classes: list[int], name: str = "paths") -> GraphSet:
    graphs = tuple(path_graph(size, y) for size, y in zip(sizes, classes, strict=True))
    return GraphSet(name, graphs, len(set(classes)))


PATHS = graphs_of([2 + 7 * i % 30 for i in range(100)], [0] * 60 + [1] * 40)


def classes_in(indices: tuple[int, ...], graph_set: GraphSet = PATHS) -> Counter[int]:
    return Counter(int(graph_set[index].y) for index in indices)


def test_folds_test_every_graph_once_and_share_out_the_classes() -> None:
    folds = stratified_folds(PATHS, folds=5, validation=0.25, seed=3)
    assert sorted(index for split in folds.splits for index in split.test) == list(range(100))
    for split in folds.splits:
        assert sorted(split.train + split.validation + split.test) == list(range(100))
        assert classes_in(split.test) == {0: 12, 1: 8}
        assert classes_in(split.validation) == {0: 12, 1: 8}
        assert classes_in(split.train) == {0: 36, 1: 24}


def test_folds_without_hold_out() -> None:
    for split in stratified_folds(PATHS, folds=4, validation=0).splits:
        assert split.validation == ()
        assert len(split.train) == 75


def test_the_seed_decides() -> None:
    assert stratified_folds(PATHS, seed=1) == stratified_folds(PATHS, seed=1)
    assert stratified_folds(PATHS, seed=1).splits != stratified_folds(PATHS, seed=2).splits
    assert size_split(PATHS, seed=1) == size_split(PATHS, seed=1)


@pytest.mark.parametrize("folds", [1, 41])
def test_folds_that_cannot_be_cut(folds: int) -> None:
    with pytest.raises(ValueError, match=f"cannot cut paths into {folds} stratified folds.*at most 40"):
        stratified_folds(PATHS, folds=folds)


@pytest.mark.parametrize("share", [0.001, 0.999, 1.5, -0.1])
def test_a_hold_out_that_cannot_be(share: float) -> None:
    with pytest.raises(ValueError, match=r"cannot hold out .* of 90 graphs of paths for validation"):
        stratified_folds(PATHS, validation=share)


def test_small_graphs_train_and_large_graphs_test() -> None:
    (split,) = size_split(PATHS, train=0.5, test=0.1, validation=0.2).splits
    sizes = sorted(graph.num_nodes for graph in PATHS)
    small = split.train + split.validation
    assert sorted(PATHS[index].num_nodes for index in small) == sizes[:50]
    assert sorted(PATHS[index].num_nodes for index in split.test) == sizes[-10:]
    assert (len(split.train), len(split.validation)) == (40, 10)
    assert not set(small) & set(split.test)


def test_graphs_of_equal_size_are_shuffled_by_the_seed() -> None:
    equal = graphs_of([5] * 40, [0] * 20 + [1] * 20)
    (first,), (again,), (other,) = (size_split(equal, validation=0, seed=seed).splits for seed in (0, 0, 1))
    assert first == again != other
    assert set(classes_in(first.train, equal)) == {0, 1}


@pytest.mark.parametrize(("train", "test"), [(0.95, 0.1), (0, 0.1), (0.5, 0.001), (0.5, -0.5)])
def test_shares_that_overlap_or_leave_nothing(train: float, test: float) -> None:
    with pytest.raises(ValueError, match="expected two parts of one graph or more"):
        size_split(PATHS, train=train, test=test)


def test_shares_are_not_lost_to_rounding() -> None:
    (split,) = size_split(PATHS, train=0.29, test=0.71, validation=0).splits
    assert (len(split.train), len(split.test)) == (29, 71)


def test_balanced_takes_as_many_of_every_class() -> None:
    chosen = balanced(PATHS, range(50, 75), seed=4)
    assert classes_in(chosen) == {0: 10, 1: 10}
    assert set(chosen) <= set(range(50, 75))
    assert chosen == balanced(PATHS, range(50, 75), seed=4) != balanced(PATHS, range(50, 75), seed=5)
    assert balanced(PATHS, range(50)) == ()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    for splits in (stratified_folds(PATHS, seed=9), size_split(PATHS, seed=9)):
        path = tmp_path / "new folder" / "splits.json"
        splits.write(path)
        assert Splits.read(path, PATHS) == splits
        assert [entry.name for entry in path.parent.iterdir()] == ["splits.json"]
    assert json.loads(path.read_text())["graphs"] == 100


def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "splits.json"
    stratified_folds(PATHS, seed=0).write(path)
    before = path.read_text()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stratified_folds(PATHS, seed=1).write(path)
    assert path.read_text() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["splits.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"splits": [[1]]}', '{"splits": [{"train": 1}]}'])
def test_what_is_no_split_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "splits.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"splits\.json does not hold splits"):
        Splits.read(path, PATHS)


def changed(what: str) -> GraphSet:
    graphs = [graph.clone() for graph in PATHS]
    if what == "label":
        graphs[0].node_label[0] = 1
    elif what == "edge":
        graphs[0].edge_index = graphs[0].edge_index[:, 1:]
    elif what == "class":
        graphs[0].y = torch.tensor([1])
    elif what == "order":
        graphs.reverse()
    else:
        graphs.pop()
    return replace(PATHS, graphs=tuple(graphs))


@pytest.mark.parametrize("what", ["label", "edge", "class", "order", "number"])
def test_a_split_is_not_used_on_other_graphs(tmp_path: Path, what: str) -> None:
    other = changed(what)
    assert fingerprint(other) != fingerprint(PATHS)
    stratified_folds(PATHS).write(tmp_path / "splits.json")
    with pytest.raises(ValueError, match="do not fit"):
        Splits.read(tmp_path / "splits.json", other)


def test_the_fingerprint_is_of_the_graphs_alone() -> None:
    twin = graphs_of([graph.num_nodes for graph in PATHS], [int(graph.y) for graph in PATHS], name="twin")
    assert fingerprint(twin) == fingerprint(PATHS)


@pytest.mark.parametrize("test", [(2, 3), (100,), (-1,)])
def test_indices_that_leak_or_do_not_exist(test: tuple[int, ...]) -> None:
    tampered = replace(stratified_folds(PATHS), splits=(Split((0, 1), (2,), test),))
    with pytest.raises(ValueError, match="split 0 of paths names a graph twice, or one that is not there"):
        tampered.check(PATHS)


def numbers_of(targets: list[float]) -> GraphSet:
    graphs = tuple(path_graph(3 + place % 5, 0) for place in range(len(targets)))
    for graph, target in zip(graphs, targets, strict=True):
        graph.y = torch.tensor([target])
    return GraphSet("numbers", graphs, 0)


def test_folds_of_numbers_have_equal_shares_of_every_tenth() -> None:
    numbers = numbers_of([float(7 * place % 100) for place in range(100)])
    for split in stratified_folds(numbers, folds=5, validation=0.25).splits:
        assert Counter(int(numbers[index].y) // 10 for index in split.test) == dict.fromkeys(range(10), 2)
        assert len(split.validation) == 20
    few = stratified_folds(numbers_of([0.25, 0.5, 0.75, 1.0]), folds=2, validation=0).splits
    assert [len(split.test) for split in few] == [2, 2]
    with pytest.raises(ValueError, match=r"into 5 stratified folds: .* at most 4, the number of graphs"):
        stratified_folds(numbers_of([0.25, 0.5, 0.75, 1.0]), folds=5)


def test_several_numbers_for_each_graph_have_no_strata() -> None:
    several = numbers_of([0.0] * 12)
    for place, graph in enumerate(several):
        graph.y = torch.tensor([[place, 0.5]])
    assert [len(split.test) for split in stratified_folds(several, folds=4, validation=0.25).splits] == [
        3
    ] * 4


def test_fingerprints_see_parts_of_numbers() -> None:
    assert fingerprint(numbers_of([0.25, 0.5])) != fingerprint(numbers_of([0.75, 0.5]))


@pytest.mark.parametrize("validation", [0, 0.2])
def test_groups_stay_together(validation: float) -> None:
    groups = [place // 3 for place in range(100)]
    folds = stratified_folds(PATHS, folds=5, validation=validation, seed=1, groups=groups)
    assert (
        folds.rule == f"5 stratified folds, {validation:g} of the rest for validation, groups kept together"
    )
    assert sorted(index for split in folds.splits for index in split.test) == list(range(100))
    for split in folds.splits:
        parts = [split.train, split.validation, split.test]
        assert sorted(index for part in parts for index in part) == list(range(100))
        owners = [{groups[index] for index in part} for part in parts]
        assert sum(map(len, owners)) == len(set().union(*owners)) == 34
        assert abs(len(split.test) - 20) <= 3
        assert abs(classes_in(split.test)[0] - 12) <= 3
        assert (len(split.validation) > 0) == (validation > 0)
    assert folds == stratified_folds(PATHS, folds=5, validation=validation, seed=1, groups=groups)


def test_groups_of_one_graph_each_share_out_the_classes_as_well() -> None:
    for split in stratified_folds(PATHS, folds=5, validation=0, groups=list(range(100))).splits:
        assert classes_in(split.test) == {0: 12, 1: 8}


def test_groups_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"groups: expected one for each of 100 graphs, got \(3,\)"):
        stratified_folds(PATHS, groups=[1, 2, 3])
    with pytest.raises(ValueError, match=r"at most 1, the number of groups in its smallest class"):
        stratified_folds(PATHS, folds=3, groups=[0] * 60 + [1] * 20 + [2] * 20)
