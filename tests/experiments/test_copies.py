"""Copies: trained networks with mean and max stay at exactly one half, with sum they reach all."""

from __future__ import annotations

import pytest
import torch

from datasets import load
from experiments import copies
from experiments.learning.batches import reside
from experiments.learning.training import Settings
from experiments.records import RowLog

FOLDS, EPOCHS = 2, 100


@pytest.fixture(scope="module")
def task():
    return copies.choose(load("rings"), None, seed=0, folds=FOLDS)


def run(task, folder):
    with RowLog(folder, "copies") as log:
        return copies.measure([task], log, "cpu", seed=0, epochs=EPOCHS)


@pytest.fixture(scope="module")
def measured(task, tmp_path_factory):
    return run(task, tmp_path_factory.mktemp("copies"))


@pytest.mark.parametrize("readout", ["mean", "max"])
@pytest.mark.parametrize("metric", copies.METRICS)
def test_mean_and_max_are_exactly_one_half(measured, readout, metric):
    assert copies.of(measured, "rings", readout, metric) == [0.5] * FOLDS


@pytest.mark.parametrize("readout", ["sum", copies.BASELINE])
def test_sum_and_size_tell_all_held_out_molecules(measured, readout):
    assert copies.of(measured, "rings", readout, "accuracy") == [1.0] * FOLDS
    assert copies.of(measured, "rings", readout, "pairs ranked") == [1.0] * FOLDS


def test_training_is_deterministic(task, measured):
    settings = Settings(copies.ROUNDS, copies.WIDTH, learning_rates=(copies.LEARNING_RATE,), epochs=EPOCHS)
    resident = reside(task.both_forms(), "gin", copies.ROUNDS)
    (again,) = copies.train_and_judge(resident, task.splits[1], "sum", settings, 1)
    assert again == {metric: copies.of(measured, "rings", "sum", metric)[1] for metric in copies.METRICS}


def test_every_molecule_but_the_extremes_is_tested_once(task):
    cut = lambda seed: copies.choose(load("rings"), None, seed, 4)  # noqa: E731
    found = cut(3)
    tested = [position for _, test in found.splits for position in test]
    untested = set(range(len(task.graphs))) - set(tested)
    assert len(tested) == len(set(tested))
    assert len(untested) == 2 * len(set(task.strata))
    assert all(sorted([*train, *test]) == list(range(len(task.graphs))) for train, test in found.splits)
    assert {max(len(test) for _, test in found.splits) - min(len(test) for _, test in found.splits)} <= {0, 1}
    assert found.splits != cut(4).splits


def test_default_k_outgrows_every_molecule(task):
    sizes = [graph.num_nodes for graph in task.graphs]
    assert task.k * min(sizes) > max(sizes) >= (task.k - 1) * min(sizes)
    assert copies.enough_copies([10, 19]) == 2
    assert copies.enough_copies([10, 20]) == 3
    assert copies.enough_copies([1, 1000]) == copies.MOST_COPIES


def test_large_sets_are_sampled_and_it_is_said(monkeypatch):
    monkeypatch.setattr(copies, "SAMPLE", 20)
    task = copies.choose(load("rings"), 2, seed=0, folds=2)
    said = "rings: 20 graphs (a seeded sample of 40), each against 2 copies of it; "
    said += "the smallest and the largest of each class or family are always trained on; "
    assert task.sentence.startswith(f"{said}of those held out 0 of ")
    assert task.strata != copies.choose(load("rings"), 2, seed=1, folds=2).strata


def test_ties_count_one_half():
    judged = copies.judge(torch.tensor([-1.0, 1.0]), torch.tensor([0.3, -0.2, 0.3, 0.5]))
    assert judged == {"train accuracy": 1.0, "accuracy": 0.75, "pairs ranked": 0.75}
