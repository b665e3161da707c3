"""Networks reach the ceiling of their readout and no more; learners see no test label."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch_geometric.data import Data

from datasets import GraphSet, load, planted
from datasets.splits import Split, stratified_folds
from experiments.__main__ import BAD_INPUT, main
from experiments.ceiling import experiment, jobs
from experiments.ceiling.jobs import LOG, READOUTS, SIZE, TO_CEILING, prepare
from experiments.ceiling.learners import (
    WAVES,
    Pooled,
    forests,
    perceptrons,
    random_waves,
    reach,
    standardised,
)
from experiments.records import read_rows, values
from readouts import Segments

MIRROR = os.environ.get("READOUTS_TU_MIRROR")
LETTERS = "CO"


def words(*pairs):
    """Graphs without edges, whose nodes are the letters of a word, with a class each."""
    graphs = []
    for word, label in pairs:
        kinds = torch.tensor([LETTERS.index(letter) for letter in word], dtype=torch.int64)
        x = torch.nn.functional.one_hot(kinds, len(LETTERS)).float()
        edges = torch.empty(2, 0, dtype=torch.int64)
        graphs.append(Data(x=x, node_label=kinds, edge_index=edges, y=torch.tensor([label])))
    return GraphSet("words", tuple(graphs), 2)


WORDS = words(("C", 0), ("CC", 1), ("CO", 0), ("OC", 1), ("CCOO", 0), ("O", 1), ("OO", 1), ("", 0))


def clouds(graphs=60):
    """Vectors of three classes around three centres, some of them equal."""
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(graphs) % 3
    x = torch.eye(3, dtype=torch.float64)[y] * 4 + torch.randint(0, 3, (graphs, 3), generator=draw)
    splits = [
        Split(tuple(range(graphs // 2)), tuple(range(graphs // 2, 45)), tuple(range(45, graphs))),
        Split(tuple(range(15, 45)), tuple(range(45, graphs)), tuple(range(15))),
    ]
    return Pooled.of_graphs(x, y, 3), splits


def right_of(pooled, answers, split):
    return float((answers[pooled.of][list(split.test)] == pooled.y[list(split.test)]).double().mean())


def test_all_readouts_of_words():
    pooled = jobs.pool(
        torch.tensor([[1.0, 0], [1, 0], [0, 1]]).double(), Segments.from_ptr(torch.tensor([0, 3, 3]), 3)
    )
    third = 1 / 3
    expected = {
        "sum": [2, 1],
        "mean": [2 * third, third],
        LOG: [2 * third, third, np.log(3)],
        SIZE: [2 * third, third, 3],
        "max": [1, 1],
        "n * mean": [2, 1],
        "sum / n": [2 * third, third],
        "n alone": [3],
    }
    assert pooled.keys() == expected.keys() == READOUTS.keys()
    for name, vector in expected.items():
        assert pooled[name][0].tolist() == pytest.approx(vector, abs=1e-15)
        assert pooled[name][1].tolist() == [0] * len(vector)


def test_what_a_mean_confuses():
    task = prepare(WORDS)
    assert task.confusable.tolist() == [True, True, False, True, True, False, False, False]
    assert len(task.pooled["sum"].vectors) == 7
    assert len(task.pooled["mean"].vectors) == 4
    assert task.pooled["mean"].counts([0, 1, 2, 3, 4]).sum(dim=0).tolist() == [3, 2]
    assert sorted(task.pooled["mean"].counts(range(8)).tolist()) == [[0, 2], [1, 0], [1, 1], [2, 1]]


@pytest.mark.parametrize(("name", "ceiling"), [("sum", 7), ("mean", 6), (LOG, 7), ("max", 6), ("n alone", 6)])
def test_networks_reach_their_ceiling_and_no_more(name, ceiling):
    (found,) = jobs.train(prepare(WORDS), name, 0, 200)
    assert (found["right"], found["ceiling"]) == (ceiling, ceiling)
    assert found["vectors"] == found["views"]
    assert found["steps needed"] < 200


def test_what_is_above_a_ceiling_is_an_error():
    task = prepare(WORDS)
    with pytest.raises(
        RuntimeError, match="words: 7 pooled vectors allow 7 right answers, but the readout can"
    ):
        jobs.to_ceiling("words", task.pooled["sum"], task.seen["mean"], 0, 1)


def test_steps_end_where_the_goal_is_out_of_reach():
    pooled, _ = clouds()
    few = Pooled(pooled.vectors * 0, pooled.of, pooled.y, 3)  # all alike: no network does better than chance
    assert reach(few, 60, 0, 10) == {"right": 20, "steps": 10}


def test_waves_keep_vectors_apart():
    x = torch.linspace(0, 1, 400, dtype=torch.float64)[:, None]
    torch.manual_seed(0)
    waves = random_waves(x)
    assert waves.shape == (400, WAVES)
    assert waves.abs().max() <= 1
    assert (waves[1:] - waves[:-1]).norm(dim=1).min() > 1


def test_vectors_are_standardised_on_the_graphs_of_each_split():
    pooled, splits = clouds()
    weight = torch.stack([pooled.counts(split.train).sum(dim=1) for split in splits])
    x = standardised(pooled.vectors, weight)
    for place, split in enumerate(splits):
        known = x[place][pooled.of[list(split.train)]]
        assert known.mean(dim=0).tolist() == pytest.approx([0] * 3, abs=1e-12)
        assert known.std(dim=0, correction=0).tolist() == pytest.approx([1] * 3)


@pytest.mark.parametrize("learner", [perceptrons, forests])
def test_learners_learn_and_see_no_test_label(learner):
    pooled, splits = clouds()
    split = splits[0]
    answers = learner(pooled, [split], 0)[0]
    assert right_of(pooled, answers, split) > 0.8
    y, test = pooled.y.clone(), list(split.test)
    y[test] = (y[test] + 1) % 3
    assert torch.equal(learner(replace(pooled, y=y), [split], 0)[0], answers)
    y[[*split.train, *split.validation]] = 1
    assert (learner(replace(pooled, y=y), [split], 0)[0] == 1).all()


def test_right_answers_are_counted_in_both_parts():
    graphs = words(
        *[("C" * (1 + place % 2), place % 2) for place in range(12)], *[("O", 0)] * 6, *[("OO", 0)] * 6
    )
    task = prepare(graphs)
    assert task.confusable.tolist() == [True] * 12 + [False] * 12
    splits = stratified_folds(graphs, 3, 0.2, 0).splits
    of_sum, of_mean = (jobs.held_out(task, name, "forest", splits, 0, 1) for name in ("sum", "mean"))
    assert sum(fold["right"] for fold in of_sum) == 24
    assert sum(fold["confusable right"] for fold in of_sum) == 12
    assert sum(fold["right"] - fold["confusable right"] for fold in of_mean) == 12
    assert sum(fold["confusable right"] for fold in of_mean) < 9


def made_up(ahead=(0, 1, 2, 3, 4), back=1.0):
    """Rows of sets of 100 graphs, with ceilings 0, 5, 10, ... apart and so many more graphs right a fold."""
    rows = []
    for place, more in enumerate(ahead):
        base = {"data": f"set {place}", "fold": None, "seed": None, "readout": None}
        about = {"graphs": 100, "majority": 60, "confusable": 20}
        rows += [base | {"metric": metric, "value": value} for metric, value in about.items()]
        of = base | {"seed": 0, "learner": TO_CEILING, "rounds": 0}
        for name, view in READOUTS.items():
            top = 90 - 5 * place if view == "mean" else 90
            rows += [
                of | {"readout": name, "metric": metric, "value": top} for metric in ("right", "ceiling")
            ]
        for fold in range(5):
            of = base | {"seed": 0, "fold": fold, "folds": 5, "rounds": 0}
            rows += [of | {"metric": metric, "value": n} for metric, n in (("graphs", 20), ("confusable", 4))]
            for learner in ("perceptron", "forest"):
                for name in READOUTS:
                    gain = {"sum": more, SIZE: back * more}.get(name, 0)
                    noise = 0.1 * (fold % 2) * (name == "sum")
                    entry = of | {"learner": learner, "readout": name}
                    rows.append(entry | {"metric": "right", "value": 12 + gain + noise})
                    rows.append(entry | {"metric": "confusable right", "value": 2 + 0.5 * gain})
    return rows


@pytest.mark.parametrize("second", [[1, 2, 3, 4, 5], [2, 1, 3, 5, 4], [5, 1, 4, 2, 3], [1, 1, 2, 2, 5]])
def test_spearman_is_that_of_scipy_and_p_counts_orders(second):
    first = [0.1, 0.2, 0.3, 0.4, 0.9]
    rho, p = experiment.spearman(first, second)
    assert rho == pytest.approx(spearmanr(first, second).statistic)
    every = [abs(spearmanr(first, order).statistic) for order in permutations(second)]
    assert p == pytest.approx(np.mean([other >= abs(rho) - 1e-9 for other in every]), abs=0.02)


def verdicts(rows):
    return {found.claim: found.holds for found in experiment.findings(rows)}


def test_findings_follow_from_rows():
    found = verdicts(made_up())
    assert found["set 3, forest, the sum is ahead of the mean"] is True
    assert found["set 0, forest, the sum is ahead of the mean"] is not True
    assert found["perceptron, the ceilings order the sets"] is True
    assert found["forest, n beside the mean returns most of the difference"] is True
    assert found["set 1, networks reach their ceilings without messages"] is True
    assert verdicts(made_up(ahead=(4, 3, 2, 1, 0)))["forest, the ceilings order the sets"] is False
    assert verdicts(made_up(ahead=(1, 3, 0, 2, 4)))["forest, the ceilings order the sets"] is None
    assert verdicts(made_up(back=0.2))["forest, n beside the mean returns most of the difference"] is False
    assert verdicts(made_up(ahead=(-1, -1, -1, -1)))["set 1, forest, the sum is ahead of the mean"] is False
    missed = [
        row | {"value": 80}
        if row["readout"] == "max" and row["metric"] == "right" and row["fold"] is None
        else row
        for row in made_up()
    ]
    assert verdicts(missed)["set 1, networks reach their ceilings without messages"] is False
    assert "max 80 / 90" in next(experiment.findings(missed)).numbers
    skewed = [row | {"value": 91} if row["readout"] == "sum / n" else row for row in made_up()]
    assert verdicts(skewed)["set 1, another scale changes no ceiling"] is False


def test_tables_and_figure_show_all_sets(tmp_path):
    rows = made_up()
    reached, controls, scores, apart, confused = experiment.tables(rows)
    assert reached.lines[0] == ["set 0", "0", "100", "90", "90", "90", "90"]
    assert controls.lines[1] == ["set 1", "90; 65.2", "90; 60.0", "85; 60.0", "85; 60.0", "90; 65.0"]
    assert scores.lines[0] == ["set 0", "perceptron", "60.0", "60.2", "60.0", "60.0", "60.0", "60.0", "60.0"]
    assert apart.lines[3][:3] == ["set 1", "perceptron", "5.0"]
    assert apart.lines[3][3].startswith("+5.2 (+")
    assert confused.lines[3][2:6] == ["20", "62.5", "50.0", "62.5"]
    assert [path.name for path in experiment.figure(rows, tmp_path)] == ["ceiling.png"]
    assert len(list(experiment.together([], rows))) == 2
    assert "Spearman 1.00" in experiment.numbers(rows)


def test_own_data(tmp_path, capsys):
    """A target that is a number of atoms: a mean does not see it, and the size beside it brings it back."""
    planted.write_csv(tmp_path / "own.csv", molecules=40)
    options = "--folds 2 --repeats 1 --epochs 60 --rounds 0"
    arguments = f"ceiling --data {tmp_path}/own.csv --target extensive {options} --out {tmp_path}/out"
    assert main(arguments.split()) == 0
    assert "networks reach their ceilings without messages: as claimed" in capsys.readouterr().out
    rows = read_rows(tmp_path / "out" / "ceiling.jsonl.gz")
    of = {"learner": "perceptron", "metric": "right"}
    total, mean = (sum(values(rows, **of, readout=name)) for name in ("sum", "mean"))
    assert total > mean
    (tmp_path / "one.csv").write_text("smiles,class\n" + "CC,a\nCCC,a\nCO,a\n" * 5)
    assert main(f"ceiling --data {tmp_path}/one.csv --out {tmp_path}/out".split()) == BAD_INPUT
    assert capsys.readouterr().err.count("\n") == 1


def test_too_many_folds_are_refused(tmp_path, capsys):
    assert main(["ceiling", "--folds", "41", "--out", str(tmp_path)]) == BAD_INPUT
    assert capsys.readouterr().err.startswith("ceiling: cannot cut rings into 41 stratified folds")


@pytest.mark.skipif(MIRROR is None, reason="READOUTS_TU_MIRROR is not set")
def test_mutag_as_published():
    """169 of 188 graphs for the mean, 131 for the max, 175 for the sum, with or without another scale."""
    task = prepare(load("MUTAG", mirror=MIRROR))
    expected = {"sum": 175, "mean": 169, LOG: 175, SIZE: 175, "max": 131, "n * mean": 175, "sum / n": 169}
    assert {name: jobs.train(task, name, 0, 500)[0]["right"] for name in expected} == expected
    assert int(task.confusable.sum()) == 34
