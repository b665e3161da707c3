"""The whole demo on the rings: three lines that anyone understands, figures, and nothing done twice."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from experiments.__main__ import main

NAMES = ("collisions", "tower", "copies")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def output(folder):
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr("rich.console.Console.print", lambda self, thing, **style: printed.append(thing))
        assert main(["demo", "--out", str(folder)]) == 0
    return [line for line in printed if isinstance(line, str)]


def test_headline(output):
    start = next(number for number, line in enumerate(output) if line.startswith("Sum"))
    assert [line.split("  ")[0] for line in output[start : start + 3]] == ["Sum", "Mean", "Max"]
    assert float(output[start].split()[1]) >= 95
    assert output[start].endswith(
        ("tells every held-out molecule from its copies", "all molecules from their copies")
    )
    assert " 50.0 %  cannot tell a held-out molecule from its copies" in output[start + 1]
    assert " 50.0 %  cannot tell a held-out molecule from its copies" in output[start + 2]


def test_paths_are_printed_and_exist(output, folder):
    paths = [folder / f"{name}.{kind}" for name in NAMES for kind in ("jsonl.gz", "png")]
    assert [line for line in output if line.startswith("wrote")] == [f"wrote {path}" for path in paths]
    assert all(path.stat().st_size > 500 for path in paths)


@pytest.mark.parametrize("name", NAMES)
def test_figures_show_something(output, folder, name):
    pixels = np.asarray(Image.open(folder / f"{name}.png").convert("RGB"))
    assert pixels.shape[1] >= 600
    assert (pixels[0, 0] == 255).all()
    assert 0.005 < (pixels < 200).any(axis=2).mean() < 0.5


def test_rerun_measures_nothing(output, folder, monkeypatch):
    before = {name: (folder / f"{name}.jsonl.gz").read_bytes() for name in NAMES}
    figures = {path: path.read_bytes() for path in folder.glob("*.*g")}
    monkeypatch.setattr("experiments.copies.train_and_judge", pytest.fail)
    monkeypatch.setattr("experiments.tower.compare", pytest.fail)
    assert main(["demo", "--out", str(folder)]) == 0
    assert {name: (folder / f"{name}.jsonl.gz").read_bytes() for name in NAMES} == before
    assert {path: path.read_bytes() for path in folder.glob("*.*g")} == figures
