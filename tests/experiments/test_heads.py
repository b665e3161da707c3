"""Flattened heads depend on the order of the nodes, readouts do not, and random nodes obey the law."""

from __future__ import annotations

import pickle
from fractions import Fraction
from functools import partial
from itertools import combinations

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.utils import sort_edge_index

from datasets import GraphSet, load
from experiments import heads
from experiments.__main__ import BAD_INPUT, main
from experiments.by_node import WIDTH, folds_of, form_of
from experiments.console import UserError
from experiments.heads import DROPOUT, FLAT, FLATTEN, HEADS, POOLED, SHUFFLED, build, shuffled
from experiments.records import RowLog
from readouts import Segments

FOLDS, EPOCHS, SEEDS = 2, 20, 2
KINDS = (heads.ATOMS, heads.RANDOM)
NO_EDGES = torch.empty(2, 0, dtype=torch.int64)


def run(graphs, folder):
    task = heads.choose(graphs, seed=0)
    with RowLog(folder, "heads") as log:
        return task, heads.measure([task], log, "cpu", 0, FOLDS, EPOCHS, SEEDS)


def dots(sizes, classes):
    """Graphs without edges, of nodes of two kinds in turns."""
    graphs = [
        Data(x=torch.eye(2).repeat(n, 1)[:n], edge_index=NO_EDGES, y=torch.tensor([position % classes]))
        for position, n in enumerate(sizes)
    ]
    return GraphSet("dots", tuple(graphs), classes)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return run(load("rings"), tmp_path_factory.mktemp("heads"))


def batch_of(*positions):
    graphs = load("rings").graphs
    return Batch.from_data_list(
        [
            Data(x=graphs[place].x, edge_index=graphs[place].edge_index, y=graphs[place].y)
            for place in positions
        ]
    )


def test_shuffling_keeps_each_graph_and_moves_its_nodes():
    batch = batch_of(0, 20, 33)
    batch.x = torch.arange(1.0, 1 + len(batch.x))[:, None]  # every node has its name
    other = shuffled(batch, torch.Generator().manual_seed(0))
    assert not torch.equal(other.x, batch.x)
    for names in (batch.x[:, 0], other.x[:, 0]):
        parts = [names[batch.batch == graph].sort().values for graph in range(3)]
        assert torch.equal(torch.cat(parts), batch.x[:, 0])
    links = [
        sort_edge_index(one.x[one.edge_index, 0].long(), num_nodes=len(batch.x) + 1) for one in (batch, other)
    ]
    assert torch.equal(*links)


@pytest.mark.parametrize("head", HEADS)
def test_only_flattened_heads_see_the_order(head):
    torch.manual_seed(0)
    batch = batch_of(0, 3, 12, 25, 33)
    network = build(head, batch.x.size(1), 6, largest=80).eval()
    with torch.no_grad():
        other = shuffled(batch, torch.Generator().manual_seed(1))
        before, after = (network(form_of(network)(one)) for one in (batch, other))
    assert torch.equal(heads.bits(before), heads.bits(after)) == (head in POOLED)


def test_heads_start_from_the_same_rounds_and_differ_in_weights():
    rounds = []
    for head in HEADS:
        torch.manual_seed(3)
        network = build(head, features=7, classes=6, largest=80)
        rounds.append(torch.cat([weight.flatten() for weight in network.rounds.parameters()]))
        expected = (80 * WIDTH + 1) * 6 if head in FLAT else (WIDTH + 1) * 6
        assert sum(weight.numel() for weight in network.head.parameters()) == expected
    assert all(torch.equal(weights, rounds[0]) for weights in rounds)


def test_dropout_is_on_in_training_alone():
    torch.manual_seed(0)
    batch = batch_of(1, 2)
    network = build(DROPOUT, batch.x.size(1), 2, largest=80)
    batch = form_of(network)(batch)
    assert not torch.equal(network(batch), network(batch))
    with torch.no_grad():
        assert torch.equal(network.eval()(batch), network(batch))


def test_flattened_states_are_in_their_places():
    network = build(FLATTEN, 1, 2, largest=3)
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    flat = network.readout(x, Segments.from_batch(torch.tensor([0, 2, 2]), 3))
    assert flat.tolist() == [[1, 2, 0, 0, 0, 0], [0] * 6, [3, 4, 5, 6, 0, 0]]


def test_nodes_are_shuffled_in_training_within_their_graphs():
    readout = build(SHUFFLED, 1, 2, largest=40).readout
    x = torch.arange(80.0)[:, None]
    graphs = Segments.from_batch(torch.arange(2).repeat_interleave(40))
    first, second = readout(x, graphs)
    assert not torch.equal(first, x[:40, 0])
    assert torch.equal(first.sort().values, x[:40, 0])
    assert torch.equal(second.sort().values, x[40:, 0])
    assert torch.equal(readout.eval()(x, graphs).flatten(), x[:, 0])


@pytest.mark.parametrize("m", [1, 2, 3])
def test_the_formula_is_the_variance_over_all_draws(m):
    """Every set of m of the five nodes, in rational numbers; the graph of one node has no such draw."""
    values = [0, 1, 1, 4, 9]
    center = Fraction(sum(values), 5)
    squares = [(Fraction(sum(chosen), m) - center) ** 2 for chosen in combinations(values, m)]
    graphs = Segments.from_batch(torch.tensor([0, 0, 0, 0, 0, 1]))
    found = heads.draw(torch.tensor([*values, 7.0]).double()[:, None], graphs, m, seed=0)
    assert found["predicted"] == pytest.approx(float(sum(squares) / len(squares)))
    assert found["plain"] == pytest.approx(float(sum((value - center) ** 2 for value in values) / 5 / m))
    assert abs(found["measured"] - found["predicted"]) < 4 * found["standard error"]
    assert 0 < found["standard error"] < 0.2 * found["predicted"]


def test_variance_between_graphs():
    """The means of the three graphs are 1, 2 and 6: their variance is 14 / 2."""
    x = torch.tensor([[0.0], [2.0], [2.0], [2.0], [6.0]]).double()
    found = heads.between(x, Segments.from_batch(torch.tensor([0, 0, 1, 1, 2])))
    variance = (0 + 4 + 4 + 4 + 36) / 5 - (12 / 5) ** 2
    assert found["between graphs"] == pytest.approx(7)
    assert found["independent nodes"] == pytest.approx(variance * (1 / 2 + 1 / 2 + 1) / 3)


def test_how_many_nodes_are_drawn():
    assert heads.drawn_sizes(dots([1, 5], 1)) == [1, 2, 4]
    assert heads.drawn_sizes(dots([8, 3], 1)) == [1, 2, 4]
    assert heads.drawn_sizes(dots([2], 1)) == [1]


def test_flattened_heads_fail_on_shuffled_nodes_of_rings(measured):
    _, rows = measured
    of_heads = FOLDS * SEEDS * len(HEADS) * len(heads.METRICS)
    assert len(rows) == of_heads + 2 * (7 * len(heads.LAW) + len(heads.BETWEEN))
    for head in POOLED:
        assert heads.average(rows, readout=head, metric="same bits") == 1
        assert heads.average(rows, readout=head, metric="answers changed") == 0
        assert heads.summary(rows, "rings")[head]["lost"] == 0
    for head in (FLATTEN, DROPOUT):
        assert heads.average(rows, readout=head, metric="same bits") < 0.5
        assert heads.average(rows, readout=head, metric="answers changed") > 0.1
        assert heads.summary(rows, "rings")[head]["lost"] > 0.1
    bits, law = list(heads.findings(rows))[-2:]
    assert bits.sentence.startswith("rings, bits: as claimed, readouts keep every bit")
    assert law.sentence.startswith("rings, law of the mean: as claimed")
    assert bits.kind == law.kind == "check"


def test_a_rerun_has_the_same_rows(measured, tmp_path):
    task, rows = measured
    fold = folds_of(task, 2, 0, 5, "cpu")[1]
    compute = partial(heads.train_and_judge, fold, SHUFFLED, 2)
    judged = compute(), pickle.loads(pickle.dumps(compute))()
    assert judged[0] == judged[1]
    with RowLog(tmp_path, "heads") as log:
        again = heads.carry_out([heads.job_of_law(task, kind, "cpu", 0) for kind in KINDS], log, "again")
    assert [row["value"] for row in again] == [row["value"] for row in rows if "features" in row]


def changed(rows, value, **wanted):
    return [row | {"value": value} if wanted.items() <= row.items() else row for row in rows]


def test_verdicts_follow_from_the_rows(measured):
    rows = measured[1]
    for head in HEADS:
        right = {FLATTEN: 0.5, DROPOUT: 0.6}.get(head, 0.8)
        rows = changed(rows, 0.9, readout=head, metric="train accuracy")
        for fold in range(FOLDS):
            for draw in range(SEEDS):
                noise = 0.05 * draw if head == FLATTEN else 0.01 * draw
                noise += 0.005 * fold if head in FLAT else 0
                wanted = {"readout": head, "metric": "accuracy", "fold": fold, "draw": draw}
                rows = changed(rows, right + noise, **wanted)
    rows = changed(changed(rows, 0.4, metric="shuffled accuracy"), 0.0, metric="late change")
    said = [found.sentence for found in heads.findings(rows)]
    assert [sentence.split(": ")[1].split(",")[0] for sentence in said] == ["as claimed"] * 6
    against = [
        (4, "do not keep every bit", {"readout": "max", "metric": "same bits", "draw": 1}, 0.9),
        (0, "do not lose accuracy", {"readout": DROPOUT, "metric": "shuffled accuracy"}, 0.61),
        (1, "flatten does not overfit", {"readout": FLATTEN, "metric": "train accuracy"}, 0.55),
        (1, "dropout does not help", {"readout": DROPOUT, "metric": "train accuracy"}, 1.0),
        (2, "not as claimed, against the mean: flatten +", {"readout": "mean", "metric": "accuracy"}, 0.2),
        (2, "undecided, against the mean", {"readout": "mean", "metric": "accuracy", "fold": 1}, 0.2),
        (3, "flatten does not vary", {"readout": FLATTEN, "metric": "accuracy"}, 0.5),
        (5, "in 13 of 14 cases", {"features": heads.ATOMS, "nodes": 4, "metric": "measured"}, 0.1),
    ]
    for place, words, wanted, value in against:
        sentence = [found.sentence for found in heads.findings(changed(rows, value, **wanted))][place]
        assert words in sentence
        assert ": as claimed" not in sentence


def test_heads_that_were_not_trained_are_not_compared(measured):
    rows = changed(changed(measured[1], 0.5, metric="train accuracy"), 0.2, metric="late change")
    orders, bits, law = heads.findings(rows)
    assert orders.holds is None
    assert orders.numbers.startswith("not compared, for flatten had converged in 0 % of the folds")
    assert (bits.holds, law.holds) == (True, True)
    assert "shuffled: not compared; " in heads.numbers(rows)


def test_one_class_trains_no_network_and_edges_are_not_needed(tmp_path):
    task, rows = run(dots([0, 1, 2, 2, 5], classes=1), tmp_path)
    assert task.sentence == (
        "dots: 4 graphs with at most 5 nodes (a seeded sample of 5); "
        "all of one class, so no network was trained."
    )
    assert {row["metric"] for row in rows} == {*heads.LAW, *heads.BETWEEN}
    assert len(heads.tables(rows)) == 1
    assert len([found.sentence for found in heads.findings(rows)]) == 1
    assert [path.name for path in heads.figure(rows, tmp_path)] == ["heads.png"]


def test_nodes_that_are_all_alike_have_no_variance(tmp_path):
    graphs = dots([2, 2, 3, 4], classes=2)
    for graph in graphs:
        graph.x = torch.ones_like(graph.x)
    _, rows = run(graphs, tmp_path)
    of_law = [found.sentence for found in heads.findings(rows)][-1]
    assert of_law == (
        "dots, law of the mean: as claimed, the variance of the mean of m random nodes is within 4 standard "
        "errors of S² (1 - m / n) / m in 4 of 4 cases."
    )
    assert len(heads.tables(rows)) == 2
    assert heads.figure(rows, tmp_path)[0].exists()


def test_what_cannot_run_is_refused(tmp_path, capsys):
    with pytest.raises(UserError, match="dots: expected graphs of two nodes or more, got none"):
        heads.choose(dots([1, 0, 1], classes=2), 0)
    assert main(["heads", "--folds", "41", "--out", str(tmp_path)]) == BAD_INPUT
    assert capsys.readouterr().err == "--folds 41: rings has only 40 graphs.\n"


def test_command(tmp_path, capsys):
    options = ["--folds", "2", "--epochs", "1", "--seeds", "2", "--out", str(tmp_path)]
    assert main(["heads", *options]) == 0
    said = capsys.readouterr().out
    assert "rings, order of the nodes: " in said
    assert "rings: 40 graphs with at most 80 nodes." in said
    assert (tmp_path / "heads.png").exists()
