"""Excitation: networks that differ in their gates alone, what gates let in, and verdicts that can be no."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch_geometric.data import Data

from datasets import GraphSet, covers
from experiments import by_node, excitation
from experiments.__main__ import BAD_INPUT, main
from experiments.by_node import Fold, together
from experiments.console import UserError
from experiments.experiment import one_thread
from experiments.records import RowLog, pick, read_rows

FOLDS, EPOCHS = 2, 100


def path(nodes, label, kinds=3):
    """A path of nodes of changing kinds; no edges where it is short."""
    kind = torch.arange(nodes) % kinds
    edges = torch.stack([torch.arange(nodes - 1), torch.arange(1, nodes)]) if nodes > 1 else torch.empty(2, 0)
    return Data(
        x=torch.eye(kinds)[kind],
        node_label=kind,
        edge_index=torch.cat([edges, edges.flip(0)], dim=1).long(),
        y=torch.tensor([label]),
    )


def alternating_rings(count=12):
    """Rings of two kinds of nodes in turns that only their size tells apart: the large are of class 1."""
    cycles = []
    for place in range(count):
        n = 4 + 2 * place
        here = torch.arange(n)
        edges = torch.stack([here, (here + 1) % n])
        label = here % 2
        both = torch.cat([edges, edges.flip(0)], dim=1)
        cycles.append(
            Data(
                x=torch.eye(2)[label],
                node_label=label,
                edge_index=both,
                y=torch.tensor([int(place >= count // 2)]),
            )
        )
    return GraphSet("CYCLES", tuple(cycles), 2)


def run(graphs, folder, folds=FOLDS, epochs=EPOCHS):
    task = excitation.choose(graphs, seed=0)
    with RowLog(folder, "excitation") as log:
        return task, excitation.measure([task], log, "cpu", 0, folds, epochs)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return run(alternating_rings(), tmp_path_factory.mktemp("excitation"))


def test_only_the_sum_shows_the_size(measured):
    """All these rings are one graph to a mean and a max; a gate by sum tells the small from the large."""
    _, rows = measured
    for squeeze in (excitation.NONE, "mean", "max"):
        assert excitation.per_fold(rows, "CYCLES", squeeze, "train accuracy") == [0.5] * FOLDS
        assert pick(rows, squeeze=squeeze, metric="ceiling") == 0.5
    assert min(excitation.per_fold(rows, "CYCLES", "sum", "train accuracy")) > 0.6
    assert pick(rows, squeeze="sum", metric="ceiling") == 1
    copies, saturation, sizes = list(excitation.findings(rows))[3:]
    assert copies.sentence == (
        "CYCLES, copies: as claimed, 16 copies of a graph leave all gates by mean and max as they are."
    )
    assert copies.kind == "check"
    trained = changed(rows, 0.0, metric="late change")
    trained = changed(trained, 1.0, metric="accuracy", squeeze="sum")
    saturation, sizes = (found.sentence for found in list(excitation.findings(trained))[4:])
    assert saturation.startswith("CYCLES, saturation: as claimed, of the gates by sum ")
    assert sizes.startswith(
        "CYCLES, size: as claimed, gates by sum follow the size most in 2 of 2 folds; rank "
    )


def test_copies_move_gates_by_sum_only(measured):
    _, rows = measured
    for squeeze in excitation.SQUEEZES:
        for k in excitation.COPIES:
            most = excitation.per_fold(rows, "CYCLES", squeeze, "moved at most", copies=k)
            assert (max(most) == 0) == (squeeze != "sum" or k == 1)
    once, often = (excitation.per_fold(rows, "CYCLES", "sum", "saturated", copies=k) for k in (1, 16))
    assert all(after > before for before, after in zip(once, often, strict=True))
    for squeeze in (excitation.NONE, "mean", "max"):
        assert excitation.per_fold(rows, "CYCLES", squeeze, "answers changed", copies=16) == [0.0] * FOLDS


def test_networks_differ_in_their_gates_alone():
    drawn = {}
    for name in excitation.VIEWS:
        torch.manual_seed(3)
        drawn[name] = excitation.Gated(2, 2, name).state_dict()
    plain = drawn.pop(excitation.NONE)
    for weights in drawn.values():
        assert all(torch.equal(weights[name], value) for name, value in plain.items())
        assert all(torch.equal(weights[name], value) for name, value in drawn["mean"].items())
        assert {name.split(".")[0] for name in weights.keys() - plain.keys()} == {"gates"}
    hidden = excitation.WIDTH // excitation.REDUCTION
    gate = 2 * excitation.WIDTH * hidden + hidden + excitation.WIDTH
    more = sum(value.numel() for value in drawn["sum"].values()) - sum(v.numel() for v in plain.values())
    assert more == (excitation.ROUNDS - 1) * gate


@pytest.mark.parametrize("squeeze", excitation.SQUEEZES)
def test_a_gated_network_by_hand(squeeze):
    """States times the gate of their graph between any two convolutions; gates seen are those used."""
    torch.manual_seed(0)
    network = excitation.Gated(3, 2, squeeze).eval()
    graphs = [path(n, 0) for n in (5, 1, 8)]
    _, gates = excitation.run(network, graphs)
    assert gates.shape == (excitation.ROUNDS - 1, 3, excitation.WIDTH)
    for place, graph in enumerate(graphs):
        x = graph.x
        (read, *_) = together(network, [graph]).rounds
        for block, (layer, norm) in enumerate(zip(network.rounds, network.norms, strict=True)):
            if block:
                z = {"mean": x.mean(0), "max": x.amax(0), "sum": x.sum(0)}[squeeze]
                gate = network.gates[block - 1]
                hidden = torch.relu(gate.lin1.weight @ z + gate.lin1.bias)
                used = torch.sigmoid(gate.lin2.weight @ hidden + gate.lin2.bias)
                torch.testing.assert_close(gates[block - 1, place].float(), used, rtol=1e-4, atol=1e-5)
                x = x * used
            x = norm(layer(x, read), read.share, read.nodes).relu()
        logits = network.head(x.mean(0, keepdim=True))
        found = network(together(network, graphs))[0]
        torch.testing.assert_close(found[place : place + 1], logits, rtol=1e-4, atol=1e-5)


def test_a_network_without_gates_has_none():
    network = excitation.Gated(3, 2, excitation.NONE)
    answers, gates = excitation.run(network, [path(4, 0), path(2, 1)])
    assert gates.shape == (0, 2, excitation.WIDTH)
    assert answers.shape == (2,)


def test_spread_by_hand():
    gates = torch.tensor([[0.2, 0.5], [0.4, 0.5], [0.6, 0.5]], dtype=torch.float64)
    found = excitation.spread(gates, np.array([2, 3, 7]))
    assert found["gate"] == pytest.approx(0.45)
    assert found["over graphs"] == pytest.approx((0.08 / 3) ** 0.5 / 2)
    assert found["over channels"] == pytest.approx(0.05)
    assert found["with size"] == pytest.approx(0.5)  # one channel goes up with the size, one is still
    channels = excitation.per_channel(gates.repeat(1, excitation.WIDTH // 2))
    assert channels["channel 2 mean"] == pytest.approx(0.4)
    assert channels["channel 3 sd"] == 0


def test_correlation_is_that_of_spearman():
    random = np.random.default_rng(0)
    gates, sizes = random.random((20, 4)), random.integers(3, 9, 20)
    expected = np.mean([abs(spearmanr(column, sizes).statistic) for column in gates.T])
    assert excitation.correlation(gates, sizes) == pytest.approx(expected)
    assert excitation.correlation(gates, np.full(20, 5)) == 0


def changed(rows, value, **conditions):
    """The same rows, with other values where the conditions are fulfilled."""
    return [row | {"value": value} if conditions.items() <= row.items() else row for row in rows]


def test_verdicts_can_come_out_against_the_claim(measured):
    rows = changed(measured[1], 0.0, metric="late change")
    rows = changed(rows, 0.4, metric="accuracy")
    rows = changed(rows, 0.5, metric="accuracy", squeeze=excitation.NONE)
    moved = changed(rows, 0.1, squeeze="mean", metric="moved at most", copies=16)
    assert (
        "not as claimed, 16 copies of a graph leave all gates by max as"
        in [found.sentence for found in excitation.findings(moved)][3]
    )
    open_ = changed(rows, 0.0, squeeze="sum", metric="saturated", copies=16)
    assert [found.sentence for found in excitation.findings(open_)][4].startswith(
        "CYCLES, saturation: not as claimed, of the gates by sum"
    )
    still = list(excitation.findings(changed(rows, 0.0, squeeze="sum", metric="with size")))
    assert "not as claimed, gates by sum follow the size most in 0 of 2 folds" in still[5].sentence
    for fold, accuracy in enumerate((0.5, 0.6)):
        for squeeze in excitation.VIEWS:
            better = accuracy + (0.3 + 0.001 * fold if squeeze == "max" else 0)
            rows = changed(rows, better, squeeze=squeeze, metric="accuracy", fold=fold)
    found = [one for one in excitation.findings(rows) if one.main]
    assert [one.holds for one in found] == [False, True, False]
    assert found[1].claim == "CYCLES, squeezed by max"
    assert found[1].numbers.startswith("+30.1 points of accuracy against no gates (better by over 1 point)")
    assert excitation.numbers(rows) == "points gained by squeeze: mean +0.0, max +30.1, sum +0.0"
    untrained = changed(rows, 0.5, metric="late change", squeeze="mean")
    untrained = changed(untrained, 0.5, metric="train accuracy")
    of_untrained = list(excitation.findings(untrained))
    assert [one.holds for one in of_untrained] == [None, None, None, True, None, None]
    assert "not compared, for mean had converged in 0 % of the folds" in of_untrained[0].numbers
    assert excitation.numbers(untrained).endswith("no set to compare on")
    for fold in range(FOLDS):
        rows = changed(rows, 0.55, squeeze="max", metric="accuracy", fold=fold)
    assert not any(one.holds for one in excitation.findings(rows) if one.main)


def test_all_sets_and_squeezes_are_one_family(measured):
    """With more sets, which show nothing, the same difference has a greater p and a wider interval."""
    rows = changed(measured[1], 0.5, metric="accuracy")
    for fold in range(FOLDS):
        rows = changed(rows, 0.8 + 0.005 * fold, metric="accuracy", squeeze="max", fold=fold)
    others = [row | {"data": name} for name in "ABCDE" for row in changed(rows, 0.5, metric="accuracy")]
    (_, alone), (_, among) = (excitation.comparisons(part)[1] for part in (rows, rows + others))
    assert alone.method == among.method == "max"
    assert among.p == pytest.approx(6 * alone.p)
    assert among.low < alone.low < alone.difference == among.difference < alone.high < among.high


def test_a_job_in_another_process_gives_the_same_rows(measured):
    task, rows = measured
    *_, job = excitation.jobs_of(task, "cpu", 0, FOLDS, EPOCHS)
    (work, *_), *_ = job.rows
    assert (work["fold"], work["squeeze"]) == (FOLDS - 1, "sum")
    with one_thread():
        again = pickle.loads(pickle.dumps(job)).compute()
    found = [one[metric] for one, (_, metrics) in zip(again, job.rows, strict=True) for metric in metrics]
    of_job = [row["value"] for row in rows if (row["fold"], row["squeeze"]) == (FOLDS - 1, "sum")]
    assert found == of_job


def test_accuracy_above_the_ceiling_is_a_bug():
    task = excitation.choose(alternating_rings(), 0)
    fold = Fold(task, 0, 2, range(12), [0, 6], 0, 1, "cpu")
    excitation.check(task, fold, "mean", 0.5)
    with pytest.raises(
        RuntimeError, match=r"CYCLES, squeeze mean: train accuracy 0\.6 is above 0\.5, the ceiling"
    ):
        excitation.check(task, fold, "mean", 0.6)


def train(graphs, squeeze, epochs):
    task = by_node.Task("PATHS", tuple(graphs), len(graphs), 2)
    network = excitation.Gated(3, 2, squeeze)
    by_node.train(network, Fold(task, 0, 2, range(len(graphs)), [0], 0, epochs, "cpu"))
    return network


def test_weights_that_overflow_stop_the_run(monkeypatch):
    monkeypatch.setattr(by_node, "LEARNING_RATE", 1e38)
    with pytest.raises(FloatingPointError, match="weights are not finite after 3 epochs"):
        train([path(n, n % 2) for n in range(1, 9)], "sum", 3)


def test_sets_that_are_hard_to_take(tmp_path):
    """Graphs of no, one and two nodes, most without edges."""
    graphs = GraphSet("SMALL", tuple(path(place % 3, place // 3 % 2) for place in range(12)), 2)
    task, rows = run(graphs, tmp_path, epochs=2)
    assert task.sentence == "SMALL: 12 graphs with at most 2 nodes."
    assert len(excitation.tables(rows)) == 4
    assert len(list(excitation.findings(rows))) == 6
    assert [path.name for path in excitation.figure(rows, tmp_path)] == ["excitation.png"]


def test_gates_do_not_depend_on_the_place_in_a_batch():
    graph = path(7, 0)
    network = train([graph, path(3, 1)], "mean", 5)
    alone, others = (
        excitation.run(network, graphs)[1] for graphs in ([graph], [path(5, 0), covers.copies(graph, 3)])
    )
    assert torch.equal(others[:, 1], alone[:, 0])


def test_what_cannot_run_is_refused(tmp_path, capsys):
    one_class = GraphSet("SAME", tuple(path(n, 0) for n in (2, 3)), 2)
    with pytest.raises(UserError, match="SAME: all 2 graphs are of one class; excitation needs two"):
        excitation.choose(one_class, 0)
    rare = GraphSet("RARE", (path(2, 0), path(3, 0), path(4, 1)), 2)
    with pytest.raises(UserError, match="excitation: cannot cut RARE into 1 stratified folds"):
        run(rare, tmp_path, folds=None)
    assert main(["excitation", "--folds", "30", "--out", str(tmp_path)]) == BAD_INPUT
    assert "cannot cut rings into 30 stratified folds" in capsys.readouterr().err


def test_a_large_set_is_sampled(monkeypatch):
    monkeypatch.setattr(excitation, "MOST", 6)
    task = excitation.choose(alternating_rings(), 1)
    assert task.sentence == "CYCLES: 6 graphs with at most 26 nodes (a seeded sample of 12)."


def test_the_command_on_rings(tmp_path, capsys):
    assert main(["excitation", "--folds", "2", "--epochs", "1", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "rings: 40 graphs with at most 80 nodes." in said
    rows = read_rows(tmp_path / "excitation.jsonl.gz")
    assert {row["squeeze"] for row in rows} == {*excitation.BASELINES, *excitation.VIEWS}
