"""Activation maps: nitro groups light up where they tell the classes apart; the numbers by hand."""

from __future__ import annotations

import os

import pytest
import torch
from torch_geometric.data import Data

from datasets import GraphSet, load
from datasets.splits import stratified_folds
from experiments import activation_maps
from experiments.__main__ import BAD_INPUT, main
from experiments.console import UserError
from experiments.models import GIN
from experiments.records import RowLog, pick

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
    return run(toys, tmp_path_factory.mktemp("maps"))


def run(graphs, folder):
    with RowLog(folder, "activation_maps") as log:
        return activation_maps.measure([graphs], log, "cpu", seed=0, folds=3, steps=60)


@pytest.fixture(scope="module")
def known(toys):
    """The task, the first split, and both networks after a few steps."""
    chosen = activation_maps.choose(toys)
    split = stratified_folds(toys, 3, validation=0.0, seed=0).splits[0]
    return (
        chosen,
        split,
        {name: activation_maps.train(chosen, split, name, "cpu", 0, 60) for name in activation_maps.READOUTS},
    )


def per_fold(rows, metric, readout="mean", trained=True):
    return activation_maps.per_fold(rows, "MUTAG", readout, metric, trained)


def test_nitro_atoms_are_a_nitrogen_and_two_oxygen_ends():
    nitro = molecule([0] * 6 + [1, 2, 2], RING + NITRO)
    assert activation_maps.nitro_atoms(nitro, NODE_NAMES).tolist() == [False] * 6 + [True] * 3
    nitrate = molecule([0, 2, 1, 2, 2], [(0, 1), (1, 2), (2, 3), (2, 4)])
    assert activation_maps.nitro_atoms(nitrate, NODE_NAMES).tolist() == [False, False, True, True, True]
    nitroso = molecule([0, 1, 2], [(0, 1), (1, 2)])
    ester = molecule([1, 2, 2, 0, 0], [(0, 1), (0, 2), (1, 3), (2, 4)])
    acid = molecule([0, 0, 2, 2], [(0, 1), (1, 2), (1, 3)])
    for other in (nitroso, ester, acid):
        assert not activation_maps.nitro_atoms(other, NODE_NAMES).any()


def test_amino_atoms_with_hydrogens_are_a_nitrogen_and_two_of_them():
    elements = ("C", "H", "N")
    star = [(0, 1), (1, 2), (1, 3)]
    amino = lambda labels, edges: activation_maps.amino_atoms(molecule(labels, edges), elements, (1.5, 1.0))  # noqa: E731
    assert amino([0, 2, 1, 1], star).tolist() == [False, True, True, True]
    assert amino([2, 2, 1, 1], star).tolist() == [False, True, True, True]  # the end of a hydrazine
    assert not amino([0, 2, 1, 0], star).any()  # secondary
    assert not amino([0, 2, 1, 1, 1], [*star, (1, 4)]).any()  # ammonium
    assert not amino([1, 2, 1, 1], star).any()  # ammonia
    assert not amino([0, 2], [(0, 1)]).any()  # without its hydrogens, in a set that has them


def test_amino_atoms_without_hydrogens_end_a_single_bond():
    orders = (1.5, 1.0, 2.0, 3.0)
    amine = molecule([0, 1], [(0, 1)])
    assert activation_maps.amino_atoms(amine, NODE_NAMES, orders).tolist() == [False, True]
    nitrile = amine.clone()
    nitrile.edge_label = torch.full((2,), 3)
    assert not activation_maps.amino_atoms(nitrile, NODE_NAMES, orders).any()
    assert not activation_maps.amino_atoms(molecule([0, 1, 0], [(0, 1), (1, 2)]), NODE_NAMES, orders).any()


def test_fused_atoms_have_three_bonds_in_rings():
    naphthalene = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8), (8, 9), (9, 0), (4, 9)]
    assert activation_maps.fused_atoms(molecule([0] * 10, naphthalene)).nonzero().flatten().tolist() == [4, 9]
    two_rings = [*RING, (0, 6), *[(a + 6, b + 6) for a, b in RING]]
    assert not activation_maps.fused_atoms(molecule([0] * 12, two_rings)).any()


def test_nitro_groups_light_up_where_they_tell_the_classes_apart(measured):
    assert per_fold(measured, "accuracy") == [1.0] * 3
    atoms, score, ranked, nitro, at_random = (
        per_fold(measured, name) for name in ("atoms", "score", "ranked", "drop nitro", "drop random")
    )
    assert all(s > 1.3 * a for s, a in zip(score, atoms, strict=True))
    assert min(ranked) > 0.6
    assert all(n > 1.5 * r for n, r in zip(nitro, at_random, strict=True))
    assert per_fold(measured, "accuracy", trained=False) == [0.5] * 3
    said = [found.sentence for found in activation_maps.findings(measured)]
    assert said[0].startswith("MUTAG, mean, nitro groups light up: as claimed")
    assert "in 3 of 3 folds" in said[0]
    assert any(
        "mean, the logit needs the best scored atoms: as claimed" in one and one.endswith("in 3 of 3 folds.")
        for one in said
    )
    *_, both = activation_maps.notes([], measured)
    assert both.startswith("MUTAG, mean against max: held-out accuracy 1.000 and")


def test_counts(measured):
    assert [pick(measured, metric=name) for name in activation_maps.COUNTS] == [12, 0, 0, 12]
    assert per_fold(measured, "NO2 molecules") == [4, 4, 4]
    assert per_fold(measured, "NH2 molecules") == [0, 0, 0]


@pytest.mark.parametrize("readout", activation_maps.READOUTS)
def test_the_mean_of_a_map_is_the_logit(known, readout):
    chosen, _, networks = known
    empty = Data(x=torch.ones(0, 3), edge_index=torch.empty(2, 0, dtype=torch.long), y=torch.zeros(1))
    molecules = [*chosen.molecules[:6], empty]
    found = activation_maps.activation_maps(networks[readout], molecules, readout)
    logits = activation_maps.logits(networks[readout], molecules)
    assert [len(scores) for scores in found] == [m.num_nodes for m in molecules]
    for scores, logit in zip(found[:-1], logits[:-1], strict=True):
        assert scores.mean().item() == pytest.approx(logit.item(), rel=1e-4, abs=1e-5)


def test_behind_a_max_only_winners_score(known):
    chosen, _, networks = known
    network = networks["max"]
    (scores,) = activation_maps.activation_maps(network, [chosen.molecules[0]], "max")
    with torch.no_grad():
        states = network.nodes(chosen.molecules[0])
    winners = (states == states.amax(dim=0)) & (states > 0)
    losers = ~winners.any(dim=1)
    assert torch.equal(scores[losers], network.head.bias.expand(int(losers.sum())))
    by_hand = torch.where(winners, states / winners.sum(dim=0), 0.0) @ network.head.weight[0]
    torch.testing.assert_close(scores, len(scores) * by_hand + network.head.bias)


def test_what_is_drawn_comes_from_the_first_fold(known, measured):
    chosen, split, networks = known
    with_nitro = [position for position in split.test if chosen.nitro[position].any()]
    shown = [pick(measured, metric=metric) for metric in activation_maps.SHOWN]
    assert shown == with_nitro  # four of four
    drawn = {metric: pick(measured, metric=metric) for metric in activation_maps.GALLERY}
    right = [drawn[f"{kind}, right {place}"] for place in range(2) for kind in ("mutagen", "other")]
    assert len(set(right)) == 4
    assert all(chosen.molecules[position].y == 1 - place % 2 for place, position in enumerate(right))
    assert {value for metric, value in drawn.items() if "wrong" in metric} == {activation_maps.NONE}
    (scores,) = activation_maps.activation_maps(networks["max"], [chosen.molecules[right[0]]], "max")
    assert activation_maps.map_of(measured, "MUTAG", "max", right[0]) == scores.tolist()


def test_wrong_molecules_are_picked_too(known):
    """A network that takes everything for a mutagen."""
    chosen, split, networks = known
    network = GIN(3, 1, "mean", activation_maps.WIDTH, activation_maps.LAYERS).eval()
    network.load_state_dict(networks["mean"].state_dict())
    with torch.no_grad():
        network.head.bias += 1e6
    found = activation_maps.pick_molecules(chosen, split, lambda: network)
    wrong = [position for position in split.test if chosen.molecules[position].y == 0]
    assert [found[f"other, wrong {place}"] for place in range(2)] == wrong[:2]
    assert found["other, right 0"] == found["mutagen, wrong 0"] == activation_maps.NONE


def test_shares_and_ranks_by_hand():
    scores, group = torch.tensor([3.0, -5.0, 1.0, 0.0]), torch.tensor([True, True, False, False])
    assert activation_maps.shares(scores, group) == (0.5, 0.75)
    assert activation_maps.ranked(scores, group) == 0.5
    assert activation_maps.ranked(torch.zeros(4), group) == 0.5
    assert activation_maps.shares(-scores.abs(), group) == (0.5, 0.0)


def test_half_and_hit_by_hand():
    assert activation_maps.half(torch.tensor([1.0, 4.0, -9.0, 3.0])) == 0.25
    assert activation_maps.half(torch.ones(4)) == 0.5
    assert activation_maps.half(-torch.ones(4)) == activation_maps.half(torch.empty(0)) == 0
    group = torch.tensor([True, False, False])
    assert activation_maps.hit(torch.tensor([2.0, 1.0, 0.0]), group) == 1
    assert activation_maps.hit(torch.tensor([2.0, 3.0, 0.0]), group) == 0
    assert activation_maps.hit(torch.tensor([2.0, 2.0, 0.0]), group) == 0.5


def test_hits_are_counted_among_mutagens(known):
    chosen, split, _ = known
    best = [nitro.double() for nitro in (chosen.nitro[position] for position in split.test)]
    found = activation_maps.hits(chosen, split, best)
    assert found["NO2 molecules"] == found["NO2 hits"] == 4
    parts = [3 / chosen.molecules[i].num_nodes for i in split.test if chosen.nitro[i].any()]
    assert found["NO2 expected"] == pytest.approx(sum(parts))
    assert found["NH2 molecules"] == found["NH2 hits"] == found["NH2 expected"] == 0
    assert activation_maps.hits(chosen, split, [-scores for scores in best])["NO2 hits"] == 0


def test_one_threshold_on_the_size_in_either_direction():
    small, large = (molecule([0] * n, chain(n - 1, 1), y) for n, y in ((3, 0), (7, 1)))
    train = [Data(x=m.x, edge_index=m.edge_index, y=m.y) for m in (small, large)]
    assert activation_maps.size_only(train, train) == 1.0
    swapped = [Data(x=m.x, edge_index=m.edge_index, y=1 - m.y) for m in (small, large)]
    assert activation_maps.size_only(swapped, swapped) == 1.0
    assert activation_maps.size_only(train, swapped) == 0.0


def test_removing_atoms_takes_their_bonds_along():
    ring = molecule([0] * 6 + [1, 2, 2], RING + NITRO)
    rest = activation_maps.without(ring, torch.tensor([6, 7, 8]))
    assert rest.x.shape == (6, 3)
    assert sorted(map(tuple, rest.edge_index.T.tolist())) == sorted(RING + [edge[::-1] for edge in RING])


def test_drops_are_differences_of_logits(known):
    chosen, _, networks = known
    network, first, group = networks["mean"], chosen.molecules[0], chosen.nitro[0]
    (scores,) = activation_maps.activation_maps(network, [first], "mean")
    top, nitro, at_random = activation_maps.drops(network, [first], [scores], [group], seed=0)
    whole = activation_maps.logits(network, [first])
    best = activation_maps.without(first, scores.topk(3).indices)
    assert top == pytest.approx((whole - activation_maps.logits(network, [best])).item(), abs=1e-6)
    bare = activation_maps.without(first, torch.tensor([6, 7, 8]))
    assert nitro == pytest.approx((whole - activation_maps.logits(network, [bare])).item(), abs=1e-6)
    assert at_random != top


def test_places_in_each_molecule():
    batch, keys = torch.tensor([0, 0, 0, 2, 2]), torch.tensor([3.0, 1.0, 1.0, 0.0, -1.0])
    assert activation_maps.places(batch, keys, torch.tensor([0, 2, 1, 0, 0])).tolist() == [2, 1, 0, 1, 0]
    assert activation_maps.places(batch, keys, torch.tensor([0, 1, 2, 0, 0])).tolist() == [2, 0, 1, 1, 0]


def test_deletion_by_hand(known):
    """Ten atoms, one tenth at a time; for a molecule that is taken for no mutagen the worst go first."""
    chosen, _, networks = known
    network = networks["mean"]
    for position in (2, 3):
        one = chosen.molecules[position]
        assert one.num_nodes == 10
        scores = torch.arange(10.0)[torch.randperm(10)]
        logit = activation_maps.logits(network, [one])
        sign = 1 if logit > 0 else -1
        found = activation_maps.deletions(network, [one], [scores], seed=0)
        order = (-sign * scores).argsort()
        for name, first_out in ((activation_maps.BEST, order), (activation_maps.WORST, order.flip(0))):
            rests = [activation_maps.without(one, first_out[:k]) for k in range(11)]
            expected = (sign * activation_maps.logits(network, rests)).sigmoid().tolist()
            assert found[name] == pytest.approx(expected, abs=1e-6)
        ends = {(curve[0], curve[-1]) for curve in found.values()}
        assert len(ends) == 1
        assert all(0 <= value <= 1 for value in found[activation_maps.RANDOM])


def test_area_of_a_line():
    assert activation_maps.area([1 - part for part in activation_maps.REMOVED]) == pytest.approx(0.5)


def changed(rows, value, **conditions):
    """The same rows, with another value where the conditions are fulfilled."""
    return [row | {"value": value} if conditions.items() <= row.items() else row for row in rows]


def test_verdicts_can_come_out_against_the_claim(measured):
    def found(rows, *words):
        (one,) = (one for one in activation_maps.findings(rows) if one.claim == ", ".join(words))
        return one

    dark = changed(measured, 0.0, metric="score", readout="mean")
    assert found(dark, "MUTAG", "mean", "nitro groups light up").holds is False
    misses = changed(measured, 0.0, metric="NO2 hits", readout="max")
    one = found(misses, "MUTAG", "max", "the best scored atom is in NO2 more often than by chance")
    assert one.holds is False
    assert one.numbers.startswith("of 12 mutagens with NO2 .000 against")
    blind = measured
    for part in activation_maps.REMOVED:
        blind = changed(blind, 0.9, metric=activation_maps.point(activation_maps.BEST, part), readout="mean")
        blind = changed(blind, 0.1, metric=activation_maps.point(activation_maps.WORST, part), readout="mean")
    gone = found(blind, "MUTAG", "mean", "deleted best first", "the class goes sooner")
    back = found(blind, "MUTAG", "mean", "inserted best first", "the class comes sooner")
    assert (gone.holds, back.holds) == (False, False)
    assert gone.numbers.startswith("area .900 against")
    assert back.numbers.startswith("area .100 against")
    twins = [row | {"readout": "max"} for row in measured if row["readout"] == "mean"]
    equal = [row for row in measured if row["readout"] != "max"] + twins
    assert list(activation_maps.notes([], equal))[-1].count("(undecided)") == 4


@pytest.mark.parametrize(
    ("holds", "words"),
    [([True] * 10, True), ([False] * 10, False), ([True, False], None)],
)
def test_words_follow_the_folds(holds, words):
    assert activation_maps.held(holds) is words


def test_a_rerun_has_the_same_rows(toys, measured, tmp_path):
    first = run(toys, tmp_path)
    assert [row["value"] for row in first] == [row["value"] for row in measured]
    assert run(toys, tmp_path) == first


def test_figures_and_tables_read_rows(toys, measured, tmp_path):
    paths = activation_maps.figure(measured, [toys], tmp_path)
    assert [path.stem for path in paths] == ["activation", "activation_curves", "gallery-MUTAG"]
    assert {path.suffix for path in paths} == {".png"}
    before = [path.read_bytes() for path in paths]
    activation_maps.figure(measured, [toys], tmp_path)
    assert [path.read_bytes() for path in paths] == before
    assert [len(table.lines) for table in activation_maps.tables(measured)] == [2, 4, 4, 2, 2]


def test_only_sets_of_mutagens(tmp_path, capsys):
    with pytest.raises(UserError, match="expected MUTAG or Mutagenicity, sets of mutagens, got rings"):
        activation_maps.choose(load("rings"))
    assert main(["activation-maps", "--out", str(tmp_path)]) == BAD_INPUT
    assert capsys.readouterr().err == (
        "--data: expected MUTAG or Mutagenicity, sets of mutagens, got none.\n"
    )
    assert main(["activation-maps", "--data", "rings", "--out", str(tmp_path)]) == BAD_INPUT


@pytest.mark.skipif(not MIRROR, reason="needs READOUTS_TU_MIRROR")
def test_every_molecule_of_mutag_has_a_nitro_group():
    chosen = activation_maps.choose(load("MUTAG", MIRROR))
    assert activation_maps.count(chosen) == dict(zip(activation_maps.COUNTS, (125, 63, 0, 0), strict=True))
    assert sum(int(nitro.sum()) for nitro in chosen.nitro) == 816
    assert all(int(nitro.sum()) % 3 == 0 for nitro in chosen.nitro)
