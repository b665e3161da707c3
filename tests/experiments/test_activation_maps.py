"""Activation maps: nitro groups light up where they tell the classes apart; the numbers by hand."""

from __future__ import annotations

import os
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch_geometric.data import Data

from datasets import GraphSet, load
from experiments import activation_figures, activation_maps, maps, patterns
from experiments.__main__ import BAD_INPUT, main
from experiments.console import UserError
from experiments.experiment import one_thread
from experiments.learning.batches import reside
from experiments.learning.training import Settings
from experiments.records import RowLog, pick
from experiments.trained import together, train

MIRROR = os.environ.get("READOUTS_TU_MIRROR", "")
NODE_NAMES = ("C", "N", "O")
RING = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0)]
NITRO, APART = [(0, 6), (6, 7), (6, 8)], [(0, 6), (2, 7), (4, 8)]


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
    """Nitrobenzenes, which are the mutagens, and rings with the same atoms apart, with tails of carbon."""
    graphs = []
    for tail in range(12):
        carbons = [0] * tail
        graphs.append(molecule([0] * 6 + [1, 2, 2, *carbons], RING + NITRO + chain(tail, 9), 1))
        graphs.append(molecule([0] * 6 + [1, 2, 2, *carbons], RING + APART + chain(tail, 9), 0))
    return GraphSet("MUTAG", tuple(graphs), 2, NODE_NAMES)


@pytest.fixture(scope="module")
def measured(toys, tmp_path_factory):
    return run(toys, tmp_path_factory.mktemp("maps"))


def choose(graphs, pattern=(), label=None):
    return activation_maps.choose(graphs, pattern, label, seed=0, folds=3)


def run(graphs, folder):
    with RowLog(folder, "activation_maps") as log:
        return activation_maps.measure([choose(graphs)], log, "cpu", seed=0, epochs=60)


@pytest.fixture(scope="module")
def known(toys):
    """The task, the first split, and both networks of the first fold."""
    task = choose(toys)
    resident, settings = reside(task.graphs, "gin", 2), Settings(2, epochs=60, learning_rates=(0.01,))
    with one_thread():  # as an experiment computes
        networks = {
            name: train(resident, task.splits[0].train, name, settings, 0, linear_head=True).network
            for name in maps.READOUTS
        }
    return task, task.splits[0], networks


def per_fold(rows, metric, readout="mean", trained=True, pattern=None):
    wanted = {"pattern": pattern} if pattern else {}
    return activation_figures.per_fold(rows, "MUTAG", readout, metric, trained, **wanted)


def atoms_of(graph, pattern, names=NODE_NAMES, name="MUTAG"):
    (found,) = patterns.nodes_of(GraphSet(name, (graph,), 2, names), pattern)
    return found.tolist()


def test_nitro_atoms_are_a_nitrogen_and_two_oxygen_ends():
    assert atoms_of(molecule([0] * 6 + [1, 2, 2], RING + NITRO), "NO2") == [False] * 6 + [True] * 3
    nitrate = molecule([0, 2, 1, 2, 2], [(0, 1), (1, 2), (2, 3), (2, 4)])
    assert atoms_of(nitrate, "NO2") == [False, False, True, True, True]
    nitroso = molecule([0, 1, 2], [(0, 1), (1, 2)])
    ester = molecule([1, 2, 2, 0, 0], [(0, 1), (0, 2), (1, 3), (2, 4)])
    acid = molecule([0, 0, 2, 2], [(0, 1), (1, 2), (1, 3)])
    for other in (nitroso, ester, acid):
        assert not any(atoms_of(other, "NO2"))


def test_amino_atoms_with_hydrogens_are_a_nitrogen_and_two_of_them():
    star = [(0, 1), (1, 2), (1, 3)]
    amino = lambda labels, edges: atoms_of(molecule(labels, edges), "NH2", ("C", "H", "N"))  # noqa: E731
    assert amino([0, 2, 1, 1], star) == [False, True, True, True]
    assert amino([2, 2, 1, 1], star) == [False, True, True, True]  # the end of a hydrazine
    assert not any(amino([0, 2, 1, 0], star))  # secondary
    assert not any(amino([0, 2, 1, 1, 1], [*star, (1, 4)]))  # ammonium
    assert not any(amino([0, 2], [(0, 1)]))  # without its hydrogens, in a set that has them


def test_amino_atoms_without_hydrogens_end_a_single_bond():
    amine = molecule([0, 1], [(0, 1)])
    assert atoms_of(amine, "NH2") == [False, True]
    nitrile = amine.clone()
    nitrile.edge_label = torch.full((2,), 3)
    assert not any(atoms_of(nitrile, "NH2"))
    assert atoms_of(nitrile, "C#N") == [True, True]
    assert not any(atoms_of(molecule([0, 1, 0], [(0, 1), (1, 2)]), "NH2"))


def test_fused_atoms_have_three_bonds_in_rings():
    naphthalene = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8), (8, 9), (9, 0), (4, 9)]
    found = atoms_of(molecule([0] * 10, naphthalene), "fused")
    assert [atom for atom, inside in enumerate(found) if inside] == [4, 9]
    two_rings = [*RING, (0, 6), *[(a + 6, b + 6) for a, b in RING]]
    assert not any(atoms_of(molecule([0] * 12, two_rings), "fused"))


def test_bonds_that_are_not_known_match_any_bond_alone():
    chain_of_two = molecule([0, 2], [(0, 1)])
    assert atoms_of(chain_of_two, "CO", name="UNKNOWN") == [False, False]
    assert atoms_of(chain_of_two, "C~O", name="UNKNOWN") == [True, True]
    assert atoms_of(chain_of_two, "CO") == [True, True]


def test_own_molecules_have_the_charges_and_hydrogens_of_their_smiles(tmp_path):
    texts = ["CC(=O)[O-]", "c1c[nH]cn1", "OCC", "NC=C", *["CCCC"] * 8]
    lines = [f"{text},{place % 2}" for place, text in enumerate(texts)]
    (tmp_path / "own.csv").write_text("\n".join(["smiles,y", *lines]))
    graphs = load(tmp_path / "own.csv", target="y")
    found = {
        pattern: [nodes.nonzero().flatten().tolist() for nodes in patterns.nodes_of(graphs, pattern)[:4]]
        for pattern in ("[O-]", "[nH]", "[OH]", "NC=C")
    }
    assert found == {
        "[O-]": [[3], [], [], []],
        "[nH]": [[], [2], [], []],
        "[OH]": [[], [], [0], []],
        "NC=C": [[], [], [], [0, 1, 2]],
    }


def test_a_label_is_a_pattern_where_nodes_are_no_atoms():
    graph = molecule([0, 1, 1], [(0, 1), (1, 2)])
    assert atoms_of(graph, "sheet", ("helix", "sheet", "turn")) == [False, True, True]
    assert atoms_of(graph, "1", None) == [False, True, True]
    with pytest.raises(UserError, match=r"node labels of MUTAG, whose nodes are no atoms \(0, 1, 2\), got N"):
        atoms_of(graph, "N", None)
    with pytest.raises(UserError, match=r"expected SMARTS or one of NO2, NH2, fused, got \(\("):
        atoms_of(graph, "((")


def test_nitro_groups_light_up_where_they_tell_the_classes_apart(measured):
    assert per_fold(measured, "accuracy") == [1.0] * 3
    atoms, score, ranked, nitro, at_random = (
        per_fold(measured, name, pattern="NO2")
        for name in ("atoms", "score", "ranked", "drop group", "drop random")
    )
    assert all(s > 1.3 * a for s, a in zip(score, atoms, strict=True))
    assert min(ranked) > 0.6
    assert sum(nitro) > sum(at_random), (nitro, at_random)
    assert per_fold(measured, "accuracy", trained=False) == [0.5] * 3
    said = [found.sentence for found in activation_maps.findings(measured)]
    assert said[0].startswith("MUTAG, mean, NO2 lights up: as claimed")
    assert "in 3 of 3 folds" in said[0]
    assert any(
        "mean, the logit needs the best scored atoms: as claimed" in one and one.endswith("in 3 of 3 folds.")
        for one in said
    )
    *_, both = activation_maps.notes([], measured)
    assert both.startswith("MUTAG, mean against max: held-out accuracy 1.000 and")


def test_counts(measured):
    counts = lambda pattern: [pick(measured, metric=m, pattern=pattern) for m in activation_maps.COUNTS]  # noqa: E731
    assert counts("NO2") == [12, 0, 0, 12]
    assert counts("NH2") == [0, 12, 12, 0]
    assert per_fold(measured, "molecules", pattern="NO2") == [4, 4, 4]
    assert per_fold(measured, "molecules", pattern="NH2") == [0, 0, 0]
    assert activation_figures.patterns(measured, "MUTAG") == ["NO2", "NH2"]  # no rings are fused


def test_networks_that_are_not_ahead_of_a_baseline_decide_nothing(measured):
    beaten = changed(measured, 1.0, metric="accuracy", readout="counts only")
    assert {found.holds for found in activation_maps.findings(beaten)} == {None}
    first = next(iter(activation_maps.findings(beaten)))
    assert "is not ahead of the best baseline (100.0)" in first.numbers


@pytest.mark.parametrize("readout", maps.READOUTS)
def test_the_mean_of_a_map_is_the_logit(known, readout):
    chosen, _, networks = known
    empty = Data(x=torch.ones(0, 3), edge_index=torch.empty(2, 0, dtype=torch.long), y=torch.zeros(1))
    molecules = [*chosen.graphs.graphs[:6], empty]
    found = maps.activation_maps(networks[readout], molecules, readout)
    logits = maps.logits(networks[readout], molecules)
    assert [len(scores) for scores in found] == [m.num_nodes for m in molecules]
    for scores, logit in zip(found[:-1], logits[:-1], strict=True):
        assert scores.mean().item() == pytest.approx(logit.item(), rel=1e-4, abs=1e-5)


def test_after_a_max_only_winners_score(known):
    chosen, _, networks = known
    network, head = networks["max"], maps.linear(networks["max"])
    (scores,) = maps.activation_maps(network, [chosen.graphs[0]], "max")
    with torch.no_grad():
        states = network.nodes(together([chosen.graphs[0]], 2))
    winners = (states == states.amax(dim=0)) & (states > 0)
    losers = ~winners.any(dim=1)
    torch.testing.assert_close(scores[losers], head.bias.detach().expand(int(losers.sum())))
    by_hand = torch.where(winners, states / winners.sum(dim=0), 0.0) @ head.weight[0].detach()
    torch.testing.assert_close(scores, len(scores) * by_hand + head.bias.detach(), rtol=1e-4, atol=1e-5)


def test_what_is_drawn_comes_from_the_first_fold(known, measured):
    chosen, split, networks = known
    with_nitro = [position for position in split.test if chosen.patterns["NO2"][position].any()]
    shown = [pick(measured, metric=metric) for metric in activation_figures.SHOWN]
    assert shown == with_nitro  # four of four
    drawn = {metric: pick(measured, metric=metric) for metric in activation_figures.GALLERY}
    right = [drawn[f"{kind}, right {place}"] for place in range(2) for kind in ("scored", "other")]
    assert len(set(right)) == 4
    assert all(chosen.graphs[position].y == 1 - place % 2 for place, position in enumerate(right))
    wrong = {value for metric, value in drawn.items() if "wrong" in metric}
    assert wrong == {activation_figures.NONE}
    (scores,) = maps.activation_maps(networks["max"], [chosen.graphs[right[0]]], "max")
    found = activation_figures.map_of(measured, "MUTAG", "max", right[0])
    assert found == pytest.approx(scores.tolist(), rel=1e-4, abs=1e-5)


def test_wrong_graphs_are_picked_too(known):
    """A network that takes everything for a mutagen."""
    chosen, split, networks = known
    network = deepcopy(networks["mean"])
    with torch.no_grad():
        network.head.bias[0, 1] += 1e6
    found = activation_maps.pick_graphs(chosen, split, network)
    wrong = [position for position in split.test if chosen.graphs[position].y == 0]
    assert [found[f"other, wrong {place}"] for place in range(2)] == wrong[:2]
    assert found["other, right 0"] == found["scored, wrong 0"] == activation_figures.NONE


def test_shares_and_ranks_by_hand():
    scores, group = torch.tensor([3.0, -5.0, 1.0, 0.0]), torch.tensor([True, True, False, False])
    assert maps.shares(scores, group) == (0.5, 0.75)
    assert maps.ranked(scores, group) == 0.5
    assert maps.ranked(torch.zeros(4), group) == 0.5
    assert maps.shares(-scores.abs(), group) == (0.5, 0.0)


def test_half_and_hit_by_hand():
    assert maps.half(torch.tensor([1.0, 4.0, -9.0, 3.0])) == 0.25
    assert maps.half(torch.ones(4)) == 0.5
    assert maps.half(-torch.ones(4)) == maps.half(torch.empty(0)) == 0
    group = torch.tensor([True, False, False])
    assert maps.hit(torch.tensor([2.0, 1.0, 0.0]), group) == 1
    assert maps.hit(torch.tensor([2.0, 3.0, 0.0]), group) == 0
    assert maps.hit(torch.tensor([2.0, 2.0, 0.0]), group) == 0.5


def test_hits_are_counted_among_graphs_of_the_scored_class(known):
    chosen, split, networks = known
    graphs = [chosen.graphs[position] for position in split.test]
    groups = [chosen.patterns["NO2"][position] for position in split.test]
    judge = lambda scores: activation_maps.judge_pattern(networks["mean"], graphs, scores, groups, 0)  # noqa: E731
    found = judge([group.double() for group in groups])
    assert found["molecules"] == found["hits"] == 4
    expected = sum(3 / graph.num_nodes for graph, group in zip(graphs, groups, strict=True) if group.any())
    assert found["expected"] == pytest.approx(expected)
    assert judge([-group.double() for group in groups])["hits"] == 0
    nowhere = [torch.zeros_like(group) for group in groups]
    assert set(activation_maps.judge_pattern(networks["mean"], graphs, groups, nowhere, 0).values()) == {0.0}


def test_removing_atoms_takes_their_bonds_along():
    ring = molecule([0] * 6 + [1, 2, 2], RING + NITRO)
    rest = maps.without(ring, torch.tensor([6, 7, 8]))
    assert rest.x.shape == (6, 3)
    assert sorted(map(tuple, rest.edge_index.T.tolist())) == sorted(RING + [edge[::-1] for edge in RING])


def test_drops_are_differences_of_logits(known):
    chosen, _, networks = known
    network, first, group = networks["mean"], chosen.graphs[0], chosen.patterns["NO2"][0]
    (scores,) = maps.activation_maps(network, [first], "mean")
    top, nitro, at_random = maps.drops(network, [first], [scores], [group], seed=0)
    whole = maps.logits(network, [first])
    best = maps.without(first, scores.topk(3).indices)
    assert top == pytest.approx((whole - maps.logits(network, [best])).item(), abs=1e-6)
    bare = maps.without(first, torch.tensor([6, 7, 8]))
    assert nitro == pytest.approx((whole - maps.logits(network, [bare])).item(), abs=1e-6)
    assert at_random != top


def test_places_in_each_molecule():
    batch, keys = torch.tensor([0, 0, 0, 2, 2]), torch.tensor([3.0, 1.0, 1.0, 0.0, -1.0])
    assert maps.places(batch, keys, torch.tensor([0, 2, 1, 0, 0])).tolist() == [2, 1, 0, 1, 0]
    assert maps.places(batch, keys, torch.tensor([0, 1, 2, 0, 0])).tolist() == [2, 0, 1, 1, 0]


def test_deletion_by_hand(known):
    """Ten atoms, one tenth at a time; for a molecule that is taken for no mutagen the worst go first."""
    chosen, _, networks = known
    network = networks["mean"]
    for position in (2, 3):
        one = chosen.graphs[position]
        assert one.num_nodes == 10
        scores = torch.arange(10.0)[torch.randperm(10)]
        logit = maps.logits(network, [one])
        sign = 1 if logit > 0 else -1
        found = maps.deletions(network, [one], [scores], seed=0)
        order = (-sign * scores).argsort()
        for name, first_out in ((maps.BEST, order), (maps.WORST, order.flip(0))):
            rests = [maps.without(one, first_out[:k]) for k in range(11)]
            expected = (sign * maps.logits(network, rests)).sigmoid().tolist()
            assert found[name] == pytest.approx(expected, abs=1e-6)
        ends = {(curve[0], curve[-1]) for curve in found.values()}
        assert len(ends) == 1
        assert all(0 <= value <= 1 for value in found[maps.RANDOM])


def test_area_of_a_line():
    assert maps.area([1 - part for part in maps.REMOVED]) == pytest.approx(0.5)


def changed(rows, value, **conditions):
    """The same rows, with another value where the conditions are fulfilled."""
    return [row | {"value": value} if conditions.items() <= row.items() else row for row in rows]


def test_verdicts_can_come_out_against_the_claim(measured):
    def found(rows, *words):
        (one,) = (one for one in activation_maps.findings(rows) if one.claim == ", ".join(words))
        return one

    dark = changed(measured, 0.0, metric="score", readout="mean")
    assert found(dark, "MUTAG", "mean", "NO2 lights up").holds is False
    misses = changed(measured, 0.0, metric="hits", readout="max")
    one = found(misses, "MUTAG", "max", "the best scored atom is in NO2 more often than by chance")
    assert one.holds is False
    assert one.numbers.startswith("of 12 with NO2 .000 against")
    blind = measured
    for part in maps.REMOVED:
        blind = changed(blind, 0.9, metric=maps.point(maps.BEST, part), readout="mean")
        blind = changed(blind, 0.1, metric=maps.point(maps.WORST, part), readout="mean")
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
    task = choose(toys)
    paths = activation_maps.figure(measured, [task], tmp_path)
    assert [path.stem for path in paths] == ["activation", "activation_curves", "gallery-MUTAG"]
    assert {path.suffix for path in paths} == {".png"}
    assert [len(table.lines) for table in activation_maps.tables(measured)] == [2, 8, 4, 2]
    assert activation_maps.numbers(measured).startswith("MUTAG, NO2: 2")


def test_any_set_with_a_pattern(toys, tmp_path):
    task = choose(replace(toys, name="ANY", node_names=None), ["1"], label=0)
    assert task.sentence.startswith("ANY: maps of the score of class 0; patterns 1; ")
    with RowLog(tmp_path, "activation_maps") as log:
        rows = activation_maps.measure([task], log, "cpu", seed=0, epochs=1)
    assert [pick(rows, metric=name) for name in activation_maps.COUNTS] == [12, 12, 0, 0]
    assert len(activation_figures.gallery(rows, task, tmp_path)) == 1


def test_wrong_smarts_are_one_sentence(tmp_path, capfd):
    """RDKit would write its own complaint beside it."""
    command = ["activation-maps", "--data", "rings", "--pattern", "[C", "--out", str(tmp_path)]
    assert main(command) == BAD_INPUT
    assert capfd.readouterr().err == "--pattern: expected SMARTS or one of NO2, NH2, fused, got [C.\n"


def test_what_has_no_answer_is_refused(toys, tmp_path, capsys):
    unnamed = replace(toys, name="ANY")
    for options, message in (
        ((unnamed,), "--pattern: expected SMARTS of a group to look for in ANY, got none"),
        ((toys, ["Br"]), "--pattern: no graph of MUTAG has Br."),
        ((toys, [], 2), "--label: expected one of 2 classes of MUTAG, .* got 2."),
        ((replace(toys, graphs=toys.graphs[::2]),), "--label: .* and other graphs beside it, got 1."),
        ((replace(toys, graphs=toys.graphs[:4]),), "activation-maps: cannot cut MUTAG into 3 .* folds"),
    ):
        with pytest.raises(UserError, match=message):
            choose(*options)
    assert main(["activation-maps", "--data", "rings", "--out", str(tmp_path)]) == BAD_INPUT
    assert "a group to look for in rings, got none" in capsys.readouterr().err
    assert main(["activation-maps", "--out", str(tmp_path)]) == BAD_INPUT
    assert capsys.readouterr().err == "--data: expected one set or more, as MUTAG, got none.\n"


@pytest.mark.skipif(not MIRROR, reason="needs READOUTS_TU_MIRROR")
def test_every_molecule_of_mutag_has_a_nitro_group():
    chosen = choose(load("MUTAG", MIRROR))
    first = dict(zip(activation_maps.COUNTS, (125, 63, 0, 0), strict=True))
    assert activation_maps.count(chosen)[0] == first
    sizes = {name: sum(int(nodes.sum()) for nodes in of) for name, of in chosen.patterns.items()}
    assert sizes == {"NO2": 816, "NH2": 18, "fused": 648}
    assert all(int(nitro.sum()) % 3 == 0 for nitro in chosen.patterns["NO2"])
