"""Activation maps: nitro groups light up where they tell the classes apart; the numbers by hand."""

import os

import pytest
import torch
from torch_geometric.data import Data

from datasets import GraphSet, load
from experiments import activation_maps as maps
from experiments.__main__ import BAD_INPUT, main
from experiments.console import UserError
from experiments.rows import RowLog, pick

MIRROR = os.environ.get("READOUTS_TU_MIRROR", "")
NODE_NAMES = ("C", "N", "O")
RING = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0)]
NITRO, HYDROXYLS = [(0, 6), (6, 7), (6, 8)], [(0, 6), (2, 7), (4, 8)]


def molecule(labels, edges, y=0):
    both = torch.tensor([*edges, *[edge[::-1] for edge in edges]]).T
    label = torch.tensor(labels)
    return Data(
        x=torch.nn.functional.one_hot(label, 3).float(),
        node_label=label,
        edge_index=both,
        edge_label=torch.ones(both.shape[1], dtype=torch.long),
        y=torch.tensor([y]),
    )


def chain(length, start):
    return [(0 if step == 0 else start + step - 1, start + step) for step in range(length)]


@pytest.fixture(scope="module")
def toys():
    """Nitrobenzenes, which are the mutagens, and benzenetriols, with tails of carbon."""
    graphs = []
    for tail in range(12):
        carbons = [0] * tail
        graphs.append(molecule([0] * 6 + [1, 2, 2, *carbons], RING + NITRO + chain(tail, 9), 1))
        graphs.append(molecule([0] * 6 + [2, 2, 2, *carbons], RING + HYDROXYLS + chain(tail, 9), 0))
    return GraphSet("MUTAG", tuple(graphs), 2, NODE_NAMES)


@pytest.fixture(scope="module")
def measured(toys, tmp_path_factory):
    with RowLog(tmp_path_factory.mktemp("maps"), "activation_maps") as log:
        return maps.measure([toys], log, "cpu", seed=0, folds=3, steps=60)


def test_nitro_atoms_are_a_nitrogen_and_two_oxygen_ends():
    nitro = molecule([0] * 6 + [1, 2, 2], RING + NITRO)
    assert maps.nitro_atoms(nitro, NODE_NAMES).tolist() == [False] * 6 + [True] * 3
    nitrate = molecule([0, 2, 1, 2, 2], [(0, 1), (1, 2), (2, 3), (2, 4)])
    assert maps.nitro_atoms(nitrate, NODE_NAMES).tolist() == [False, False, True, True, True]
    nitroso = molecule([0, 1, 2], [(0, 1), (1, 2)])
    ester = molecule([1, 2, 2, 0, 0], [(0, 1), (0, 2), (1, 3), (2, 4)])
    acid = molecule([0, 0, 2, 2], [(0, 1), (1, 2), (1, 3)])
    for other in (nitroso, ester, acid):
        assert not maps.nitro_atoms(other, NODE_NAMES).any()


def test_fused_atoms_have_three_bonds_in_rings():
    naphthalene = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8), (8, 9), (9, 0), (4, 9)]
    assert maps.fused_atoms(molecule([0] * 10, naphthalene)).nonzero().flatten().tolist() == [4, 9]
    two_rings = [*RING, (0, 6), *[(a + 6, b + 6) for a, b in RING]]
    assert not maps.fused_atoms(molecule([0] * 12, two_rings)).any()


def test_nitro_groups_light_up_where_they_tell_the_classes_apart(measured):
    assert maps.per_fold(measured, "MUTAG", "accuracy") == [1.0] * 3
    atoms, score, ranked, nitro, at_random = (
        maps.per_fold(measured, "MUTAG", name)
        for name in ("atoms", "score", "ranked", "drop nitro", "drop random")
    )
    assert all(s > 1.3 * a for s, a in zip(score, atoms, strict=True))
    assert min(ranked) > 0.6
    assert all(n > 1.5 * r for n, r in zip(nitro, at_random, strict=True))
    assert maps.per_fold(measured, "MUTAG", "accuracy", trained=False) == [0.5] * 3
    first, *_, second = maps.verdicts(measured)
    assert first.startswith("MUTAG: nitro groups light up")
    assert "in 3 of 3 folds" in first
    assert second.endswith("further in 3 of 3 folds.")


def test_counts(measured):
    assert [pick(measured, metric=name) for name in maps.COUNTS] == [12, 0, 0, 12]


def test_drawn_maps_have_the_logit_as_their_mean(toys, measured):
    task = maps.choose(toys)
    split = maps.stratified_folds(toys, 3, validation=0.0, seed=0).splits[0]
    found = maps.maps_of(measured, "MUTAG")
    assert list(found) == maps.drawn(task, split)
    assert len(found) == min(maps.DRAWN, 4)
    network = maps.train(task, split, "cpu", 0, 60)
    for position, scores in found.items():
        assert position in split.test
        logit = maps.logits(network, [task.molecules[position]])
        assert sum(scores) / len(scores) == pytest.approx(logit.item(), rel=1e-5, abs=1e-5)


def test_shares_and_ranks_by_hand():
    scores, group = torch.tensor([3.0, -5.0, 1.0, 0.0]), torch.tensor([True, True, False, False])
    assert maps.shares(scores, group) == (0.5, 0.75)
    assert maps.ranked(scores, group) == 0.5
    assert maps.ranked(torch.zeros(4), group) == 0.5
    assert maps.shares(-scores.abs(), group) == (0.5, 0.0)


def test_one_threshold_on_the_size_in_either_direction():
    small, large = (molecule([0] * n, chain(n - 1, 1), y) for n, y in ((3, 0), (7, 1)))
    train = [Data(x=m.x, edge_index=m.edge_index, y=m.y) for m in (small, large)]
    assert maps.size_only(train, train) == 1.0
    swapped = [Data(x=m.x, edge_index=m.edge_index, y=1 - m.y) for m in (small, large)]
    assert maps.size_only(swapped, swapped) == 1.0
    assert maps.size_only(train, swapped) == 0.0


def test_removing_atoms_takes_their_bonds_along():
    ring = molecule([0] * 6 + [1, 2, 2], RING + NITRO)
    rest = maps.without(ring, torch.tensor([6, 7, 8]))
    assert rest.x.shape == (6, 3)
    assert sorted(map(tuple, rest.edge_index.T.tolist())) == sorted(RING + [edge[::-1] for edge in RING])


def test_drops_are_differences_of_logits(toys):
    task = maps.choose(toys)
    split = maps.stratified_folds(toys, 3, validation=0.0, seed=0).splits[0]
    network = maps.train(task, split, "cpu", 0, 5)
    chosen, group = task.molecules[0], task.nitro[0]
    (scores,) = maps.activation_maps(network, [chosen])
    top, nitro, at_random = maps.drops(network, [chosen], [scores], [group], seed=0)
    whole = maps.logits(network, [chosen])
    best = maps.without(chosen, scores.topk(3).indices)
    assert top == pytest.approx((whole - maps.logits(network, [best])).item(), abs=1e-6)
    bare = maps.without(chosen, torch.tensor([6, 7, 8]))
    assert nitro == pytest.approx((whole - maps.logits(network, [bare])).item(), abs=1e-6)
    assert at_random != top


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([True] * 10, "light up"),
        ([False] * 10, "do not light up"),
        ([True, False], "light up in some folds only"),
    ],
)
def test_verdict_follows_the_folds(more, words):
    assert maps.lit(more) == words


def test_figure_and_tables_read_rows(toys, measured, tmp_path):
    paths = maps.figure(measured, [toys], tmp_path)
    assert [path.name for path in paths] == ["activation.svg", "activation.png"]
    before = paths[0].read_bytes()
    maps.figure(measured, [toys], tmp_path)
    assert paths[0].read_bytes() == before
    assert [len(table.rows) for table in maps.tables(measured)] == [1, 2]


def test_only_sets_of_mutagens(tmp_path, capsys):
    with pytest.raises(UserError, match="expected MUTAG or Mutagenicity, sets of mutagens, got rings"):
        maps.choose(load("rings"))
    assert main(["activation-maps", "--out", str(tmp_path)]) == BAD_INPUT
    assert capsys.readouterr().err == (
        "--data: expected MUTAG or Mutagenicity, sets of mutagens, got none.\n"
    )
    assert main(["activation-maps", "--data", "rings", "--out", str(tmp_path)]) == BAD_INPUT


@pytest.mark.skipif(not MIRROR, reason="needs READOUTS_TU_MIRROR")
def test_every_molecule_of_mutag_has_a_nitro_group():
    task = maps.choose(load("MUTAG", MIRROR))
    assert maps.count(task) == dict(zip(maps.COUNTS, (125, 63, 0, 0), strict=True))
    assert sum(int(nitro.sum()) for nitro in task.nitro) == 816
    assert all(int(nitro.sum()) % 3 == 0 for nitro in task.nitro)
