"""The tutorials are notebooks, and their cells run."""

from pathlib import Path

import jupytext
import matplotlib.pyplot as plt
import nbformat
import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "tutorials").glob("*-*.md"))
TRAINS = {"which-readout"}  # for ten seconds; the documentation runs it as well


def parameter(page):
    return pytest.param(page, id=page.stem, marks=[pytest.mark.thorough] if page.stem in TRAINS else [])


@pytest.mark.parametrize("page", [parameter(page) for page in PAGES])
def test_cells_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    plt.switch_backend("agg")
    namespace = {}
    cells = [cell.source for cell in jupytext.read(page).cells if cell.cell_type == "code"]
    assert len(cells) >= 4
    for cell in cells:
        exec(cell, namespace)
    plt.close("all")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_opens_as_a_notebook(page):
    notebook = jupytext.read(page)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].source.startswith("# ")


def test_index_lists_every_page():
    listed = (ROOT / "docs" / "tutorials" / "index.md").read_text().splitlines()
    assert len(PAGES) == 5
    assert not {page.stem for page in PAGES} - set(listed)
