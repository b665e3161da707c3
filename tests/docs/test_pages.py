"""The Python of every page runs, and the examples of the conformance page fail as the page says."""

import contextlib
import importlib.util
import io
import re
import sys
from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore, destroy_process_group, init_process_group

from readouts import exact_scatter, readout
from readouts.nn import MultiReadout, Set2SetReadout, SumReadout
from readouts.testing import (
    assert_batch_independent,
    assert_edge_order_invariant,
    assert_permutation_invariant,
)
from readouts.testing.conformance.snippets import CRASHED, run_isolated
from readouts.testing.conformance.suite import assert_conformance

DOCS = Path(__file__).parents[2] / "docs"
FAILURES = re.findall(
    r"\*\*(.*?)\*\*, (.*?): expected (.*?), got (.*?)\n\n```python\n(.*?)```",
    (DOCS / "conformance.md").read_text(),
    re.DOTALL,
)
ROUNDING = 1e-5  # a smaller difference depends on the processor


def blocks_of(page):
    """Return the Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def run(page, folder, names):
    """Run the blocks of a page in order, with the names of those before, and write those that are files."""
    for block in blocks_of(page):
        file = re.match(r"# (\w+\.py)\n", block)
        if file:
            (folder / file[1]).write_text(block)
        exec(block, names)
    return names


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that Python imports from; what is switched on for the whole program is switched off again."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    exact_scatter(False)
    sys.modules.pop("model", None)


def test_every_page_with_python_is_run_here():
    pages = {path.name for path in DOCS.glob("*.md") if "```python" in path.read_text()}
    here = Path(__file__).read_text()
    assert [page for page in sorted(pages) if f'"{page}"' not in here] == []


def test_what_pictures_show_stands_on_one_line():
    """The site would join the last word of a line and the first of the next."""
    pictures = [
        (path, words)
        for path in DOCS.rglob("*.md")
        for words in re.findall(r"!\[([^\]]*)\]", path.read_text())
    ]
    assert pictures
    assert [(path, words) for path, words in pictures if "\n" in words or not words] == []


def test_start_page(folder):
    names = run("index.md", folder, {})
    assert names["out"].shape == (2, 24)


def test_quick_start(folder, capsys):
    names = run("quickstart.md", folder, {"__name__": "quickstart"})
    losses = [float(loss) for loss in re.findall(r"epoch \d: loss ([\d.]+)", capsys.readouterr().out)]
    assert len(losses) == 5
    assert losses[-1] < losses[0]
    assert isinstance(names["model"].pool, MultiReadout)


def test_readouts(folder):
    names = run("readouts.md", folder, {})
    assert isinstance(names["conv"].aggr_module, SumReadout)
    assert isinstance(names["pool"], Set2SetReadout)


def test_attribution(folder):
    pytest.importorskip("rdkit", reason="needs RDKit (the extra draw)")
    names = run("attribution.md", folder, {})
    assert names["parts"].tolist() == [[0], [2], [2], [3]]
    assert names["atoms"].tolist() == [1, 6]
    assert names["largest"].tolist() == [6]


def test_reproducible(folder, capsys):
    run("reproducible.md", folder, {})
    (block,) = blocks_of("reproducible.md")
    said = re.findall(r"\)\)  # (.*)", block)
    assert capsys.readouterr().out.splitlines() == said == ["tensor([0.])", "tensor([1.])"]


def test_scaling(folder):
    x, batch = torch.randn(24, 2), torch.arange(24) % 12
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        names = run("scaling.md", folder, {"x": x, "batch": batch})
        assert names["out"].equal(readout(x, batch, ["sum", "max"]))
        assert names["pool"](x, batch).equal(readout(x, batch, ["mean", "max"]))
    finally:
        destroy_process_group()


def test_testing(folder):
    x, batch = torch.randn(6, 2), torch.tensor([0, 0, 0, 1, 1, 1])
    edges = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 0, 4, 5, 3]])
    names = run("testing.md", folder, {})
    names |= {
        "model": lambda x, edge_index, batch: readout(x, batch),
        "x": x,
        "edge_index": edges,
        "batch": batch,
    }
    names["test_invariance"](
        assert_permutation_invariant, assert_edge_order_invariant, assert_batch_independent
    )
    names["test_contract"](lambda name, levels: assert_conformance("readouts.nn:SumReadout", rows=["NaN"]))
    names["model"] = names["Net"]().eval()
    with pytest.raises(AssertionError, match="permutation invariance of Net"):
        assert_permutation_invariant(names["model"], x, edges, batch)


def outcome(code):
    """What an example prints, or its exception."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(code, {"__name__": "__main__"})
    except Exception as error:
        return f"{type(error).__name__}: {error}".partition("\n")[0]
    return printed.getvalue().strip()


@pytest.mark.filterwarnings("ignore")  # of the libraries that fail
@pytest.mark.parametrize(("row", "target", "expected", "got", "code"), FAILURES, ids=lambda text: text[:20])
def test_examples_of_failures(row, target, expected, got, code):
    """In "conformance.md", what is named as got is what comes out, and not what is expected."""
    if "torch_scatter" in code and not importlib.util.find_spec("torch_scatter"):
        pytest.skip("needs torch-scatter")
    if got == CRASHED:
        setup, given, shows = code.splitlines()
        ((came,),) = run_isolated([[(setup, given, shows.removeprefix("print(").removesuffix(")"))]])
        assert came.error == CRASHED
        return
    found = outcome(code)
    with contextlib.suppress(ValueError):
        assert float(found) == pytest.approx(float(got), rel=1e-3, abs=ROUNDING)
        return
    assert found != expected
    assert found[:50] == got[:50]


def test_the_page_has_examples_of_failures():
    assert len(FAILURES) == len(blocks_of("conformance.md")) > 20
