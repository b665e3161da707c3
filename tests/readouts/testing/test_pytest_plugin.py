"""The plugin: options, marker, fixtures, summary of verdicts, and weight."""

import subprocess
import sys

import pytest
import torch

from readouts import readout
from readouts.testing import check_gradient_equivariance

MODELS = """
    import pytest
    import torch
    from torch_geometric.nn import global_add_pool
    from readouts import readout

    x, batch = torch.randn(20, 3), torch.arange(20) // 5

    def exact(x, batch):
        return readout(x, batch, reduce="sum")

    def first(x, batch):
        return x[torch.searchsorted(batch, torch.arange(int(batch.max()) + 1))]
"""


@pytest.fixture(autouse=True, scope="module")
def _imported():
    """Import all that a check needs: pytester drops what its runs import, and torch imports once only."""
    batch = torch.tensor([0, 0, 1])
    check_gradient_equivariance(lambda x, batch: readout(x, batch, reduce="sum"), torch.ones(3, 1), batch)


def test_fixture_gives_seeded_permutations(pytester):
    pytester.makepyfile(
        """
        import torch

        def test_count(node_permutations):
            orders = list(node_permutations(50))
            assert len(orders) == 4
            assert all(order.sort().values.equal(torch.arange(50)) for order in orders)
            assert all(order.equal(again) for order, again in zip(orders, node_permutations(50)))
            print("first", orders[0][:5].tolist())
        """
    )
    first, again, other = (
        pytester.runpytest("-s", "--readouts-permutations=4", f"--readouts-seed={seed}") for seed in (1, 1, 2)
    )
    lines = [next(line for line in run.outlines if "first" in line) for run in (first, again, other)]
    first.assert_outcomes(passed=1)
    assert lines[0] == lines[1] != lines[2]


def test_no_permutations_are_no_test(pytester):
    for number in ("0", "-3", "many"):
        run = pytester.runpytest(f"--readouts-permutations={number}")
        assert run.ret == 4
        run.stderr.fnmatch_lines([f"*expected an integer of at least 1, got '{number}'*"])


def test_starting_pytest_does_not_import_torch():
    code = "import pytest, sys, readouts_pytest; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture
def checked(pytester):
    """A file with one test for every fixture and verdict."""
    pytester.makepyfile(
        MODELS
        + """
    def test_invariant(assert_permutation_invariant, assert_batch_independent):
        assert_permutation_invariant(exact, x, batch)
        assert_batch_independent(exact, x, batch)

    def test_gradient(assert_gradient_equivariant):
        assert_gradient_equivariant(exact, x, batch)

    def test_rounding(assert_permutation_invariant):
        assert_permutation_invariant(global_add_pool, 1 / x, batch)

    @pytest.mark.readouts(allow="identical")
    def test_insists(assert_permutation_invariant):
        assert_permutation_invariant(global_add_pool, 1 / x, batch)

    def test_equivariant(assert_permutation_equivariant):
        assert_permutation_equivariant(torch.relu, x)

    def test_broken(assert_permutation_invariant):
        assert_permutation_invariant(first, x, batch)

    def test_random(assert_permutation_invariant):
        assert_permutation_invariant(lambda x, batch: exact(torch.dropout(x, 0.5, True), batch), x, batch)
    """
    )
    return pytester


def test_checks_pass_fail_and_are_listed(checked):
    run = checked.runpytest()
    run.assert_outcomes(passed=4, failed=3)
    run.stdout.fnmatch_lines(["E * BROKEN: permutation invariance of first", "E * reproduce"])
    heading = next(number for number, line in enumerate(run.outlines) if "= readouts verdicts =" in line)
    file = "test_checks_pass_fail_and_are_listed.py::"
    assert [line.split() for line in run.outlines[heading + 1 : heading + 9]] == [
        ["BROKEN", "permutation", "invariance", "first", f"{file}test_broken"],
        ["RANDOM", "permutation", "invariance", "<lambda>", f"{file}test_random"],
        ["rounding", "permutation", "invariance", "global_add_pool", f"{file}test_insists"],
        ["rounding", "permutation", "invariance", "global_add_pool", f"{file}test_rounding"],
        ["identical", "bits", "permutation", "equivariance", "relu", f"{file}test_equivariant"],
        ["identical", "bits", "gradient", "equivariance", "exact", f"{file}test_gradient"],
        ["identical", "bits", "permutation", "invariance", "exact", f"{file}test_invariant"],
        ["identical", "bits", "batch", "independence", "exact", f"{file}test_invariant"],
    ]


def test_quiet_summary_is_counts_and_a_list(checked):
    run = checked.runpytest("-q")
    place = run.outlines.index("readouts verdicts: 1 broken, 1 random, 2 rounding, 4 identical bits")
    assert run.outlines[place + 1].startswith("BROKEN          permutation invariance")
    assert len([line for line in run.outlines[place:] if "::test_" in line and "FAILED" not in line]) == 8
    short = checked.runpytest("-qq")
    assert "readouts verdicts: 1 broken, 1 random, 2 rounding, 4 identical bits" in short.outlines
    assert not any(line.startswith("BROKEN") for line in short.outlines)
    assert not any("= readouts verdicts =" in line for line in run.outlines)


def test_verdicts_come_back_from_other_processes(checked):
    pytest.importorskip("xdist")
    run = checked.runpytest("-q", "-n1")
    run.assert_outcomes(passed=4, failed=3)
    assert "readouts verdicts: 1 broken, 1 random, 2 rounding, 4 identical bits" in run.outlines


def test_frames_of_the_plugin_are_hidden(checked):
    run = checked.runpytest("-k", "test_broken")
    assert not any("readouts_pytest.py" in line or "report.py" in line for line in run.outlines)


def test_edges_positions_keywords_and_conformance(pytester):
    pytester.makepyfile(
        MODELS
        + """
    edges = torch.tensor([[0, 1, 2], [1, 2, 3]])

    def messages(x, edge_index, *, weight, index):
        return exact(x[edge_index[0]] * weight, index[edge_index[0]])

    def test_edges(assert_edge_order_invariant, assert_permutation_invariant):
        inputs = dict(weight=torch.randn(3, 1), index=batch)
        assert_edge_order_invariant(messages, x, edges, **inputs)
        assert_permutation_invariant(messages, x, edges, **inputs, permutations=2)

    def test_positions(assert_motion_invariant):
        assert_motion_invariant(lambda pos: torch.cdist(pos, pos).amax(), pos=torch.randn(5, 3))

    def test_conformance(assert_conformance):
        assert_conformance("readouts.nn:SumReadout", rows=["NaN", "order, to the bit"], levels=["bits"])
        with pytest.raises(AssertionError, match="order, to the bit"):
            assert_conformance("torch_geometric.nn:global_add_pool", levels=["bits"])
        with pytest.raises(ValueError, match="rows: expected "):
            assert_conformance("readouts.nn:SumReadout", rows=["nothing"])
    """
    )
    pytester.runpytest().assert_outcomes(passed=3)


def test_no_check_no_summary(pytester):
    pytester.makepyfile("def test_nothing(node_permutations): pass")
    for quiet in ((), ("-q",)):
        assert "readouts verdicts" not in str(pytester.runpytest(*quiet).stdout)


def test_marker_overrides_the_options_and_a_call_the_marker(pytester):
    pytester.makepyfile(
        """
        import pytest
        import torch
        import readouts.testing

        def model(x): return x

        @pytest.fixture
        def asked(monkeypatch):
            seen = []
            check = readouts.testing.check_permutation_equivariance
            def noted(*inputs, **settings):
                seen.append((settings["permutations"], settings["seed"]))
                return check(*inputs, **settings)
            monkeypatch.setattr(readouts.testing, "check_permutation_equivariance", noted)
            return seen

        def test_options(asked, assert_permutation_equivariant):
            assert_permutation_equivariant(model, torch.eye(3))
            assert asked == [(4, 7)]

        @pytest.mark.readouts(permutations=2)
        def test_marker(asked, assert_permutation_equivariant, node_permutations):
            assert_permutation_equivariant(model, torch.eye(3))
            assert_permutation_equivariant(model, torch.eye(3), seed=1, allow="identical")
            assert asked == [(2, 7), (2, 1)]
            assert len(list(node_permutations(3))) == 2
        """
    )
    run = pytester.runpytest("--strict-markers", "--readouts-permutations=4", "--readouts-seed=7")
    run.assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("marker", "came"),
    [
        ("permutation=3", "permutation"),
        ("3", "3"),
        ('allow="all"', "'all'"),
        ("permutations=0", "0"),
        ("permutations=2.5", "2.5"),
    ],
)
@pytest.mark.parametrize("fixture", ["assert_permutation_equivariant", "node_permutations"])
def test_mistaken_marker_is_an_error(pytester, marker, came, fixture):
    pytester.makepyfile(
        f"""
        import pytest, torch

        @pytest.mark.readouts({marker})
        def test_it({fixture}):
            pass
        """
    )
    run = pytester.runpytest()
    assert run.ret == pytest.ExitCode.TESTS_FAILED
    run.stdout.fnmatch_lines([f"E*: expected *, got {came}"])


def test_marker_is_documented(pytester):
    pytester.runpytest("--markers").stdout.fnmatch_lines(["@pytest.mark.readouts(permutations=N, seed=SEED*"])
