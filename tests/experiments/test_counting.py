"""Linear probes: what they recover is what they are said to, and what they cannot is told."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from datasets import GraphSet, load
from experiments import counting
from experiments.__main__ import BAD_INPUT, main
from experiments.console import UserError
from experiments.records import RowLog

MIRROR = os.environ.get("READOUTS_TU_MIRROR")


def bags(count, kinds=3, classes=2, seed=0):
    """Graphs without edges, of random sizes and kinds."""
    random = torch.Generator().manual_seed(seed)
    graphs = []
    for position in range(count):
        n = int(torch.randint(1, 12, (1,), generator=random))
        label = torch.randint(0, kinds, (n,), generator=random)
        x = torch.nn.functional.one_hot(label, kinds).float()
        edges = torch.empty(2, 0, dtype=torch.int64)
        graphs.append(Data(x=x, node_label=label, edge_index=edges, y=torch.tensor([position % classes])))
    return GraphSet("bags", tuple(graphs), classes)


def run(graphs, folder, epochs=3):
    task = counting.choose(graphs, seed=0, folds=3)
    with RowLog(folder, "counting") as log:
        return task, counting.measure([task], log, "cpu", seed=0, epochs=epochs)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return run(bags(60), tmp_path_factory.mktemp("counting"))


def test_of_atoms_each_readout_keeps_its_own(measured):
    _, rows = measured
    error = lambda readout, probe: counting.over_folds(rows, "bags", "atoms", readout, probe)  # noqa: E731
    assert error("sum", "counts") < 1e-9
    assert error("sum", counting.EXACT) == 1
    assert error("mean", "proportions") < 1e-9
    assert error("max", "presence") == 0
    assert min(error("mean", "counts"), error("max", "counts"), error("max", "proportions")) > 0.1
    assert error("mean", counting.EXACT) < 0.5
    assert next(iter(found.sentence for found in counting.findings(rows))).startswith(
        "bags, atoms: as claimed, the sum gave counts"
    )


def test_a_rerun_has_the_same_rows(measured, tmp_path):
    task, rows = measured
    again = run(bags(60), tmp_path)[1]
    assert [row["value"] for row in again] == [row["value"] for row in rows]
    assert len(rows) == 3 * 3 * (3 * 4 + 4 + 2)
    assert task.sentence.startswith("bags: 60 graphs, held out in turns; ")
    assert task.sentence.endswith(" of 60 have an isomorphic twin among those learned from.")


def test_verdicts_can_come_out_against_the_claim():
    claimed = dict.fromkeys(counting.CLAIMED, 0.0) | dict.fromkeys(counting.DENIED, 1.0)
    all_pairs = {(r, p): 0.5 for r in counting.READOUTS for p in counting.PROBES} | claimed
    error = lambda readout, probe: all_pairs[readout, probe]  # noqa: E731
    assert counting.of_atoms(error)[0]
    assert counting.of_states(error)[0]
    all_pairs |= {("sum", "counts"): 0.2, ("mean", "counts"): 0.0}
    assert counting.of_atoms(error) == (False, "the sum gave no counts, the mean gave counts")
    held, said = counting.of_states(error)
    assert not held
    assert said.startswith("counts off mean (.000)")
    all_pairs |= claimed | {("sum", "presence"): -0.1}
    held, said = counting.of_states(error)
    assert not held  # presence is asked, too
    assert "presence off sum" in said


def test_networks_that_were_not_trained_decide_nothing(measured):
    _, rows = measured
    atoms, drawn, trained = counting.findings(rows)
    assert (atoms.kind, drawn.kind, trained.kind) == ("check", "finding", "finding")
    assert drawn.holds is not None
    assert trained.holds is None  # classes of these graphs are by turns: no network can know them
    assert "had converged" in trained.numbers or "is not ahead" in trained.numbers


def test_errors_are_in_units_of_a_blind_guess():
    losses = np.array([[1.0, 1.0], [3.0, 3.0]])
    assert counting.relative(losses, np.array([4.0, 4.0])) == 0.5
    assert counting.relative(np.zeros((2, 1)), np.zeros(1)) == 0.0


def test_graphs_of_unknown_kinds_are_not_asked_about():
    counts = np.ones((6, 3))
    counts[2:, 1] = 0
    counts[1, 1], counts[0, 2] = 0, 4
    sides = counting.split("bags", counts, 3, 0)
    assert sorted(graph for _, test in sides for graph in test) == [1, 2, 3, 4, 5]
    with pytest.raises(UserError, match="bags: every graph held out in one of 6 folds"):
        counting.split("bags", counts, 6, 0)
    for train, test in sides:
        assert counting.judge(counts, counts, train, test)[counting.EXACT] == 1


def test_one_class_trains_no_network(tmp_path):
    task, rows = run(bags(30, classes=1), tmp_path)
    assert "all of one class, so no network was trained" in task.sentence
    assert counting.present(rows, "states") == ["atoms", "random GIN"]
    assert [path.name for path in counting.figure(rows, tmp_path)] == ["counting.png"]


@pytest.mark.parametrize("kinds", [0, 201])
def test_too_many_kinds_are_refused(kinds):
    graph = Data(x=torch.zeros(2, kinds), edge_index=torch.empty(2, 0, dtype=torch.int64))
    graph.y = torch.tensor([0])
    with pytest.raises(UserError, match=f"few: expected 1 to 200 kinds .* got {kinds}"):
        counting.choose(GraphSet("few", (graph, graph), 1), seed=0, folds=2)


def test_too_many_folds_are_refused(tmp_path, capsys):
    assert main(["counting", "--folds", "41", "--out", str(tmp_path)]) == BAD_INPUT
    assert capsys.readouterr().err == "--folds 41: rings has only 40 graphs.\n"


@pytest.mark.skipif(MIRROR is None, reason="READOUTS_TU_MIRROR is not set")
def test_every_count_of_mutag_off_the_sum():
    task = counting.choose(load("MUTAG", MIRROR), 0, 4)
    counts = counting.kind_counts(task.graphs.graphs)
    judged = counting.judge(counts, counts, *task.splits[0])
    assert judged["counts"] < 1e-9
    assert judged[counting.EXACT] == 1
