"""The conformance suite passes our readouts, and finds what is known to be wrong with others."""

import contextlib
import inspect
import io
import itertools
import json
import os
import sys
from pathlib import Path

import pytest
import torch
import torch_geometric.nn.aggr

import readouts.nn
from docs.conformance import Section, page
from readouts.__main__ import main
from readouts.commands.names import KINDS, LEVELS
from readouts.commands.names import ROWS as ROW_NAMES
from readouts.testing.conformance import Subject, TargetError, assert_conformance, check_conformance, probe
from readouts.testing.conformance import row as row_module
from readouts.testing.conformance.snippets import CRASHED, run, run_isolated
from readouts.testing.conformance.suite import FAILED, PASSED, ROWS, WITHOUT, check_each, select

THIRD = torch.tensor(1.0).div(3).item()
PYG = "torch_geometric.nn.aggr:"
OWN = {
    "SumReadout": None,
    "MeanReadout": None,
    "MaxReadout": None,
    "MinReadout": None,
    "VarReadout": None,
    "StdReadout": None,
    "MedianReadout": None,
    "MultiReadout": [["sum", "mean", "max", "min", "var", "std"]],
}


def rows(*names):
    found = [row for row in ROWS if row.name in names]
    assert len(found) == len(names)
    return found


def result(target, init, name):
    (only,) = check_conformance(Subject.locate(target, init), rows(name)).results
    return only


@pytest.fixture(scope="module")
def own():
    subjects = [Subject.locate(f"readouts.nn:{name}", init) for name, init in OWN.items()]
    return dict(zip(OWN, check_each(subjects), strict=True))


@pytest.mark.parametrize("name", OWN)
def test_our_readouts_pass_all_rows(own, name):
    assert own[name].passed, str(own[name])


def test_every_row_has_meaning_for_one_of_ours(own):
    without = set.intersection(*({found.row for found in one.named(WITHOUT)} for one in own.values()))
    assert not without


# What is known to be wrong with PyG's aggregations.
@pytest.mark.parametrize(
    ("name", "init", "row", "came"),
    [
        ("MaxAggregation", None, "single extreme", "[0.5, 0.0, 0.0]"),
        (
            "MaxAggregation",
            None,
            "ties share the gradient",
            f"[{THIRD}, {THIRD}, 0.0, 0.0]",
        ),
        ("VarAggregation", None, "variance of close values", "0.0625"),
        ("StdAggregation", None, "variance of close values", "0.25"),
        ("MedianAggregation", None, "median", "[[2.0]]"),
        ("SumAggregation", None, "correctly rounded", "[[0.0]]"),
    ],
)
def test_values_and_gradients_of_pyg(name, init, row, came):
    found = result(PYG + name, init, row)
    assert (found.result, found.got) == (FAILED, came)


def test_infinities_of_pyg_through_ptr():
    found = result(PYG + "MaxAggregation", None, "infinities")
    assert found.expected == "[[-inf]]"
    assert "ptr" in found.example
    assert found.got in ("[[0.0]]", "[[-3.4028234663852886e+38]]")  # the latter with torch-scatter


def test_median_of_pyg_in_bfloat16_is_mostly_wrong():
    found = result(PYG + "MedianAggregation", None, "median in bfloat16")
    assert found.result == FAILED
    assert 700 < int(found.got) < 900


@pytest.mark.parametrize(
    ("name", "init", "row"),
    [
        ("SortAggregation", [2], "order of the nodes"),
        ("GRUAggregation", [4, 4], "order of the nodes"),
        ("LSTMAggregation", [4, 4], "order of the nodes"),
        ("GRUAggregation", [4, 4], "other graphs"),
        ("LSTMAggregation", [4, 4], "other graphs"),
        ("LCMAggregation", [4, 4], "other graphs"),
        ("EquilibriumAggregation", [4, 4, [8]], "other graphs"),
    ],
)
def test_pyg_aggregations_that_depend_on_order_or_company(name, init, row):
    found = result(PYG + name, init, row)
    assert found.result == FAILED
    assert float(found.got) > 1e-3


@pytest.mark.parametrize("name", ["SumAggregation", "MeanAggregation", "SoftmaxAggregation"])
def test_pyg_sums_depend_on_the_order_by_rounding_only(name):
    names = ("order of the nodes", "order, to the bit")
    found = check_conformance(Subject.locate(PYG + name), rows(*names)).results
    assert [one.result for one in found] == [PASSED, FAILED]
    assert 0 < float(found[1].got) < 1e-5


def test_ties_of_torch_scatter():
    pytest.importorskip("torch_scatter")
    found = result("torch_scatter:scatter", {"reduce": "max"}, "ties share the gradient")
    assert (found.result, found.got) == (FAILED, "[1.0, 0.0, 0.0, 0.0]")


# Faults that are planted.
def one_hot(batch, size):
    return torch.nn.functional.one_hot(batch, size)


def sum_by_matrix(x, batch, size):
    return one_hot(batch, size).to(x.dtype).t() @ x


def mean_over_padding(x, batch, size):
    return sum_by_matrix(x, batch, size) / one_hot(batch, size).sum(dim=0).max()


def max_with_minus_infinity(x, batch, size):
    out = x.new_full((size, x.shape[1]), -torch.inf)
    return out.scatter_reduce(0, batch.view(-1, 1).expand_as(x), x, "amax")


def first_node(x, batch, size):
    return torch.stack([x[batch == graph][:1].sum(dim=0) for graph in range(size)])


def unbiased_std(x, batch, size):
    return torch.stack([x[batch == graph].std(dim=0) for graph in range(size)])


def half_of_sum(x, batch, size):
    return sum_by_matrix(x.half(), batch, size).to(x.dtype)


def sum_that_trusts_the_index(x, batch, size):
    if batch.numel() and not 0 <= int(batch.min()) <= int(batch.max()) < size:
        os.abort()
    return x.new_zeros(size, x.shape[1]).index_add(0, batch, x)


def sum_without_a_gradient(x, batch, size):
    return sum_by_matrix(x.detach(), batch, size) + 0 * x.sum()


@pytest.mark.parametrize(
    ("function", "row"),
    [
        (sum_by_matrix, "NaN"),
        (sum_by_matrix, "infinities"),
        (mean_over_padding, "other graphs"),
        (max_with_minus_infinity, "empty graph"),
        (first_node, "order of the nodes"),
        (unbiased_std, "population variance"),
        (unbiased_std, "std gradient at 0"),
        (half_of_sum, "correctly rounded"),
        (half_of_sum, "first derivative"),
        (sum_that_trusts_the_index, "index out of range"),
        (sum_without_a_gradient, "first derivative"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_planted_faults_are_found(function, row):
    found = result(f"{__name__}:{function.__name__}", None, row)
    assert found.result == FAILED


def test_crashes_are_told_from_exceptions_that_came_before():
    setup = "import os"
    raises, crashes, returns = ((setup, "", shows) for shows in ("1 / 0", "os.abort()", "7"))
    found = run_isolated([[raises], [raises, returns, raises], [raises, crashes]])
    errors = [[outcome.error for outcome in row] for row in found]
    zero = "ZeroDivisionError: division by zero"
    assert errors == [[zero], [zero, ""], [zero, CRASHED]]
    assert found[1][1].value == 7


def printed_by(example):
    """Return what three lines print, or the error that they raise as a report shows it."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(example, {"__name__": "__main__"})
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return printed.getvalue().strip()


@pytest.mark.parametrize(
    ("target", "init", "kinds", "features"),
    [
        ("torch_geometric.nn:global_add_pool", None, ("sum",), 1),
        ("torch_geometric.utils:scatter", {"reduce": "min"}, ("min",), 1),
        (PYG + "MulAggregation", None, ("mul",), 1),
        (PYG + "MedianAggregation", None, ("median",), 1),
        (PYG + "MultiAggregation", [["max", "std"]], ("max", "std"), 1),
        (PYG + "SoftmaxAggregation", None, ("other",), 1),
        (PYG + "SortAggregation", [2], ("other",), 3),
        (PYG + "Set2Set", {"in_channels": 4, "processing_steps": 2}, ("other",), 4),
        (f"{__name__}:unbiased_std", None, ("std",), 1),
    ],
)
def test_kinds_are_found_by_probing(target, init, kinds, features):
    subject = Subject.locate(target, init)
    assert (subject.kinds, subject.features) == (kinds, features)


def test_likeness_can_be_told():
    name = f"{__name__}:first_node"
    assert Subject.locate(name).kinds == ("other",)
    told = Subject.locate(name, like="mean")
    (found,) = check_conformance(told, rows("correctly rounded")).results
    assert found.result == FAILED


@pytest.mark.parametrize(
    ("target", "init", "like", "message"),
    [
        ("SumReadout", None, None, "expected package.module:name"),
        ("no.such.module:Sum", None, None, "cannot import"),
        ("readouts.nn:NoSuchReadout", None, None, "cannot import"),
        ("readouts.nn:__all__", None, None, "expected a class, a module or a function, got list"),
        ("readouts.nn:SumReadout", 3, None, "init: expected a list or an object"),
        ("readouts.nn:SumReadout", [3], None, "cannot be made"),
        ("readouts.nn:SumReadout", None, "mode", "like: expected one of sum, mean"),
        (PYG + "GRUAggregation", [4, 4], "mean", "like: expected a readout of one feature, got one of 4"),
        ("torch_geometric.nn:global_add_pool", [3], None, "expected an object of keyword arguments"),
        ("torch:numel", None, None, "expected a function"),
        ("torch.nn:Linear", [2, 2], None, "expected a function"),
        ("torch_geometric.nn:GCNConv", [2, 2], None, "cannot be called"),
        (PYG + "Aggregation", None, None, "expected one row for each of 2 graphs, got NoneType"),
    ],
)
def test_targets_that_cannot_be_examined(target, init, like, message):
    with pytest.raises(TargetError, match=message):
        Subject.locate(target, init, like)


def test_nothing_is_left_behind():
    state, default = torch.random.get_rng_state(), torch.get_default_dtype()
    paths = list(sys.path)
    result(PYG + "GRUAggregation", [4, 4], "order of the nodes")
    assert torch.random.get_rng_state().equal(state)
    assert torch.get_default_dtype() == default
    assert sys.path == paths


def test_report_shows_rows_and_examples():
    names = "single extreme", "NaN", "median"
    text = str(check_conformance(Subject.locate(PYG + "MaxAggregation"), rows(*names)))
    assert text.startswith("MaxAggregation, which behaves like max\n")
    assert "  NaN             passed\n  median          not applicable: applies to median\n" in text
    assert "  single extreme  FAILED\n" in text
    assert "  expected  [1.0, 0.0, 0.0]\n  got       [0.5, 0.0, 0.0]\n" in text
    assert "    import torch; from torch_geometric.nn.aggr import MaxAggregation" in text
    assert text.endswith("\n1 passed, 1 failed, 1 not applicable")


def test_command_finds_failures_and_their_examples_show_them(capsys):
    assert main(["conformance", PYG + "MaxAggregation", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["passed"]
    assert found["kinds"] == ["max"]
    assert [row["row"] for row in found["rows"]] == [row.name for row in ROWS]
    failed = [row for row in found["rows"] if row["result"] == FAILED]
    assert len(failed) > 4
    for row in failed:
        assert len(row["example"].splitlines()) == 3
        assert printed_by(row["example"]) == row["got"]


def test_examples_that_raise_show_the_error():
    for name in ("no nodes", "ptr"):
        failure = result(PYG + "MedianAggregation", None, name)
        assert printed_by(failure.example) == failure.got


def test_command_passes_our_own(capsys):
    assert main(["conformance", "readouts.nn:SumReadout", "--init", '{"empty": 0}']) == 0
    assert ", 0 failed, " in capsys.readouterr().out


def test_readouts_of_other_widths_are_compiled_with_their_own_shapes():
    targets = {"readouts.nn:SumReadout": None, "readouts.nn:MultiheadAttentionReadout": [4, 2]}
    subjects = [Subject.locate(name, init) for name, init in targets.items()]
    assert [subject.features for subject in subjects] == [1, 4]
    assert all(found.passed for found in check_each(subjects, rows("torch.compile")))


def interrupt_after(calls, monkeypatch):
    """Let Ctrl-C come in place of a snippet."""
    numbers = itertools.count()

    def interrupted(snippet):
        if next(numbers) == calls:
            raise KeyboardInterrupt
        return run(snippet)

    monkeypatch.setattr("readouts.testing.conformance.suite.run", interrupted)


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_interruption_keeps_the_rows_so_far(as_json, monkeypatch, capsys):
    interrupt_after(1, monkeypatch)
    asked = ["conformance", PYG + "MaxAggregation", "--rows", "single extreme,first derivative,no features"]
    assert main([*asked, *["--json"] * as_json]) == 130
    out, err = capsys.readouterr()
    assert err == "interrupted after 1 of 3 rows\n"
    if as_json:
        found = json.loads(out)
        assert (found["error"], found["passed"]) == (err.strip(), False)
        assert [row["row"] for row in found["rows"]] == ["single extreme"]
    else:
        assert "  single extreme    FAILED\n" in out
        assert out.endswith("\n0 passed, 1 failed, 0 not applicable\n")


@pytest.mark.parametrize("option", [["--json"], ["--rows", "NaN"], ["--like", "sum"]])
def test_options_that_the_page_does_not_take_are_refused(option, capsys):
    assert main(["conformance", "--document", *option]) == 2
    assert f"{option[0]}: expected without --document" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["nowhere:Sum"], ["readouts.nn:SumReadout", "--init", "{"], ["readouts.nn:SumReadout", "--like", "x"]],
)
def test_command_says_in_one_line_what_cannot_be_run(arguments, capsys):
    assert main(["conformance", *arguments]) == 2
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert len(errors.splitlines()) == 1


def test_command_runs_the_script_of_a_clone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(readouts, "__file__", str(tmp_path / "readouts" / "__init__.py"))
    assert main(["conformance", "--document"]) == 2
    assert capsys.readouterr().err.endswith("expected a clone of the repository, got an installed package\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "conformance.py").write_text("if __name__ == '__main__': print('the page')")
    assert main(["conformance", "--document"]) == 0
    assert capsys.readouterr().out == "the page\n"


def first_rows(x, batch):
    return x[:2]


def test_rows_of_other_graphs_are_found_in_the_second_graph():
    names = ["other graphs", "other graphs, to the bit"]
    for name in names:
        subject = Subject.locate(f"{__name__}:first_rows", like="other")
        (found,) = check_conformance(subject, rows(name)).results
        assert found.result == FAILED, name


@pytest.mark.parametrize("name", ["SumAggregation", "MeanAggregation", "MaxAggregation"])
def test_int32_gradients_of_pyg(name):
    """Values are right, and gradients of several features are not, in some versions of torch."""
    index = torch.tensor([0, 0, 1, 1, 1])
    pool = getattr(torch_geometric.nn.aggr, name)()
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    wide, narrow = (
        torch.autograd.grad(pool(x, each, dim_size=2).square().sum(), x)[0] for each in (index, index.int())
    )
    assert result(PYG + name, None, "int32 batch").result == (PASSED if wide.allclose(narrow) else FAILED)


def test_rows_are_chosen_by_name_and_level():
    assert {row.level for row in ROWS} == set(LEVELS)
    assert [row.name for row in select(["NaN", "ptr"])] == ["NaN", "ptr"]
    assert "NaN" not in {row.name for row in select(skip=["NaN"])}
    assert {row.name for row in select(levels=["bits"])} == {
        name for name in ROW_NAMES if name.endswith(", to the bit")
    }
    assert all("raises" in row.contract or "raise." in row.contract for row in select(levels=["validation"]))
    with pytest.raises(ValueError, match="rows: expected at least one, got none"):
        select(["NaN"], levels=["bits"])


def test_command_knows_the_rows_kinds_and_levels():
    assert [row.name for row in ROWS] == list(ROW_NAMES)
    assert list(probe.NAMES) == list(KINDS)
    assert row_module.LEVELS == LEVELS


def test_build_can_insist_on_some_rows(capsys):
    plain = PYG + "SumAggregation"
    assert main(["conformance", plain, "--rows", "order of the nodes,order, to the bit"]) == 1
    assert (
        main(["conformance", plain, "--rows", "order of the nodes,order, to the bit", "--level", "must"]) == 0
    )
    skipped = ["--rows", "NaN,order, to the bit", "--skip", "order, to the bit"]
    assert main(["conformance", plain, *skipped, "--json"]) == 0
    assert '"row": "NaN"' in capsys.readouterr().out


def test_conformance_as_an_assertion():
    assert_conformance(readouts.nn.SumReadout, rows=["NaN", "order, to the bit"])
    with pytest.raises(AssertionError, match=r"NaN +FAILED"):
        assert_conformance(sum_by_matrix, rows=["NaN"])


@pytest.mark.parametrize(
    "wrong", [["--rows", "nope"], ["--skip", "nope"], ["--level", "nope"], ["--like", "summ"]]
)
def test_wrong_choices_are_refused_at_once(wrong, capsys):
    try:
        code = main(["conformance", "no.such:Readout", *wrong, "--json"])
    except SystemExit as end:
        code = end.code
    assert code == 2
    out, err = capsys.readouterr()
    assert wrong[1] in json.loads(out)["error"]
    assert wrong[1] in err


def test_page_has_tables_and_examples():
    section = Section("torch-geometric", {"Max": Subject.locate(PYG + "MaxAggregation")}, ("Base (no rows)",))
    text = page([section], rows("NaN", "single extreme", "median"))
    assert "| behaves like | max |\n| NaN | ✓ |\n| single extreme | ✗ |\n\nLeft out: Base (no rows)." in text
    assert "**single extreme**, MaxAggregation: expected [1.0, 0.0, 0.0], got [0.5, 0.0, 0.0]" in text
    assert f"torch {torch.__version__.partition('+')[0]}" in text


def test_committed_page_is_not_stale():
    text = (Path(__file__).parents[3] / "docs" / "conformance.md").read_text()
    for row in ROWS:
        assert f"| {row.name} | {row.contract} |" in text, (
            "readouts conformance --document > docs/conformance.md"
        )
    ours = text.partition("## torch-geometric")[0]
    for name in readouts.nn.__all__:
        if inspect.isclass(getattr(readouts.nn, name)):
            assert f" {name.removesuffix('Readout')} |" in ours or f"{name} (" in ours, name
