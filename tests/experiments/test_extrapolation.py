"""Extrapolation: who is learned from and asked about, networks that agree, and copies to the bit."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from datasets import GraphSet, load
from experiments import extrapolation
from experiments.__main__ import BAD_INPUT, main
from experiments.console import UserError
from experiments.learning.batches import node_by_node, reside
from experiments.learning.goals import Classes
from experiments.learning.training import Settings
from experiments.records import RowLog

MIRROR = os.environ.get("READOUTS_TU_MIRROR")
SHORT = Settings(epochs=4, learning_rates=(0.01,))


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


def trained(readout, graphs=PATHS):
    chosen = extrapolation.choose(graphs, 0, 1)
    resident = reside(chosen.graphs, "gin", SHORT.rounds)
    return chosen, resident, extrapolation.train(resident, chosen.parts[0], readout, 0, SHORT)


def test_parts_are_cut_by_size():
    (parts,) = extrapolation.choose(PATHS, 3, 1).parts.values()
    sizes = {part: sorted(PATHS[position].num_nodes for position in of) for part, of in parts.items()}
    assert sorted(sizes["train"] + sizes["hold-out"]) == list(range(2, 22))
    assert len(sizes["hold-out"]) == 4
    assert sizes["between"] == list(range(22, 38))
    assert sizes["large"] == list(range(38, 42))
    assert set(parts["large, balanced"]) <= set(parts["large"])
    assert [PATHS[position].y.item() for position in parts["large, balanced"]].count(1) == 2


def test_the_sentence_tells_sizes_and_classes():
    assert extrapolation.choose(PATHS, 0, 1).sentence == (
        "paths: learned from 20 graphs (10 + 10 by class) of 2 to 21 nodes, "
        "asked about 4 graphs (2 + 2 by class) of 38 to 41 nodes."
    )


def test_copied_graphs_are_held_out_and_sampled(monkeypatch):
    chosen = extrapolation.choose(PATHS, 0, 2)
    assert [graph.num_nodes for graph in chosen.held_out(0)] == list(range(22, 38))
    monkeypatch.setattr(extrapolation, "SAMPLE", 5)
    sizes = [graph.num_nodes for graph in chosen.held_out(0)]
    assert len(set(sizes)) == 5
    assert set(sizes) <= set(range(22, 38))
    assert sizes != [graph.num_nodes for graph in chosen.held_out(1)]


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
    assert chosen.sentence.endswith("all there twice, a fifth with random labels.")
    large = {chosen.graphs[position].family for position in chosen.parts[0]["large"]}
    assert large == set(names)


def test_predictions_by_hand():
    found = extrapolation.predicted(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
    assert found == pytest.approx(
        {"MCC": 2 / np.sqrt(12), "class-weighted accuracy": (2 / 3 + 1) / 2, "accuracy": 0.75}
    )
    alone = extrapolation.predicted(np.array([1, 1]), np.array([1, 1]))
    assert alone == {"MCC": 0.0, "class-weighted accuracy": 1.0, "accuracy": 1.0}
    strange = extrapolation.predicted(np.array([1, 1]), np.array([1, 2]))
    assert strange == {"MCC": 0.0, "class-weighted accuracy": 0.5, "accuracy": 0.5}


def test_every_class_counts_the_same_in_the_loss():
    y = torch.tensor([0, 0, 0, 2])
    assert extrapolation.class_weights(y, 3).tolist() == pytest.approx([4 / 3, 0, 4])
    logits = torch.tensor([[2.0, 0, 0]] * 4)
    losses = -logits.double().log_softmax(1)[0]
    found = extrapolation.judged(logits, y)
    assert found["class-weighted loss"] == pytest.approx(float(losses[0] + losses[2]) / 2)
    assert found["class-weighted accuracy"] == 0.5


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
    for graph in graphs.graphs[-4:-2]:
        graph.y = torch.tensor([0])
    chosen = extrapolation.choose(graphs, 0, 1)
    judge = lambda part, name: extrapolation.fit_and_judge(chosen, chosen.parts[0], part, name)  # noqa: E731
    assert judge("train", extrapolation.SIZE)["accuracy"] == 1
    assert judge("large", extrapolation.SIZE)["MCC"] == 0
    assert judge("large", extrapolation.BEST_SIZE)["MCC"] == 1
    assert judge("train", extrapolation.MAJORITY)["MCC"] == 0


@pytest.mark.parametrize("readout", extrapolation.READOUTS)
def test_both_forms_of_a_batch_agree(readout):
    chosen, resident, network = trained(readout)
    positions = chosen.parts[0]["large"]
    graphs = [Data(x=PATHS[p].x, edge_index=PATHS[p].edge_index, y=PATHS[p].y) for p in positions]
    plain = node_by_node(Batch.from_data_list(graphs), SHORT.rounds)
    with torch.no_grad():
        ours, theirs = network(resident.batch(positions)), network(plain)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("readout", extrapolation.READOUTS)
def test_copies_move_what_sees_the_size_and_no_bit_of_the_others(readout):
    chosen, _, network = trained(readout)
    logits = extrapolation.logits_of(network, extrapolation.copied(chosen.held_out(0), "cpu"))
    shares = [extrapolation.moved(logits[k], logits[1]) for k in extrapolation.COPIES]
    assert shares == [0.0] * 5 if readout in extrapolation.PROPORTIONS else shares[1:] == [1.0] * 4


def test_a_single_bit_counts_as_moved():
    logits = torch.rand(4, 3)
    other = logits.clone()
    other[2, 1] = torch.nextafter(other[2, 1], torch.tensor(2.0))
    assert extrapolation.moved(other, logits) == 0.25


def test_the_sum_of_copies_is_softmax_at_another_temperature():
    chosen, _, network = trained("sum")
    batches = extrapolation.copied(chosen.held_out(0), "cpu")
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


def test_the_head_is_one_layer():
    _, _, network = trained("attention")
    assert network.head.weight.shape == (1, 2, 32)


def test_the_best_epoch_on_the_hold_out_is_kept(monkeypatch):
    chosen = extrapolation.choose(PATHS, 0, 1)
    resident = reside(chosen.graphs, "gin", 3)
    script = iter([3.0, 1.0, 2.0, 2.0, 2.0])
    seen, losses = [], Classes.losses

    def told(self, outputs, y):
        if torch.is_grad_enabled():
            return losses(self, outputs, y)
        seen.append(outputs)
        return torch.tensor([next(script)])

    monkeypatch.setattr(Classes, "losses", told)
    settings = Settings(epochs=9, learning_rates=(0.01,), patience=3)
    network = extrapolation.train(resident, chosen.parts[0], "sum", 0, settings)
    assert len(seen) == 5
    with torch.no_grad():
        again = network(resident.batch(chosen.parts[0]["hold-out"]))
    assert again.equal(seen[1])


def test_a_loss_that_is_not_finite_stops_the_run(monkeypatch):
    chosen = extrapolation.choose(PATHS, 0, 1)
    monkeypatch.setattr(extrapolation, "LEARNING_RATE", 1.0)
    settings = Settings(epochs=9, learning_rates=(float("inf"),))
    with pytest.raises(FloatingPointError, match="paths, gin, sum: loss nan in epoch 1"):
        extrapolation.train(reside(chosen.graphs, "gin", 3), chosen.parts[0], "sum", 0, settings)


def test_a_rerun_has_the_same_rows_and_reads_them(measured, tmp_path, monkeypatch):
    again = run(PATHS, tmp_path)[1]
    value = lambda row: {key: row[key] for key in row if key != "run"}  # noqa: E731
    assert [value(row) for row in again] == [value(row) for row in measured[1]]
    monkeypatch.setattr(extrapolation, "train", pytest.fail)
    assert run(PATHS, tmp_path)[1] == again


def test_tables_and_figure_come_from_rows(measured, tmp_path):
    _, rows = measured
    by_size, of_copies = extrapolation.tables(rows)
    assert len(by_size.lines) == 1 + 2 + len(extrapolation.READOUTS) + 3
    assert len(of_copies.lines) == 2 * len(extrapolation.READOUTS)
    made = extrapolation.figure(rows, tmp_path)
    assert [path.name for path in made] == ["extrapolation.png"]
    said = [found.sentence for found in extrapolation.findings(rows)]
    assert said[0].startswith("paths, larger graphs: undecided, ")  # four large graphs are too few
    assert "not a bit of mean, max, median, attention moved" in said[1]
    assert extrapolation.slope(rows, "paths", "mean") == pytest.approx(0, abs=1e-12)
    assert 0.5 < extrapolation.slope(rows, "paths", "sum") < 2


def changed(rows, value, **wanted):
    return [row | {"value": value} if wanted.items() <= row.items() else row for row in rows]


def test_verdicts_can_come_out_against_the_claims(measured):
    rows = changed(measured[1], 20, part="large, balanced", metric="graphs")

    def sizes(mean, total):
        found = rows
        for readout, values in (("mean", mean), ("sum", total)):
            for seed, value in enumerate(values):
                found = changed(found, value, readout=readout, part="large", metric="MCC", seed=seed)
        return next(found.sentence for found in extrapolation.findings(found)).split(": ")[1].split(",")[0]

    assert sizes((0.80, 0.81), (0.5, 0.52)) == "as claimed"
    assert sizes((0.5, 0.52), (0.80, 0.81)) == "not as claimed"
    assert sizes((0.5, 0.9), (0.9, 0.5)) == "undecided"

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


def test_a_large_part_of_one_class_has_no_balanced_part(tmp_path):
    graphs = paths(range(2, 42))
    for graph in graphs.graphs[-4:]:
        graph.y = torch.tensor([1])
    _, rows = run(graphs, tmp_path, epochs=1)
    assert extrapolation.values(rows, part="large, balanced", metric="MCC") == []
    assert set(extrapolation.values(rows, part="large", metric="MCC")) == {0.0}
    assert extrapolation.tables(rows)
    assert next(found.sentence for found in extrapolation.findings(rows)).startswith(
        "paths, larger graphs: undecided"
    )


@pytest.mark.parametrize(
    ("graphs", "message"),
    [
        (paths(range(2, 42), classes=1), "paths: all 40 graphs are of one class; extrapolation needs two"),
        (paths([2, 3, 4]), "extrapolation: cannot train on the 0.5 smallest"),
        (paths(range(2, 22), classes=9), "extrapolation: cannot hold out"),
    ],
)
def test_what_has_no_answer_is_refused(graphs, message):
    with pytest.raises(UserError, match=message):
        extrapolation.choose(graphs, 0, 2)


def test_a_small_half_of_one_class_is_refused():
    graphs = paths(range(2, 42))
    for graph in graphs.graphs[:20]:
        graph.y = torch.tensor([0])
    with pytest.raises(UserError, match="paths: the smaller half of the graphs is all of one class"):
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
    assert {part: len(of) for part, of in sizes.items() if part != "large, balanced"} == {
        "train": 75,
        "hold-out": 19,
        "between": 76,
        "large": 18,
    }
    assert max(sizes["train"] + sizes["hold-out"]) <= min(sizes["between"])
    assert max(sizes["between"]) <= min(sizes["large"])
