"""Extrapolation: who is learned from and asked about, networks that agree, and copies to the bit."""

from __future__ import annotations

import os
from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from datasets import GraphSet, covers, load
from experiments import extrapolation
from experiments.__main__ import BAD_INPUT, main
from experiments.console import UserError
from experiments.learning.batches import reside
from experiments.learning.goals import Classes
from experiments.learning.training import Settings
from experiments.records import RowLog
from experiments.trained import alone, together, train

MIRROR = os.environ.get("READOUTS_TU_MIRROR")
SHORT = Settings(epochs=4, learning_rates=(0.01,), seeds=2)


def paths(sizes, classes=2, edges=True):
    """Paths of these sizes with two kinds of nodes; the class is by turns."""
    made = []
    for place, n in enumerate(sizes):
        steps = torch.arange(n - 1 if edges and n else 0)
        forth = torch.stack([steps, steps + 1])
        label = (torch.arange(n) * (1 + place % classes)) % 2
        graph = Data(x=torch.eye(2)[label], node_label=label, y=torch.tensor([place % classes]))
        graph.edge_index = torch.cat([forth, forth.flip(0)], 1)
        made.append(graph)
    return GraphSet("paths", tuple(made), classes)


PATHS = paths(range(2, 42))


def run(graphs, folder, seeds=2, epochs=2):
    chosen = extrapolation.choose(graphs, 0, seeds)
    with RowLog(folder, "extrapolation") as log:
        return chosen, extrapolation.measure([chosen], log, "cpu", epochs)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return run(PATHS, tmp_path_factory.mktemp("extrapolation"))


@cache
def trained(readout):
    chosen = extrapolation.choose(PATHS, 0, 1)
    resident = reside(chosen.graphs, "gin", SHORT.rounds)
    parts = chosen.parts[0]
    stack = train(resident, parts["train"], readout, SHORT, 0, parts["hold-out"], linear_head=True)
    return chosen, resident, alone(stack.network, 1)


def copied(chosen):
    graphs = [chosen.graphs[place] for place in chosen.held_out(0)]
    return {
        k: together([covers.copies(graph, k) for graph in graphs], SHORT.rounds) for k in extrapolation.COPIES
    }


def test_parts_are_cut_by_size_and_balanced():
    (parts,) = extrapolation.choose(PATHS, 3, 1).parts.values()
    sizes = {part: sorted(PATHS[position].num_nodes for position in of) for part, of in parts.items()}
    assert sorted(sizes["train"] + sizes["hold-out"]) == list(range(2, 22))
    assert len(sizes["hold-out"]) == 4
    assert sizes["between"] == list(range(22, 26))
    assert sizes["large"] == list(range(26, 42))  # no more than the largest 40 %
    for of in parts.values():
        assert np.bincount([PATHS[position].y.item() for position in of]).tolist() == [len(of) / 2] * 2


def test_a_shift_of_class_shares_decides_nothing():
    graphs = paths(range(2, 402))
    for graph in graphs.graphs:
        graph.y = torch.tensor([int(graph.num_nodes % 10 > 0) if graph.num_nodes > 200 else int(graph.y)])
    (parts,) = extrapolation.choose(graphs, 0, 1).parts.values()
    assert [len(parts[part]) for part in ("train", "hold-out", "large")] == [160, 40, 2 * 16]
    assert all(np.mean([graphs[place].y.item() for place in of]) == 0.5 for of in parts.values())


def test_the_large_part_reaches_down_until_it_has_a_hundred_graphs():
    graphs = paths(range(2, 402))
    (parts,) = extrapolation.choose(graphs, 0, 1).parts.values()
    assert sorted(graphs[place].num_nodes for place in parts["large"]) == list(range(302, 402))


def test_the_sentence_tells_sizes_classes_and_twins():
    assert extrapolation.choose(PATHS, 0, 1).sentence == (
        "paths: learned from 20 graphs of 2 to 21 nodes, asked about 16 graphs of 26 to 41 nodes, as many of "
        "each of 2 classes; of those held out 0 of 24 have an isomorphic twin among those learned from."
    )


def test_copied_graphs_are_held_out_and_sampled(monkeypatch):
    chosen = extrapolation.choose(PATHS, 0, 2)
    sizes = lambda seed: [chosen.graphs[place].num_nodes for place in chosen.held_out(seed)]  # noqa: E731
    assert sizes(0) == list(range(22, 26))
    monkeypatch.setattr(extrapolation, "SAMPLE", 2)
    assert len(set(sizes(0))) == 2
    assert set(sizes(0)) <= set(range(22, 26))


def test_rings_are_asked_for_their_family_with_noise():
    chosen = extrapolation.choose(load("rings"), 0, 1)
    assert len({graph.family for graph in chosen.graphs}) == chosen.graphs.classes == 6
    assert max(graph.num_nodes for graph in chosen.graphs) == extrapolation.LONGEST
    assert (
        len({(graph.family, graph.units) for graph in chosen.graphs})
        == len(chosen.graphs) / extrapolation.TIMES
    )
    names = list(extrapolation.rings.FAMILIES)
    right = np.mean([names[graph.y] == graph.family for graph in chosen.graphs])
    assert 0.75 < right < 0.92  # a fifth is drawn from six, of which one is right by chance
    assert chosen.sentence.endswith("known or not, 6 times each, a fifth of them at random.")
    large = {chosen.graphs[position].family for position in chosen.parts[0]["large"]}
    assert large == set(names)


def test_calibration_by_hand():
    shares = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.2, 0.8]], dtype=torch.float64)
    found = extrapolation.calibration(shares.log() + 7, torch.tensor([0, 1, 1, 0]))
    norms = [abs(np.log(a / b)) / np.sqrt(2) for a, b in shares.tolist()]
    expected = {
        "logit norm": np.mean(norms),
        "confidence": (0.9 + 0.6 + 0.8 + 0.8) / 4,
        "ECE": (abs(0.9 - 1) + abs(0.6 - 0) + 2 * abs(0.8 - 0.5)) / 4,
        "NLL": -np.mean(np.log([0.9, 0.4, 0.8, 0.2])),
        "accuracy": 0.5,
    }
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_threshold_among_small_sizes_leaves_large_graphs_on_one_side():
    graphs = paths(range(2, 42))
    for graph in graphs:
        graph.y = torch.tensor([int(graph.num_nodes > 10)])
    for graph in graphs.graphs[-16:-8]:
        graph.y = torch.tensor([0])
    chosen = extrapolation.choose(graphs, 0, 1)
    job = extrapolation.job_of_baselines(chosen, reside(graphs, "gin", 1), 0)
    found = dict(zip([tuple(work.values())[-2:] for work, _ in job.rows], job.compute(), strict=True))
    accuracy = lambda name, part: found[name, part]["accuracy"]  # noqa: E731
    assert accuracy("size only", "train") == accuracy("size only, best", "large") == 1
    assert accuracy("size only", "large") == accuracy("majority class", "large") == 0.5


@pytest.mark.parametrize("readout", extrapolation.READOUTS)
def test_both_forms_of_a_batch_agree(readout):
    chosen, resident, network = trained(readout)
    positions = chosen.parts[0]["large"]
    with torch.no_grad():
        ours = network(resident.batch(positions))
        theirs = network(together([PATHS[place] for place in positions], SHORT.rounds))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("readout", extrapolation.READOUTS)
def test_copies_move_what_sees_the_size_and_no_bit_of_the_others(readout):
    chosen, _, network = trained(readout)
    logits = extrapolation.logits_of(network, copied(chosen))
    shares = [extrapolation.moved(logits[k], logits[1]) for k in extrapolation.COPIES]
    assert shares == [0.0] * 5 if readout in extrapolation.PROPORTIONS else shares[1:] == [1.0] * 4


def test_a_single_bit_counts_as_moved():
    logits = torch.rand(4, 3)
    other = logits.clone()
    other[2, 1] = torch.nextafter(other[2, 1], torch.tensor(2.0))
    assert extrapolation.moved(other, logits) == 0.25


def test_the_sum_of_copies_is_softmax_at_another_temperature():
    chosen, _, network = trained("sum")
    network = deepcopy(network)
    batches = copied(chosen)
    logits = extrapolation.logits_of(network, batches)
    found = extrapolation.identities(network, logits, batches[1])
    assert max(found.values()) < 5e-6
    bias = network.head.bias.detach()
    torch.testing.assert_close(
        logits[8].softmax(1), (8 * (logits[1] - bias) + bias).softmax(1), rtol=1e-3, atol=1e-6
    )
    with torch.no_grad():
        network.head.bias += 1.0  # logits of another network: neither identity holds
    wrong = extrapolation.identities(network, logits, batches[1])
    assert min(wrong.values()) > 1e-3


def test_the_head_is_one_layer_and_networks_of_a_stack_differ():
    chosen, resident, network = trained("attention")
    assert network.head.weight.shape == (1, 2, 32)
    parts = chosen.parts[0]
    stack = train(resident, parts["train"], "sum", SHORT, 0, linear_head=True)
    one, other = (alone(stack.network, place) for place in range(2))
    batch = resident.batch(parts["large"])
    with torch.no_grad():
        both = stack.network(resident.batch(parts["large"], 2))
        torch.testing.assert_close(torch.cat([one(batch), other(batch)]), both)
    assert not both[0].allclose(both[1])


def test_the_best_epoch_on_the_hold_out_is_kept(monkeypatch):
    parts = extrapolation.choose(PATHS, 0, 1).parts[0]
    resident = reside(PATHS, "gin", 3)
    script = iter([3.0, 1.0, 2.0, 2.0, 2.0])
    seen, losses = [], Classes.losses

    def told(self, outputs, y):
        if torch.is_grad_enabled():
            return losses(self, outputs, y)
        seen.append(outputs)
        return torch.tensor([next(script)])

    monkeypatch.setattr(Classes, "losses", told)
    settings = Settings(epochs=9, learning_rates=(0.01,), patience=3)
    stack = train(resident, parts["train"], "sum", settings, 0, parts["hold-out"])
    assert len(seen) == 5
    with torch.no_grad():
        again = stack.network(resident.batch(parts["hold-out"]))
    assert again.equal(seen[1])


def test_a_rerun_has_the_same_rows_and_reads_them(measured, tmp_path, monkeypatch):
    again = run(PATHS, tmp_path)[1]
    value = lambda row: {key: row[key] for key in row if key != "run"}  # noqa: E731
    assert [value(row) for row in again] == [value(row) for row in measured[1]]
    monkeypatch.setattr(extrapolation, "train_and_judge", pytest.fail)
    monkeypatch.setattr(extrapolation, "judge_baselines", pytest.fail)
    assert run(PATHS, tmp_path)[1] == again


def test_tables_and_figure_come_from_rows(measured, tmp_path):
    _, rows = measured
    by_size, of_copies = extrapolation.tables(rows)
    assert len(by_size.lines) == 1 + 2 + len(extrapolation.READOUTS) + 4
    assert len(of_copies.lines) == 2 * len(extrapolation.READOUTS)
    made = extrapolation.figure(rows, tmp_path)
    assert [path.name for path in made] == ["extrapolation.png"]
    sizes, _, logits = extrapolation.findings(rows)
    assert sizes.holds is None
    assert "; too small: 16 large graphs of 100; 4 trainings of 20; " in sizes.numbers
    assert "not a bit of mean, max, median, attention moved" in logits.numbers
    assert (logits.kind, logits.main) == ("check", False)
    assert extrapolation.slope(rows, "paths", "mean") == pytest.approx(0, abs=1e-12)
    assert 0.5 < extrapolation.slope(rows, "paths", "sum") < 2


def changed(rows, value, **wanted):
    return [row | {"value": value} if wanted.items() <= row.items() else row for row in rows]


def test_verdicts_can_come_out_against_the_claims(measured, monkeypatch):
    monkeypatch.setattr(extrapolation, "LEAST_TRAININGS", 4)
    rows = changed(measured[1], 1000, part="train", metric="graphs")
    rows = changed(rows, 100, part="large", metric="graphs")

    def sizes(mean, total, against=()):
        found = rows
        for readout, values in (("mean", mean), ("sum", total)):
            for seed, value in enumerate(values):
                found = changed(found, value, readout=readout, part="large", metric="accuracy", seed=seed)
        return extrapolation.of_sizes(found, "paths", against)

    assert sizes((0.80, 0.81), (0.5, 0.52))[0] is True
    assert sizes((0.5, 0.52), (0.80, 0.81))[0] is False
    assert sizes((0.5, 0.9), (0.9, 0.5))[0] is None
    untrained = sizes((0.80, 0.81), (0.5, 0.52), ["max had converged in 0 % of the folds"])
    assert untrained[0] is None
    assert untrained[1].endswith("; max had converged in 0 % of the folds")

    shaken = changed(rows, 0.1, readout="median", k=4, metric="other bits", seed=1)
    held, said = extrapolation.of_logits(shaken, "paths")
    assert not held
    assert "median moved" in said
    assert not extrapolation.of_logits(changed(rows, 1e-3, metric="k times"), "paths")[0]
    flat = changed(rows, 1.0, readout="sum", metric="logit norm")
    held, said = extrapolation.of_logits(flat, "paths")
    assert not held
    assert said.startswith("the norm of sum's logits grows as k^0.00")

    for ece, nll, expected in ((0.3, 2.0, True), (0.1, 2.0, False), (0.3, 0.5, False)):
        found = changed(changed(rows, 0.1, readout="sum", metric="ECE"), 1.0, readout="sum", metric="NLL")
        found = changed(found, ece, readout="sum", k=16, metric="ECE")
        found = changed(found, nll, readout="sum", k=16, metric="NLL")
        assert extrapolation.of_calibration(found, "paths")[0] is expected


def test_networks_that_were_not_trained_are_not_compared(measured):
    rows = changed(measured[1], 0.0, metric="best epoch")
    rows = changed(changed(rows, 0.5, metric="train accuracy"), 1.0, metric="train ceiling")
    good = changed(rows, 0.9, metric="accuracy", part="hold-out")
    for name in extrapolation.BASELINES:
        good = changed(good, 0.5, metric="accuracy", part="hold-out", readout=name)
    assert extrapolation.objections(good, "paths") == []
    late = changed(good, 2.0, metric="best epoch", readout="median", seed=0)
    late = changed(late, 0.1, metric="late change")
    assert extrapolation.objections(late, "paths") == ["median had converged in 50 % of the folds"]
    beaten = changed(good, 0.95, metric="accuracy", part="hold-out", readout="counts only")
    assert "is not ahead of the best baseline (95.0)" in extrapolation.objections(beaten, "paths")[0]


@pytest.mark.parametrize(
    "graphs",
    [
        pytest.param(paths([2] * 40), id="two-nodes"),
        pytest.param(paths(range(2, 42), edges=False), id="no-edges"),
        pytest.param(paths([0, 0, *range(1, 39)]), id="no-nodes"),
        pytest.param(paths([0] * 40), id="nothing-at-all"),
    ],
)
def test_unusual_sets_run(graphs, tmp_path):
    chosen, rows = run(graphs, tmp_path, epochs=1)
    assert chosen.sentence
    assert extrapolation.tables(rows)
    assert len([found.sentence for found in extrapolation.findings(rows)]) == 3
    assert extrapolation.figure(rows, tmp_path)


@pytest.mark.parametrize(
    ("graphs", "message"),
    [
        (paths(range(2, 42), classes=1), "paths: all 40 graphs are of one class; extrapolation needs two"),
        (paths([2, 3, 4]), "paths: expected two graphs or more of each of 2 classes among its smaller half"),
        (paths(range(2, 22), classes=9), "paths: expected two graphs or more of each of 9 classes"),
    ],
)
def test_what_has_no_answer_is_refused(graphs, message):
    with pytest.raises(UserError, match=message):
        extrapolation.choose(graphs, 0, 2)


@pytest.mark.parametrize(("part", "words"), [(slice(0, 20), "smaller half"), (slice(24, 40), "largest 40%")])
def test_a_part_of_one_class_is_refused(part, words):
    graphs = paths(range(2, 42))
    for graph in graphs.graphs[part]:
        graph.y = torch.tensor([0])
    with pytest.raises(UserError, match=f"of each of 2 classes among its {words}, for extrapolation"):
        extrapolation.choose(graphs, 0, 2)


def test_the_command(tmp_path, capsys):
    assert main(["extrapolation", "--seeds", "2", "--epochs", "1", "--out", str(tmp_path)]) == 0
    assert "rings, calibration of copies: " in capsys.readouterr().out
    assert (tmp_path / "extrapolation.png").exists()
    assert main(["extrapolation", "--seeds", "1", "--out", str(tmp_path)]) == BAD_INPUT


@pytest.mark.skipif(MIRROR is None, reason="READOUTS_TU_MIRROR is not set")
def test_sizes_of_mutag():
    chosen = extrapolation.choose(load("MUTAG", MIRROR), 0, 1)
    sizes = {
        part: [chosen.graphs[position].num_nodes for position in of] for part, of in chosen.parts[0].items()
    }
    assert {part: len(of) for part, of in sizes.items()} == {
        "train": 60,
        "hold-out": 16,
        "between": 2,
        "large": 12,
    }
    assert max(sizes["train"] + sizes["hold-out"]) <= min(sizes["large"])
