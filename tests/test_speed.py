"""Speed: who is wrong is not timed, a miss is not hidden; nothing here depends on how fast a machine is."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from datasets import load
from experiments.__main__ import main
from experiments.console import say
from experiments.rows import RowLog, pick
from experiments.speed import epochs
from experiments.speed import figure as speed_figure
from experiments.speed import measure as speed
from experiments.speed import memory as speed_memory
from experiments.speed import shapes as speed_shapes
from experiments.speed import tables as speed_tables
from experiments.speed.check import Expected, Truth, exact_sum, is_nearest
from experiments.speed.contenders import (
    EXACT,
    FAST,
    FRESH,
    GROUPED,
    LOADER,
    PYG,
    READ,
    RESIDENT,
    WARM,
    readout_contenders,
)
from experiments.speed.limits import Judged, gather, judge
from experiments.speed.measure import Settings
from experiments.speed.problems import Convolution, Readout, admit, pose
from experiments.speed.shapes import TRIPLE, Case, both, bytes_moved, even, make
from experiments.speed.timing import Samples, interleave

ROOT = Path(__file__).parents[1]
TINY = even("6x4x3")
SETTINGS = Settings(device="cpu", seed=0, quick=True, threads=1)
DTYPES = ["float16", "bfloat16", "float32"]


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """No test waits for a clock."""
    monkeypatch.setattr("experiments.speed.timing.SAMPLE_SECONDS", 0)
    monkeypatch.setattr(Settings, "share", 0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def right(x, batch, reduce):
    """An independent right answer: one graph after the other."""
    graphs = [x[batch.index == graph] for graph in range(batch.size)]
    ways = {"sum": lambda g: g.sum(0), "mean": lambda g: g.mean(0), "max": lambda g: g.amax(0)}
    return torch.cat([torch.stack([ways[name](graph) for graph in graphs]) for name in reduce], dim=1)


def title(case):
    return "-".join([case.through, case.direction, case.layout, *case.reduce])


def builder(change=lambda out: out):
    return lambda batch, reduce: lambda x: change(right(x, batch, reduce))


def explode(batch, reduce):
    raise ImportError("no such package\nand much more to say")


# Shapes


@pytest.mark.parametrize("name", speed_shapes.MAIN)
def test_shapes_are_what_their_names_say(name):
    graphs, nodes, features = map(int, name.split("x"))
    shape = even(name)
    assert (len(shape.sizes), set(shape.sizes), shape.features) == (graphs, {nodes}, features)
    assert shape.nodes == graphs * nodes


def test_giant_is_cut_into_the_same_data():
    shape = speed_shapes.cut(1_000_000)
    assert (len(shape.sizes), shape.nodes, set(shape.sizes)) == (1024, 1_000_000, {976, 977})


def test_skewed_has_one_graph_with_half_of_the_nodes():
    shape = speed_shapes.skewed(seed=0)
    assert len(shape.sizes) == 10_001
    assert 2 * max(shape.sizes) == shape.nodes
    assert min(shape.sizes) >= 1


def test_edges_go_to_a_tenth_as_many_targets():
    shape = speed_shapes.edges(2_000, seed=0)
    assert (len(shape.sizes), shape.nodes, shape.features) == (200, 2_000, 64)


def test_molecules_of_a_set():
    graphs = load("rings")
    drawn, whole = speed_shapes.molecules(graphs, seed=0, batch_size=8)
    assert (drawn.name, len(drawn.sizes)) == ("rings, 8 graphs", 8)
    assert whole.nodes == sum(graph.num_nodes for graph in graphs)


@pytest.mark.parametrize("layout", ["sorted", "shuffled"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_batches_have_the_sizes_of_their_shape(layout, dtype):
    shape = speed_shapes.edges(200, seed=0)
    batch = make(Case(shape, "forward", dtype=dtype, layout=layout), seed=0, device="cpu")
    assert batch.count.tolist() == list(shape.sizes)
    assert (batch.x.shape, batch.x.dtype) == ((200, 64), getattr(torch, dtype))
    assert bool((batch.index.diff() >= 0).all()) == (layout == "sorted")
    assert torch.equal(batch.index[batch.order], batch.index.sort().values)
    assert torch.equal(batch.grouped, batch.x[batch.order])


def test_bytes_moved_by_hand():
    x, out = 6 * 4 * 3 * 4, 6 * 3 * 4
    assert bytes_moved(Case(TINY, "forward")) == x + 3 * out
    assert bytes_moved(Case(TINY, "forward+backward")) == 2 * x + 2 * 3 * out + x
    assert bytes_moved(Case(TINY, "forward+backward", ("sum",))) == x + 2 * out + x
    assert bytes_moved(Case(TINY, "forward", ("sum",), dtype="float16")) == (x + out) // 2


def test_quick_plan_has_the_main_shapes_and_edges():
    cases = speed_shapes.plan(quick=True, cuda=False, sets=[], seed=0)
    for direction in speed_shapes.DIRECTIONS:
        names = {case.shape.name for case in cases if case.direction == direction}
        assert names >= {*speed_shapes.MAIN, "100,000 edges"}
    assert len(cases) == len({str(case.work) for case in cases})


@pytest.mark.parametrize("cuda", [False, True])
def test_full_plan_has_everything(cuda):
    cases = speed_shapes.plan(quick=False, cuda=cuda, sets=[load("rings")], seed=0)
    work = [case.work for case in cases]
    assert len(cases) == len({str(fields) for fields in work})
    modules = {"median", "lower median", "softmax", "attention", "sum, mean, max, min, std"}
    assert {fields["readout"] for fields in work} == {"sum", "mean", "max", "sum, mean, max", *modules}
    assert {fields["dtype"] for fields in work} == {"float32", "float16", "bfloat16"}
    assert {"skewed", "1,000,000 edges", "rings, all 40"} <= {fields["data"] for fields in work}
    assert {"sorted", "shuffled"} == {fields["layout"] for fields in work}
    assert {"readout", "SimpleConv", "module"} == {fields["through"] for fields in work}
    assert ("CUDA graph" in {fields["timing"] for fields in work}) == cuda


# Checks


def test_exact_sum_is_a_fraction():
    assert exact_sum([1e300, 5e-324, -1e300]) == Fraction(5e-324)
    assert exact_sum([0.1, 0.2]) == Fraction(0.1) + Fraction(0.2)
    assert exact_sum([]) == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_nearest_number(dtype):
    one = torch.tensor(1, dtype=getattr(torch, dtype))
    eps = Fraction(torch.finfo(one.dtype).eps)
    assert is_nearest(one, 1 + eps / 2)
    assert not is_nearest(one, 1 + eps * Fraction(51, 100))
    assert not is_nearest(one, 1 - eps * Fraction(26, 100))
    assert not is_nearest(torch.tensor(torch.nan), Fraction(0))


@pytest.fixture(params=DTYPES)
def batch(request):
    return make(Case(TINY, "forward", dtype=request.param, layout="shuffled"), seed=0, device="cpu")


def outcome(batch, gradient, reduce=TRIPLE):
    x = batch.x.clone().requires_grad_()
    out = right(x, batch, reduce)
    return out.detach(), torch.autograd.grad(out, x, gradient)[0]


def test_right_results_pass(batch):
    gradient = torch.randn(6, 9).to(batch.x.dtype)
    expected = Expected(Truth(batch), TRIPLE, gradient)
    assert expected.check(*outcome(batch, gradient), ours=True).right


@pytest.mark.parametrize("block", range(3))
def test_wrong_values_do_not(batch, block):
    gradient = torch.randn(6, 9).to(batch.x.dtype)
    out, slope = outcome(batch, gradient)
    out[2, 3 * block + 1] *= 1.5
    found = Expected(Truth(batch), TRIPLE, gradient).check(out, slope)
    assert not found.right
    assert found.what == TRIPLE[block]


@pytest.mark.parametrize("value", [1.5, torch.nan])
def test_wrong_gradients_do_not(batch, value):
    gradient = torch.randn(6, 9).to(batch.x.dtype)
    out, slope = outcome(batch, gradient)
    slope[5, 1] += value
    assert not Expected(Truth(batch), TRIPLE, gradient).check(out, slope).right


def test_other_shapes_and_dtypes_do_not(batch):
    expected = Expected(Truth(batch), ("sum",), None)
    out = right(batch.x, batch, ("sum",))
    assert expected.check(out, None).right
    assert not expected.check(out[:-1], None).right
    assert not expected.check(out.double(), None).right
    assert not expected.check(torch.full_like(out, torch.nan), None).right


def test_ours_exact_must_be_rounded_to_nearest(batch):
    expected = Expected(Truth(batch), ("sum",), None)
    nearest = torch.stack([batch.x[batch.index == graph].double().sum(0) for graph in range(6)]).to(
        batch.x.dtype
    )
    beside = torch.nextafter(nearest, torch.full_like(nearest, torch.inf))
    assert expected.check(nearest, None, exact=True).right
    assert expected.check(beside, None).right
    assert not expected.check(beside, None, exact=True).right


def test_ties_may_be_shared_as_others_like_but_not_ours():
    x = torch.tensor([[2.0], [2.0], [1.0], [5.0]])
    batch = speed_shapes.Batch(x, torch.tensor([0, 0, 0, 1]), 2)
    expected = Expected(Truth(batch), ("max",), torch.tensor([[4.0], [1.0]]))
    out = torch.tensor([[2.0], [5.0]])
    equal, first, lost = (
        [[2.0], [2.0], [0.0], [1.0]],
        [[4.0], [0.0], [0.0], [1.0]],
        [[2.0], [0.0], [0.0], [1.0]],
    )
    assert expected.check(out, torch.tensor(equal), ours=True).right
    assert expected.check(out, torch.tensor(first)).right
    assert not expected.check(out, torch.tensor(first), ours=True).right
    assert not expected.check(out, torch.tensor(lost)).right


@pytest.mark.filterwarnings("ignore")  # parts of PyTorch call themselves beta
@pytest.mark.parametrize(
    "case", [*both(TINY), *both(TINY, layout="shuffled"), *both(TINY, reduce=("mean",))], ids=title
)
def test_contenders_here_are_right(case):
    admitted, refused = admit(case, pose(case, 0, "cpu"), quick=True, seed=0)
    assert refused == {}
    assert set(admitted) == set(readout_contenders(case.reduce, quick=True))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", speed_shapes.aggregation(200, seed=0), ids=title)
def test_contenders_of_an_aggregation_are_right(case):
    problem = pose(case, 0, "cpu")
    assert isinstance(problem, Convolution if case.through == "SimpleConv" else Readout)
    admitted, refused = admit(case, problem, quick=True, seed=0)
    assert refused == {}
    assert set(admitted) >= {EXACT, FAST, PYG, "sparse.mm"}


MODULES = speed_shapes.modules(TINY, even("5x7x4"))


@pytest.mark.parametrize("case", MODULES, ids=title)
def test_modules_are_right(case):
    admitted, refused = admit(case, pose(case, 0, "cpu"), quick=True, seed=0)
    assert refused == {}
    alone = {f"ours, {name} alone" for name in case.reduce if len(case.reduce) > 1}
    assert set(admitted) == {EXACT, *alone} | ({PYG} if case.reduce != ("median",) else set())


@pytest.mark.parametrize("case", MODULES[1::2], ids=title)
def test_wrong_modules_are_not(case):
    problem = pose(case, 0, "cpu")
    gradient = torch.randn(problem.batch.size, len(case.reduce) * problem.batch.x.shape[1])
    judge = problem.judge(case, gradient)
    for name, build in problem.contenders(case, quick=True).items():
        x = problem.features.detach().requires_grad_()
        out = build(problem.batch, case.reduce)(x)
        (slope,) = torch.autograd.grad(out, x, gradient[:, : out.shape[1]])
        assert judge(name, out, slope).right
        for change in (1.5, torch.nan):
            wrong = torch.ones_like(out)
            wrong[-1, -1] = change
            assert judge(name, out * wrong, slope).what == "output"
            wrong = torch.ones_like(x)
            wrong[slope[:, -1].nonzero()[0], -1] = change
            assert judge(name, out, slope * wrong).what == "gradient"
            assert not judge(name, out, slope * wrong).right


# Who is timed


@pytest.fixture
def contenders(monkeypatch):
    """Contenders that need no kernel: right, wrong, with a wrong gradient, and one that raises."""
    runs_of_the_liar = []

    def lie(out):
        runs_of_the_liar.append(out)
        return out + 1

    cast = {
        EXACT: builder(),
        PYG: builder(),
        "liar": builder(lie),
        "slope": builder(lambda out: out + (out - out.detach())),
        "absent": explode,
    }
    monkeypatch.setattr("experiments.speed.problems.readout_contenders", lambda reduce, quick: cast)
    return runs_of_the_liar


def run(folder, cases):
    with RowLog(folder, "speed") as log:
        return speed.measure(cases, log, SETTINGS)


def test_wrong_and_failing_contenders_are_reported_and_not_timed(contenders, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.speed.check.SAMPLE", 0)  # this stand-in for ours is not exact
    rows = run(tmp_path, both(TINY))
    assert len(contenders) == 2  # one check in each direction, and no more
    for direction in speed_shapes.DIRECTIONS:
        found = {row["contender"]: row["verdict"] for row in rows if row["direction"] == direction}
        assert found[EXACT] == found[PYG] == "right"
        assert found["liar"].startswith("wrong: ")
        assert found["absent"] == "failed: ImportError: no such package"
    assert found["slope"] == "wrong: gradient"
    timed = {row["contender"] for row in rows if row["metric"] == "seconds" and row["direction"] == direction}
    assert timed == {EXACT, PYG, FRESH, WARM}
    assert pick(rows, contender="liar", direction="forward", metric="deviation") > 1
    sentences = list(speed_tables.refusals(rows))
    assert any("liar" in line and "times what is allowed" in line for line in sentences)
    assert any("absent" in line and "no such package" in line and "and 1 more" in line for line in sentences)


def test_rows_have_all_fields_and_are_not_measured_again(contenders, tmp_path, monkeypatch):
    rows = run(tmp_path, both(TINY))
    case = {"data": "6x4x3", "readout": "sum, mean, max", "dtype": "float32", "layout": "sorted"}
    case |= {"through": "readout", "timing": "eager", "graphs": 6, "nodes": 24, "features": 3, "threads": 1}
    for row in rows:
        assert case.items() <= row.items()
        assert {"direction", "contender", "verdict", "bytes", "machine", "libraries"} <= set(row)
    metrics = {row["metric"] for row in rows if row["contender"] == PYG and row["direction"] == "forward"}
    assert metrics == {"seconds", "p20", "p80", "samples", "GB/s", "times plain read", "times PyG"}
    assert pick(rows, contender=PYG, direction="forward", metric="times PyG") == 1
    assert pick(rows, contender=WARM, direction="forward+backward", metric="times fresh write") > 0
    seconds = pick(rows, contender=READ, metric="seconds")
    assert pick(rows, contender=READ, metric="GB/s") == pytest.approx(24 * 3 * 4 / seconds / 1e9)
    monkeypatch.setattr(speed, "interleave", pytest.fail)
    assert run(tmp_path, both(TINY)) == rows
    assert run(tmp_path, both(TINY)[:1]) == [row for row in rows if row["direction"] == "forward"]


@pytest.mark.parametrize("other", [{"threads": 2}, {"seed": 1}, {"quick": False}])
def test_other_settings_are_other_measurements(contenders, tmp_path, other):
    run(tmp_path, both(TINY)[:1])
    with RowLog(tmp_path, "speed") as log:
        rows = speed.measure(both(TINY)[:1], log, replace(SETTINGS, **other))
    assert all(other.items() <= row.items() for row in rows)


# Timing


def test_calls_take_turns_until_their_share_is_spent():
    seconds = {"quick": 0.01, "slow": 0.2, "endless": 5.0}
    order = []

    def clock(call, repeats):
        order.append(call())
        return seconds[order[-1]]

    samples = interleave({name: lambda name=name: name for name in seconds}, share=0.1, clock=clock)
    taken = {name: len(sample.seconds) for name, sample in samples.items()}
    assert taken == {"quick": 11, "slow": 4, "endless": 1}
    assert order[:3] == ["quick", "slow", "endless"]
    assert all(set(order[i : i + 2]) == {"quick", "slow"} for i in (3, 5))


def test_quick_calls_are_repeated_within_a_sample(monkeypatch):
    monkeypatch.setattr("experiments.speed.timing.SAMPLE_SECONDS", 0.002)
    samples = interleave({"quick": lambda: None}, share=0.019, clock=lambda call, repeats: 1e-5)
    assert samples["quick"].repeats == 200
    assert len(samples["quick"].seconds) == 10


def test_quantiles():
    samples = Samples(1, [3.0, 1.0, 2.0, 5.0, 4.0, 6.0])
    assert [samples.quantile(q) for q in (0.2, 0.5, 0.8)] == [2.0, 3.5, 5.0]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_peak_memory_of_a_call():
    code = "import torch; from experiments.speed.timing import peak_beyond as peak\n"
    code += "kept = torch.ones(2**24); print(peak(lambda: kept + 1, 'cpu'))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert 2**26 <= int(run.stdout) < 1.1 * 2**26


def test_memory_of_a_contender_is_printed(capsys):
    threads = str(torch.get_num_threads())
    speed_memory.main("6x4x3", PYG, "cpu", threads)
    assert int(capsys.readouterr().out) >= 0


@pytest.mark.skipif(not speed_memory.can_measure("cpu"), reason="needs Linux")
def test_memory_is_measured_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert speed_memory.peak("2000x10x64", PYG, "cpu", 1) > 2000 * 10 * 64 * 4


# Limits and tables


def row(data, direction, contender, seconds, **more):
    case = {
        "experiment": "speed",
        "data": data,
        "readout": "sum, mean, max",
        "direction": direction,
        "device": "cpu",
    }
    case |= {
        "dtype": "float32",
        "layout": "sorted",
        "through": "readout",
        "timing": "eager",
        "code": "",
        "seed": 0,
    }
    graphs, nodes, features = map(int, data.split("x"))
    case |= {"graphs": graphs, "nodes": graphs * nodes, "features": features, "versions": {}, "fold": None}
    values = {"metric": "seconds", "value": seconds, "contender": contender, "verdict": "right", "bytes": 1}
    return case | values | {"commit": "", "date": ""} | more


FORWARD_ROWS = [
    row("4096x30x256", "forward", READ, 0.010),
    row("4096x30x256", "forward", EXACT, 0.020),
    row("4096x30x256", "forward", FAST, 0.026),
    row("4096x30x256", "forward", GROUPED, 0.020),
    row("4096x30x256", "forward", PYG, 0.080),
    row("4096x30x256", "forward", "embedding_bag", 0.030),
    row("4096x30x256", "forward", "segment_reduce", 0.040),
    row("128x18x64", "forward", EXACT, 75e-6),
]
BOTH_ROWS = [
    row("4096x30x256", "forward+backward", FRESH, 0.100),
    row("4096x30x256", "forward+backward", WARM, 0.050),
    row("4096x30x256", "forward+backward", EXACT, 0.120),
    row("4096x30x256", "forward+backward", FAST, 0, metric="samples", verdict="wrong: sum"),
    row("4096x30x256", "forward+backward", PYG, 0.900),
    row("4096x30x256", "forward+backward", EXACT, 200e6, metric=speed.PEAK),
]


def judged(rows):
    return {one.what: one for one in judge(gather(rows))}


def test_limits_met_and_missed():
    found = judged([*FORWARD_ROWS, *BOTH_ROWS])
    verdicts = {what.removeprefix("4096x30x256, "): one.verdict for what, one in found.items()}
    assert verdicts == {
        "forward: ours fast / plain read": "missed by 100 %",
        "forward: ours exact / plain read": "met",
        "forward+backward: ours fast / fresh write": "missed: no right result",
        "forward+backward: ours exact / fresh write": "met",
        "forward+backward: PyG / ours exact": "missed by 25 %",
        "128x18x64, forward: ours exact": "missed by 25 %",
        "forward+backward: ours exact, peak memory beyond x, of outputs and gradient": "missed by 38 %",
    }


def test_limits_of_modules():
    five = ", ".join(speed_shapes.FIVE)
    rows = [row("1024x25x128", "forward", EXACT, 0.03, readout="softmax")]
    rows += [row("1024x25x128", "forward", PYG, 0.02, readout="softmax")]
    rows += [row("4096x30x256", "forward+backward", EXACT, 0.51, readout="median")]
    rows += [row("4096x30x256", "forward+backward", READ, 0.01, readout="median")]
    rows += [row("4096x30x256", "forward", EXACT, 0.03, readout=five)]
    rows += [
        row("4096x30x256", "forward", f"ours, {name} alone", 0.01 * len(name), readout=five)
        for name in speed_shapes.FIVE
    ]
    found = judged([one | {"through": "module"} for one in rows])
    assert {what: one.verdict for what, one in found.items()} == {
        "softmax, 1024x25x128, forward: ours exact / PyG": "missed by 50 %",
        "median, 4096x30x256, forward+backward: ours exact / plain read": "missed by 2 %",
        f"{five}, 4096x30x256, forward: ours exact / ours, mean alone": "met",
    }


def test_limit_of_epochs():
    names = {"data": "8x9x7", "direction": speed_shapes.EPOCH, "readout": "sum", "through": "training"}
    rows = [row("8x9x7", names["direction"], LOADER, 0.3) | names]
    assert judged(rows)["8x9x7, epoch: DataLoader / resident"].verdict == "missed: no right result"
    rows.append(row("8x9x7", names["direction"], RESIDENT, 0.12) | names)
    assert judged(rows)["8x9x7, epoch: DataLoader / resident"].verdict == "missed by 17 %"
    rows[1]["value"] = 0.09
    assert judged(rows)["8x9x7, epoch: DataLoader / resident"].verdict == "met"


def test_giant_against_the_same_data_cut():
    giant = row("1x1000x64", "forward", EXACT, 0.14)
    cut = row("100x10x64", "forward", EXACT, 0.10) | {"data": speed_shapes.GIANT_DATA}
    assert (
        judged([giant, cut])["1x1000x64, forward: ours exact / giant as 1024 graphs"].verdict
        == "missed by 8 %"
    )
    assert judged([giant, cut])["1x1000x64, forward: ours fast / giant as 1024 graphs"].reached is None


def test_limits_on_a_gpu():
    rows = [one | {"device": "cuda"} for one in FORWARD_ROWS]
    rows = [one | {"graphs": 65536, "nodes": 65536 * 30} for one in rows if one["data"] != "128x18x64"]
    rows += [rows[1] | {"metric": "GB/s", "value": 90.0}]
    rows += [rows[0] | {"contender": "device copy", "metric": "GB/s", "value": 100.0}]
    verdicts = {what.partition(": ")[2]: one.verdict for what, one in judged(rows).items()}
    assert verdicts == {
        "ours exact GB/s / device copy GB/s": "met",
        "ours fast GB/s / device copy GB/s": "missed: no right result",
        "ours exact / ours fast": "met",
    }


@pytest.mark.parametrize(("reached", "met"), [(0.84, False), (0.85, True), (None, False)])
def test_limit_from_below(reached, met):
    assert Judged("share", reached, 0.85, at_least=True).met is met


def test_tables_show_ratios_and_misses(capsys):
    say(*speed_tables.tables([*FORWARD_ROWS, *BOTH_ROWS]))
    output = capsys.readouterr().out
    assert "…" not in output
    lines = {line.split("│")[1].strip(): line for line in output.splitlines() if line.startswith("│")}
    cells = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines() if "│" in line
    ]
    assert ["4096x30x256", "10", "2 ≤ 2.5", "2.6 > 1.3", "2", "8", "embedding_bag 3"] in cells
    assert ["4096x30x256", "fresh", "100", "1.2 ≤ 2.5", "wrong", "9", "-"] in cells
    assert ["", "warm", "50", "2.4", "wrong", "18", "-"] in cells
    assert "Limits: 2 of 7 met" in output
    assert "missed by 25 %" in lines["128x18x64, forward: ours exact"]


def test_noise_is_told():
    times = [
        FORWARD_ROWS[0] | {"metric": metric, "value": value} for metric, value in (("p20", 1), ("p80", 1.4))
    ]
    assert list(speed_tables.noise(times)) == []
    times[1]["value"] = 1.6
    (sentence,) = speed_tables.noise(times)
    assert "in 1 cases (4096x30x256, sum, mean, max, forward)" in sentence
    found = judged([*FORWARD_ROWS, *times])
    assert found["4096x30x256, forward: ours exact / plain read"].verdict == "met, noisy"
    assert found["128x18x64, forward: ours exact"].verdict == "missed by 25 %"


def test_figure_is_drawn(tmp_path):
    speeds = [row | {"metric": "GB/s", "value": 10.0} for row in (*FORWARD_ROWS, *BOTH_ROWS)]
    paths = speed_figure.figure(speeds, tmp_path)
    assert [path.name for path in paths] == ["speed.svg", "speed.png"]
    assert "ours exact" in paths[0].read_text() or paths[0].stat().st_size > 10_000


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
    (limit,) = judge(gather(rows))
    assert (limit.what, limit.limit, limit.at_least) == ("rings, epoch: DataLoader / resident", 3, True)
    assert limit.reached == pytest.approx(seconds[LOADER] / seconds[RESIDENT])
    say(*speed_tables.tables(rows))
    output = capsys.readouterr().out
    assert f"{speed_tables.short(limit.reached)} │" in output
    assert list(speed_tables.refusals(rows)) == []


def test_epochs_of_networks_that_differ_are_not_timed(monkeypatch):
    forward = epochs.PyGNetwork.forward
    monkeypatch.setattr(epochs.PyGNetwork, "forward", lambda self, data: forward(self, data) + 0.1)
    with pytest.raises(RuntimeError, match="rings: the two networks to be timed differ by 0"):
        epochs.time_epochs(load("rings"), 0, 0.0)


# The command


def test_quick_command_on_a_tiny_plan(contenders, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(speed_shapes, "plan", lambda quick, cuda, sets, seed: both(TINY))
    assert main(["speed", "--quick", "--device", "cpu", "--threads", "1", "--out", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "sum, mean, max, forward" in output
    assert "not timed: liar" in output
    assert {path.name for path in tmp_path.iterdir()} >= {"speed.jsonl", "speed.png", "speed.svg"}


@pytest.mark.parametrize("threads", ["0", "many"])
def test_bad_threads(threads, tmp_path, capsys):
    assert main(["speed", "--threads", threads, "--out", str(tmp_path)]) == 2
    assert "--threads" in capsys.readouterr().err
