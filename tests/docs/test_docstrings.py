"""Every public name has an example, and every example in a docstring runs."""

import doctest
import importlib
import inspect
import json
from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore, destroy_process_group, init_process_group

ROOT = Path(__file__).parents[2]
PUBLIC = json.loads((ROOT / "tests" / "readouts" / "public_names.json").read_text())["names"]
WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for top in ("readouts", "datasets", "experiments")
    for path in sorted((ROOT / top).rglob("*.py"))
    if "    >>> " in path.read_text()
]


class Finder(doctest.DocTestFinder):
    """Also finds functions that a decorator has wrapped in another module."""

    def _from_module(self, module, item):
        return getattr(item, "__module__", module.__name__) == module.__name__


def run(module):
    """Run the examples of a module, and return how many there were of each documented name."""
    runner, found = doctest.DocTestRunner(verbose=False), {}
    for test in Finder().find(module, extraglobs={"torch": torch}):
        found[test.name.removeprefix(f"{module.__name__}.")] = len(test.examples)
        runner.run(test)
    assert runner.failures == 0
    return found


@pytest.fixture
def _alone():
    """A process group of one rank, for the examples that are run on every rank."""
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    destroy_process_group()


@pytest.mark.usefixtures("_alone")
@pytest.mark.filterwarnings("ignore")  # of libraries that an example uses, such as RDKit
@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name):
    if name == "readouts.attribution.drawing":
        pytest.importorskip("rdkit", reason="needs RDKit (the extra draw)")
    assert sum(run(importlib.import_module(name)).values()) > 0


@pytest.mark.parametrize(
    ("package", "name"), [(package, name) for package in PUBLIC for name in PUBLIC[package]]
)
def test_public_names_have_an_example_that_runs(package, name):
    item = getattr(importlib.import_module(package), name)
    assert ">>> " in inspect.getdoc(item)
    home = importlib.import_module(item.__module__)
    assert home.__name__ in WITH_EXAMPLES
    found = {test.name: len(test.examples) for test in Finder().find(home)}
    assert found[f"{home.__name__}.{item.__qualname__}"] > 0


def test_examples_behind_a_decorator_are_found():
    from readouts.functional import elementary

    wrapped = inspect.unwrap(elementary.readout)
    assert elementary.readout is not wrapped
    assert run(elementary)["readout"] == 2
