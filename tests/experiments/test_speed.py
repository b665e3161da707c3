"""Speed: who is wrong is not timed, a miss is not hidden; nothing here depends on how fast a machine is."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from datasets import load
from experiments.__main__ import main
from experiments.console import say
from experiments.records import RowLog, pick, read_rows
from experiments.speed import epochs, experiment, grid, measure, processes, timing
from experiments.speed.batches import Batch, make_batch
from experiments.speed.cells import gather
from experiments.speed.check import check_shuffle, make_check, same_bits
from experiments.speed.grid import (
    ALONE,
    BACKWARD,
    DIRECTIONS,
    FORWARD,
    RELU,
    TRIPLE,
    UNSORTED,
    WEIGHTED,
    WEIGHTS,
    WIDE,
    Case,
    even,
)
from experiments.speed.implementations import (
    COPY,
    EMBEDDING_BAG,
    FRESH,
    GROUPED,
    IMPLEMENTATIONS,
    INDEX_ADD,
    LOADER,
    MULTI,
    OF_US,
    OURS,
    PEERS,
    PYG,
    READ,
    RESIDENT,
    SCATTER_REDUCE,
    SEGMENT_REDUCE,
    SPARSE,
    SPARSE_REDUCE,
    contenders,
)
from experiments.speed.measure import RIGHT, Settings, validate
from experiments.speed.oracle import Truth
from experiments.speed.thresholds import LIMITS, evaluate

ROOT = Path(__file__).parents[2]
TINY = even("6x4x3")
SETTINGS = Settings(device="cpu", seed=0, quick=True, threads=1)
DTYPES = ["float16", "bfloat16", "float32", "float64"]
MIXED = grid.skewed(seed=0, tiny=20)


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """No test waits for a clock."""
    monkeypatch.setattr("experiments.speed.timing.SAMPLE_SECONDS", 0)
    monkeypatch.setattr(Settings, "share", 0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def both(shape, *reduce, **settings):
    return [Case(shape, direction, reduce or TRIPLE, **settings) for direction in DIRECTIONS]


REDUCERS = {
    "sum": lambda g: g.sum(0),
    "mean": lambda g: g.mean(0),
    "max": lambda g: g.amax(0),
    "min": lambda g: g.amin(0),
    "var": lambda g: g.var(0, correction=0),
    "std": lambda g: g.std(0, correction=0),
    "median": lambda g: g.median(0).values,
    "softmax": lambda g: (g * g.softmax(0)).sum(0),
}


def right(x, batch, reduce):
    """An independent right answer: one graph after the other, in float64."""
    graphs = [x[batch.index == graph].double() for graph in range(batch.size)]
    blocks = [torch.stack([REDUCERS[name](graph) for graph in graphs]) for name in reduce]
    return torch.cat(blocks, dim=1).to(x.dtype)


def builder(change=lambda out: out):
    return lambda batch, reduce: lambda x: change(right(x, batch, reduce))


# Cases and grid


@pytest.mark.parametrize("name", [*grid.SMALL, *grid.MEDIUM, *grid.LARGE, *grid.HUGE])
def test_shapes_are_what_their_names_say(name):
    graphs, nodes, features = map(int, name.split("x"))
    shape = even(name)
    assert (len(shape.sizes), set(shape.sizes), shape.features) == (graphs, {nodes}, features)


def test_skewed_has_one_graph_with_half_of_the_nodes():
    shape = grid.skewed(seed=0)
    assert len(shape.sizes) == 10_001
    assert 2 * max(shape.sizes) == shape.nodes
    assert min(shape.sizes) >= 1


def test_edges_reach_every_target():
    shape = grid.edges(2_000, 700, 8, seed=0)
    assert (len(shape.sizes), shape.nodes, shape.features) == (700, 2_000, 8)
    assert min(shape.sizes) == 1
    assert max(shape.sizes) > 3


def test_molecules_of_a_set():
    graphs = load("rings")
    drawn, whole = grid.molecules(graphs, seed=0, batch_size=8)
    assert (drawn.name, len(drawn.sizes)) == ("rings, 8 graphs", 8)
    assert whole.nodes == sum(graph.num_nodes for graph in graphs)


@pytest.mark.parametrize("layout", ["sorted", "unsorted"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_batches_have_the_sizes_of_their_shape(layout, dtype):
    batch = make_batch(Case(MIXED, FORWARD, dtype=dtype, layout=layout), seed=0, device="cpu")
    assert batch.count.tolist() == list(MIXED.sizes)
    assert (batch.x.shape, batch.x.dtype) == ((MIXED.nodes, 64), getattr(torch, dtype))
    assert bool((batch.index.diff() >= 0).all()) == (layout == "sorted")
    assert torch.equal(batch.index[batch.order], batch.index.sort().values)
    other, order = batch.shuffled
    assert torch.equal(other.x, batch.x[order])
    assert torch.equal(other.index, batch.index[order])


def test_kinds_of_data():
    x = {kind: make_batch(Case(MIXED, FORWARD, kind=kind), 0, "cpu") for kind in (RELU, WIDE, WEIGHTS)}
    assert 0.4 < (x[RELU].x == 0).double().mean() < 0.6
    assert x[WIDE].x.abs().log2().abs().max() <= 40
    assert x[WIDE].x.abs().log2().std() > 20
    sums = right(x[WEIGHTS].x, x[WEIGHTS], ["sum"])
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_full_grid_has_everything():
    found = grid.grid(quick=False, cuda=False, sets=[load("rings")], seed=0)
    work = [case.work for case in found]
    assert len(work) == len({str(fields) for fields in work})
    assert {fields["readout"] for fields in work} == {*ALONE, *WEIGHTED, ", ".join(TRIPLE)}
    assert {fields["dtype"] for fields in work} == set(DTYPES)
    assert {fields["kind"] for fields in work} == {"normal", "relu", "wide", "softmax weights"}
    shapes = {fields["data"] for fields in work}
    assert shapes >= {*grid.SMALL, *grid.MEDIUM, *grid.LARGE, *grid.HUGE, "skewed", "rings, all 40"}
    edges = {f"{count:,} edges x {width}" for count, _ in grid.EDGES for width in grid.WIDTHS}
    assert {fields["data"] for fields in work if fields["layout"] == UNSORTED} == edges
    counts = Counter(fields["direction"] for fields in work)
    assert counts[FORWARD] == counts[BACKWARD]


@pytest.mark.parametrize("cuda", [False, True])
def test_quick_grid_is_a_small_part_with_the_small_batches_first(cuda):
    quick, full = (grid.grid(quick, cuda, [], seed=0) for quick in (True, False))
    assert len(quick) < len(full)
    assert {str(case.work) for case in quick} <= {str(case.work) for case in full}
    sizes = [case.shape.nodes * case.shape.features for case in quick]
    assert sizes == sorted(sizes)
    assert ("CUDA graph" in {case.timing for case in quick}) == cuda


# The oracle


@pytest.mark.parametrize("block", [1, 10**9])
def test_truth_is_right_in_blocks_of_columns(block, monkeypatch):
    monkeypatch.setattr("experiments.speed.oracle.BLOCK", block)
    batch = make_batch(Case(MIXED, FORWARD, dtype="float64", layout=UNSORTED), 0, "cpu")
    truth = Truth(batch)
    for name in ALONE:
        graphs = [batch.x[batch.index == graph] for graph in range(batch.size)]
        torch.testing.assert_close(truth.of(name), torch.stack([REDUCERS[name](graph) for graph in graphs]))


@pytest.mark.parametrize("nodes", [2, 10**6])
def test_the_sample_that_is_rounded_is_limited_by_nodes(nodes, monkeypatch):
    monkeypatch.setattr("experiments.speed.oracle.SAMPLED_NODES", nodes)
    batch = make_batch(Case(TINY, FORWARD, dtype="float64"), 0, "cpu")
    truth = Truth(batch)
    graphs, features = truth.sample
    assert len(graphs) == (1 if nodes == 2 else 64)
    for graph, feature, value in zip(graphs, features, truth.of("sum", rounded=True).tolist(), strict=True):
        assert value == math.fsum(batch.x[batch.index == graph, feature].tolist())


# The correctness gate


@pytest.fixture(params=DTYPES)
def batch(request):
    return make_batch(Case(TINY, FORWARD, dtype=request.param, layout=UNSORTED), seed=0, device="cpu")


def outcome(batch, reduce=TRIPLE):
    """A gradient of the outputs, the right outputs, and the right gradient."""
    x = batch.x.clone().requires_grad_()
    out = right(x, batch, reduce)
    gradient = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(x.dtype)
    return gradient, out.detach(), torch.autograd.grad(out, x, gradient)[0]


KINDS = [TRIPLE, *((name,) for name in (*ALONE, "softmax"))]


@pytest.mark.parametrize("reduce", KINDS, ids=", ".join)
def test_right_results_pass(batch, reduce):
    gradient, out, slope = outcome(batch, reduce)
    found = make_check(Truth(batch), reduce, gradient)(out, slope, batch.x.dtype == torch.float32)
    assert found.right, found


@pytest.mark.parametrize("reduce", KINDS, ids=", ".join)
@pytest.mark.parametrize("factor", [4, torch.nan])
def test_wrong_results_do_not(batch, reduce, factor):
    gradient, out, slope = outcome(batch, reduce)
    check = make_check(Truth(batch), reduce, gradient)
    wrong = out.clone()
    wrong[2, 1] *= factor
    assert not check(wrong, slope, False).right
    wrong = slope.clone()
    wrong[wrong[:, 1].abs().argmax(), 1] *= factor
    found = check(out, wrong, False)
    assert not found.right
    assert found.what.startswith("gradient")


def test_other_shapes_and_dtypes_do_not(batch):
    check = make_check(Truth(batch), ("sum",), None)
    out = right(batch.x, batch, ("sum",))
    other = torch.float32 if batch.x.dtype == torch.float64 else torch.float64
    assert check(out, None, False).right
    for wrong in (out[:-1], out.to(other), torch.full_like(out, torch.nan)):
        assert not check(wrong, None, False).right
    _, out, slope = outcome(batch, ("sum",))
    check = make_check(Truth(batch), ("sum",), torch.ones_like(out))
    assert not check(out, None, False).right
    assert not check(out, slope[:-1], False).right


@pytest.mark.parametrize("name", ["sum", "mean", "var", "std"])
def test_ours_must_be_rounded_to_nearest(name):
    batch = make_batch(Case(TINY, FORWARD), seed=0, device="cpu")
    check = make_check(Truth(batch), (name,), None)
    nearest = right(batch.x, batch, (name,))
    beside = torch.nextafter(nearest, torch.full_like(nearest, torch.inf))
    assert check(nearest, None, True).right
    assert check(beside, None, False).right
    found = check(beside, None, True)
    assert (found.right, found.what) == (False, f"rounding of {name}")


@pytest.mark.parametrize("name", ["max", "min", "median"])
def test_ties_may_be_shared_as_others_like_but_not_ours(name):
    x = torch.tensor([[2.0], [2.0], [1.0 if name == "max" else 3.0], [5.0]])
    batch = Batch(x, torch.tensor([0, 0, 0, 1]), 2)
    check = make_check(Truth(batch), (name,), torch.tensor([[4.0], [1.0]]))
    out = torch.tensor([[2.0], [5.0]])
    equal, first, lost = (torch.tensor([[a], [b], [0.0], [1.0]]) for a, b in ((2, 2), (4, 0), (2, 0)))
    assert check(out, equal, True).right
    assert check(out, first, False).right
    assert not check(out, first, True).right
    assert not check(out, lost, False).right


def test_a_shuffle_must_not_change_a_bit():
    batch = make_batch(Case(even("3x1000x4"), FORWARD), 0, "cpu")

    def exact(batch, gradient):
        return right(batch.x, batch, ("sum",)), None

    def in_order(batch, gradient):
        return torch.zeros(3, 4).index_add_(0, batch.index, batch.x), None

    assert check_shuffle(exact, batch, None).right
    assert not check_shuffle(in_order, batch, None).right
    assert not same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))


def title(case):
    return "-".join([case.direction, case.layout, case.dtype, case.kind, *case.reduce])


EVERYWHERE = [
    *(case for reduce in grid.EVERY for case in both(MIXED, *reduce)),
    *(case for reduce in grid.EVERY for case in both(even("50x9x4"), *reduce, layout=UNSORTED)),
    *(case for reduce in grid.SOFTMAX for case in both(MIXED, *reduce)),
    *(case for kind in (RELU, WIDE, WEIGHTS) for case in both(even("50x9x4"), kind=kind)),
    *(case for dtype in grid.OTHER_DTYPES for case in both(even("50x9x4"), dtype=dtype)),
]


@pytest.mark.filterwarnings("ignore")  # parts of PyTorch call themselves beta
@pytest.mark.parametrize("case", EVERYWHERE, ids=title)
def test_contenders_here_are_right(case):
    truth = Truth(make_batch(case, 0, "cpu"))
    admitted, refused = validate(case, truth, seed=0)
    assert set(admitted) >= set(OF_US), refused
    assert set(admitted) | set(refused) == set(contenders(truth.batch, case.reduce))
    # PyG's std is 0 below 0.003, its gradient of max is lost at 0
    known = {PYG} if "std" in case.reduce or case.kind != "normal" else set()
    known |= {MULTI, SCATTER_REDUCE, INDEX_ADD} if case.kind == RELU else set()
    known |= set(PEERS) if case.dtype.endswith("float16") else set()
    assert set(refused) <= known, refused


def test_who_takes_part():
    batches = {
        layout: make_batch(Case(TINY, FORWARD, layout=layout), 0, "cpu") for layout in (UNSORTED, "sorted")
    }
    linear = {OURS, GROUPED, PYG, INDEX_ADD, SCATTER_REDUCE, EMBEDDING_BAG, SPARSE, SPARSE_REDUCE}
    found = {
        (layout, *reduce): {name for name in contenders(batch, reduce) if not IMPLEMENTATIONS[name].package}
        for layout, batch in batches.items()
        for reduce in (("sum",), TRIPLE, ("median",), ("attention",))
    }
    assert found[UNSORTED, "sum"] == linear
    assert found["sorted", "sum"] == linear | {SEGMENT_REDUCE}
    assert found["sorted", *TRIPLE] == linear - {SPARSE} | {SEGMENT_REDUCE, MULTI}
    assert found["sorted", "median"] == found["sorted", "attention"] == {OURS, GROUPED, PYG}


def test_pyg_is_spared_large_medians(monkeypatch):
    monkeypatch.setattr("experiments.speed.implementations.LARGEST_MEDIAN", 10)
    assert set(contenders(make_batch(Case(TINY, FORWARD), 0, "cpu"), ("median",))) == set(OF_US)


# Who is timed


@pytest.fixture
def cast(monkeypatch):
    """Contenders that need no kernel: right, wrong, with a wrong gradient, and one that raises."""
    runs_of_the_liar = []

    def lie(out):
        runs_of_the_liar.append(out)
        return out + 1

    def explode(batch, reduce):
        raise ImportError("no such package\nand much more to say")

    found = {
        OURS: builder(),
        PYG: builder(),
        "liar": builder(lie),
        "slope": builder(lambda out: out + (out - out.detach())),
        "absent": explode,
    }
    monkeypatch.setattr(measure, "contenders", lambda batch, reduce: found)
    return runs_of_the_liar


def run(folder, cases):
    with RowLog(folder, "speed") as log:
        return measure.measure(cases, log, SETTINGS)


def test_wrong_and_failing_contenders_are_reported_and_not_timed(cast, tmp_path):
    rows = run(tmp_path, both(TINY))
    assert len(cast) == 2  # one check in each direction, and no more
    for direction in DIRECTIONS:
        found = {row["contender"]: row["verdict"] for row in rows if row["direction"] == direction}
        assert found[OURS] == found[PYG] == RIGHT
        assert found["liar"].startswith("wrong: ")
        assert found["absent"] == "failed: ImportError: no such package"
    assert found["slope"] == "wrong: gradient"
    timed = {row["contender"] for row in rows if row["metric"] == "seconds" and row["direction"] == BACKWARD}
    assert timed == {OURS, PYG, READ, FRESH}
    assert pick(rows, contender="liar", direction=FORWARD, metric="refused") > 1
    sentences = list(experiment.refusals(rows))
    assert any("liar" in line and "times what is allowed" in line for line in sentences)
    assert any("absent" in line and "no such package" in line and "and 1 more" in line for line in sentences)


def test_ours_is_not_timed_when_a_shuffle_changes_bits(cast, tmp_path, monkeypatch):
    in_order = lambda batch, reduce: lambda x: x.new_zeros(batch.size, 3).index_add_(0, batch.index, x)  # noqa: E731
    monkeypatch.setattr(measure, "contenders", lambda batch, reduce: {OURS: in_order, PYG: in_order})
    monkeypatch.setattr("experiments.speed.oracle.SAMPLE", 0)  # so that no rounding is looked at
    rows = run(tmp_path, both(even("2x500x3"), "sum")[:1])
    found = {row["contender"]: row["verdict"] for row in rows}
    assert found == {OURS: "wrong: bits after a shuffle", PYG: RIGHT, READ: RIGHT}


def test_rows_have_all_fields_and_are_not_measured_again(cast, tmp_path, monkeypatch):
    rows = run(tmp_path, both(TINY))
    case = {"data": "6x4x3", "readout": "sum, mean, max", "dtype": "float32", "kind": "normal"}
    case |= {"layout": "sorted", "timing": "eager", "graphs": 6, "nodes": 24, "features": 3, "threads": 1}
    for row in rows:
        assert case.items() <= row.items()
        assert {"direction", "contender", "verdict", "machine", "libraries", "run"} <= set(row)
    (row,) = (row for row in rows if row["contender"] == PYG and row["direction"] == FORWARD)
    assert row["metric"] == "seconds"
    assert 0 < row["p20"] <= row["value"] <= row["p80"]
    assert row["repeats"] >= 1
    assert row["samples"] >= 1
    monkeypatch.setattr(measure, "interleave", pytest.fail)
    assert run(tmp_path, both(TINY)) == rows
    assert run(tmp_path, both(TINY)[:1]) == [row for row in rows if row["direction"] == FORWARD]


def test_an_interrupted_case_is_measured_again_and_counts_once(cast, tmp_path):
    rows = run(tmp_path, both(TINY))
    path = tmp_path / "speed.jsonl.gz"
    whole = path.read_bytes()
    before = len(read_rows(path))
    path.write_bytes(whole[:-1])  # without the row that closes the case
    assert len(read_rows(path)) == before - 1
    again = run(tmp_path, both(TINY))
    assert len(read_rows(path)) > before
    assert [(row["contender"], row["direction"]) for row in again] == [
        (row["contender"], row["direction"]) for row in rows
    ]


@pytest.mark.parametrize("other", [{"threads": 2}, {"seed": 1}, {"quick": False}])
def test_other_settings_are_other_measurements(cast, tmp_path, other):
    run(tmp_path, both(TINY)[:1])
    with RowLog(tmp_path, "speed") as log:
        rows = measure.measure(both(TINY)[:1], log, replace(SETTINGS, **other))
    assert all(other.items() <= row.items() for row in rows)


def test_what_does_not_fit_is_left_out_and_named(cast, tmp_path, monkeypatch):
    huge = Case(grid.Shape("huge", (10**15,), 64), FORWARD)
    assert measure.too_large([huge, Case(TINY, FORWARD)], "cpu") == ["huge"]
    assert run(tmp_path, [huge]) == []
    monkeypatch.setattr(grid, "grid", lambda *arguments: [huge])
    assert any("huge" in sentence for sentence in experiment.notes([], [], "cpu", 0, True))


def test_a_call_does_the_same_work_every_time():
    """A gradient is written to fresh memory, never added to the last one."""
    batch = make_batch(Case(TINY, BACKWARD), 0, "cpu")
    gradient = torch.ones(6, 3)
    call = measure.timed_call(IMPLEMENTATIONS[SEGMENT_REDUCE].build, batch, ("sum",), gradient)
    found = [cell.cell_contents for cell in call.__closure__]
    (x,) = (one for one in found if isinstance(one, torch.Tensor) and one.requires_grad)
    for _ in range(2):
        call()
        assert torch.equal(x.grad, torch.ones(24, 3))


# Timing


def test_calls_take_turns_until_their_share_is_spent():
    seconds = {"quick": 0.01, "slow": 0.2, "endless": 5.0}
    order = []

    def clock(call, repeats):
        order.append(call())
        return seconds[order[-1]]

    calls = {name: lambda name=name: name for name in seconds}
    samples = timing.interleave(calls, share=0.095, clock=clock)
    taken = {name: len(sample.seconds) for name, sample in samples.items()}
    assert taken == {"quick": 10, "slow": 3, "endless": 1}
    warm = 1 + timing.WARM_UPS
    assert order[: warm + 2] == ["quick"] * warm + ["slow", "endless"]
    assert set(order[warm + 2 :][:2]) <= {"quick", "slow"}


def test_quick_calls_are_repeated_within_a_sample(monkeypatch):
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 0.0002)
    samples = timing.interleave({"quick": lambda: None}, share=0.0019, clock=lambda call, repeats: 3e-6)
    assert samples["quick"].repeats == 67
    assert len(samples["quick"].seconds) == 10


def test_quantiles():
    samples = timing.Samples(1, [3.0, 1.0, 2.0, 5.0, 4.0, 6.0])
    assert [samples.quantile(q) for q in (0.2, 0.5, 0.8)] == [2.0, 3.5, 5.0]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_peak_memory_of_a_call():
    code = "import torch; from experiments.speed.timing import peak_beyond as peak\n"
    code += "kept = torch.ones(2**24); print(peak(lambda: kept + 1, 'cpu'))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert 2**26 <= int(run.stdout) < 1.1 * 2**26


def test_memory_of_a_contender_is_printed(capsys):
    processes.main("6x4x3", PYG, "cpu", str(torch.get_num_threads()))
    assert int(capsys.readouterr().out) >= 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_memory_is_measured_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert processes.peak("2000x10x64", PYG, "cpu", 1)[processes.PEAK] > 2000 * 10 * 64 * 4


def test_start_is_timed_in_a_fresh_process(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "PROCESSES", 1)
    with RowLog(tmp_path, "speed") as log:
        rows = processes.measure_starts(log, SETTINGS)
        assert processes.measure_starts(log, SETTINGS) == rows
        monkeypatch.setattr(processes, "PROGRAM", "raise ValueError('broken')")
        with pytest.raises(RuntimeError, match="broken"):
            processes.measure_starts(log, SETTINGS)
    assert {row["metric"] for row in rows} == {"import", "first call"}
    assert all(row["value"] > 0 for row in rows)
    assert {one.limit.name for one in evaluate(gather(rows))} == {"import", "first call"}


# Limits and tables


OF_CPU, OF_CUDA = ({"code": "", "versions": {}, "device": device} for device in ("cpu", "cuda"))


def row(data, direction, contender, seconds, reduce="sum, mean, max", **more):
    graphs, nodes, features = map(int, data.split("x"))
    case = {"data": data, "readout": reduce, "direction": direction, "run": OF_CPU}
    case |= {"dtype": "float32", "kind": "normal", "layout": "sorted", "timing": "eager"}
    case |= {"graphs": graphs, "nodes": graphs * nodes, "features": features}
    case |= {"fold": None, "seed": 0}
    values = {"metric": "seconds", "value": seconds, "contender": contender, "verdict": RIGHT}
    return case | values | more


def cell(data, direction, times, **more):
    """Rows of one case, from contender to seconds."""
    return [row(data, direction, name, seconds, **more) for name, seconds in times.items()]


def reached(rows, limit):
    """What the limit of this name came to, in every cell."""
    return [
        (round(one.ratio.value, 3) if one.ratio.value is not None else None, one.met)
        for one in evaluate(gather(rows))
        if one.limit.name == limit
    ]


SMALL, CACHED, LARGE = "128x18x64", "1024x25x128", "4096x30x256"


def test_every_limit_says_what_it_is():
    assert len({limit.name for limit in LIMITS.values()}) == len(LIMITS)
    assert all(rule and limit.bound.bound > 0 for rule, limit in LIMITS.items())


@pytest.mark.parametrize(
    ("limit", "data", "direction", "times", "more", "expected"),
    [
        ("small, forward", SMALL, FORWARD, {OURS: 1, PYG: 2.1}, {"reduce": "sum"}, [(2.1, True)]),
        ("small, forward", SMALL, FORWARD, {OURS: 1, PYG: 1.9}, {"reduce": "max"}, [(1.9, False)]),
        ("small, forward", CACHED, FORWARD, {OURS: 1, PYG: 1}, {"reduce": "sum"}, []),
        ("small, forward", SMALL, FORWARD, {OURS: 1, PYG: 1}, {"reduce": "std"}, []),
        ("small, forward+backward", SMALL, BACKWARD, {OURS: 1.1, PYG: 1}, {"reduce": "mean"}, [(1.1, False)]),
        ("small max, forward+backward", SMALL, BACKWARD, {OURS: 1, PYG: 3}, {"reduce": "max"}, [(3, True)]),
        ("small max, forward+backward", SMALL, BACKWARD, {OURS: 1, PYG: 3}, {"reduce": "sum"}, []),
        ("fastest", SMALL, FORWARD, {OURS: 1, PYG: 2, EMBEDDING_BAG: 0.8}, {}, [(1.25, False)]),
        ("fastest", SMALL, FORWARD, {OURS: 1, GROUPED: 0.1, PYG: 2}, {"kind": RELU}, [(0.5, True)]),
        ("fastest", SMALL, FORWARD, {OURS: 1, PYG: 2}, {"kind": WIDE}, []),
        ("fastest", SMALL, FORWARD, {OURS: 1, PYG: 2}, {"dtype": "bfloat16"}, []),
        ("fastest", SMALL, FORWARD, {OURS: 1}, {}, []),
        (
            "fastest, unsorted",
            SMALL,
            FORWARD,
            {OURS: 2, PYG: 4, SPARSE: 1},
            {"layout": UNSORTED},
            [(0.5, True)],
        ),
        (
            "fastest, unsorted, grouped",
            SMALL,
            FORWARD,
            {OURS: 9, GROUPED: 2, PYG: 4, SPARSE: 1},
            {"layout": UNSORTED},
            [(2, False)],
        ),
        (
            "edges",
            SMALL,
            BACKWARD,
            {OURS: 1, PYG: 1.4},
            {"layout": UNSORTED, "reduce": "sum"},
            [(1.4, False)],
        ),
        ("edges", SMALL, BACKWARD, {OURS: 1, PYG: 1.4}, {"reduce": "sum"}, []),
        ("softmax, attention", SMALL, FORWARD, {OURS: 1, PYG: 1}, {"reduce": "softmax"}, [(1, True)]),
        ("cache", CACHED, FORWARD, {OURS: 2.6}, {}, [(2.6, False)]),
        ("cache", LARGE, FORWARD, {OURS: 1}, {}, []),
        ("memory speed, forward", LARGE, FORWARD, {OURS: 1.3}, {}, [(1.3, True)]),
        ("memory speed, forward", LARGE, FORWARD, {OURS: 1.3}, {"reduce": "sum"}, []),
        ("memory speed, forward+backward", LARGE, BACKWARD, {OURS: 3, FRESH: 2}, {}, [(1.5, False)]),
        ("ten times PyG", LARGE, BACKWARD, {OURS: 1, PYG: 12}, {}, [(12, True)]),
        (
            "GPU against PyG",
            "65536x30x256",
            BACKWARD,
            {OURS: 1, PYG: 3},
            {"run": OF_CUDA},
            [(3, False)],
        ),
        ("GPU, small", SMALL, FORWARD, {OURS: 1, PYG: 3}, {"run": OF_CUDA}, [(0.333, True)]),
        ("GPU, small", SMALL, FORWARD, {OURS: 1, PYG: 3}, {}, []),
        ("ten times PyG", LARGE, BACKWARD, {OURS: 1, PYG: 12}, {"run": OF_CUDA}, []),
    ],
)
def test_limits_from_rows(limit, data, direction, times, more, expected):
    assert reached(cell(data, direction, {READ: 1} | times, **more), limit) == expected


def test_limits_of_wide_data_and_float64_are_against_normal_float32():
    rows = cell(CACHED, FORWARD, {READ: 1, OURS: 1.0})
    rows += cell(CACHED, FORWARD, {READ: 1, OURS: 3.5}, kind=WIDE)
    rows += cell(CACHED, FORWARD, {READ: 1, OURS: 5.0}, dtype="float64")
    rows += cell(SMALL, FORWARD, {READ: 1, OURS: 5.0}, dtype="float64")
    assert reached(rows, "wide") == [(3.5, False)]
    assert reached(rows, "float64") == [(2.5, True)]  # the small cell has nothing to be compared with


def test_limits_of_memory_start_and_copies():
    x, outputs = 4 * 4096 * 30 * 256, 4 * 4096 * 256 * 3
    beyond = row(LARGE, BACKWARD, OURS, 1.2 * (x + outputs), metric=processes.PEAK)
    assert reached([beyond], "peak memory") == [
        (round((x + 1.2 * (x + outputs)) / (2 * x + outputs), 3), False)
    ]
    assert reached([beyond | {"value": x + outputs}], "peak memory") == [(1, True)]
    starts = [row("8x18x16", FORWARD, OURS, 0.2, metric=processes.IMPORT)]
    starts += [row("8x18x16", FORWARD, OURS, 0.006, metric=processes.FIRST)]
    assert (reached(starts, "import"), reached(starts, "first call")) == ([(0.2, True)], [(6, False)])
    shape = "65536x30x256"
    size, out = 4 * 65536 * 30 * 256, 4 * 65536 * 256 * 3
    rows = cell(shape, FORWARD, {READ: 1, OURS: (size + out) / 90, COPY: 2 * size / 100}, run=OF_CUDA)
    assert reached(rows, "GPU bandwidth") == [(0.9, True)]


def test_a_wrong_result_of_ours_misses_its_limits():
    rows = cell(SMALL, FORWARD, {READ: 1, PYG: 2}, reduce="sum")
    rows.append(row(SMALL, FORWARD, OURS, 9.0, "sum", metric="refused", verdict="wrong: sum"))
    outcomes = evaluate(gather(rows))
    wrong = (False, "no right result")
    assert {one.limit.name: (one.met, one.missed) for one in outcomes} == {
        "small, forward": wrong,
        "fastest": wrong,
    }


def test_misses_say_by_how_much():
    rows = cell(SMALL, FORWARD, {READ: 1e-5, OURS: 1, PYG: 1, EMBEDDING_BAG: 0.2}, reduce="sum")
    assert [one.missed for one in evaluate(gather(rows))] == ["by 100 %", "by 5.0 times"]
    assert [one.what.partition(": ")[2] for one in evaluate(gather(rows))] == [
        "PyG / ours",
        "ours / embedding_bag",
    ]
    rows = cell(SMALL, FORWARD, {READ: 1e-5, OURS: 1, PYG: 4}, reduce="sum")
    assert [(one.met, one.excess) for one in evaluate(gather(rows))] == [(True, 0.5), (True, 0.25)]


SHOWN = [
    *cell(LARGE, FORWARD, {READ: 0.010, OURS: 0.020, GROUPED: 0.018, PYG: 0.080, EMBEDDING_BAG: 0.030}),
    *cell(SMALL, FORWARD, {READ: 5e-6, OURS: 12e-6, GROUPED: 10e-6, PYG: 30e-6}),
    *cell(LARGE, BACKWARD, {READ: 0.01, FRESH: 0.100, OURS: 0.120, PYG: 0.900}),
    row(LARGE, BACKWARD, GROUPED, 3.0, metric="refused", verdict="wrong: sum"),
]


def table_cells(output):
    return [
        [part.strip() for part in line.strip("│").split("│")] for line in output.splitlines() if "│" in line
    ]


def test_tables_show_the_small_first_and_every_miss(capsys):
    say(*experiment.tables(SHOWN))
    output = capsys.readouterr().out
    assert "…" not in output
    lines = table_cells(output)
    small = [SMALL, "12 us", "10 us", "30 us", "PyG", "30 us", "2.5 x", "5 us"]
    large = [LARGE, "20 ms", "18 ms", "80 ms", "embedding_bag", "30 ms", "1.5 x", "10 ms"]
    assert lines.index(small) < lines.index(large)
    assert [LARGE, "120 ms", "wrong", "900 ms", "PyG", "900 ms", "7.5 x", "100 ms"] in lines
    assert "Limits: 4 of 6 met" in output
    assert "Missed: 2 of 6" in output
    assert output.count("54 %") == 1
    assert output.count("33 %") == 1


def test_noise_is_told(monkeypatch):
    monkeypatch.setattr(grid, "grid", lambda *arguments: [])
    rows = cell(SMALL, FORWARD, {READ: 1e-5}) + cell(SMALL, FORWARD, {OURS: 2}, p20=2.0, p80=2.9)
    rows += cell(SMALL, FORWARD, {PYG: 1})
    told = lambda: [note for note in experiment.notes([], rows, "cpu", 0, True) if "noisy" in note]  # noqa: E731
    assert told() == []
    rows[1]["p80"] = 3.2
    (sentence,) = told()
    assert f"in 1 cases ({SMALL}, sum, mean, max, forward)" in sentence
    assert [one.missed for one in evaluate(gather(rows))] == ["by 100 %, noisy"]
    shown = experiment.times(gather(rows), "sum, mean, max", FORWARD)
    assert [line[1] for line in shown.lines] == ["2 s~"]


def test_a_read_that_is_implausibly_slow_makes_a_case_noisy():
    read = 4 * 2304 * 64 / 1e9
    for seconds, noisy in ((0.9 * read, False), (1.1 * read, True)):
        (found,) = gather(cell(SMALL, FORWARD, {READ: seconds, OURS: 1e-5}))
        assert found.noisy(OURS) is noisy


def test_the_last_row_of_a_contender_counts():
    rows = cell(SMALL, FORWARD, {OURS: 2.0}) + cell(SMALL, FORWARD, {OURS: 1.0})
    (found,) = gather(rows)
    assert found.number(OURS) == 1


def test_numbers_compare_small_batches_with_pyg_and_large_ones_with_reads():
    rows = [*SHOWN, *cell(SMALL, FORWARD, {READ: 1, OURS: 1, PYG: 3}, reduce="sum")]
    assert experiment.numbers(rows) == (
        "small batches, forward, times as fast as PyG: 3.0, large batches in plain reads: 2.0, "
        "forward+backward in two reads and a write: 1.2"
    )
    assert experiment.numbers([]) == "not timed"


def test_figure_is_drawn(tmp_path):
    paths = experiment.figure(SHOWN, tmp_path)
    assert [path.name for path in paths] == ["speed.png"]
    assert paths[0].stat().st_size > 10_000


# Epochs


def test_epochs_are_timed_on_networks_that_agree(tmp_path, capsys):
    """Both in turns, their rows are judged and shown with all others, and are not measured again."""
    graphs, settings = load("rings"), replace(SETTINGS, quick=False, threads=2)
    with RowLog(tmp_path, "speed") as log:
        rows = epochs.measure([graphs], log, settings)
        assert epochs.measure([graphs], log, settings) == rows
        assert epochs.measure([graphs], log, replace(settings, device="cuda")) == []
    seconds = {name: pick(rows, contender=name, metric="seconds") for name in (LOADER, RESIDENT)}
    assert all(value > 0 for value in seconds.values())
    assert {row["threads"] for row in rows} == {1}
    (found,) = evaluate(gather(rows))
    assert (found.limit.name, found.limit.bound.bound, found.limit.bound.at_least) == ("epochs", 3, True)
    assert found.ratio.value == pytest.approx(seconds[LOADER] / seconds[RESIDENT])
    say(*experiment.tables(rows))
    assert f"{experiment.short(found.ratio.value)} │" in capsys.readouterr().out
    assert list(experiment.refusals(rows)) == []


def test_epochs_of_networks_that_differ_are_not_timed(monkeypatch):
    forward = epochs.PyGNetwork.forward
    monkeypatch.setattr(epochs.PyGNetwork, "forward", lambda self, data: forward(self, data) + 0.1)
    with pytest.raises(RuntimeError, match="rings: the two networks to be timed differ by 0"):
        epochs.time_epochs(load("rings"), 0, 0.0)


# The command


def test_quick_command_on_a_tiny_grid(cast, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(grid, "grid", lambda quick, cuda, sets, seed: both(TINY))
    monkeypatch.setattr(processes, "PROCESSES", 1)
    arguments = ["speed", "--quick", "--device", "cpu", "--threads", "1", "--out", str(tmp_path)]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert "sum, mean, max, forward" in output
    assert "not timed: liar" in output
    assert "Missed: " in output
    assert {path.name for path in tmp_path.iterdir()} >= {"speed.jsonl.gz", "speed.png"}
    assert main(["report", "--out", str(tmp_path)]) == 0
    assert "Speed" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("threads", ["0", "many"])
def test_bad_threads(threads, tmp_path, capsys):
    assert main(["speed", "--threads", threads, "--out", str(tmp_path)]) == 2
    assert "--threads" in capsys.readouterr().err
