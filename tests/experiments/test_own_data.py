"""Own data: planted targets are found, goals and beliefs are right, and bad input is one sentence."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import integrate
from scipy.stats import t as student
from sklearn import metrics
from torch_geometric.data import Data

from datasets import GraphSet, load, planted
from datasets.own import with_target
from experiments.__main__ import main
from experiments.accuracy.answer import Belief, choose, paragraph
from experiments.accuracy.jobs import Plan, list_fits
from experiments.learning.batches import reside
from experiments.learning.goals import Classes, Numbers
from experiments.records import read_rows


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "rings.csv"
    planted.write_csv(path, molecules=150)
    return path


@pytest.mark.parametrize(("target", "best"), [("fluorines", "sum"), ("share", "mean")])
def test_the_readout_of_a_planted_target_is_chosen(table, target, best, tmp_path, capsys):
    arguments = f"accuracy --data {table} --target {target} --quick --folds 3 --out {tmp_path}"
    assert main(arguments.split()) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"rings.csv:{target}, gin: choose {best}, at " in printed
    assert "The best baseline, counts only, reaches" in printed
    assert "Not tried:" in printed
    assert "edge labels (single) are not read" in printed


@pytest.mark.parametrize(
    ("lines", "options", "sentence"),
    [
        ("smiles,activity\nCC,1\n", "--target potency", "potency"),
        ("", "--target activity", "empty"),
        ("smiles,activity\n" + "CC,1\n" * 20, "--target activity", "two different values"),
        ("smiles,activity\n" + "CC,1\nCO,0\nCN,1\n", "--target activity", "10 graphs or more, got 3"),
        ("smiles,activity\n" + "CC,1\nCO,active\n" * 10, "--target activity", "either numbers or texts"),
    ],
    ids=["no column", "empty", "one class", "three rows", "mixed"],
)
def test_a_table_that_is_unfit_is_one_sentence(lines, options, sentence, tmp_path, capsys):
    (tmp_path / "data.csv").write_text(lines)
    arguments = f"accuracy --data {tmp_path}/data.csv {options} --quick --out {tmp_path}/out"
    assert main(arguments.split()) == 2
    problem = capsys.readouterr().err
    assert sentence in problem
    assert problem.count("\n") == 1
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def graphs_of_a_module():
    return [
        Data(x=torch.ones(3, 1), edge_index=torch.tensor([[0, 1], [1, 0]]), y=torch.tensor([float(n)]))
        for n in range(30)
    ]


def graphs_that_raise():
    raise ValueError("no licence")


@pytest.mark.parametrize(
    ("command", "source", "sentence"),
    [
        ("accuracy", f"{__name__}:graphs_that_raise", "no licence"),
        ("accuracy", f"{__name__}:nothing", "nothing"),
        ("collisions", f"{__name__}:graphs_of_a_module", "expected classes, got numbers"),
    ],
)
def test_a_function_that_is_unfit_is_one_sentence(command, source, sentence, tmp_path, capsys):
    assert main([command, "--data", source, "--out", str(tmp_path)]) == 2
    problem = capsys.readouterr().err
    assert sentence in problem
    assert problem.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_file_of_something_else_is_one_sentence(tmp_path, capsys):
    torch.save({"weight": torch.ones(3)}, tmp_path / "model.pt")
    arguments = f"accuracy --data {tmp_path}/model.pt --out {tmp_path}/out"
    assert main(arguments.split()) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_set_that_predicts_a_column_of_its_own_is_no_own_data(table):
    assert load(table, target="presence").own
    rings = load("rings", task="classification")
    assert not rings.own
    assert not with_target(replace(rings, name="rings:0"), None, "classification").own


def test_a_hold_out_of_few_numbers_has_one_of_every_tenth(table):
    few = load(table, target="fluorines", task="regression")[:120]
    splits = {fit.split for fit in list_fits(few, Plan(("gin",), ("sum",), folds=3))}
    assert [len(split.validation) for split in splits] == [10] * 3


def test_equal_graphs_stay_in_one_fold_if_asked(table):
    found = load(table, target="presence")
    groups = found.groups()
    assert len(set(groups.tolist())) < len(found)

    def torn(group):
        plan = Plan(("gin",), ("sum",), folds=3, group=group)
        splits = {fit.split for fit in list_fits(found, plan)}
        return sum(
            len(set(groups[list(split.test)]) & set(groups[[*split.train, *split.validation]]))
            for split in splits
        )

    assert torn(True) == 0 < torn(False)


def test_numeric_features_are_scaled_by_the_training_graphs_alone():
    graphs = [
        Data(
            x=torch.ones(2, 1),
            node_label=torch.zeros(2, dtype=torch.int64),
            node_attr=torch.tensor([[scale], [3 * scale]]),
            edge_index=torch.zeros(2, 0, dtype=torch.int64),
            y=torch.tensor([place % 2]),
        )
        for place, scale in enumerate([1.0, 1.0, 1000.0, 1000.0])
    ]
    resident = reside(GraphSet("a.pt", tuple(graphs), 2), "gin", 1, attributes=True).standardised((0, 1))
    assert resident.x[:4, 1].tolist() == [-1, 1, -1, 1]
    assert resident.x[4, 1] == 998


def test_scores_of_numbers_are_those_of_scikit_learn():
    y, predicted = torch.randn(50) + 2, torch.randn(50) + 2
    goal = Numbers.of(torch.tensor([1.0, 2.0, 6.0]))
    found = goal.judge(predicted, y)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(y, predicted))
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(y, predicted))
    assert found["r2"] == pytest.approx(metrics.r2_score(y, predicted), abs=1e-5)
    assert found["skill"] == pytest.approx(
        1 - found["mae"] / metrics.mean_absolute_error(y, torch.full((50,), 3.0)), abs=1e-6
    )
    assert goal.judge(goal.predict(torch.zeros(50, 1)), y)["skill"] == 0


def test_ceilings_are_those_of_the_best_answer_to_what_is_seen():
    seen = np.array([0, 0, 0, 1, 1])
    assert Classes().ceiling(seen, torch.tensor([0, 1, 1, 0, 0])) == 4 / 5
    numbers = torch.tensor([0.0, 2.0, 10.0, 4.0, 4.0])  # medians 2 and 4
    assert Numbers.of(numbers).ceiling(seen, numbers) == pytest.approx(1 - 10 / (4 + 2 + 6 + 0 + 0))


def test_belief_and_expected_gain_are_those_of_the_distribution():
    belief = Belief.of([0.9, 0.8, 0.85, 0.7], [0.8, 0.75, 0.9, 0.6], folds=4)
    differences = np.array([0.1, 0.05, -0.05, 0.1])
    scale = np.sqrt((1 / 4 + 1 / 3) * differences.var(ddof=1))
    density = student(3, differences.mean(), scale)
    assert belief.above(0.01) == pytest.approx(density.sf(0.01))
    gain, _ = integrate.quad(lambda d: d * density.pdf(d), 0, np.inf)
    assert belief.gain() == pytest.approx(gain)
    certain = Belief.of([0.5, 0.6], [0.4, 0.5], folds=2)
    assert certain.gain() == pytest.approx(0.1)


def test_the_answer_names_what_is_better_and_what_will_do():
    random = np.random.default_rng(0)
    level = 0.8 + 0.02 * random.standard_normal(10)
    scores = {"mean": level - 0.1, "sum": level, "max": level + 0.0001 * random.standard_normal(10)}
    choice = choose(scores, 10)
    assert choice.worse == ["mean"]
    assert len(choice.as_good) == 1
    assert choice.regret["mean"] == pytest.approx(0.1, abs=0.01)
    said = paragraph("X, gin", "accuracy", scores, {"size only": level - 0.3}, dict.fromkeys(scores, 1.0), 10)
    assert re.search("Within a point: (sum|max); any of these will do", said)
    assert "The best baseline, size only" in said
    assert "all that you need" not in said
    told = paragraph(
        "X, gin", "accuracy", scores, {"counts only": level + 0.1}, dict.fromkeys(scores, 1.0), 10
    )
    assert "probability 0.00: the baseline may be all that you need" in told


def test_rows_of_a_table_that_changed_are_measured_again(tmp_path):
    def ceilings(seed):
        planted.write_csv(tmp_path / "rings.csv", molecules=20, seed=seed)
        arguments = f"collisions --data {tmp_path}/rings.csv --target presence --out {tmp_path}/out"
        assert main(arguments.split()) == 0
        return [row["fingerprint"] for row in read_rows(tmp_path / "out" / "collisions.jsonl.gz")]

    first, both, again = ceilings(0), ceilings(1), ceilings(0)
    assert len(set(first)) == 1
    assert len(set(both)) == 2
    assert both == again
