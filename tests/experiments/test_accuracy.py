"""Accuracy: batches and networks against PyG, folds and rows, statistics, and sets that are hard to take."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GCNConv, GINConv, SAGEConv

from datasets import GraphSet, load
from datasets.collisions import colours, separation
from datasets.splits import Split
from experiments import cluster, parallel, statistics
from experiments.__main__ import BAD_INPUT, main
from experiments.accuracy import experiment, gate
from experiments.accuracy.jobs import Plan, list_fits
from experiments.accuracy.jobs import run as run_fit
from experiments.console import UserError
from experiments.jobs import Workers, working
from experiments.learning import networks, training
from experiments.learning.batches import NETWORKS, node_by_node, reside
from experiments.learning.goals import Classes
from experiments.learning.networks import READOUTS, Network, StackedNorm
from experiments.learning.products import SparseMatrix
from experiments.records import RowLog, read_rows
from readouts import readout

ROOT = Path(__file__).parents[2]
SHORT = training.Settings(learning_rates=(0.01,), epochs=3)
PLAN = Plan(("gin",), ("sum", "mean"), folds=2, settings=SHORT)


def random_graph(generator, nodes, label, attributes=0):
    """A random simple graph with every edge in both directions; few or no edges where it is small."""
    upper = torch.triu(torch.rand(nodes, nodes, generator=generator) < 0.4, diagonal=1)
    edge_index = (upper | upper.T).nonzero().T.contiguous()
    kinds = torch.randint(3, (nodes,), generator=generator)
    graph = Data(x=torch.eye(3)[kinds], node_label=kinds, edge_index=edge_index, y=torch.tensor([label]))
    if attributes:
        graph.node_attr = torch.randn(nodes, attributes, generator=generator)
    return graph


def random_set(seed=0, graphs=24, classes=2, attributes=0, sizes=range(1, 9)):
    generator = torch.Generator().manual_seed(seed)
    made = [
        random_graph(generator, sizes[place % len(sizes)], place % classes, attributes)
        for place in range(graphs)
    ]
    return GraphSet("RANDOM", tuple(made), classes)


def run(folder, plan=PLAN, graphs=None, jobs=1, scheduler=None):
    with RowLog(folder, "accuracy") as log, working(Workers(jobs, scheduler)):
        return experiment.measure_plan([graphs or random_set()], log, plan, "cpu")


def results(rows):
    """Rows without what differs between two runs of the same work: when, and at which commit."""
    kept = [{key: row[key] for key in row if key not in ("commit", "date")} for row in rows]
    return sorted(json.dumps(row, sort_keys=True) for row in kept)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return run(tmp_path_factory.mktemp("accuracy"))


@pytest.mark.parametrize("weighted", [False, True])
def test_product_is_that_of_a_dense_matrix_in_both_directions(weighted):
    ptr, column = torch.tensor([0, 2, 2, 5]), torch.tensor([3, 1, 0, 3, 3])
    weight = torch.randn(5) if weighted else None
    dense = torch.zeros(3, 4)
    entries = torch.ones(5) if weight is None else weight
    dense.index_put_((torch.tensor([0, 0, 2, 2, 2]), column), entries, accumulate=True)
    x, gradient = torch.randn(4, 6, requires_grad=True), torch.randn(3, 6)
    out = SparseMatrix(ptr, column, 4, weight) @ x
    torch.testing.assert_close(out, dense @ x)
    (found,) = torch.autograd.grad(out, x, gradient)
    torch.testing.assert_close(found, dense.T @ gradient)


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Reference:
    """A copy of a stacked network on PyG's batches, by layers of PyG and functions of PyTorch."""

    def __init__(self, network, copy, means):
        self.network, self.copy, self.means = network, copy, means

    def linear(self, layer, x):
        return nn.functional.linear(
            x, layer.weight[self.copy], None if layer.bias is None else layer.bias[self.copy]
        )

    def norm(self, layer, x):
        scale = layer.weight[self.copy], layer.bias[self.copy]
        if not self.network.training:
            return nn.functional.batch_norm(x, layer.mean[self.copy], layer.variance[self.copy], *scale)
        running = torch.zeros(x.shape[1]), torch.ones(x.shape[1])
        out = nn.functional.batch_norm(x, *running, *scale, training=True)
        self.means.append(running)
        return out

    def around(self, layer, x, edge_index):
        """What the layer of PyG of the same name makes of a node and its neighbours."""
        if isinstance(layer, networks.GINRound):
            hidden = self.linear(layer.first, GINConv(nn.Identity())(x, edge_index))
            return self.linear(layer.second, self.norm(layer.norm, hidden).relu())
        if isinstance(layer, networks.SAGERound):
            conv = SAGEConv(x.shape[1], 32)
            conv.lin_l, conv.lin_r = (
                Function(partial(self.linear, part)) for part in (layer.neighbours, layer.own)
            )
            return conv(x, edge_index)
        conv = GCNConv(x.shape[1], 32)
        conv.lin = Function(partial(nn.functional.linear, weight=layer.linear.weight[self.copy]))
        del conv.bias
        conv.bias = layer.linear.bias[self.copy]
        return conv(x, edge_index)

    def __call__(self, batch):
        x = batch.x
        for layer, norm in zip(self.network.rounds, self.network.norms, strict=True):
            x = self.norm(norm, self.around(layer, x, batch.edge_index)).relu()
        first, _, last = self.network.head
        return self.linear(last, self.linear(first, readout(x, batch.batch, "mean")).relu())


@pytest.mark.parametrize("attributes", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_networks_are_those_of_pyg(network, attributes):
    """Output, gradients and averages, on graphs of one node up, some twice, with PyG's own layers."""
    graphs = random_set(attributes=2 if attributes else 0)
    resident = reside(graphs, network, 3, attributes)
    torch.manual_seed(0)
    ours = Network(network, "mean", resident.x.shape[1], 2, copies=2)
    positions = [5, 0, 23, 7, 7, 16, 1]
    features = resident.x.split([graph.num_nodes for graph in graphs])
    batch = Batch.from_data_list(
        [Data(x=features[place], edge_index=graphs[place].edge_index) for place in positions]
    )
    means = []
    expected = torch.stack([Reference(ours, copy, means)(batch) for copy in range(2)])
    found = ours(resident.batch(positions, copies=2))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    weights = list(ours.parameters())
    for mine, theirs in zip(
        torch.autograd.grad(found.square().sum(), weights),
        torch.autograd.grad(expected.square().sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3 * max(1, float(theirs.abs().max())))
    averages = [(norm.mean, norm.variance) for norm in ours.modules() if isinstance(norm, StackedNorm)]
    assert len(means) == 2 * len(averages)
    assert all(norm.mean.any() for norm in ours.norms)
    torch.testing.assert_close(ours.norms[-1].mean[1], means[-1][0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours.norms[-1].variance[1], means[-1][1], rtol=1e-3, atol=1e-4)
    ours.eval()
    expected = torch.stack([Reference(ours, copy, means)(batch) for copy in range(2)])
    torch.testing.assert_close(ours(resident.batch(positions, copies=2)), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(resident.batch(positions).y, torch.tensor([graphs[place].y for place in positions]))


def test_a_gin_node_by_node_has_the_bits_of_one_by_colours():
    graphs = random_set()
    resident = reside(graphs, "gin", 3)
    torch.manual_seed(0)
    network = Network("gin", "sum", resident.x.shape[1], 2).eval()
    with torch.no_grad():
        found = network(node_by_node(Batch.from_data_list(list(graphs)), 3))
        expected = network(resident.batch(range(len(graphs))))
    torch.testing.assert_close(found, expected)
    orders = [torch.randperm(graph.num_nodes) for graph in graphs]
    moved = Batch.from_data_list(
        [
            Data(x=graph.x[order], edge_index=order.argsort()[graph.edge_index].flip(1), y=graph.y)
            for graph, order in zip(graphs, orders, strict=True)
        ]
    )
    with torch.no_grad():
        assert torch.equal(network(node_by_node(moved, 3)), found)


def test_a_batch_has_one_row_for_each_colour():
    rings = load("rings")
    cycloalkanes = [place for place, graph in enumerate(rings) if graph.family == "cycloalkane"]
    batch = reside(rings, "gin", 3).batch(cycloalkanes)  # all carbons are alike, and all hydrogens
    assert [len(batch.x), *(len(read.matrices[0].forward[1]) - 1 for read in batch.rounds)] == [2, 2, 2, 2]
    assert batch.graphs.num_nodes == sum(rings[place].num_nodes for place in cycloalkanes)


@pytest.mark.parametrize(("network", "aggregation"), [("gin", "sum"), ("sage", "mean")])
@pytest.mark.parametrize("view", ["sum", "mean", "max"])
def test_ceiling_is_that_of_the_collisions(network, aggregation, view):
    graphs = load("rings")
    labels = [int(graph.y) for graph in graphs]
    expected = separation(colours(graphs, 3, aggregation)[3], labels, view).ceiling
    assert reside(graphs, network, 3).ceiling(view, range(len(graphs))) == float(expected)


@pytest.mark.parametrize("name", READOUTS)
def test_train_accuracy_stays_below_the_ceiling(name):
    """Rings that mean and max cannot tell apart, of two classes: a network learns them all or one half."""
    rings = [graph for graph in load("rings") if graph.family == "cycloalkane"]
    relabelled = [
        Data(**graph.to_dict() | {"y": torch.tensor([place % 2])}) for place, graph in enumerate(rings)
    ]
    graphs = GraphSet("CYCLES", tuple(relabelled), 2)
    resident = reside(graphs, "gin", 2)
    everything = tuple(range(len(graphs)))
    split = Split(everything, everything, everything)
    settings = replace(SHORT, rounds=2, epochs=40)
    found = training.train_and_judge(resident, split, name, settings, seed=0)
    majority = max(np.bincount([int(graph.y) for graph in graphs])) / len(graphs)
    size_blind = READOUTS[name].view != "sum"
    assert found["train ceiling"] == (majority if size_blind else 1.0)
    assert found["train accuracy"] <= found["train ceiling"]
    assert found["train accuracy"] == found["accuracy"]


def test_accuracy_above_the_ceiling_is_a_bug(monkeypatch):
    resident = reside(random_set(), "gin", 3)
    monkeypatch.setattr(type(resident), "ceiling", lambda *arguments: 0.1)
    split = Split(tuple(range(12)), tuple(range(12, 18)), tuple(range(18, 24)))
    with pytest.raises(RuntimeError, match=r"RANDOM, gin, sum: train accuracy .* above 0\.1, the ceiling"):
        training.train_and_judge(resident, split, "sum", SHORT, seed=0)


def test_every_method_gets_the_same_folds_and_seeds(measured):
    fits = list(list_fits(random_set(), PLAN))
    splits = {}
    for fit in fits:
        splits.setdefault((fit.work["seed"], fit.work["fold"]), set()).add((fit.split, fit.seed))
    assert len(splits) == 2
    assert all(len(shared) == 1 for shared in splits.values())
    assert {fit.method for fit in fits} == {"sum", "mean", "majority class", "size only", "counts only"}
    assert sorted(place for (fold,) in splits.values() for place in fold[0].test) == list(range(24))
    assert len(measured) == 2 * (2 * len(training.metrics_of(Classes)) + 3 * 2) + 2


def test_batches_are_the_training_graphs_each_epoch():
    resident = reside(random_set(), "gin", 3)
    settings = replace(SHORT, batch_size=5, redraw=2)
    drawn = training.epochs(resident, range(3, 20), settings, seed=1)
    sizes = resident.node_ptr.diff()
    seen = []
    for _ in range(4):
        batches = next(drawn)
        assert sorted(len(batch.y) for batch in batches) == [4, 4, 4, 5]
        found = torch.cat([batch.graphs.count for batch in batches])
        assert torch.equal(found.sort().values, sizes[3:20].sort().values)
        seen.append(sorted(tuple(batch.graphs.count.tolist()) for batch in batches))
    assert seen[0] == seen[1]
    assert seen[1] != seen[2]


def test_every_copy_keeps_its_best_epoch(monkeypatch):
    """Losses on the hold-out of two copies, by epoch; the second stops improving first."""
    script = iter([[1.0, 0.5], [0.9, 0.6], [0.8, 0.7], [0.9, 0.8], [1.0, 0.9]])
    resident = reside(random_set(), "gin", 3)
    settings = replace(SHORT, epochs=50, patience=2)
    stack = training.stack(resident, "mean", settings, [0.01, 0.003], seed=0)
    seen, losses = [], Classes.losses

    def scripted(self, outputs, y):
        if stack.network.training:
            return losses(self, outputs, y)
        seen.append(stack.state())
        return torch.tensor(next(script))

    monkeypatch.setattr(Classes, "losses", scripted)
    stack.train(range(12), range(12, 18))
    assert (stack.best_epoch.tolist(), stack.epoch) == ([3, 1], 5)
    assert stack.loss.tolist() == pytest.approx([0.8, 0.5])
    for name, kept in stack.kept.items():
        assert torch.equal(kept[0], seen[2][name][0])
        assert torch.equal(kept[1], seen[0][name][1])


def test_copies_of_a_stack_are_trained_as_if_alone():
    """Every copy follows its own learning rate; those of one seed start from the same weights."""
    resident = reside(random_set(), "gin", 3)
    settings = replace(SHORT, seeds=2)
    both = training.stack(resident, "sum", settings, [0.01, 0.01, 0.001, 0.001], seed=0)
    weights = both.state()["rounds.0.first.weight"]
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[1])
    alone = training.stack(resident, "sum", replace(settings, seeds=1), [0.001], seed=0)
    alone.network.load_state_dict({name: value[2:3] for name, value in both.state().items()})
    both.train(range(12))
    alone.train(range(12))
    for name, value in alone.state().items():
        torch.testing.assert_close(both.state()[name][2:3], value, rtol=1e-3, atol=1e-5)


def test_small_sets_are_trained_once_more_on_all_that_is_known(monkeypatch):
    """The last epoch counts, and graphs of the hold-out are trained on."""
    resident = reside(random_set(), "gin", 3)
    split = Split(tuple(range(12)), tuple(range(12, 18)), tuple(range(18, 24)))
    found = training.train_and_judge(resident, split, "sum", SHORT, seed=0)
    assert found["best epoch"] == SHORT.epochs
    assert found["train ceiling"] == resident.ceiling("sum", range(18))
    monkeypatch.setattr(training, "SETTLES", 18)
    assert training.train_and_judge(resident, split, "sum", SHORT, seed=0)[
        "train ceiling"
    ] == resident.ceiling("sum", range(12))


def gate_rows(best, change, train):
    """The rows of ten folds of one readout."""
    values = {"best epoch": best, "late change": change, "train accuracy": train, "train ceiling": 1.0}
    return [
        {"readout": "sum", "seed": 0, "fold": fold, "metric": metric, "value": value}
        | {"settings": {"epochs": 100}}
        for fold in range(10)
        for metric, value in values.items()
    ]


@pytest.mark.parametrize(
    ("best", "change", "train", "share"),
    [(79, 0.0, 0.5, 1), (90, 0.0, 0.5, 0), (100, 0.01, 0.5, 1), (100, 0.05, 0.5, 0), (90, 0.0, 0.99, 1)],
)
def test_what_has_not_converged_is_not_compared(best, change, train, share):
    rows = gate_rows(best, change, train)
    assert gate.shares(rows, "accuracy") == {"sum": share}
    said = gate.objections(rows, "accuracy", {"sum": [0.8]}, {"majority class": [0.7]})
    assert said == ([] if share else ["sum had converged in 0 % of the folds"])


def test_networks_that_no_baseline_loses_to_are_not_compared():
    rows = gate_rows(50, 0.0, 0.5)
    (said,) = gate.objections(rows, "accuracy", {"sum": [0.7]}, {"counts only": [0.7]})
    assert said == "the best network (70.0) is not ahead of the best baseline (70.0)"


def test_rerun_repeats_nothing_and_processes_give_the_same_bits(measured, tmp_path, monkeypatch):
    found = run(tmp_path, jobs=2)
    assert results(found) == results(measured)
    for name in ("run", "ceiling_of"):
        monkeypatch.setattr(f"experiments.accuracy.jobs.{name}", lambda *_: pytest.fail("measured again"))
    assert run(tmp_path) == found
    assert len(list(read_rows(tmp_path / "accuracy.jsonl.gz"))) == len(found)


def trained(path):
    """Whether a network has been trained."""
    return path.exists() and any(row["metric"] == "best epoch" for row in read_rows(path))


def test_kill_and_rerun_give_the_rows_of_an_undisturbed_run(tmp_path):
    def command(out):
        line = f"accuracy --readout sum --folds 2 --epochs 8 --jobs 2 --device cpu --out {out}"
        return [sys.executable, "-m", "experiments", *line.split()]

    out = tmp_path / "killed" / "accuracy.jsonl.gz"
    quiet = {"cwd": ROOT, "stdout": subprocess.DEVNULL}
    process = subprocess.Popen(command(out.parent), start_new_session=True, **quiet)
    deadline = time.monotonic() + 200
    while not trained(out) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = list(read_rows(out))
    wait_for_the_end_of(process.pid)
    subprocess.run(command(out.parent), check=True, timeout=300, **quiet)
    assert main(command(tmp_path / "undisturbed")[3:]) == 0
    after = list(read_rows(out))
    assert after[: len(before)] == before
    assert len(before) < len(after)
    undisturbed = list(read_rows(tmp_path / "undisturbed" / "accuracy.jsonl.gz"))
    assert results(after) == results(undisturbed)


@pytest.fixture(scope="module")
def scheduler():
    """The address of a cluster of two processes, which gives a job up when it has killed two.

    Small sets travel there as large ones do.
    """
    distributed = pytest.importorskip("distributed")
    with (
        pytest.importorskip("dask").config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as local,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(parallel, "LARGE", 0)
        yield local.scheduler_address


def test_a_cluster_gives_the_rows_of_a_local_run(measured, scheduler, tmp_path):
    rows = run(tmp_path, scheduler=scheduler)
    assert results(rows) == results(measured)
    assert run(tmp_path, scheduler="nowhere") == rows  # nothing is left to do


def test_a_lost_worker_changes_nothing(scheduler, tmp_path):
    plan = replace(PLAN, folds=4, settings=replace(SHORT, epochs=30))
    out = tmp_path / "cluster" / "accuracy.jsonl.gz"
    with cluster.connected(scheduler) as client:
        victim, _ = client.run(os.getpid).values()

    def kill():
        deadline = time.monotonic() + 120
        while not trained(out) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(victim, signal.SIGKILL)
        return len(list(read_rows(out)))

    with ThreadPoolExecutor() as pool:
        rows_before = pool.submit(kill)
        rows = run(out.parent, plan, scheduler=scheduler)
    assert rows_before.result() < 0.8 * len(rows)
    with cluster.connected(scheduler) as client:
        assert victim not in client.run(os.getpid).values()
    assert results(rows) == results(run(tmp_path / "local", plan))


def test_a_job_that_kills_its_workers_ends_the_run(scheduler):
    with (
        pytest.raises(UserError, match="workers died, one after the other, at one job"),
        cluster.connected(scheduler) as client,
        joblib.parallel_config(cluster.backend(client)),
    ):
        joblib.Parallel()([joblib.delayed(os._exit)(1)])


def test_jobs_take_the_threads_of_a_worker_in_turns_and_their_own_random_numbers(measured, tmp_path):
    distributed = pytest.importorskip("distributed")
    threads = {"processes": False, "n_workers": 1, "threads_per_worker": 2, "dashboard_address": ":0"}
    with distributed.LocalCluster(**threads) as local:
        assert results(run(tmp_path, scheduler=local.scheduler_address)) == results(measured)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "carrier-pigeon://127.0.0.1:8786", "nonsense"])
def test_an_address_without_a_scheduler_is_one_sentence(address, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    assert main(["accuracy", "--quick", "--scheduler", address, "--out", str(tmp_path)]) == BAD_INPUT
    sentence = capsys.readouterr().err
    assert sentence.startswith(f"--scheduler: no Dask scheduler answers at {address}: ")
    assert sentence.count("\n") == 1


def test_a_cluster_without_workers_is_one_sentence(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0") as local,
        pytest.raises(UserError, match="has no worker, after 1 s"),
    ):
        run(tmp_path, scheduler=local.scheduler_address)


def test_a_cluster_that_does_not_know_this_clone_is_one_sentence(scheduler):
    """A worker and a scheduler say so in two ways; a fault of a job stays what it is."""
    missing, told, fault = (
        ModuleNotFoundError("No module named 'experiments'"),
        RuntimeError(),
        RuntimeError(),
    )
    told.__cause__ = missing
    for problem, expected in ((missing, UserError), (told, UserError), (fault, RuntimeError)):
        with pytest.raises(expected) as found, cluster.connected(scheduler):
            raise problem
        assert ("have to find this clone" in str(found.value)) == (expected is UserError)


def test_without_dask_the_option_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match="--scheduler needs Dask: pip install"):
        run(tmp_path, scheduler="tcp://127.0.0.1:1")


def test_a_worker_with_other_code_or_versions_is_refused():
    sources = experiment.EXPERIMENT.sources
    for name, value in (("torch", "1.0"), ("code", "1.0")):
        other = cluster.stamp(sources) | {name: value}
        with pytest.raises(UserError, match=rf"--scheduler: a worker has {name} .* instead of 1\.0"):
            cluster.on_worker(sources, other, 0, pytest.fail)


def wait_for_the_end_of(session):
    """Processes whose parent was killed leave by themselves."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("processes outlive their parent")


@pytest.mark.parametrize("where", ["here", "processes", "cluster"])
def test_a_fold_that_fails_stops_the_run_and_a_rerun_continues(tmp_path, where, request):
    """A learning rate that makes the loss infinite; in processes the fault is real, too."""
    plan = replace(PLAN, settings=replace(SHORT, learning_rates=(1e30,), epochs=5))
    scheduler = request.getfixturevalue("scheduler") if where == "cluster" else None
    with pytest.raises(FloatingPointError, match=r"RANDOM, gin, (sum|mean): loss"):
        run(tmp_path, plan, jobs=2 if where == "processes" else 1, scheduler=scheduler)
    assert not [
        row for row in read_rows(tmp_path / "accuracy.jsonl.gz") if row["network"] and row["fold"] == 0
    ]
    run(tmp_path)


def test_nadeau_bengio_by_hand():
    """Differences of 0, 2, ..., 18 points on 10 folds: mean 9, variance 36.67, error sqrt((.1 + 1/9) var)."""
    differences = np.arange(0, 20, 2) / 100
    mean, low, high, p = statistics.interval(differences, 1 / 9)
    error = ((1 / 10 + 1 / 9) * 36.666667) ** 0.5 / 100
    assert mean == pytest.approx(0.09)
    assert (high - low) / 2 == pytest.approx(2.262157 * error, rel=1e-6)  # t of 9 degrees of freedom, .975
    assert 0.01 < p < 0.0105  # mean / error is 3.235, and t tables have 3.250 for p = 0.01
    plain = statistics.interval(differences, 0)
    assert plain[2] - plain[1] < 0.7 * (high - low)


def test_differences_without_spread_prove_nothing_but_equality():
    assert statistics.interval(np.zeros(4), 1 / 3) == (0, 0, 0, 1)
    assert statistics.interval(np.full(4, 0.3), 1 / 3) == (pytest.approx(0.3), -1, 1, 1)


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.6, 0.7]) == [1, 1]
    assert statistics.holm([]) == []


@pytest.mark.skipif("READOUTS_TU_MIRROR" not in os.environ, reason="needs MUTAG.zip in READOUTS_TU_MIRROR")
def test_known_numbers_of_mutag():
    """Ceilings after one round, and ten cross-validations of one threshold on the number of nodes."""
    graphs = load("MUTAG")
    resident = reside(graphs, "gin", 1)
    ceilings = [resident.ceiling(view, range(len(graphs))) for view in ("sum", "mean", "max")]
    assert [round(ceiling, 3) for ceiling in ceilings] == [0.957, 0.957, 0.899]
    plan = replace(PLAN, folds=10, repeats=10)
    fits = [fit for fit in list_fits(graphs, plan) if fit.method == "size only"]
    found = [run_fit(resident, fit, SHORT, "cpu")[0]["accuracy"] for fit in fits]
    assert np.mean(found) == pytest.approx(0.832, abs=0.005)


@pytest.mark.parametrize(
    ("low", "high", "p", "difference", "expected"),
    [
        (0.02, 0.05, 0.01, 0.035, "better by over 1 point"),
        (-0.05, -0.02, 0.01, -0.035, "worse by over 1 point"),
        (0.001, 0.05, 0.01, 0.02, "better"),
        (-0.05, -0.001, 0.01, -0.02, "worse"),
        (-0.009, 0.009, 0.9, 0.0, "equivalent"),
        (-0.011, 0.009, 0.9, 0.0, "undecided"),
        (0.02, 0.05, 0.06, 0.035, "undecided"),
    ],
)
def test_verdicts(low, high, p, difference, expected):
    assert statistics.Comparison("sum", difference, low, high, p).verdict == expected


def test_the_planned_contrast_stands_for_itself():
    """Three comparisons: one planned, so that the p of the others are doubled, at most."""
    random = np.random.default_rng(0)
    scores = {name: (0.8 + 0.02 * random.random(10)).tolist() for name in ("mean", "sum", "max", "std")}
    plain = {one.method: one.p for one in statistics.compare(scores, "mean", 10, "sum")}
    alone = statistics.compare({name: scores[name] for name in ("mean", "sum")}, "mean", 10)
    assert plain["sum"] == alone[0].p
    pair = statistics.compare({name: scores[name] for name in ("mean", "max", "std")}, "mean", 10)
    assert [plain["max"], plain["std"]] == [one.p for one in pair]


def test_detectable_difference_by_hand():
    """10 folds of 100: variance .15 / 10 a fold, error sqrt((.1 + 1/9) .015), times 2.262 + 0.883."""
    expected = ((0.1 + 1 / 9) * 0.015) ** 0.5 * (2.262157 + 0.883404)
    assert statistics.detectable(100, 10, 1) == pytest.approx(expected, rel=1e-5)
    assert statistics.detectable(100, 10, 10) < 0.8 * expected


def test_sets_together():
    """Equal differences are believed more the more sets there are; contradictions widen the belief."""
    two, six = (statistics.over_sets([0.03] * count, [0.01] * count) for count in (2, 6))
    assert two.mean == pytest.approx(0.03, abs=2e-3)
    assert six.high - six.low < two.high - two.low
    assert six.above > 0.99
    apart = statistics.over_sets([0.1, -0.1, 0.1, -0.1], [0.01] * 4)
    assert apart.low < -0.05 < 0.05 < apart.high
    assert apart.between > 4 * six.between


def test_compare_needs_the_same_folds():
    with pytest.raises(ValueError, match="expected 2 folds of sum, got 1"):
        statistics.compare({"mean": [0.5, 0.5], "sum": [0.5]}, "mean", 2)


def test_tables_sentences_and_figure_come_from_rows(measured, tmp_path):
    from rich.console import Console

    console = Console(width=110, record=True, file=io.StringIO())
    console.print(*experiment.tables(measured))
    text = console.export_text()
    assert "counts only" in text
    assert "Paired differences to mean" in text
    claims = [found.claim for found in experiment.findings(measured)]
    assert claims == ["RANDOM, gin, sum is better than mean"]
    assert [found.main for found in experiment.findings(measured)] == [True]
    answer, not_tried = experiment.answers([], measured)
    assert answer.startswith("RANDOM, gin: choose ")
    assert not_tried == experiment.NOT_TRIED
    assert all(path.stat().st_size > 0 for path in experiment.figure(measured, tmp_path))


@pytest.mark.parametrize(
    ("graphs", "attributes"),
    [
        (random_set(sizes=[2]), False),
        (random_set(attributes=3), True),
        (random_set(sizes=[1]), False),
        (random_set(classes=3), False),
    ],
    ids=["two nodes", "attributes", "no edges", "three classes"],
)
def test_sets_that_are_hard_to_take(graphs, attributes, tmp_path):
    plan = replace(PLAN, networks=tuple(NETWORKS), readouts=("std", "size-aware mean"), attributes=attributes)
    rows = run(tmp_path, plan, graphs)
    found = experiment.per_fold(rows, data="RANDOM", metric="accuracy")
    assert len(found) == 2 * (3 * 2 + 3)
    assert all(0 <= value <= 1 for value in found)


def test_attributes_are_seen():
    graphs = random_set(attributes=2, sizes=[1])
    everything = range(len(graphs))
    assert reside(graphs, "gin", 1, attributes=True).ceiling("max", everything) == 1
    assert reside(graphs, "gin", 1).ceiling("max", everything) < 1


@pytest.mark.parametrize(
    ("graphs", "changes", "message"),
    [
        (random_set(classes=1), {}, "RANDOM: all 24 graphs are of one class; accuracy needs two"),
        (random_set(), {"attributes": True}, "--attributes: RANDOM has no node attributes"),
        (random_set(sizes=[0]), {}, "RANDOM: expected graphs with nodes, got none"),
        (random_set(), {"folds": 13}, "at most 12, the number of graphs in its smallest class"),
    ],
)
def test_what_has_no_answer_is_refused(graphs, changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        run(tmp_path, replace(PLAN, **changes), graphs)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--network", "gin", "transformer"], "--network: expected one of gin, sage, gcn, got transformer."),
        (["--readout", "sum", "best"], "--readout: expected one of sum, mean"),
        (["--folds", "1"], "--folds"),
        (["--jobs", "0"], "--jobs"),
    ],
)
def test_bad_options_are_one_sentence(arguments, word, tmp_path, capsys):
    assert main(["accuracy", *arguments, "--out", str(tmp_path)]) == BAD_INPUT
    sentence = capsys.readouterr().err
    assert word in sentence
    assert sentence.count("\n") == 1
