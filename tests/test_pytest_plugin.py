"""The plugin's option, fixture and weight."""

import subprocess
import sys


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
