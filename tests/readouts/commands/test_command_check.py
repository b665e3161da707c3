"""`readouts check`: verdicts, exit codes, inputs of models, bad input, and the session in docs/testing.md."""

from __future__ import annotations

import doctest
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data, InMemoryDataset
from torch_geometric.nn import GATConv, GCNConv, SumAggregation, global_add_pool
from torch_geometric.nn import Sequential as PyGSequential
from torch_geometric.utils import is_undirected

from readouts.__main__ import COMMANDS, main
from readouts.commands.data import ELEMENTS, from_file, molecules, tu_set
from readouts.commands.inputs import prepare
from readouts.commands.progress import Progress
from readouts.commands.signature import call_on
from readouts.commands.target import CannotRunError, build
from tests.tu_files import archive_of, write_set

ROOT = Path(__file__).parents[3]
MODELS = '''
import time
import torch
from torch import nn
from torch_geometric.nn import BatchNorm, CGConv, GCNConv, global_add_pool
from readouts import readout

number = 3

def exact(x, batch): return readout(x, batch, reduce="sum")
def plain(data): return global_add_pool(data.x, data.batch)
def nodes(x, edge_index): return x.relu()
def first(x, batch): return x[torch.searchsorted(batch, torch.arange(int(batch.max()) + 1))]
def kinds(x, batch): return global_add_pool(x, batch).argmax(dim=-1)
def raises(x, batch): raise RuntimeError("first line\\nsecond line")
def exits(x, batch): raise SystemExit(0)
def words(x, batch): return "no tensor"
def keyword(x, *, other): return x
def matrix(x, adj): return x
def constant(x, batch): return torch.ones(int(batch.max()) + 1, 2)
def first_edges(x, edge_index, batch): return x[edge_index[0]][:1]
def distances(pos, batch): return readout(torch.cdist(pos, pos).amax(1, keepdim=True), batch, reduce="max")
def coordinates(pos, batch): return readout(pos, batch, reduce="max")
def slow(x, batch): time.sleep(0.1); return exact(x, batch)
def makes_number(): return 3
def makes_nothing(): raise ValueError("no model today")

class Noisy(nn.Module):
    def forward(self, x, batch):
        print("hello from the model")
        return exact(nn.functional.dropout(x), batch)

class Needy(nn.Module):
    def __init__(self, width): super().__init__()

class Net(nn.Module):
    """Invariant in evaluation mode only."""
    def __init__(self):
        super().__init__()
        self.norm = BatchNorm(5)
    def forward(self, x, edge_index, batch=None):
        return exact(self.norm(x), batch)

class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.pool = First()
    def forward(self, data): return self.head(self.pool(data.x, data.batch))

class First(nn.Module):
    def forward(self, x, batch): return first(x, batch)

class ByTarget(nn.Module):
    def forward(self, x, edge_index, batch):
        if (edge_index[1].diff() < 0).any(): raise ValueError("not sorted")
        return exact((x[edge_index[0]] * torch.arange(edge_index.shape[1])[:, None]), batch[edge_index[0]])

class Conv(nn.Module):
    def __init__(self, conv=None):
        super().__init__()
        self.conv = conv or GCNConv(8, 8)
    def forward(self, x, edge_index, batch):
        return global_add_pool(self.conv(x, edge_index), batch)

class Crystal(Conv):
    def __init__(self): super().__init__(CGConv(8))

def make(): return Net()
ready = Net().eval()
'''


@pytest.fixture(autouse=True)
def _models(tmp_path, monkeypatch):
    """A current folder with models.py and broken_import.py."""
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "broken_import.py").write_text("import no_such_package")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("models", None)


@pytest.mark.parametrize(
    ("target", "code", "ending"),
    [
        ("exact", 0, "invariant: identical bits"),
        ("plain", 0, "invariant: rounding, which is harmless"),
        ("first", 1, "not invariant: permutation invariance broken, culprit first (function); "),
        ("Noisy", 1, "not invariant: permutation invariance random, culprit "),
    ],
)
def test_verdict_and_exit_code(target, code, ending, capsys):
    assert main(["check", f"models:{target}", "--permutations", "4"]) == code
    assert capsys.readouterr().out.splitlines()[-1].startswith(ending)


def test_every_check_is_printed_with_culprit_and_counterexample(capsys):
    assert main(["check", "models:Broken"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Broken(data) on synthetic data: 12 graphs, ")
    checks = ("permutation invariance", "batch independence", "gradient equivariance")
    assert [line[16:] for line in lines[1:4]] == list(checks)
    assert lines[1].startswith("BROKEN ")
    assert lines[4:6] == ["", "BROKEN: permutation invariance of Broken, in evaluation mode"]
    heads = [line.strip().partition("  ")[0] for line in lines[6 : lines.index("", 6)]]
    assert [head for head in heads if head in ("why", "where", "reproduce", "what to do")] == [
        "why",
        "where",
        "reproduce",
        "what to do",
    ]
    out = "\n".join(lines)
    assert "  where       pool (First)" in out
    assert "    before = model(Batch.from_data_list([data]))" in out
    assert "edge_attr" not in out  # the model does without
    assert "behaves like" in lines[-1]


@pytest.mark.parametrize("options", [[], ["--edges"], ["--only", "gradients,edges"], ["--mode", "eval"]])
@pytest.mark.parametrize("target", ["exact", "plain", "Net"])
def test_sound_model_prints_at_most_six_lines(target, options, capsys, monkeypatch):
    monkeypatch.setattr("readouts.commands.progress.PATIENCE", float("inf"))  # on a machine that is busy
    assert main(["check", f"models:{target}", "--permutations", "3", *options]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) <= 6
    assert out.splitlines()[-1].startswith("invariant: ")
    assert err == ""


def test_verbose_shows_details_of_rounding(capsys):
    assert main(["check", "models:plain", "--permutations", "3", "-v"]) == 0
    out = capsys.readouterr().out
    assert "ROUNDING: permutation invariance of plain" in out
    assert "  what to do  nothing: rounding is harmless; " in out
    assert "distinguished" in out


def test_only_some_checks(capsys):
    assert main(["check", "models:exact", "--only", "gradients,size"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line[16:] for line in out[1:2]] == ["gradient equivariance"]
    assert len(out) == 3
    assert main(["check", "models:nodes", "--only", "size"]) == 2
    assert "nothing was checked: the output has a row per node" in capsys.readouterr().err


def test_edges_alone_are_shuffled_when_asked_for(capsys):
    assert main(["check", "models:first_edges", "--only", "edges", "--json"]) == 1
    (report,) = json.loads(capsys.readouterr().out)["reports"]
    assert (report["check"], report["verdict"]) == ("edge order invariance", "broken")
    assert "order = " not in report["counterexample"]


def test_positions_are_rotated_when_asked_for(capsys):
    assert main(["check", "models:distances", "--only", "positions"]) == 0
    assert "rotation and translation invariance" in capsys.readouterr().out
    assert main(["check", "models:coordinates", "--only", "positions"]) == 1
    assert main(["check", "models:exact", "--positions", "--permutations", "2"]) == 0
    assert "not checked     rotation and translation invariance: ValueError: pos: " in capsys.readouterr().out


def test_edges_sorted_by_target_for_models_that_take_no_others(capsys):
    assert main(["check", "models:ByTarget", "--only", "permutations", "--no-shrink"]) == 1
    out = capsys.readouterr().out
    assert "edges sorted by target" in out.splitlines()[0]
    assert "  note        edges stay sorted by their target, because the model raises otherwise" in out


def test_time_limit_keeps_what_is_known(capsys):
    assert main(["check", "models:slow", "--timeout", "1.5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["time_up"]
    (report,) = found["reports"]
    assert (report["check"], report["verdict"]) == ("permutation invariance", "identical bits")
    assert 0 < report["trials"] < 18
    assert f"the time was up after {report['trials']} of 18 trials" in report["notes"]
    assert set(found["not_checked"].values()) == {"the time was up"}
    assert main(["check", "models:slow", "--timeout", "0.01"]) == 2
    assert capsys.readouterr().err.endswith("--timeout: nothing was checked within 0.01 s\n")


def test_progress_on_stderr(capsys, monkeypatch):
    monkeypatch.setattr("readouts.commands.progress.PATIENCE", 0.0)
    assert main(["check", "models:exact", "--only", "permutations", "--permutations", "2"]) == 0
    out, err = capsys.readouterr()
    assert "permutation invariance: permutation 1" in err
    assert "permutation 1" not in out
    assert re.search(r"^ +\d+ s  permutation invariance: permutation 1, about \d+ s left$", err, re.MULTILINE)


def test_time_left_is_that_of_the_phase(capsys, monkeypatch):
    now = iter([0.0, 1.0, 4.0, 5.0, 10.0, 20.0, 24.0, 30.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    progress = Progress()
    progress("quiet", 0.5)
    progress("half", 0.5)
    progress("quiet", 0.75)
    progress("another phase", 0.0)
    progress("a third", 1 / 3)
    progress("unknown")
    progress("unknown no more", 0.5)
    assert capsys.readouterr().err.splitlines() == [
        "    4 s  half, about 4 s left",
        "   10 s  another phase",
        "   20 s  a third, about 20 s left",
        "   24 s  unknown",
        "   30 s  unknown no more, about 6 s left",
    ]


def test_json_is_one_object_whatever_the_model_prints(capsys):
    assert main(["check", "models:Noisy", "--json"]) == 1
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found.keys() == {
        *("schema", "error", "model", "call", "data", "reports", "report_card"),
        *("not_checked", "time_up", "invariant"),
    }
    assert (found["model"], found["call"], found["invariant"]) == ("Noisy", "Noisy(x, batch)", False)
    assert {report["verdict"] for report in found["reports"]} == {"random"}
    assert found["report_card"]["behaves_like"] == "random"
    assert "hello from the model" in printed.err


@pytest.mark.parametrize(
    "arguments", [["models:raises"], ["models:exact", "--only", "all"], ["models:exact", "--timeout", "0"]]
)
def test_json_of_what_cannot_be_run(arguments, capsys):
    try:
        code = main(["check", *arguments, "--json"])
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr()
    assert code == 2
    found = json.loads(printed.out)
    assert found["schema"] == 1
    assert found["error"] in printed.err


def test_text_and_json_name_the_same_behaviour(capsys):
    for target, like in (("exact", "sum"), ("constant", "nothing"), ("plain", "sum")):
        main(["check", f"models:{target}", "--only", "size", "--json"])
        assert json.loads(capsys.readouterr().out)["report_card"]["behaves_like"] == like
        main(["check", f"models:{target}", "--only", "size"])
        assert f"behaves like {like}: " in capsys.readouterr().out


def test_node_outputs_are_checked_for_equivariance(capsys):
    assert main(["check", "models:nodes", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    checks = [report["check"] for report in found["reports"]]
    assert checks == ["permutation equivariance", "gradient equivariance"]
    assert found["not_checked"].keys() == {"batch independence", "report card"}
    assert found["report_card"] is None


def test_no_gradient_is_told(capsys):
    assert main(["check", "models:kinds"]) == 0
    expected = "not checked     gradient equivariance: ValueError: model: expected an output with a gradient"
    assert expected in capsys.readouterr().out


def test_mode_of_classes_factories_and_instances(capsys):
    assert not build("models:Net").training
    assert build("models:make").training
    assert not build("models:ready").training
    assert main(["check", "models:make", "--permutations", "1"]) == 1
    out = capsys.readouterr().out
    assert "BROKEN: batch independence of Net, in training mode" in out
    assert "batch independence broken, culprit norm.module (BatchNorm1d); " in out
    assert out.endswith("; in training mode; try --mode eval\n")
    assert main(["check", "models:make", "--mode", "eval"]) == 0
    assert "batch norm reads the other graphs in training: --mode train" in capsys.readouterr().out
    assert main(["check", "models:ready", "--mode", "train"]) == 1


def test_seed_decides_about_weights_graphs_and_permutations(capsys):
    printed = []
    for seed in ("1", "1", "2"):
        main(["check", "models:Broken", "--seed", seed, "--permutations", "2"])
        sys.modules.pop("models")  # a new process has new modules, made with the weights of its seed
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2]


# What models are fed with


def test_molecules_are_seeded_connected_and_undirected():
    batch, again, other = (molecules(3, 2, seed, full=True) for seed in (0, 0, 1))
    assert batch.x.equal(again.x)
    assert not batch.x[:5].equal(other.x[:5])
    assert (batch.num_graphs, batch.x.shape[1], batch.edge_attr.shape[1]) == (12, 3, 2)
    for graph in batch.to_data_list():
        assert 5 <= graph.num_nodes <= 14
        assert is_undirected(graph.edge_index, [graph.edge_attr, graph.edge_weight])
        assert not graph.has_isolated_nodes()
        assert graph.num_edges == 2 * graph.num_nodes  # one ring, and trees on it
        assert torch.isin(graph.z, ELEMENTS).all()


BATCH = molecules(3, 2, 0, full=True)
COUNT = torch.bincount(BATCH.batch)


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (lambda x: x, ["x"]),
        (lambda input: input, ["x"]),
        (lambda x, batch: x, ["x", "batch"]),
        (lambda x, index: x, ["x", "batch"]),
        (lambda x, edge_index, edge_attr, batch: x, ["x", "edge_index", "edge_attr", "batch"]),
        (lambda z, pos, batch: z, ["z", "pos", "batch"]),
        (lambda x, edge_weight=7, batch=None, size=None: x, ["x", 7, "batch"]),
        (lambda x, edge_index=None, edge_attr=None: x, ["x", "edge_index"]),
        (lambda *args: args, ["x", "edge_index", "batch"]),
        (SumAggregation(), ["x", "batch"]),
        (GATConv(3, 3), ["x", "edge_index"]),
        (
            PyGSequential("x, edge_index, batch", [(GCNConv(3, 3), "x, edge_index -> x")]),
            ["x", "edge_index", "batch"],
        ),
    ],
)
def test_parameters_named_as_tensors_get_them(model, names):
    called, inputs, keywords, _ = call_on(model, BATCH)
    assert not keywords
    expected = [BATCH[name] if isinstance(name, str) else name for name in names]
    assert called is model
    assert [value is wanted for value, wanted in zip(inputs, expected, strict=True)] == [True] * len(names)


@pytest.mark.parametrize(
    "model", [lambda data: 0, lambda batch: 0, lambda graph, extra=1: 0, lambda data=None: 0]
)
def test_a_single_parameter_of_another_name_gets_the_batch(model):
    assert call_on(model, BATCH)[:3] == (model, (BATCH,), {})


def test_keywords_get_tensors_too():
    def model(x, *, index, edge_attr, extra=3, size):
        return x, index, edge_attr, extra, size

    assert call_on(lambda *, data: 0, BATCH)[1:3] == ((), {"data": BATCH})
    called, inputs, keywords, text = call_on(model, BATCH)
    assert text == "model(x, index=batch, edge_attr=edge_attr, size=size)"
    assert not keywords  # the size is derived from the batch in a function of its own
    x, index, edge_attr, extra, size = called(*inputs)
    assert x is BATCH.x
    assert index is BATCH.batch
    assert edge_attr is BATCH.edge_attr
    assert (extra, size) == (3, 12)


def test_derived_arguments_are_made_anew_in_every_call():
    def model(x, ptr, size, num_nodes):
        return x, ptr, size, num_nodes

    called, inputs, _, text = call_on(model, BATCH)
    assert text == "model(x, ptr, size, num_nodes)"
    assert [value is BATCH[name] for value, name in zip(inputs, ("x", "batch"), strict=True)] == [True, True]
    _, ptr, size, num_nodes = called(torch.ones(3, 1), torch.tensor([0, 0, 2]))
    assert (ptr.tolist(), size, num_nodes) == ([0, 2, 2, 3], 3, 3)


def test_readout_through_ptr_is_invariant():
    def model(x, ptr):
        return torch.stack([part.amax(dim=0) for part in x.split(ptr.diff().tolist())])

    from readouts.commands.results import check_all

    found = check_all(prepare(model, None, None, 0), permutations=3, seed=0)
    assert found.invariant
    assert [report.check for report in found.reports][1] == "batch independence"


def test_a_lone_graph_has_a_batch_of_zeros():
    graph = Data(x=torch.ones(3, 1), edge_index=torch.zeros(2, 0, dtype=torch.int64))
    assert call_on(lambda x, batch: 0, graph)[1][1].tolist() == [0, 0, 0]


class Wide(nn.Module):
    """A head that stands first, a layer that meets x, in another dtype."""

    def __init__(self, layer):
        super().__init__()
        self.head, self.layer = nn.Linear(7, 2), layer

    def forward(self, x, batch):
        return self.head(global_add_pool(self.layer(x), batch))


@pytest.mark.parametrize(
    ("model", "width"),
    [
        (Wide(nn.Linear(6, 7)), 6),
        (Wide(nn.Linear(6, 7)).double(), 6),
        (Wide(nn.LazyLinear(7)), 7),
        (Wide(nn.GRU(4, 7)), 4),
        (lambda x, batch: x, 8),
    ],
    ids=["second layer", "float64", "lazy", "recurrent", "no layer"],
)
def test_graphs_have_as_many_features_as_the_model_takes(model, width):
    if isinstance(model, Wide) and isinstance(model.layer, nn.GRU):
        model.layer.register_forward_hook(lambda module, given, output: output[0])
    inputs = prepare(model, None, None, 0).inputs
    assert inputs[0].shape[1] == width
    weights = list(model.parameters()) if isinstance(model, nn.Module) else []
    assert inputs[0].dtype == (weights[0].dtype if weights else torch.float32)


def test_features_are_those_asked_for():
    assert prepare(lambda x, batch: x, None, 5, 0).inputs[0].shape[1] == 5
    with pytest.raises(CannotRunError, match="shapes cannot be multiplied"):
        prepare(Wide(nn.Linear(6, 7)), None, 5, 0)


# Data from files and from TU sets


def test_files(tmp_path):
    graphs = BATCH.to_data_list()
    joined, slices = InMemoryDataset.collate(graphs[:4])
    held = {
        "batch": (BATCH, 12),
        "list": (graphs[:3], 3),
        "tuple of graphs": (tuple(graphs[:2]), 2),
        "one": (graphs[0], None),
        "data and slices": ((joined, slices), 4),
        "as PyG saves them": (
            (*(lambda data, slices: (data.to_dict(), slices))(*InMemoryDataset.collate(graphs[:4])), Data),
            4,
        ),
        "tensors": ((BATCH.x, BATCH.batch), None),
    }
    for name, (value, count) in held.items():
        torch.save(value, tmp_path / f"{name}.pt")
        found = from_file(str(tmp_path / f"{name}.pt"))
        if count is not None:
            assert isinstance(found, Batch)
            assert found.num_graphs == count
            assert found.get_example(1).x.equal(graphs[1].x)
        elif name == "one":
            assert found.x.equal(graphs[0].x)
        else:
            assert all(one.equal(other) for one, other in zip(found, value, strict=True))
    assert (
        prepare(lambda x, batch: x, "tensors.pt", None, 0).data
        == f"tensors.pt: {[*BATCH.x.shape]}, {[len(BATCH.x)]}"
    )


class Unwanted:
    def __reduce__(self):
        return Path("unwanted").touch, ()


def test_files_run_no_code(tmp_path):
    torch.save(Unwanted(), tmp_path / "code.pt")
    with pytest.raises(CannotRunError, match="which is not unpickled for safety"):
        from_file("code.pt")
    assert not Path("unwanted").exists()


def test_tu_set_comes_from_a_mirror_and_stays_in_the_cache(tmp_path, monkeypatch, capsys):
    folder = write_set(tmp_path / "mirror")
    archive = archive_of(folder)
    monkeypatch.setenv("READOUTS_TU_MIRROR", str(archive.parent))
    monkeypatch.setenv("READOUTS_CACHE", str(tmp_path / "cache"))
    assert main(["check", "models:exact", "--data", "TINY"]) == 0
    assert "exact(x, batch) on TINY: the first 2 graphs, 6 nodes, x [6, 3]" in capsys.readouterr().out
    archive.unlink()
    assert tu_set("TINY").x.tolist() == torch.eye(3)[[0, 1, 0, 2, 2, 1]].tolist()


def test_tu_set_without_labels_has_degrees_and_is_cut(tmp_path, monkeypatch):
    many = "".join(f"{2 * k + 1}, {2 * k + 2}\n{2 * k + 2}, {2 * k + 1}\n" for k in range(40))
    indicator = "".join(f"{k + 1}\n{k + 1}\n" for k in range(40))
    texts = dict(
        A=many, graph_indicator=indicator, graph_labels="1\n2\n" * 20, node_labels=None, edge_labels=None
    )
    monkeypatch.setenv("READOUTS_TU_MIRROR", str(archive_of(write_set(tmp_path / "mirror", **texts)).parent))
    monkeypatch.setenv("READOUTS_CACHE", str(tmp_path / "cache"))
    graphs = tu_set("TINY")
    assert graphs.num_graphs == 32
    assert graphs.x.equal(torch.ones(64, 1))


# What cannot be run


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("models", "target: expected package.module:name, got 'models'"),
        ("models:", "target: expected package.module:name, got 'models:'"),
        ("no.such:model", "cannot import no.such: ModuleNotFoundError: No module named 'no'"),
        (
            "broken_import:model",
            "cannot import broken_import: ModuleNotFoundError: No module named 'no_such_package'",
        ),
        ("models:absent", "target: expected a name in models, got 'absent'"),
        ("models:number", "target: expected a model, class or function, got int"),
        ("models:makes_number", "target: expected models:makes_number() to make a model, got int"),
        ("models:makes_nothing", "models:makes_nothing() raises ValueError: no model today"),
        (
            "models:Needy",
            "target: expected a class without required arguments, or *, got models:Needy(width)",
        ),
        ("models:matrix", "matrix(x, adj): expected parameters named as tensors (*), got 'adj'; --data *"),
        (
            "models:keyword",
            "keyword(x, other=other): expected parameters named as tensors (*), got 'other'; --data *",
        ),
        (
            "models:raises",
            "raises(x, batch) on synthetic data: * raises RuntimeError: first line; --features *",
        ),
        ("models:exits", "exits(x, batch) on synthetic data: * raises SystemExit: 0; --features *"),
        (
            "models:words",
            "words(x, batch) on * raises TypeError: model: expected tensors in the output, got str; *",
        ),
        ("models:Net --features 4", "Net(x, edge_index, batch) on * raises RuntimeError: running_mean *"),
        ("models:Net --features 4 --data one.pt", "--features: expected without --data, *"),
        ("models:Net --data absent.pt", "--data: cannot read absent.pt: FileNotFoundError: *"),
        ("models:Net --data models.py", "--data: expected Data, * in models.py, got *"),
        ("models:Net --data dict.pt", "--data: expected Data, * in dict.pt, got dict"),
        ("models:Net --data empty.pt", "--data: expected Data, * in empty.pt, got list"),
        (
            "models:Net --data single.pt",
            "Net* on single.pt: 1 graph, 1 nodes, x [[]1, 5]: ValueError: inputs: expected *",
        ),
        ("models:Net --data ../NAME", "--data: expected FILE.pt or the name of a TU set, got '../NAME'"),
        ("models:Net --data ABSENT", "--data: cannot get ABSENT: there is no data set 'ABSENT' in *"),
    ],
)
def test_what_cannot_be_run_is_one_line(arguments, problem, tmp_path, monkeypatch, capsys):
    from fnmatch import fnmatchcase

    monkeypatch.setenv("READOUTS_TU_MIRROR", str(tmp_path))
    monkeypatch.setenv("READOUTS_CACHE", str(tmp_path / "cache"))
    torch.save({"x": 1}, "dict.pt")
    torch.save([], "empty.pt")
    torch.save(Data(x=torch.ones(1, 5), edge_index=torch.zeros(2, 0, dtype=torch.int64)), "single.pt")
    assert main(["check", *arguments.split()]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert fnmatchcase(printed.err, f"readouts check: {problem}\n"), printed.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["check"],
        ["check", "models:exact", "--permutations", "0"],
        ["check", "a:b", "--mode", "x"],
    ],
)
def test_mistaken_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    assert "usage: readouts" in capsys.readouterr().err


def test_interruption_has_no_traceback(monkeypatch, capsys):
    monkeypatch.setattr(
        "readouts.commands.inputs.prepare", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    assert main(["check", "models:exact"]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")
    assert main(["check", "models:exact", "--json"]) == 130
    assert json.loads(capsys.readouterr().out)["error"] == "interrupted"


# Help and the page


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_help(command, capsys):
    with pytest.raises(SystemExit) as exit:
        main([command, "--help"])
    assert exit.value.code == 0
    text = capsys.readouterr().out
    assert "exit code: 0 " in text
    options = text.partition("\noptions:\n")[2]
    for option in re.findall(r"^  (--?\w.*)$", options, re.MULTILINE):
        assert re.search(r"  \S", option) or f"{option}\n    " in text, f"{option} has no help"


def test_help_does_not_import_pyg():
    code = (
        "import sys\n"
        "from readouts.__main__ import main\n"
        "try: main({arguments})\n"
        "finally: print('torch_geometric' in sys.modules, file=sys.stderr)"
    )
    for arguments in (["--help"], ["check", "--help"]):
        command = [sys.executable, "-c", code.format(arguments=arguments)]
        run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert run.returncode == 0
        assert run.stderr == "False\n"


@pytest.mark.parametrize(
    ("page", "code"), [("testing.md", 1), pytest.param("quickstart.md", 0, marks=pytest.mark.thorough)]
)
def test_session_of_the_documentation(tmp_path, page, code):
    """The model of the page, its command, and its output; `...` stands for what is left out."""
    section = (ROOT / "docs" / page).read_text()
    file = re.search(r"```python\n# (\w+\.py)\n(.*?)```", section, re.DOTALL)
    session = re.search(r"```console\n\$ readouts (.*?)\n(.*?)```", section, re.DOTALL)
    assert file, "the page has no model"
    assert session, "the page has no session"
    (tmp_path / file[1]).write_text(file[2])
    command = [sys.executable, "-m", "readouts", *session[1].split()]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == code, run.stderr
    checker = doctest.OutputChecker()
    assert checker.check_output(session[2], run.stdout, doctest.ELLIPSIS), run.stdout
    assert session[2].count("...") < 4


def test_exact_scatter_leaves_only_products_over_edges(capsys):
    assert main(["check", "models:Conv", "--only", "edges"]) == 0
    assert "rounding        edge order invariance" in capsys.readouterr().out
    assert main(["check", "models:Conv", "--only", "edges", "--exact-scatter"]) == 0
    assert "identical bits  edge order invariance" in capsys.readouterr().out
    assert main(["check", "models:Crystal", "--exact-scatter", "-v"]) == 0
    out = capsys.readouterr().out
    assert "rounding        edge order invariance" in out
    assert "in the code of conv (CGConv)" in out
    assert "it comes from a matrix product or a sum over all rows" in out
